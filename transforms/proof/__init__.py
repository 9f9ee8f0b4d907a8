"""Whether all that was recorded is there: a listing against a catalog."""
