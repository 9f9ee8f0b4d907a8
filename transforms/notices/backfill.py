"""Events of files that are there already, for targets that were never to be told of them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog import merging, partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.rows.ids import CALL_COLUMNS, call_columns
from transforms.elements import Row
from transforms.media.wall_time import to_time
from transforms.notices.events import Event, ready_event
from transforms.notices.pending import TABLE
from transforms.notices.rows import FIGURES, figures_of, file_ids, rows_of
from transforms.storage import uris
from transforms.targets import Notify

_ROWS_AT_A_TIME = 2_000
_ADDED_AT_A_TIME = 20_000
"""Each time the objects of a date are written anew: 100,000 rows by 2,000 take 36 s of CPU, so
20 s.
"""
_NEEDED = (
    *("call_cid", *CALL_COLUMNS, "recording_type", "filename", "uri", "sha256"),
    *("start_time", "end_time", "created_at", "run_id"),
)
"""Columns of `recordings` without which there is no event; runs fill them all."""
_OF_TRACKS = (
    *(*CALL_COLUMNS, "participant_id", "user_session_id", "output_type", "part"),
    *FIGURES,
)
_OF_CALLS = (*CALL_COLUMNS, "status", "missing_ms")
_OF_NOTICES = (*CALL_COLUMNS, "event_id", "target", "body")


def add_pending(
    catalog_uri: str,
    notify: Notify,
    since_unix_ns: int,
    now_unix_ns: int,
    sender_id: str,
    check: Callable[[], None],
) -> int:
    """Makes rows of `notices`, pending, of files that were made since some time and of which a
    target has no row; returns how many. Done again, it makes none.

    An event that another target has goes out as it went there, byte for byte. In others `replaces`
    is null: what a file has replaced is not known any more. Memory is twenty thousand rows, and
    one object of `notices`.

    Args:
      catalog_uri: root of the catalog; nobody else writes to it meanwhile.
      notify: the targets.
      since_unix_ns: by when the rows of files were made.
      now_unix_ns, sender_id: what made the new rows, and when.
      check: raises what is to keep an object from being written; called before each.

    Raises:
      StorageError: the catalog cannot be read or written.
    """
    made = to_time(now_unix_ns)
    stamp = {"run_id": sender_id, "created_at": made, "updated_at": made}
    added = 0
    for file in partitions.list_files(catalog_uri, "recordings"):
        rows: list[Row] = []
        for recordings in _made_since(file, to_time(since_unix_ns)):
            missing = _missing(catalog_uri, file.call_date, recordings, notify)
            added += len(missing)
            rows += ({**row, **stamp} for row in missing)
            if len(rows) >= _ADDED_AT_A_TIME:
                merging.add_rows(catalog_uri, TABLE, file.call_date, rows, check)
                rows = []
        if rows:
            merging.add_rows(catalog_uri, TABLE, file.call_date, rows, check)
    return added


def _made_since(file: CatalogFile, since: datetime) -> Iterator[list[Row]]:
    """Yields rows of `recordings` that were made at some time or later, some at a time."""
    made = partitions.read_table(file, "recordings", ("created_at",)).column("created_at")
    if not pc.any(pc.greater_equal(made, pa.scalar(since, made.type))).as_py():
        return
    rows = partitions.read_table(file, "recordings")
    wanted = pc.greater_equal(rows.column("created_at"), pa.scalar(since, made.type))
    for name in _NEEDED:
        wanted = pc.and_(wanted, rows.column(name).is_valid())
    found = partitions.spelled(file, rows.filter(wanted))
    while batch := list(itertools.islice(found, _ROWS_AT_A_TIME)):
        yield batch


def _missing(
    catalog_uri: str, call_date: str, recordings: Sequence[Row], notify: Notify
) -> list[Row]:
    """Returns the rows of `notices` of some files that are not there."""
    calls = {call_columns(row) for row in recordings}

    def of_calls(table: str, columns: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
        found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        wanted = WantedKeys(CALL_COLUMNS, calls)
        for file in partitions.list_files(catalog_uri, table, call_date):
            for row in partitions.scan(table, file, columns, wanted):
                found[call_columns(row)].append(row)
        return found

    tracks, call_rows = of_calls("tracks", _OF_TRACKS), of_calls("calls", _OF_CALLS)
    notices = of_calls(TABLE, _OF_NOTICES)
    figures = {call: figures_of(tracks[call], next(iter(call_rows[call]), None)) for call in calls}
    found: list[Row] = []
    for recording in recordings:
        call = call_columns(recording)
        event = ready_event(
            recording,
            figures[call].get(file_ids(recording), {}),
            None,
            uris.url_of_recording(recording["uri"], notify.url_base),
        )
        told = [row for row in notices[call] if row["event_id"] == event.event_id]
        bodies = [row["body"] for row in told if row["body"]]
        if bodies:
            event = Event(event_id=event.event_id, event_type=event.event_type, body=bodies[0])
        names = {row["target"] for row in told}
        lacking = [target for target in notify.targets if target.name not in names]
        found += rows_of(event, recording, lacking)
    return found
