"""Telling others what was made: events, targets, and the rows that say who has been told what."""
