"""Working in parallel inside a bundle, and telling how far a run is."""
