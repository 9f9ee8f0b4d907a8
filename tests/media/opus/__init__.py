"""Tests of `transforms.media.opus`."""
