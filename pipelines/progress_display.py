"""What a user sees while a run goes on: a progress bar on a terminal, elsewhere a line now and
then, both on standard error.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.time_left import Phase, TimeLeft
from transforms.engine import progress
from transforms.media.units import SAMPLE_RATE_HZ

FIRST_LINE_SECONDS = 10.0
_LINE_SECONDS = (30.0, 300.0)
"""Between two lines, at least and at most."""
_LINES_PER_RUN = 20
"""And in between this share of the time that has passed."""
_LOOK_SECONDS = 0.5
_RATE_SECONDS = 30.0
_BAR_WIDTHS = (8, 32)
_WIDTH_WITH_BAR = 70
"""Of a terminal, from which on a bar tells more than another figure."""
_PHASE_WIDTH = max(map(len, Phase))


class RunFigures:
    """A run's figures as they come from the workers, and what follows from them."""

    def __init__(self, threads: int, now: float) -> None:
        """Args: threads: codec processes at work. now: when the run began, in seconds of a clock
        that never steps.
        """
        self._began = self._now = now
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._time_left = TimeLeft(threads, now)
        self._looks: deque[tuple[float, Mapping[str, int]]] = deque([(now, {})])
        self.counts: Mapping[str, int] = {}

    def count(self, what: str, number: int) -> None:
        """Takes a report of `transforms.engine.progress`. From any thread."""
        with self._lock:
            self._counts[what] += number

    def look(self, now: float) -> None:
        """Takes the figures in as they are now; to be called every second or so."""
        with self._lock:
            self.counts = dict(self._counts)
        self._now = now
        phase = self.phase
        self._time_left.update(self.counts, now)
        if self.phase != phase:  # what one makes per second says nothing of the next
            self._looks = deque()
        self._looks.append((now, self.counts))
        while len(self._looks) > 2 and now - self._looks[1][0] >= _RATE_SECONDS:
            self._looks.popleft()

    @property
    def percent(self) -> int | None:
        """Of the time the run takes; None before there is evidence."""
        return self._time_left.percent

    @property
    def phase(self) -> Phase:
        """What the run is doing."""
        return self._time_left.phase

    def line(self) -> str:
        """Returns all figures in a line of its own."""
        begun = f"callpress: after {spell_duration(self._now - self._began)}: {self.phase}"
        return ", ".join([begun, *(text for _, text in self._figures())])

    def fitting(self, width: int) -> str:
        """Returns as many of the figures as fit, the less telling ones left out."""
        figures = self._figures()
        kept = sorted(range(len(figures)), key=lambda number: figures[number][0])
        while kept and sum(len(figures[number][1]) + 2 for number in kept) - 2 > width:
            kept.pop()
        return "  ".join(figures[number][1] for number in sorted(kept))

    def _figures(self) -> list[tuple[int, str]]:
        """Returns the figures in the order they are read, each with its rank: the lowest stay
        longest.
        """
        counts, phase = self.counts, self.phase
        at_work = {Phase.EXTRACTING: "tracks", Phase.MIXING: "calls"}.get(phase, "archives")
        archives = counts.get("archives", 0) + counts.get("archives_skipped", 0)
        found: list[tuple[int, str]] = []
        if self.percent is not None:
            found.append((0, f"{self.percent} %"))
        for what, done in (
            ("archives", archives),
            ("tracks", counts.get("tracks", 0)),
            ("calls", counts.get("calls", 0)),
        ):
            if known := counts.get(f"{what}_found", 0):
                found.append(
                    (
                        2 if what == at_work else 5 if what == "tracks" else 4,
                        f"{what} {done}/{known}",
                    )
                )
        if failures := counts.get("failures", 0):
            found.append((3, f"failures {failures}"))
        if missing_ms := counts.get("missing_ms", 0):
            found.append((5, f"missing {missing_ms / 1_000:.1f} s"))
        if phase == Phase.UNPACKING:
            found.append((3, f"{self._rate('bytes_done') / 1e6:.1f} MB/s"))
        elif phase in (Phase.EXTRACTING, Phase.MIXING):
            found.append((3, f"{self._rate('media_samples') / SAMPLE_RATE_HZ:.0f} media s/s"))
        if self._time_left.seconds is not None and self.percent is not None:
            found.append((1, f"{spell_duration(self._time_left.seconds)} left"))
        return found

    def _rate(self, what: str) -> float:
        """Returns how much of a figure came per second lately."""
        (first, before), (last, now) = self._looks[0], self._looks[-1]
        return (
            max(0, now.get(what, 0) - before.get(what, 0)) / (last - first) if last > first else 0.0
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws one line, however narrow the terminal: the phase, the figures that fit, and a bar
        where there is room.
        """
        least, most = _BAR_WIDTHS
        width = options.max_width - _PHASE_WIDTH - 2
        figures = self.fitting(width - least if options.max_width >= _WIDTH_WITH_BAR else width)
        left = (width - len(figures)) // 4 * 4  # not another width with each digit more
        cells: list[RenderableType] = [Text(f"{self.phase:{_PHASE_WIDTH}}", no_wrap=True)]
        if left >= least:
            percent = self.percent
            cells.append(
                ProgressBar(completed=percent or 0, width=min(left, most), pulse=percent is None)
            )
        cells.append(Text(figures, no_wrap=True, overflow="crop"))
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(*cells)
        yield line


@contextmanager
def showing_progress(threads: int) -> Iterator[None]:
    """Shows a local run's progress on standard error until the block ends. Args: threads: codec
    processes at work.
    """
    figures = RunFigures(threads, time.monotonic())
    console = Console(stderr=True)
    has_bar = console.is_terminal and not console.is_dumb_terminal
    ended = threading.Event()
    thread = threading.Thread(
        target=_keep_looking, args=(figures, ended, not has_bar), daemon=True, name="progress"
    )
    stop_listening = progress.listen(figures.count)
    thread.start()
    try:
        with Live(figures, console=console, transient=True) if has_bar else nullcontext():
            yield
    finally:
        stop_listening()
        ended.set()
        thread.join()


def _keep_looking(figures: RunFigures, ended: threading.Event, prints_lines: bool) -> None:
    began = time.monotonic()
    next_line = began + FIRST_LINE_SECONDS
    while not ended.wait(_LOOK_SECONDS):
        now = time.monotonic()
        figures.look(now)
        if prints_lines and now >= next_line:
            print(figures.line(), file=sys.stderr, flush=True)
            next_line = now + pause_after(now - began)


def pause_after(seconds: float) -> float:
    """Returns how long after a line the next one comes: often in a short run, and in one of ten
    hours no more than needed.
    """
    least, most = _LINE_SECONDS
    return min(most, max(least, seconds / _LINES_PER_RUN))


def spell_duration(seconds: float) -> str:
    """Returns a time as people tell it, in steps no smaller than make sense: `25 s`, `12 min`, `3 h
    10 min`; never none.
    """
    fives = max(1, round(seconds / 5))
    if fives < 12:
        return f"{5 * fives} s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
