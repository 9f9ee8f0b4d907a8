"""From an archive's bytes to its members: tar, gzip, zip, folders, and what in them is hostile."""
