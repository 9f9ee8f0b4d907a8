"""Finds the recordings of a catalog that are asked for, with what the tables say of them.

Of one call no more is read than the footers of `recordings`, of the row group that can hold its
rows the keys, and the rest of it where they are there; then the same of `tracks` and `calls` under
these dates. Rows of a call lie together, so that it is one row group, or two at the border of both.
Without a call, objects are read one after the other.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.row_keys import unix_us
from transforms.catalog.rows.ids import CALL_COLUMNS, call_columns
from transforms.catalog.schema import CALL_TABLES, KEYS, SCHEMAS
from transforms.catalog.shards import number_together
from transforms.elements import Row
from transforms.media.errors import StorageError
from transforms.media.wall_time import from_time
from transforms.notices.rows import FIGURES, figures_of, file_ids
from transforms.retrieval.wanted import Wanted
from transforms.storage import uris

_FILE = (*CALL_COLUMNS, "participant_id", "user_session_id", "output_type", "part")
"""What a track's file, and its row in `tracks`, are known by."""
_NEEDED = (
    *CALL_COLUMNS,
    "call_cid",
    "recording_type",
    "filename",
    "uri",
    "size_bytes",
    "sha256",
    "start_time",
    "end_time",
    "duration_ms",
    "offset_ms",
)
"""No row lacks them that a run wrote."""
_COLUMNS = (
    *_NEEDED,
    "output_type",
    "participant_id",
    "user_session_id",
    "part",
    "container",
    "run_id",
    "created_at",
)
_BESIDE = {"tracks": (*_FILE, *FIGURES), "calls": (*CALL_COLUMNS, "status", "missing_ms")}
"""The tables that have these, and their columns that are read."""
_READ_AT_A_TIME = 16
_SESSIONS_AT_A_TIME = 1_000
_NEVER = np.iinfo(np.int64).max
T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[str], None]
"""Is told what cannot be read: the rest is found all the same."""


def find(
    catalog_uri: str, files: Sequence[CatalogFile], wanted: Wanted, tell: Tell
) -> Iterator[Row]:
    """Yields rows of `recordings` with `FIGURES` (None where they are not known), those of a call
    session together, the newest first. Memory is an object's rows as Arrow has them, of a call all
    of its rows.

    Args:
      catalog_uri, files: the catalog, and its objects of `recordings`.
      wanted: which.
      tell: is told of objects and rows that cannot be read.

    Raises:
      StorageError: the tables cannot be listed.
    """
    files = [file for file in files if wanted.may_be_of(file.call_date)]
    files.sort(key=attrgetter("call_date"), reverse=True)
    if not wanted.names_call:
        for file in files:
            yield from _find_in(catalog_uri, file, wanted, tell)
        return
    rows: dict[tuple[Any, ...], Row] = {}
    for found, problems in _ahead(_look_in(catalog_uri, wanted), files, _READ_AT_A_TIME):
        for row in _told(found, problems, tell):
            # While a run is at work a call may be under two dates, or in two shards of one.
            key = tuple(row[name] for name in KEYS["recordings"])
            if key not in rows or _made(row) >= _made(rows[key]):
                rows[key] = row
    yield from _in_order(list(rows.values()))


def _look_in(
    catalog_uri: str, wanted: Wanted
) -> Callable[[CatalogFile], tuple[list[Row], list[str]]]:
    def look(file: CatalogFile) -> tuple[list[Row], list[str]]:
        problems: list[str] = []
        return list(_find_in(catalog_uri, file, wanted, problems.append)), problems

    return look


def sessions_of(catalog_uri: str, cid: str, tell: Tell) -> list[Row]:
    """Returns the rows of `calls` of one call, each with its `call_date`, the newest first: also of
    sessions of which no file was made.

    Args:
      catalog_uri, cid: the catalog and the call.
      tell: is told what cannot be read.

    Raises:
      StorageError: the table cannot be listed.
    """
    wanted = WantedKeys(("call_cid",), {(cid,)})
    columns = (*CALL_COLUMNS, "call_cid", "timeline_start_time", "status")

    def look(file: CatalogFile) -> tuple[list[Row], list[str]]:
        try:
            return list(partitions.scan("calls", file, columns, wanted, keys_first=True)), []
        except StorageError as error:
            return [], [error.message]

    files = partitions.list_files(catalog_uri, "calls")
    found = [row for each in _ahead(look, files, _READ_AT_A_TIME) for row in _told(*each, tell)]
    return sorted(found, key=lambda row: (row["call_date"], _begins(row)), reverse=True)


