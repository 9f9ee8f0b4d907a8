"""Marks in `notices` what became of what was sent, some at a time: an object is written as a whole,
and what is not marked when a run is killed is sent again, under the same id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog import parquet_objects, partitions
from transforms.catalog.schema import KEYS, SCHEMAS
from transforms.media.errors import StorageError, StoreDownError
from transforms.notices.pending import TABLE, Key, PendingShard
from transforms.notices.sender import NoticeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is to stand in a row."""

    state: NoticeState
    attempts: int
    http_status: int | None
    message: str | None


_COLUMNS = ("state", "attempts", "http_status", "message")


class Marks:
    """Those that are not written yet. Thread-safe."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Args: check: raises what is to keep an object from being written."""
        self._check = check
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[PendingShard, dict[Key, Mark]]] = {}
        """By object."""
        self.of_objects = threading.Lock()
        """Held while an object of `notices` is read or written."""

    def add(self, shard: PendingShard, key: Key, mark: Mark) -> None:
        """Takes a mark; it replaces one that the same row was to have."""
        with self._lock:
            self._waiting.setdefault(shard.file.uri, (shard, {}))[1][key] = mark

    def write(self) -> list[str]:
        """Writes all that wait; returns why some cannot be written, which wait further.

        Raises:
          LockLostError: `check` says so.
        """
        with self._lock:
            taken, self._waiting = self._waiting, {}
        problems = []
        try:
            while taken:
                shard, marks = next(iter(taken.values()))
                try:
                    with self.of_objects:
                        self._write(shard, marks)
                    del taken[shard.file.uri]
                except (StorageError, StoreDownError) as error:
                    problems.append(str(error))
                    self._put_back(*taken.pop(shard.file.uri))
        finally:
            for shard, marks in taken.values():
                self._put_back(shard, marks)
        return problems

    def _put_back(self, shard: PendingShard, marks: Mapping[Key, Mark]) -> None:
        """Has marks wait that could not be written, unless others have taken their places."""
        with self._lock:
            newer = self._waiting.get(shard.file.uri, (shard, {}))[1]
            self._waiting[shard.file.uri] = (shard, {**marks, **newer})

    def _write(self, shard: PendingShard, marks: Mapping[Key, Mark]) -> None:
        """Writes marks into the rows of an object. Raises: StorageError, LockLostError."""
        rows = partitions.read_all_columns(shard.file, TABLE)
        names = KEYS[TABLE]
        events = pa.array(sorted({key[names.index("event_id")] or "" for key in marks}))
        ids = rows.column("event_id").combine_chunks().fill_null("")
        is_candidate = pc.is_in(ids, events)
        candidates = rows.select([*names, "state"]).filter(is_candidate)
        # What is not pending any more is left as it is.
        found = [
            marks.get(tuple(row[name] for name in names))
            if row["state"] == NoticeState.PENDING
            else None
            for row in partitions.spelled(shard.file, candidates)
        ]
        if not any(found):
            return
        is_marked = pc.replace_with_mask(
            is_candidate, is_candidate, pa.array([mark is not None for mark in found])
        )
        rows = _with_marks(rows, is_marked, [mark for mark in found if mark])
        self._check()
        parquet_objects.write(shard.file.uri, rows)


def _with_marks(rows: pa.Table, is_marked: pa.Array, marks: Sequence[Mark]) -> pa.Table:
    """Returns rows with marks in some of them; the others, and all other columns, are as they
    were.
    """
    columns = {name: [getattr(mark, name) for mark in marks] for name in _COLUMNS}
    columns["updated_at"] = [datetime.now(UTC)] * len(marks)
    for name, values in columns.items():
        field = SCHEMAS[TABLE].field(name)
        before = rows.column(name).combine_chunks()
        after = pc.replace_with_mask(before, is_marked, pa.array(values, field.type))
        rows = rows.set_column(rows.schema.get_field_index(name), field, after)
    return rows
