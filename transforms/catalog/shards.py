"""A catalog shard by shard: of one date all rows, of all tables, whose owners share the leading
bits of their hash. Rows of a call share both, so that relations between tables can be looked at in
the memory of one shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog import partitions
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.row_keys import groups, joined, owner_columns
from transforms.catalog.schema import KEYS, SCHEMAS, owner_key, shard_hash
from transforms.elements import Row
from transforms.media.errors import RecordingError
from transforms.media.units import Ints

CALL = ("call_type", "call_id", "call_session_id")
SESSION = (*CALL, "participant_id", "user_session_id")
OF_TRACKS = ("recordings", "tracks", "segments", "speech")
"""Tables whose rows are of a track, or of a part of one (`PART`)."""
PART = "part"
"""Which of a track's files; null, or no such column, is the first, 0."""
TRACK = (*SESSION, "output_type", PART)
DUMPS = "dumps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """All rows of one date, or of those whose owners' hashes begin with the same bits."""

    call_date: str
    rows: Mapping[str, pa.Table]
    """By table, with all columns that are there; of a table that has no file, none."""
    places: Mapping[str, str]
    """By table, the object that the rows are in, or the folder where they are in several."""
    unreadable: Mapping[str, str]
    """By URI, why an object cannot be read."""


def walk(files: Mapping[str, Sequence[CatalogFile]]) -> Iterator[Shard]:
    """Yields a catalog's rows, date by date and shard by shard. An object is read again for each
    of the shards that a finer one of another table divides it into.

    Args:
      files: the objects of each table.
    """
    for date in sorted({file.call_date for found in files.values() for file in found}):
        of_date = {
            table: [file for file in found if file.call_date == date]
            for table, found in files.items()
        }
        bits = max(file.bits for found in of_date.values() for file in found)
        for number in range(1 << bits):
            yield _read_shard(of_date, CatalogFile(uri="", call_date=date, bits=bits, shard=number))


def _read_shard(of_date: Mapping[str, Sequence[CatalogFile]], target: CatalogFile) -> Shard:
    rows: dict[str, pa.Table] = {}
    places: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for table, files in of_date.items():
        covering = [
            file for file in files if target.shard >> (target.bits - file.bits) == file.shard
        ]
        read = []
        for file in covering:
            try:
                found = partitions.read_all_columns(file, table)
            except RecordingError as error:
                unreadable[file.uri] = error.message.removeprefix(f"{file.uri}: ")
                continue
            read.append(_of_shard(found, table, target) if file.bits < target.bits else found)
        rows[table] = _with_part(table, joined(table, read))
        if covering:
            one = covering[0].uri
            places[table] = one if len(covering) == 1 else one.rsplit("/", 1)[0]
    return Shard(call_date=target.call_date, rows=rows, places=places, unreadable=unreadable)


def _of_shard(rows: pa.Table, table: str, target: CatalogFile) -> pa.Table:
    columns = owner_columns(rows.schema.names)
    first, number = groups(rows, columns)
    owners = rows.select(columns).take(pa.array(first)).to_pylist()
    holds = np.array(
        [target.may_hold(shard_hash(owner_key(table, owner))) for owner in owners],
        dtype=np.bool_,
    )
    return rows.filter(pa.array(holds[number]))


def _with_part(table: str, rows: pa.Table) -> pa.Table:
    """Returns rows of tracks with the number of their part, 0 where there is none."""
    if table not in OF_TRACKS:
        return rows
    if PART not in rows.schema.names:
        return rows.append_column(PART, pa.array(np.zeros(rows.num_rows, dtype=np.int64)))
    place = rows.schema.get_field_index(PART)
    filled = pc.fill_null(rows.column(PART).cast(pa.int64()), 0)
    return rows.set_column(place, PART, filled)


def key_columns(table: str) -> tuple[str, ...]:
    """Returns what makes a row of a table unique."""
    known = KEYS[table]
    return (*known, PART) if table in OF_TRACKS and PART not in known else known


def repeated(rows: pa.Table, table: str) -> list[Row]:
    """Returns the keys of which there is more than one row."""
    columns = key_columns(table)
    first, number = groups(rows, columns)
    twice = first[np.bincount(number, minlength=len(first)) > 1]
    found: list[Row] = rows.select(columns).take(pa.array(twice)).to_pylist()
    return found


def number_together(tables: Sequence[pa.Table], columns: Sequence[str]) -> list[Ints]:
    """Returns for each row of some tables a number, the same for the same values of some columns,
    nulls included, in whichever of the tables.
    """
    together = pa.concat_tables(
        [table.select(columns).cast(_keys_of(tables[0], columns)) for table in tables]
    )
    _, number = groups(together, columns)
    return np.split(number, np.cumsum([table.num_rows for table in tables])[:-1])


def _keys_of(table: pa.Table, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field(name, table.schema.field(name).type) for name in columns])


def known_tables() -> tuple[str, ...]:
    """Returns the tables that are looked at, those of which a later version may be the first to
    write rows included.
    """
    return tuple(SCHEMAS) if DUMPS in SCHEMAS else (*SCHEMAS, DUMPS)
