"""Tests of `transforms.catalog`."""
