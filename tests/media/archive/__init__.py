"""Tests of `transforms.media.archive`."""
