"""Recordings of a catalog, found and copied for people and programs that read no tables."""
