"""The engines that a run can use: what each adds to Beam's own runner."""
