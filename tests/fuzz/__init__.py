"""Fuzzing of everything that reads bytes of others: targets, a seed corpus, and a runner for
atheris.
"""