def _begins(row: Row) -> int:
    return from_time(row["timeline_start_time"]) if row["timeline_start_time"] else 0


def tables_of(
    catalog_uri: str, sessions: Iterable[Row], participants: Collection[str], tell: Tell
) -> dict[str, list[Row]]:
    """Returns all rows that a catalog has of some sessions of a call, by table.

    Args:
      catalog_uri: the catalog.
      sessions: rows of each, with `call_date`.
      participants: only rows of these, and those of `calls`; empty for all.
      tell: is told what cannot be read.
    """
    by_date: dict[str, list[Row]] = {}
    for row in sessions:
        by_date.setdefault(row["call_date"], []).append(row)
    found: dict[str, list[Row]] = {table: [] for table in CALL_TABLES}
    for table, call_date in itertools.product(CALL_TABLES, sorted(by_date)):
        owners = _owners(by_date[call_date])
        try:
            rows = partitions.read_rows(catalog_uri, table, call_date, CALL_COLUMNS, owners)
        except StorageError as error:
            tell(error.message)
            continue
        found[table] += [
            row
            for row in rows
            if table == "calls" or not participants or row["participant_id"] in participants
        ]
    return found


def _told(found: Iterable[Row], problems: Iterable[str], tell: Tell) -> Iterable[Row]:
    for problem in problems:
        tell(problem)
    return found


def _find_in(catalog_uri: str, file: CatalogFile, wanted: Wanted, tell: Tell) -> Iterator[Row]:
    """Yields what is wanted of an object, in order; as Python objects some thousand sessions at a
    time.
    """
    keys = WantedKeys(("call_cid",), {(wanted.call,)}) if wanted.names_call else None
    recordings = _in_time(_read("recordings", [file], _COLUMNS, keys, tell), wanted)
    if not recordings.num_rows:
        return
    if keys is not None:
        keys = WantedKeys(
            CALL_COLUMNS, _owners(_spelled(recordings.select(CALL_COLUMNS), file, tell))
        )
    beside = [
        _read(table, _beside(catalog_uri, table, file, tell), columns, keys, tell)
        for table, columns in _BESIDE.items()
    ]
    places = [
        replace(file, uri=uris.join(catalog_uri, table, f"call_date={file.call_date}"))
        for table in _BESIDE
    ]
    lacking: Counter[str] = Counter()
    for portion, *others in _portions(recordings, *beside):
        rows = []
        for row in _spelled(portion, file, tell):
            if missing := [name for name in _NEEDED if row[name] is None]:
                lacking[missing[0]] += 1
            elif wanted.wants(row):
                rows.append(row)
        figures = _figures_of(
            *(_spelled(each, place, tell) for each, place in zip(others, places, strict=True))
        )
        for row in rows:
            row.update({**dict.fromkeys(FIGURES), **figures.get(_key(row), {})})
            row["part"] = None if row["recording_type"] == "composite" else row["part"] or 0
        yield from _in_order(
            [row for row in rows if not wanted.statuses or row["status"] in wanted.statuses]
        )
    for name, count in lacking.items():
        tell(f"{file.uri}: rows without {name}: {count}; callpress verify tells what to do")


