"""Tests of `transforms.notices`."""
