"""Tests of `transforms/retrieval`."""
