"""Reads and writes the Parquet objects of the catalog. Knows where they lie; what is in them is
`schema`'s. Columns that only a later version knows stay with their rows.

<catalog>/<table>/call_date=YYYY-MM-DD/part-<bits>-<shard>.parquet
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from transforms.catalog.parquet_objects import ParquetObject, WantedKeys, write
from transforms.catalog.row_keys import later_columns
from transforms.catalog.schema import (
    KEYS,
    SCHEMAS,
    owner_key_columns,
    shard_hash,
    shard_name,
)
from transforms.elements import Row
from transforms.media.errors import StorageError
from transforms.media.text import one_line
from transforms.storage import objects, uris

_ROWS_AT_A_TIME = 10_000
_FILE = re.compile(r"/call_date=(\d{4}-\d{2}-\d{2})/part-(?:0|(\d+)-([01]+))\.parquet$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogFile:
    """One object of a table."""

    uri: str
    call_date: str
    bits: int
    shard: int
    size_bytes: int = 0
    """As listed; 0 where it was not."""

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
            found.append(
                CatalogFile(
                    uri=listed.path,
                    call_date=name[1],
                    bits=bits,
                    shard=shard,
                    size_bytes=listed.size_bytes,
                )
            )
    return found


def read_table(
    file: CatalogFile,
    table: str,
    columns: Sequence[str] | None = None,
    wanted: WantedKeys | None = None,
    *,
    keys_first: bool = False,
) -> pa.Table:
    """Returns an object's rows with the columns of today's schema, or some of them; those it lacks
    are null.

    Args:
      file, table: the object.
      columns: those to read; None for all.
      wanted: the keys of the rows to read; None for all rows. Their columns are among `columns`.
      keys_first: as of `scan`.

    Raises:
      StorageError: it cannot be read.
    """
    schema = SCHEMAS[table]
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    with ParquetObject(
        file.uri, file.size_bytes, whole=columns is None and wanted is None
    ) as parquet:
        there = [name for name in schema.names if name in parquet.names]
        if keys_first and wanted is not None and not parquet.may_hold(wanted):
            return schema.empty_table()
        with parquet.reading():
            rows = _conformed(parquet.read(there, wanted), schema)
    with _reading_values(file):
        return rows if wanted is None else wanted.select(rows)


def read_texts(file: CatalogFile, table: str, column: str) -> list[str]:
    """Returns a column of text of all rows that have a value there. Raises: StorageError: it cannot
    be read.
    """
    found = read_table(file, table, (column,)).column(column)
    with _reading_values(file):
        return [text for text in found.to_pylist() if text is not None]


@contextlib.contextmanager
def _reading_values(file: CatalogFile) -> Iterator[None]:
    """Turns what Python says of values that it has nothing for, as times past its calendar and text
    that is no UTF-8, into a StorageError.
    """
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise StorageError(
            f"{file.uri}: has a value that no run writes ({one_line(str(error))}); restore it, or "
            "remove it to lose its rows"
        ) from None


def read_all_columns(file: CatalogFile, table: str) -> pa.Table:
    """Returns an object's rows with the columns of today's schema, and behind them those that only
    a later version knows. Of a table that only a later version knows, all are such. Raises:
    StorageError.
    """
    with ParquetObject(file.uri, file.size_bytes, whole=True) as parquet, parquet.reading():
        found = parquet.read(parquet.names)
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
    with ParquetObject(file.uri, file.size_bytes) as parquet:
        return parquet.row_count


def read_rows(
    catalog_uri: str,
    table: str,
    call_date: str,
    key_columns: Sequence[str],
    keys: Collection[tuple[str, ...]],
) -> list[Row]:
    """Returns one date's rows whose key columns are among `keys`. Raises: StorageError."""
    wanted = WantedKeys(key_columns, keys)
    rows: list[Row] = []
    for file in list_files(catalog_uri, table, call_date):
        if may_hold_any(file, table, wanted):
            found = read_table(file, table, wanted=wanted)
            with _reading_values(file):
                rows.extend(found.to_pylist())
    return _newest(rows, table)


def scan(
    table: str,
    file: CatalogFile,
    columns: Sequence[str],
    wanted: WantedKeys,
    *,
    keys_first: bool = False,
) -> Iterator[Row]:
    """Yields an object's rows that have a wanted key, with `call_date`; as Python objects some
    thousands at a time.

    Args:
      table, file: the object.
      columns: those to read, the keys' among them.
      wanted: the keys.
      keys_first: whether most objects are thought to hold none of them: then of a large one no more
        than the keys are read, unless one is there.

    Raises:
      StorageError: it cannot be read.
    """
    if may_hold_any(file, table, wanted):
        found = read_table(file, table, columns, wanted, keys_first=keys_first)
        yield from spelled(file, found)


def spelled(file: CatalogFile, found: pa.Table) -> Iterator[Row]:
    """Yields rows that were read of an object, with `call_date`; as Python objects some thousands
    at a time. Raises: StorageError: one has a value that Python has nothing for.
    """
    for batch in found.to_batches(max_chunksize=_ROWS_AT_A_TIME):
        with _reading_values(file):
            rows = batch.to_pylist()
        for row in rows:
            yield {**row, "call_date": file.call_date}


def may_hold_any(file: CatalogFile, table: str, wanted: WantedKeys) -> bool:
    """Whether a row of any wanted key belongs into an object, as far as its name tells."""
    if not file.bits or wanted.columns != owner_key_columns(table):
        return bool(wanted.keys)
    return any(file.may_hold(shard_hash(key)) for key in wanted.keys)


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
