"""Tests of `transforms.recovery`."""
