"""What a user sees of a job elsewhere while it goes on: a line now and then on standard error, with
as much as the engine's counters tell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from pipelines.progress_display import FIRST_LINE_SECONDS, pause_after, spell_duration

_FIGURES = (
    ("archives", ("archives_unpacked", "archives_skipped"), "archives_listed"),
    ("tracks", ("tracks_extracted",), ""),
    ("calls", ("calls_pressed",), ""),
    ("failures", ("failures", "tracks_failed"), ""),
)
"""What is told; the counters it is the sum of; the one that says how many there are in all."""


class JobProgress:
    """Tells how far a job is, when it is time for it."""

    def __init__(self, now: float) -> None:
        """Args: now: when the job began, in seconds of a clock that never steps."""
        self._began = now
        self._next = now + FIRST_LINE_SECONDS

    def look(self, now: float, counters: Callable[[], Mapping[str, int]]) -> None:
        """Prints a line if one is due. Args: counters: asks the engine; called only then."""
        if now < self._next:
            return
        passed = now - self._began
        self._next = now + pause_after(passed)
        print(progress_line(passed, counters()), file=sys.stderr, flush=True)


def progress_line(seconds: float, counters: Mapping[str, int]) -> str:
    """Returns what counters tell after so many seconds; of an engine that has none while a job
    runs, that it runs.
    """
    found = []
    for what, counted, listed in _FIGURES:
        done = sum(counters.get(name, 0) for name in counted)
        if known := counters.get(listed, 0):
            found.append(f"{what} {done}/{known}")
        elif done:
            found.append(f"{what} {done}")
    told = ", ".join(found) or "the job is at work"
    return f"callpress: after {spell_duration(seconds)}: {told}"
