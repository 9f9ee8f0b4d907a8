"""A track's staged packets, and the time line they lie on."""
