"""Rows as JSON in staging; and fragments, the rows of one track on their way to its call: an
object of which only the reference crosses a shuffle.

A fragment has a line per table that has rows, `["tracks", [{"call_id": ...}, ...]]`, with times as
Unix microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.catalog.schema import SCHEMAS
from transforms.elements import FragmentRef, Row
from transforms.media.errors import StorageError
from transforms.storage import objects

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KINDS: dict[pa.DataType, tuple[type, ...]] = {
    pa.string(): (str,),
    pa.int64(): (int, np.integer),
    pa.float64(): (float, int, np.floating),
    pa.bool_(): (bool,),
    pa.timestamp("us", tz="UTC"): (datetime,),
    pa.list_(pa.string()): (list,),
    pa.list_(pa.int64()): (list,),
}
_COLUMNS = {
    table: {field.name: _KINDS[field.type] for field in schema} for table, schema in SCHEMAS.items()
}
_TIMES = {
    table: [name for name, kinds in columns.items() if kinds == (datetime,)]
    for table, columns in _COLUMNS.items()
}


def write_fragment(uri: str, rows: Mapping[str, Sequence[Row]]) -> FragmentRef:
    """Writes rows by table and returns the reference to them.

    Raises:
      StorageError: it cannot be written.
      ValueError: a row has a column its table does not have, or a value of another type.
    """
    lines = [f'["{table}",{dump_rows(table, found)}]' for table, found in rows.items() if found]
    objects.write_staged(uri, "\n".join(lines).encode())
    counts = tuple((table, len(table_rows)) for table, table_rows in rows.items())
    return FragmentRef(uri=uri, row_counts=counts)


def dump_rows(table: str, rows: Sequence[Row]) -> str:
    """Returns rows as JSON on one line. Raises: ValueError: as `write_fragment`."""
    for row in rows:
        _check(table, row)
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"), default=_plain)


def load_rows(table: str, rows: Sequence[Row]) -> list[Row]:
    """Returns rows as they were before `dump_rows`, with all columns of their table. Args: rows:
    as JSON gives them.
    """
    columns: Row = dict.fromkeys(_COLUMNS[table])
    loaded = [columns | row for row in rows]
    for row in loaded:
        for name in _TIMES[table]:
            if row[name] is not None:
                row[name] = _EPOCH + timedelta(microseconds=row[name])
    return loaded


def read_fragment(ref: FragmentRef, table: str) -> list[Row]:
    """Returns a fragment's rows of one table, with all columns of it; none when it has none.
    Raises: as `read_fragments`.
    """
    return read_fragments(ref, (table,))[table]


def read_fragments(ref: FragmentRef, tables: Sequence[str]) -> dict[str, list[Row]]:
    """Returns a fragment's rows of some tables, with all columns; it is opened once, and not at all
    for tables without rows.

    Raises:
      StorageError: it cannot be read, or is not what was written.
    """
    lines = (
        objects.read_bytes(ref.uri).split(b"\n")
        if any(ref.count(table) for table in tables)
        else []
    )
    return {table: _parse(ref, table, lines) if ref.count(table) else [] for table in tables}


def _parse(ref: FragmentRef, table: str, lines: Sequence[bytes]) -> list[Row]:
    begin = f'["{table}",'.encode()
    line = next((line for line in lines if line.startswith(begin)), b'["",[]]')
    try:
        found: list[Row] = json.loads(line)[1]
    except ValueError as error:
        raise StorageError(
            f"{ref.uri}: rows of {table} are cut short or damaged ({error})"
        ) from None
    if len(found) != ref.count(table):
        raise StorageError(f"{ref.uri}: {len(found)} rows of {table}, expected {ref.count(table)}")
    return load_rows(table, found)


def _check(table: str, row: Row) -> None:
    columns = _COLUMNS[table]
    unknown = row.keys() - columns.keys()
    if unknown:
        raise ValueError(f"table {table} has no column {sorted(unknown)}")
    for name, value in row.items():
        if value is not None and not isinstance(value, columns[name]):
            raise ValueError(
                f"{name} of table {table} is {value!r}, expected {columns[name][0].__name__}"
            )


def _plain(value: Any) -> Any:
    return (value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value.item()
