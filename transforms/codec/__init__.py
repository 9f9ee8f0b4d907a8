"""The codec processes: children of a worker that decode, mix and encode."""
