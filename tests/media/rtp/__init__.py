"""Tests of `transforms.media.rtp`."""
