"""Entry points: parse, check and wire a run. No media code lives here."""