def _in_time(recordings: pa.Table, wanted: Wanted) -> pa.Table:
    """Returns the rows that begin in time, and those that do not say when: that is told."""
    begins_us = unix_us(recordings, "start_time")
    is_in = np.ones(len(begins_us), dtype=np.bool_)
    if wanted.since_unix_ns is not None:
        is_in &= begins_us >= -(-wanted.since_unix_ns // 1_000)
    if wanted.until_unix_ns is not None:
        is_in &= begins_us < -(-wanted.until_unix_ns // 1_000)
    is_null = recordings.column("start_time").is_null().combine_chunks()
    return recordings.filter(pc.or_(pa.array(is_in), is_null))


def _read(
    table: str,
    files: Iterable[CatalogFile],
    columns: Sequence[str],
    wanted: WantedKeys | None,
    tell: Tell,
) -> pa.Table:
    """Returns rows of some objects; what cannot be read is told."""
    found = [SCHEMAS[table].empty_table().select(columns)]
    for file in files:
        if wanted is not None and not partitions.may_hold_any(file, table, wanted):
            continue
        try:
            found.append(
                partitions.read_table(
                    file, table, columns, wanted, keys_first=table == "recordings"
                )
            )
        except StorageError as error:
            tell(error.message)
    return pa.concat_tables(each.select(columns) for each in found)


def _beside(catalog_uri: str, table: str, file: CatalogFile, tell: Tell) -> list[CatalogFile]:
    """Returns the objects of another table that may have rows of the same calls."""
    try:
        others = partitions.list_files(catalog_uri, table, file.call_date)
    except StorageError as error:
        tell(error.message)
        return []
    return [other for other in others if _share_owners(file, other)]


def _share_owners(one: CatalogFile, other: CatalogFile) -> bool:
    bits = min(one.bits, other.bits)
    return one.shard >> (one.bits - bits) == other.shard >> (other.bits - bits)


def _portions(recordings: pa.Table, *others: pa.Table) -> Iterator[list[pa.Table]]:
    """Yields the rows of some thousand call sessions at a time, the newest of them first."""
    tables = (recordings, *others)
    numbers = number_together(tables, CALL_COLUMNS)
    begins = np.full(1 + max(int(each.max(initial=0)) for each in numbers), _NEVER)
    np.minimum.at(begins, numbers[0], unix_us(recordings, "start_time"))
    place = np.empty_like(begins)
    place[np.argsort(-begins, kind="stable")] = np.arange(len(begins))
    without = int((begins == _NEVER).sum())  # sessions that only another table has
    for start in range(without, len(begins), _SESSIONS_AT_A_TIME):
        stop = start + _SESSIONS_AT_A_TIME
        yield [
            table.filter(pa.array((start <= place[number]) & (place[number] < stop)))
            for table, number in zip(tables, numbers, strict=True)
        ]


def _spelled(rows: pa.Table, file: CatalogFile, tell: Tell) -> list[Row]:
    """Returns rows as Python objects; none, which is told, where one has a value that no run
    writes.
    """
    try:
        return list(partitions.spelled(file, rows))
    except StorageError as error:
        tell(error.message)
        return []


def _figures_of(tracks: Iterable[Row], calls: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """Returns `FIGURES` of the files of some calls, by `_key`."""
    rows_of: dict[tuple[str, ...], list[Row]] = {}
    for row in tracks:
        rows_of.setdefault(call_columns(row), []).append(row)
    call_rows = {call_columns(row): row for row in calls}
    return {
        (*call, *ids): figures
        for call in rows_of.keys() | call_rows.keys()
        for ids, figures in figures_of(rows_of.get(call, ()), call_rows.get(call)).items()
    }


def _key(row: Row) -> tuple[Any, ...]:
    """Returns what a file is of."""
    return (*call_columns(row), *file_ids(row))


def _owners(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    """Returns the call sessions that rows are of; a damaged row may be of none."""
    return {call_columns(row) for row in rows if None not in call_columns(row)}


def _made(row: Row) -> float:
    made = row["created_at"]
    return made.timestamp() if isinstance(made, datetime) else 0.0


def _in_order(rows: Sequence[Row]) -> list[Row]:
    """Returns rows session by session, the newest first; of each the mix, then its tracks as they
    begin.
    """
    begins: dict[tuple[str, ...], datetime] = {}
    for row in rows:
        session = call_columns(row)
        begins[session] = min(row["start_time"], begins.get(session, row["start_time"]))

    def place(row: Row) -> tuple[Any, ...]:
        session = call_columns(row)
        is_track = row["recording_type"] != "composite"
        names = [row[name] or "" for name in ("participant_id", "user_session_id", "output_type")]
        return (
            -from_time(begins[session]),
            session,
            is_track,
            row["start_time"],
            *names,
            row["part"] or 0,
        )

    return sorted(rows, key=place)


def _ahead(work: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """Yields what comes of some items, in their order; so many are at work at a time."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="find") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for each in pending:
                each.cancel()
