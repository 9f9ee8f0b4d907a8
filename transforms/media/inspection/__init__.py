"""What an archive tells of its tracks' clocks, kept small and drawn: for people, not for media."""
