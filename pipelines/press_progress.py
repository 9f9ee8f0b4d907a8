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
from collections.abc import Iterator

from transforms.engine import progress

_QUIET_SECONDS = 1.5
_LOOK_SECONDS = 0.5
_CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def showing_progress_on_terminal() -> Iterator[None]:
    """Shows how far the block is on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def count(what: str, number: int) -> None:
        with lock:
            counts[what] += number

    ended = threading.Event()
    thread = threading.Thread(
        target=_keep_looking, args=(counts, lock, ended), daemon=True, name="progress"
    )
    stop_listening = progress.listen(count)
    thread.start()
    try:
        yield
    finally:
        stop_listening()
        ended.set()
        thread.join()


def _keep_looking(counts: Counter[str], lock: threading.Lock, ended: threading.Event) -> None:
    began = time.monotonic()
    if ended.wait(_QUIET_SECONDS):
        return
    # Late: most archives are done by now, and it takes as long to import as a short one to mix.
    from pipelines.progress_display import RunFigures

    figures = RunFigures(1, began)
    told: Counter[str] = Counter()
    while not ended.wait(_LOOK_SECONDS):
        with lock:
            news = counts - told
            told = counts.copy()
        for what, number in news.items():
            figures.count(what, number)
        figures.look(time.monotonic())
        width = shutil.get_terminal_size().columns - 1
        line = f"{figures.phase}  {figures.fitting(max(0, width - 12))}"[:width]
        print(f"{_CLEAR}{line}", end="", file=sys.stderr, flush=True)
    print(_CLEAR, end="", file=sys.stderr, flush=True)
