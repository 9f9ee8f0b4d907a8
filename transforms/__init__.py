"""The Beam layer: one PTransform per file, each thin; the work itself is in `transforms.media`."""
