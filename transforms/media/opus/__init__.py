"""The Opus packet from outside, and libopus."""
