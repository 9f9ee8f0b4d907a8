"""Tests of `transforms.media.track`."""
