"""Reads and replaces the Parquet objects of the catalog. Knows where they lie; what is in them is `transforms.media.catalog`'s.

<catalog>/<table>/call_date=YYYY-MM-DD/part-<bits>-<shard>.parquet
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.media.catalog import (
    KEYS,
    MAX_SHARD_ROWS,
    SCHEMAS,
    ReplacedKey,
    Row,
    owner_key,
    row_order,
    shard_bits,
    shard_hash,
    shard_name,
    to_table,
)
from transforms.media.errors import StorageError
from transforms.row_fragments import FragmentRef, read_fragment

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
    """Returns a table's objects, of one date when it is given. Raises: StorageError."""
    below = storage.join(catalog_uri, table, *([f"call_date={call_date}"] if call_date else []))
    found = []
    for metadata in storage.list_below(below):
        name = _FILE.search(metadata.path)
        if name:
            bits = int(name[2] or 0)
            shard = int(name[3], 2) if bits else 0
            found.append(CatalogFile(uri=metadata.path, call_date=name[1], bits=bits, shard=shard))
    return found


def read_table(file: CatalogFile, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns an object's rows with the columns of today's schema; those it lacks are null. Raises: StorageError."""
    parquet = _open(file)
    schema = SCHEMAS[table] if columns is None else pa.schema([SCHEMAS[table].field(name) for name in columns])
    there = [name for name in schema.names if name in parquet.schema_arrow.names]
    found = parquet.read(columns=there)
    arrays = [
        found.column(field.name).cast(field.type) if field.name in there else pa.nulls(found.num_rows, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def read_rows(
    catalog_uri: str, table: str, call_date: str, key_columns: Sequence[str], keys: Collection[tuple[str, ...]]
) -> list[Row]:
    """Returns one date's rows whose key columns are among `keys`. Raises: StorageError."""
    rows: list[Row] = []
    for file in list_files(catalog_uri, table, call_date):
        rows.extend(_select(read_table(file, table), key_columns, lambda key: key in keys).to_pylist())
    return _newest(rows, table)


def _select(table: pa.Table, columns: Sequence[str], keep: Callable[[tuple[Any, ...]], bool]) -> pa.Table:
    if not table.num_rows:
        return table
    keys = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    return table.filter(pa.array([keep(key) for key in keys], type=pa.bool_()))


def _newest(rows: list[Row], table: str) -> list[Row]:
    """Keeps the newest row of each key: a run that was killed while it split a shard may have left a row twice."""
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in KEYS[table])
        if key not in kept or _made(row) >= _made(kept[key]):
            kept[key] = row
    return list(kept.values())


def _made(row: Row) -> Any:
    return row["created_at"].timestamp() if row["created_at"] else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedPartition:
    """What merging one date of a table did."""

    table: str
    row_count: int
    dropped_media: tuple[str, ...]
    """URIs of `recordings` rows that are gone, of which no new row names the same file."""


def merge_partition(
    catalog_uri: str,
    table: str,
    call_date: str,
    fragments: Sequence[FragmentRef],
    shard_rows: int = MAX_SHARD_ROWS,
) -> MergedPartition:
    """Replaces the rows of some calls, archives or runs in one date of a table; merging twice gives the same rows.

    Memory holds one shard and the rows of the fragments that go into it.

    Args:
      catalog_uri: root of the catalog.
      table: its name.
      call_date: the partition.
      fragments: new rows, and the owners whose old rows go.
      shard_rows: rows per shard.

    Raises:
      StorageError: reading or writing fails.
    """
    replaced = {key for fragment in fragments for key in fragment.replaced}
    files = list_files(catalog_uri, table, call_date)
    fresh = sum(dict(fragment.row_counts).get(table, 0) for fragment in fragments)
    held = sum(_count_rows(file, table, replaced) for file in files)
    # A partition never goes back to fewer shards: files that come and go from night to night help nobody.
    bits = max([shard_bits(held + fresh, shard_rows), *(file.bits for file in files)])
    written: set[str] = set()
    dropped: set[str] = set()
    total = 0
    for shard in range(1 << bits):
        name = storage.join(catalog_uri, table, f"call_date={call_date}", shard_name(bits, shard))
        target = CatalogFile(uri=name, call_date=call_date, bits=bits, shard=shard)
        # Where a finer file is there, a run that split the coarser one was killed before it took that away.
        covering = [file for file in files if shard >> (bits - file.bits) == file.shard]
        finest = max((file.bits for file in covering), default=0)
        old: list[Row] = []
        for file in covering:
            if file.bits == finest:
                old.extend(read_table(file, table).to_pylist())
        kept = [row for row in _newest(old, table) if owner_key(table, row) not in replaced]
        new: list[Row] = []
        for fragment in fragments:
            if fragment.uri and any(target.may_hold(shard_hash(key)) for key in fragment.replaced):
                new.extend(read_fragment(fragment.uri, table))
        rows = [row for row in kept + new if target.may_hold(shard_hash(owner_key(table, row)))]
        rows.sort(key=partial(row_order, table))
        if table == "recordings":
            dropped |= {row["uri"] for row in old} - {row["uri"] for row in kept} - {row["uri"] for row in rows}
        total += len(rows)
        if rows or files:
            _write(name, table, rows)
            written.add(name)
    for file in files:
        if file.uri not in written:
            storage.delete(file.uri)
    return MergedPartition(table=table, row_count=total, dropped_media=tuple(sorted(dropped)))


def ensure_file(catalog_uri: str, table: str, call_date: str) -> None:
    """Gives a table without any object an empty, typed one: readers fail on a table that has none. Raises: StorageError."""
    if not list_files(catalog_uri, table):
        _write(storage.join(catalog_uri, table, f"call_date={call_date}", shard_name(0, 0)), table, [])


def _count_rows(file: CatalogFile, table: str, replaced: Collection[ReplacedKey]) -> int:
    """Counts the rows of a file that stay."""
    columns = [
        name for name in ("call_type", "call_id", "call_session_id", "archive_uri", "run_id") if name in SCHEMAS[table].names
    ]
    rows = read_table(file, table, columns).to_pylist()
    return sum(1 for row in rows if owner_key(table, row) not in replaced)


def _open(file: CatalogFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(storage.read_bytes(file.uri)))
    except pa.ArrowInvalid as error:
        raise StorageError(f"{file.uri}: not a Parquet file ({error}); restore it, or remove it to lose its rows") from None


def _write(uri: str, table: str, rows: Sequence[Row]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(to_table(table, rows), sink, compression="zstd")
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def scan(
    catalog_uri: str, table: str, file: CatalogFile, columns: Sequence[str], key_columns: Sequence[str],
    keys: Collection[tuple[str, ...]],
) -> Iterator[Row]:  # fmt: skip
    """Yields one object's rows whose key columns are among `keys`, with `call_date`. Raises: StorageError."""
    for row in _select(read_table(file, table, columns), key_columns, lambda key: key in keys).to_pylist():
        yield {**row, "call_date": file.call_date}
