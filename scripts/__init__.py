"""Programs of whoever works on Callpress: none is installed with it."""
