"""From arrivals and sender reports to server time."""
