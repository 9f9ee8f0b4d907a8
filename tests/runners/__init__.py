"""Tests of the engines: what is added to Beam's own runners."""
