"""Tests of `transforms.engine`."""
