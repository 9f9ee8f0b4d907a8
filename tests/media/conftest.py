"""Settings of the property tests: the same examples on every run, and no time limit on a single
one.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("media", derandomize=True, deadline=None, database=None)
settings.load_profile("media")
