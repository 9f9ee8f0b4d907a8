"""Whether the tables of a catalog are whole and agree with each other. Writes nothing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from transforms.catalog import partitions
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.problems import (
    ADD_ROWS,
    BY_HAND,
    PRESS_CALL,
    REMOVE,
    RESTORE,
    Problem,
    call_of,
    describe,
)
from transforms.catalog.relations import check_shard
from transforms.catalog.schema import ADDED_TABLES, KEYS, LATER_TABLES, SCHEMAS, TABLES
from transforms.catalog.shards import Shard, known_tables, repeated, walk
from transforms.catalog.sums import text_hashes
from transforms.elements import Row
from transforms.media.errors import RecordingError
from transforms.media.units import Ints
from transforms.storage import objects, uris

_OWNED_ALONE = ("calls", "archives", "runs")
"""Tables with a row for each owner. Of others, rows of one key are always in one shard: those that
are not have no call there.
"""


class CheckedTables:
    """The tables of a catalog being looked at. Memory is one shard, and some 8 bytes for each
    archive, call and run.
    """

    def __init__(self, catalog_uri: str) -> None:
        """Lists the tables. Raises: StorageError."""
        self._catalog_uri = catalog_uri
        self.files: dict[str, list[CatalogFile]] = {
            table: partitions.list_files(catalog_uri, table) for table in known_tables()
        }
        self.row_counts: dict[str, int] = dict.fromkeys(TABLES, 0)
        self._hashes: dict[str, list[Ints]] = defaultdict(list)
        self._calls_of_run: Counter[str] = Counter()
        self._pressed_by_run: dict[str, int] = {}

    def exists(self) -> bool:
        """Whether any table has any object."""
        return any(self.files.values())

    def problems(self, look: Callable[[Shard], None] | None = None) -> Iterator[Problem]:
        """Yields what is wrong, by table, then by date.

        Args:
          look: is shown each shard as it is read, for what else is asked of the tables.
        """
        for table in self.files:
            strays = self._strays(table)
            yield from strays
            is_due = table in SCHEMAS and table not in LATER_TABLES
            if not self.files[table] and not strays and is_due:
                yield Problem(
                    uri=uris.join(self._catalog_uri, table),
                    what="the table has no file",
                    heal=f"{RESTORE}; the next run gives it an empty one",
                )
        archives = self._texts("archives", "archive_uri")
        sessions = self._texts("calls", "call_session_id")
        told: set[str] = set()
        for shard in walk(self.files) if self.exists() else ():
            for uri in sorted(shard.unreadable.keys() - told):
                told.add(uri)
                yield Problem(uri=uri, what=shard.unreadable[uri], heal=RESTORE)
            self._count(shard)
            if look is not None:
                look(shard)
            for table in TABLES:
                yield from _repeated_keys(shard, table)
            if not shard.unreadable:  # what is missing there would seem to be missing everywhere
                yield from check_shard(shard, archives, sessions)
        yield from self._repeated_owners()
        yield from self._check_calls_pressed()

    def _strays(self, table: str) -> list[Problem]:
        """Returns what lies among a table's objects but is none."""
        there = {listed.path for listed in objects.list_below(uris.join(self._catalog_uri, table))}
        return [
            Problem(
                uri=uri,
                what="it is no object of the table; a killed run may have left it",
                heal=REMOVE,
            )
            for uri in sorted(there - {file.uri for file in self.files[table]})
        ]

    def _texts(self, table: str, column: str) -> Ints | None:
        """Returns sorted hashes of what a table has in a column; None where it cannot be read,
        which is told where its shard is: what is missing there would seem to be missing everywhere.
        """
        found = [np.empty(0, dtype=np.int64)]
        try:
            for file in self.files[table]:
                found.append(text_hashes(partitions.read_texts(file, table, column)))
        except RecordingError:
            return None
        return np.sort(np.concatenate(found))

    def _count(self, shard: Shard) -> None:
        for table in TABLES:
            self.row_counts[table] += shard.rows[table].num_rows
        for table in _OWNED_ALONE:
            keys = shard.rows[table].select(KEYS[table]).to_pylist()
            self._hashes[table].append(np.unique(text_hashes(map(_spell, keys))))
        self._calls_of_run.update(shard.rows["calls"].column("run_id").to_pylist())
        for row in shard.rows["runs"].select(["run_id", "calls_pressed"]).to_pylist():
            if row["calls_pressed"] is not None:
                self._pressed_by_run[row["run_id"]] = row["calls_pressed"]

    def _repeated_owners(self) -> Iterator[Problem]:
        """Yields calls, archives and runs that have rows under more than one date."""
        for table in _OWNED_ALONE:
            hashes = np.sort(np.concatenate(self._hashes[table] or [np.empty(0, dtype=np.int64)]))
            twice = hashes[1:][hashes[1:] == hashes[:-1]]
            for file in self.files[table] if len(twice) else ():
                for row in partitions.read_table(file, table, KEYS[table]).to_pylist():
                    if np.isin(text_hashes([_spell(row)]), twice)[0]:
                        yield Problem(
                            uri=file.uri,
                            what=f"{table} has rows of {describe(row)} under more than one date",
                            heal=BY_HAND,
                        )

    def _check_calls_pressed(self) -> Iterator[Problem]:
        """Yields runs of which there are rows of more calls than they pressed. One that was killed
        has no row; rows of its calls may be of a run that took them up.
        """
        for run_id, pressed in sorted(self._pressed_by_run.items()):
            if self._calls_of_run[run_id] > pressed:
                yield Problem(
                    uri=uris.join(self._catalog_uri, "runs"),
                    what=f"run_id {run_id!r} pressed {pressed} calls, {self._calls_of_run[run_id]} "
                    "rows of calls name it",
                    heal=RESTORE,
                )


def _repeated_keys(shard: Shard, table: str) -> Iterator[Problem]:
    heal = BY_HAND if table in ("archives", "runs") else PRESS_CALL
    if table in ADDED_TABLES:
        heal = ADD_ROWS
    for row in repeated(shard.rows[table], table):
        yield Problem(
            uri=shard.places[table],
            what=f"{table} has more than one row of {describe(row)}",
            heal=heal,
            call=call_of(row) if heal == PRESS_CALL else None,
            call_date=shard.call_date,
        )


def _spell(row: Row) -> str:
    return json.dumps(list(row.values()), default=str)
