"""Tests of `transforms.proof`."""
