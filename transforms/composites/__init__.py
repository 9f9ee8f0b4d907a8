"""PTransforms that more than one step is made of, or the job at more than one place."""
