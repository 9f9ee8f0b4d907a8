"""`callpress runs`: the run that is at work on a catalog, and how the last ones went.

callpress runs --catalog ./pressed/catalog
callpress runs --catalog gs://bucket/pressed/catalog --last 100 --json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.catalog_commands import RunsArguments
from pipelines.options import EXIT_FAILED
from pipelines.run_summary import in_words
from transforms.catalog import results
from transforms.locking import lock
from transforms.locking.lock import HeldLock
from transforms.media.text import printable, printable_json
from transforms.storage import objects, uris

_WIDTH_OF_FILES = 160


def list_runs(arguments: RunsArguments) -> int:
    """Lists runs, the newest first; returns the exit status: 1 when a result cannot be read, which
    is told beside the others.

    Raises:
      CallpressError: the catalog's place cannot be read.
    """
    catalog = uris.absolute(arguments.catalog.rstrip("/"))
    objects.find_credentials((catalog,))
    held = lock.look(catalog)
    found, damaged = results.newest(catalog, arguments.last)
    if arguments.as_json:
        told = {"catalog": catalog, "lock": _plain(held), "runs": found}
        print(printable_json(json.dumps(told, indent=2, ensure_ascii=False)))
    else:
        _print(catalog, held, found)
    for line in damaged:
        print(f"callpress: {printable(line)}", file=sys.stderr)
    return EXIT_FAILED if damaged else 0


def _print(catalog: str, held: HeldLock | None, found: Sequence[results.Result]) -> None:
    if held is not None:
        print(_tell(held))
    if not found:
        print(f"no run has left a result in {printable(uris.join(catalog, results.FOLDER))}")
        return
    table = Table(title_justify="left", box=None)
    for name in ("run", "ended", "took", "archives", "calls", "files", "failures"):
        is_number = name in ("took", "files", "failures")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name == "run")
    for result in found:
        counts = result["counts"]
        cells = (
            result["run_id"],
            result["reason"],
            _took(result),
            in_words(counts["archives"]),
            in_words(counts["calls"]),
            str(counts["recordings"]),
            str(counts["failures"]),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    console.print(table)


def _plain(held: HeldLock | None) -> dict[str, Any] | None:
    """Returns what programs are told of the lock."""
    if held is None:
        return None
    state = held.state
    return {
        "run_id": state.run_id if state else None,
        "host": state.host if state else None,
        "job_id": (state.job_id or None) if state else None,
        "is_dead": held.is_dead(),
        "renewed_seconds_ago": round(held.age_seconds, 3),
        "seconds_left": round(max(0.0, held.seconds_left), 3),
    }


def _tell(held: HeldLock) -> str:
    """Returns what people are told of the lock."""
    name = printable(held.name)
    renewed = f"the lock was last renewed {held.age_seconds:.0f} s ago"
    if held.is_dead():
        return f"{name} is dead: {renewed}; the next run takes up what it left"
    until = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + held.seconds_left))
    return f"{name} is at work: {renewed} and holds until {until}"


def _took(result: results.Result) -> str:
    began, ended = (
        datetime.fromisoformat(result[name]).astimezone(UTC)
        for name in ("started_at", "finished_at")
    )
    seconds = round((ended - began).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
