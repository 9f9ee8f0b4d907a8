"""Who is told of what was made: events, targets, and what is sent to them."""
