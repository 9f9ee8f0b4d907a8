"""Tests of `transforms.media.inspection`."""
