"""A small catalog of files that are there, made without pressing anything: for tests of who is told
of them.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.beam import CALL_DATE, call_row, recording_row, track_row
from transforms.catalog import merging, partitions
from transforms.elements import Row

MADE = datetime(2026, 1, 7, 2, tzinfo=UTC)
"""When the files were made, but for that of Bob, which is a day younger."""
NAMES = ("mix0.mkv", "alice0.mkv", "bob0.mkv")


def make_catalog(folder: Path) -> Path:
    """Makes a call with a mix and two tracks below a folder; returns its catalog."""
    catalog = folder / "catalog"
    add(
        catalog,
        "recordings",
        make_file(folder, None),
        make_file(folder, "alice"),
        make_file(folder, "bob", created_at=MADE + timedelta(days=1)),
    )
    add(
        catalog,
        "tracks",
        track_row("alice", status="partial", missing_ms=7, sync_error_ms=2.0),
        track_row("bob", status="ok", missing_ms=0, sync_error_ms=4.0),
    )
    add(catalog, "calls", call_row(status="partial", missing_ms=8))
    return catalog


def make_file(folder: Path, participant_id: str | None, number: int = 0, **fields: Any) -> Row:
    """Writes what stands for a file of somebody, for None for the mix; returns its row."""
    name = f"{participant_id or 'mix'}{number}.mkv"
    path = folder / "recordings" / "a" / "b" / "c" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
    return {
        **recording_row(participant_id, str(path)),
        "filename": name,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "size_bytes": len(name),
        "offset_ms": 0,
        "duration_ms": 1_000,
        "created_at": MADE,
        **fields,
    }


def add(catalog: Path, table: str, *rows: Row) -> None:
    """Adds rows to a table."""
    merging.add_rows(str(catalog), table, CALL_DATE, rows, lambda: None)


def notices(catalog: Path) -> list[Row]:
    """Returns the rows of `notices`."""
    files = partitions.list_files(str(catalog), "notices")
    return [row for file in files for row in partitions.read_table(file, "notices").to_pylist()]
