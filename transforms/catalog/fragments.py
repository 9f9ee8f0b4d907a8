"""Rows on their way to the catalog: small objects in staging, of which only references cross a
shuffle.

A fragment has a line of JSON per table that has rows, `["calls", [{"call_id": ...}, ...]]`, with
times as Unix microseconds. Parquet would cost a hundred times as much: a fragment has a handful of
rows, and each column of each table its own pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.catalog.schema import SCHEMAS
from transforms.elements import FragmentRef, ReplacedKey, Row
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


def write_fragment(
    uri: str, call_date: str, rows: Mapping[str, Sequence[Row]], replaced: tuple[ReplacedKey, ...]
) -> FragmentRef:
    """Writes rows by table and returns the reference to them.

    Raises:
      StorageError: it cannot be written.
      ValueError: a row has a column its table does not have, or a value of another type.
    """
    lines = []
    for table, table_rows in rows.items():
        for row in table_rows:
            _check(table, row)
        if table_rows:
            lines.append(
                json.dumps(
                    [table, table_rows], ensure_ascii=False, separators=(",", ":"), default=_plain
                )
            )
    objects.write_staged(uri, "\n".join(lines).encode())
    counts = tuple((table, len(table_rows)) for table, table_rows in rows.items())
    return FragmentRef(uri=uri, call_date=call_date, row_counts=counts, replaced=replaced)


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
    columns: Row = dict.fromkeys(_COLUMNS[table])
    rows = [columns | row for row in found]
    for row in rows:
        for name in _TIMES[table]:
            if row[name] is not None:
                row[name] = _EPOCH + timedelta(microseconds=row[name])
    return rows


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
