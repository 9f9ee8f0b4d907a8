"""Fuzzing of all that reads bytes of others: targets, seeds, a runner for atheris."""
