"""Tests of `transforms.codec`."""
