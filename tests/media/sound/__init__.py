"""Tests of `transforms.media.sound`."""
