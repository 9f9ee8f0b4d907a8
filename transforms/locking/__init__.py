"""One run per catalog: the lock object, and the lease by which a run holds it."""
