"""What a user sees of a run: a progress bar or plain lines while it goes on, a summary at the end."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from transforms import progress
from transforms.media.opus import SAMPLE_RATE_HZ
from transforms.plain_text import printable, without_secrets

_PLAIN_LINE_SECONDS = 30
_FAILURES_SHOWN = 10


class LogFormatter(logging.Formatter):
    """A line of the log: without secrets, and with nothing in it that a terminal would obey."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # Last of all, so that it holds for tracebacks and for what the libraries below say, too.
        return "\n".join(map(printable, without_secrets(super().format(record)).split("\n")))


class _Figures(ProgressColumn):
    """The run's counts as text."""

    def __init__(self, counts: Counter[str], started: float) -> None:
        super().__init__()
        self._counts = counts
        self._started = started

    def render(self, task: Task) -> Text:
        return Text(figures(self._counts, time.monotonic() - self._started))


def figures(counts: Mapping[str, int], seconds: float) -> str:
    """Returns the counts of a run so far in one line."""
    media = counts.get("media_samples", 0) / SAMPLE_RATE_HZ
    done = counts.get("archives", 0) + counts.get("archives_skipped", 0)
    parts = [
        f"archives {done}/{counts.get('archives_found', 0)}",
        f"tracks {counts.get('tracks', 0)}/{counts.get('tracks_found', 0)}",
        f"calls {counts.get('calls', 0)}",
        f"{media / seconds if seconds > 0 else 0:.0f} media s/s",
    ]
    if counts.get("failures"):
        parts.append(f"failures {counts['failures']}")
    return "  ".join(parts)


@contextmanager
def showing_progress() -> Iterator[Counter[str]]:
    """Shows a run's progress on standard error until the block ends: a bar on a terminal, else a line now and then."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def count(what: str, number: int) -> None:
        with lock:
            counts[what] += number

    stop_listening = progress.listen(count)
    started = time.monotonic()
    try:
        if sys.stderr.isatty():
            with _bar(counts, started):
                yield counts
        else:
            with _lines(counts, started):
                yield counts
    finally:
        stop_listening()


@contextmanager
def _bar(counts: Counter[str], started: float) -> Iterator[None]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("pressing"), BarColumn(20), _Figures(counts, started), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("press", total=None)

        def update() -> None:
            while not ended.wait(0.2):
                # Archives, then tracks, then calls: each archive is a piece of work, and so is what comes out of it.
                total = counts["archives_found"] + counts["tracks_found"]
                done = counts["archives"] + counts["archives_skipped"] + counts["tracks"]
                bar.update(task, total=total or None, completed=min(done, total))

        thread = threading.Thread(target=update, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def _lines(counts: Counter[str], started: float) -> Iterator[None]:
    ended = threading.Event()

    def update() -> None:
        while not ended.wait(_PLAIN_LINE_SECONDS):
            print(f"callpress: {figures(counts, time.monotonic() - started)}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=update, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def summarise(result: Mapping[str, Any], exit_status: int, launcher_cpu_seconds: float) -> dict[str, Any]:
    """Returns the machine-readable end result (`--summary-json`).

    Args:
      result: what the pipeline left in staging.
      exit_status: of the command.
      launcher_cpu_seconds: CPU time of this process; the codec processes' is in the result.
    """
    counts: Mapping[str, int] = result["counts"]

    def by_status(table: str, *names: str) -> dict[str, int]:
        return {name: counts.get(f"{table}_{name}", 0) for name in names}

    return {
        "run_id": result["run_id"],
        "exit_status": exit_status,
        "started_at": result["started_at"],
        "finished_at": result["finished_at"],
        "counts": {
            "archives": by_status("archives", "listed", "skipped", "ok", "partial", "failed", "empty"),
            "calls": by_status("calls", "ok", "partial", "failed", "empty"),
            "recordings": counts.get("files_written", 0),
            "failures": counts.get("failures", 0),
        },
        "media_seconds": round(counts.get("media_samples", 0) / SAMPLE_RATE_HZ, 3),
        "cpu_seconds": round(counts.get("cpu_ns", 0) / 1e9 + launcher_cpu_seconds, 3),
        "bytes_read": counts.get("bytes_read", 0),
        "bytes_written": counts.get("bytes_written", 0),
        "failures": [_plain_failure(failure) for failure in result["failures"]],
    }


def _plain_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    call = failure["call"]
    return {
        **{name: value for name, value in failure.items() if name not in ("call", "archive_modified_unix_ns")},
        "call_cid": f"{call['call_type']}:{call['call_id']}" if call else None,
        "call_session_id": call["call_session_id"] if call else None,
    }


def print_summary(summary: Mapping[str, Any], seconds: float, output_uri: str, catalog_uri: str) -> None:
    """Prints the summary table a user reads."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title=f"callpress run {summary['run_id']}", title_justify="left", show_header=False)
    counts = summary["counts"]
    archives, calls = counts["archives"], counts["calls"]
    table.add_row("archives", _words(archives, ("listed", "skipped", "ok", "partial", "failed", "empty")))
    table.add_row("calls", _words(calls, ("ok", "partial", "failed", "empty")))
    table.add_row("files", f"{counts['recordings']} recordings, {summary['bytes_written'] / 1e6:.1f} MB")
    media = summary["media_seconds"]
    speed = f", {media / seconds:.0f} s per s" if seconds > 0 else ""
    table.add_row("media", f"{media:.1f} s in {seconds:.1f} s ({summary['cpu_seconds']:.1f} CPU s){speed}")
    table.add_row("failures", str(counts["failures"]))
    table.add_row("recordings", Text(printable(f"{output_uri}/recordings")))
    table.add_row("catalog", Text(printable(catalog_uri)))
    console.print(table)
    for failure in summary["failures"][:_FAILURES_SHOWN]:
        where = failure["archive_uri"] or failure["call_cid"] or ""
        console.print(Text(printable(f"  {failure['error_type']}: {where}: {failure['message']}")))
    if counts["failures"] > _FAILURES_SHOWN:
        console.print(f"  and {counts['failures'] - _FAILURES_SHOWN} more: see the failures table of the catalog")


def _words(counts: Mapping[str, int], names: tuple[str, ...]) -> str:
    found = [f"{counts[name]} {name}" for name in names if counts[name]]
    return ", ".join(found) or "none"
