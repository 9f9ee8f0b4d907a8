"""Tests of `transforms.media.containers`."""
