"""How far a command is that presses archives by itself: a line on the terminal it was started from,
once it takes longer than a moment. Elsewhere nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from transforms.engine import progress

_QUIET_SECONDS = 1.5
_LOOK_SECONDS = 0.5
_CLEAR = "\r\x1b[K"
_PHASE_WIDTH = 12


@contextlib.contextmanager
def showing_progress_on_terminal() -> Iterator[Callable[[], None]]:
    """Shows how far the block is on standard error, if that is a terminal; gives what takes the
    line away, for whoever is about to print another.
    """
    if not sys.stderr.isatty():
        yield _do_nothing
        return
    line = _Line()
    thread = threading.Thread(target=line.keep_looking, daemon=True, name="progress")
    stop_listening = progress.listen(line.count)
    thread.start()
    try:
        yield line.clear
    finally:
        stop_listening()
        line.ended.set()
        thread.join()
        line.clear()


def _do_nothing() -> None:
    pass


class _Line:
    """The line, and the figures it is made of."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._began = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._is_shown = False

    def count(self, what: str, number: int) -> None:
        """Takes a report of `transforms.engine.progress`. From any thread."""
        with self._lock:
            self._counts[what] += number

    def clear(self) -> None:
        """Takes the line away until the next look. From any thread."""
        with self._lock:
            if self._is_shown:
                print(_CLEAR, end="", file=sys.stderr, flush=True)
                self._is_shown = False

    def keep_looking(self) -> None:
        """Draws the line now and then, until it has ended."""
        if self.ended.wait(_QUIET_SECONDS):
            return
        # Late: most archives are done by now, and it takes as long to import as a short one to mix.
        from pipelines.progress_display import RunFigures

        figures = RunFigures(1, self._began)
        told: Counter[str] = Counter()
        while not self.ended.wait(_LOOK_SECONDS):
            with self._lock:
                counts = self._counts.copy()
            for what in counts:
                figures.count(what, counts[what] - told[what])
            told = counts
            figures.look(time.monotonic())
            width = shutil.get_terminal_size().columns - 1
            text = f"{figures.phase}  {figures.fitting(max(0, width - _PHASE_WIDTH))}"[:width]
            with self._lock:
                print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
                self._is_shown = True
