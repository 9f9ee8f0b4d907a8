"""Manifests: listings of raw recordings that lie elsewhere, read entry by entry."""
