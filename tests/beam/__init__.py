"""Tests of the transforms on Beam's in-process engine, and of what they stand on."""
