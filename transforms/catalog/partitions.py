"""Reads and writes the Parquet objects of the catalog. Knows where they lie; what is in them is
`schema`'s. Columns that only a later version knows stay with their rows.

<catalog>/<table>/call_date=YYYY-MM-DD/part-<bits>-<shard>.parquet
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.catalog.row_keys import later_columns
from transforms.catalog.schema import KEYS, SCHEMAS, shard_name
from transforms.elements import Row
from transforms.media.errors import StorageError
from transforms.storage import objects, uris

_FILE = re.compile(r"/call_date=(\d{4}-\d{2}-\d{2})/part-(?:0|(\d+)-([01]+))\.parquet$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """One object of a table."""

    uri: str
    call_date: str
    bits: int
    shard: int

    def may_hold(self, hashed: int) -> bool:
        """Whether a row of this hash belongs here."""
        return self.bits == 0 or hashed >> (32 - self.bits) == self.shard


def list_files(catalog_uri: str, table: str, call_date: str | None = None) -> list[CatalogFile]:
    """Returns a table's objects, of one date when it is given.

    Raises:
      StorageError: they cannot be listed, or not all of them: rows would seem not to be there.
    """
    below = uris.join(catalog_uri, table, *([f"call_date={call_date}"] if call_date else []))
    found = []
    for listed in objects.list_below(below):
        if listed.unreadable and (listed.path.endswith("/") or "/call_date=" in listed.path):
            raise StorageError(f"{listed.path}: {listed.unreadable}")
        name = _FILE.search(listed.path)
        if name:
            bits = int(name[2] or 0)
            shard = int(name[3], 2) if bits else 0
            found.append(CatalogFile(uri=listed.path, call_date=name[1], bits=bits, shard=shard))
    return found


def read_table(file: CatalogFile, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns an object's rows with the columns of today's schema; those it lacks are null. Raises:
    StorageError.
    """
    parquet = _open(file)
    schema = (
        SCHEMAS[table]
        if columns is None
        else pa.schema([SCHEMAS[table].field(name) for name in columns])
    )
    there = [name for name in schema.names if name in parquet.schema_arrow.names]
    with _reading(file):
        return _conformed(parquet.read(columns=there), schema)


def read_all_columns(file: CatalogFile, table: str) -> pa.Table:
    """Returns an object's rows with the columns of today's schema, and behind them those that only
    a later version knows. Of a table that only a later version knows, all are such. Raises:
    StorageError.
    """
    parquet = _open(file)
    with _reading(file):
        found = parquet.read()
        if table not in SCHEMAS:
            return found
        rows = _conformed(found, SCHEMAS[table])
    for name in later_columns(found, table):
        rows = rows.append_column(found.schema.field(name), found.column(name))
    return rows


def _conformed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        found.column(field.name).cast(field.type)
        if field.name in found.schema.names
        else pa.nulls(found.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def count_rows(file: CatalogFile) -> int:
    """Returns how many rows an object has, from its footer alone. Raises: StorageError."""
    with objects.open_input(file.uri) as source, _reading(file):
        return int(pq.read_metadata(source).num_rows)


def read_rows(
    catalog_uri: str,
    table: str,
    call_date: str,
    key_columns: Sequence[str],
    keys: Collection[tuple[str, ...]],
) -> list[Row]:
    """Returns one date's rows whose key columns are among `keys`. Raises: StorageError."""
    rows: list[Row] = []
    for file in list_files(catalog_uri, table, call_date):
        rows.extend(
            _select(read_table(file, table), key_columns, lambda key: key in keys).to_pylist()
        )
    return _newest(rows, table)


def _select(
    table: pa.Table, columns: Sequence[str], keep: Callable[[tuple[Any, ...]], bool]
) -> pa.Table:
    if not table.num_rows:
        return table
    keys = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    return table.filter(pa.array([keep(key) for key in keys], type=pa.bool_()))


def _newest(rows: list[Row], table: str) -> list[Row]:
    """Keeps the newest row of each key: a run that was killed while it split a shard may have left
    a row twice.
    """
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in KEYS[table])
        if key not in kept or _made(row) >= _made(kept[key]):
            kept[key] = row
    return list(kept.values())


def _made(row: Row) -> Any:
    return row["created_at"].timestamp() if row["created_at"] else 0.0


def ensure_file(catalog_uri: str, table: str, call_date: str) -> None:
    """Gives a table without any object an empty, typed one: readers fail on a table that has none.
    Raises: StorageError.
    """
    if not list_files(catalog_uri, table):
        write(
            uris.join(catalog_uri, table, f"call_date={call_date}", shard_name(0, 0)),
            SCHEMAS[table].empty_table(),
        )


def _open(file: CatalogFile) -> pq.ParquetFile:
    data = objects.read_bytes(file.uri)
    with _reading(file):
        return pq.ParquetFile(pa.BufferReader(data))


@contextlib.contextmanager
def _reading(file: CatalogFile) -> Iterator[None]:
    """Turns what Arrow says of a damaged object into a StorageError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        why = str(error).split("\n", 1)[0]
        raise StorageError(
            f"{file.uri}: not a Parquet file ({why}); restore it, or remove it to lose its rows"
        ) from None


def write(uri: str, rows: pa.Table) -> None:
    """Writes an object of a table, rows and columns as they are. Raises: StorageError."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    objects.write_bytes(uri, sink.getvalue().to_pybytes())


def scan(
    catalog_uri: str, table: str, file: CatalogFile, columns: Sequence[str],
    key_columns: Sequence[str],
    keys: Collection[tuple[str, ...]],
) -> Iterator[Row]:  # fmt: skip
    """Yields one object's rows whose key columns are among `keys`, with `call_date`. Raises:
    StorageError.
    """
    for row in _select(
        read_table(file, table, columns), key_columns, lambda key: key in keys
    ).to_pylist():
        yield {**row, "call_date": file.call_date}
