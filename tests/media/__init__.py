"""Unit and property tests of the media code; no Beam."""
