"""Tests of `transforms.media.clock`."""
