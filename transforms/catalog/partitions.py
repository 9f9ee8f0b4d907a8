"""Reads and replaces the Parquet objects of the catalog. Knows where they lie; what is in them is
`schema`'s. Columns that only a later version knows stay with their rows.

<catalog>/<table>/call_date=YYYY-MM-DD/part-<bits>-<shard>.parquet
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.catalog.fragments import read_fragment
from transforms.catalog.schema import (
    KEYS,
    MAX_SHARD_ROWS,
    SCHEMAS,
    owner_key,
    shard_bits,
    shard_hash,
    shard_name,
    to_table,
)
from transforms.elements import FragmentRef, ReplacedKey, Row
from transforms.media.errors import StorageError
from transforms.media.units import Ints
from transforms.storage import objects, uris

_ROWS_AT_A_TIME = 1_000
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


def later_columns(rows: pa.Table, table: str) -> list[str]:
    """Returns the names of the columns that only a later version knows."""
    return [name for name in rows.schema.names if name not in SCHEMAS[table].names]


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


def _distinct(rows: pa.Table, table: str) -> pa.Table:
    """Returns the rows of an object, of each key the newest. What a later version may have added
    to its key tells two rows apart as well.
    """
    later = [
        name
        for name in later_columns(rows, table)
        if pa.types.is_string(rows.schema.field(name).type)
        or pa.types.is_integer(rows.schema.field(name).type)
    ]
    first, number = groups(rows, (*KEYS[table], *later))
    if len(first) == rows.num_rows:
        return rows
    made = rows.column("created_at").cast(pa.int64()).fill_null(0).combine_chunks().to_numpy()
    order = np.lexsort((np.arange(rows.num_rows), made, number))
    newest = order[np.diff(number[order], append=len(first)) > 0]
    return rows.take(pa.array(np.sort(newest)))


def _carried(fresh: pa.Table, old: pa.Table, table: str) -> pa.Table:
    """Returns new rows, those among them that were kept as they were with what a later version had
    put beside them: rows cross the pipeline with the columns that this version knows.
    """
    later = later_columns(old, table)
    if not later or not fresh.num_rows:
        return fresh
    columns = [*KEYS[table], "run_id", "created_at"]

    def keys(rows: pa.Table) -> list[tuple[Any, ...]]:
        return list(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))

    place = {key: number for number, key in enumerate(keys(old))}
    taken = old.select(later).take(pa.array([place.get(key) for key in keys(fresh)], pa.int64()))
    for name in later:
        fresh = fresh.append_column(old.schema.field(name), taken.column(name))
    return fresh


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
    """Replaces the rows of some calls, archives or runs in one date of a table; merging twice gives
    the same rows.

    Memory holds one shard and the rows of the fragments that go into it, as Arrow tables.

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
    # A partition never goes back to fewer shards: files that come and go from night to night help
    # nobody.
    bits = max((file.bits for file in files), default=0)
    added = sum(fragment.count(table) for fragment in fragments)
    # Rows that go are told from those that stay only where that matters: as a rule all fit by far.
    if sum(_open(file).metadata.num_rows for file in files) + added > shard_rows << bits:
        owners = owner_columns(SCHEMAS[table].names)
        held = sum(
            int(_keeps(read_table(file, table, owners), table, replaced).sum()) for file in files
        )
        bits = max(bits, shard_bits(held + added, shard_rows))
    written: set[str] = set()
    gone: set[str] = set()
    made: set[str] = (
        set()
    )  # of all shards: where a shard is split, a row's old place may be read with another shard
    total = 0
    for shard in range(1 << bits):
        name = uris.join(catalog_uri, table, f"call_date={call_date}", shard_name(bits, shard))
        target = CatalogFile(uri=name, call_date=call_date, bits=bits, shard=shard)
        # Where a finer file is there, a run that split the coarser one was killed before it took
        # that away.
        covering = [file for file in files if shard >> (bits - file.bits) == file.shard]
        finest = max((file.bits for file in covering), default=0)
        old = _distinct(
            joined(
                table, [read_all_columns(file, table) for file in covering if file.bits == finest]
            ),
            table,
        )
        kept = old.filter(pa.array(_keeps(old, table, replaced, target)))
        fresh = _carried(joined(table, list(_fresh_rows(table, fragments, target))), old, table)
        if table == "recordings":
            stays = _keeps(old, table, replaced)
            gone |= _uris(old.filter(pa.array(~stays))) - _uris(old.filter(pa.array(stays)))
            made |= _uris(fresh)
        del old
        rows = _sorted(table, joined(table, [kept, fresh]).combine_chunks())
        total += rows.num_rows
        if rows.num_rows or files:
            _write(name, rows)
            written.add(name)
    for file in files:
        if file.uri not in written:
            objects.delete(file.uri)
    return MergedPartition(table=table, row_count=total, dropped_media=tuple(sorted(gone - made)))


def _fresh_rows(
    table: str, fragments: Sequence[FragmentRef], target: CatalogFile
) -> Iterator[pa.Table]:
    """Yields the fragments' rows that belong into a shard, some thousands at a time: as Python
    objects they are large.
    """
    batch: list[Row] = []
    for fragment in fragments:
        if fragment.uri and any(target.may_hold(shard_hash(key)) for key in fragment.replaced):
            rows = read_fragment(fragment, table)
            batch += (
                rows
                if target.bits == 0
                else [row for row in rows if target.may_hold(shard_hash(owner_key(table, row)))]
            )
        if len(batch) >= _ROWS_AT_A_TIME:
            yield to_table(table, batch)
            batch = []
    yield to_table(table, batch)


def owner_columns(columns: Collection[str]) -> list[str]:
    """Returns those of some columns that tell what a row belongs to."""
    names = ("call_type", "call_id", "call_session_id", "archive_uri", "run_id")
    return [name for name in names if name in columns]


def _keeps(
    rows: pa.Table, table: str, replaced: Collection[ReplacedKey], target: CatalogFile | None = None
) -> npt.NDArray[np.bool_]:
    """Returns for each row whether its owner is none of the replaced, and belongs into a shard if
    one is given.
    """
    columns = owner_columns(SCHEMAS[table].names)
    first, number = groups(rows, columns)
    owners = [
        owner_key(table, row) for row in rows.select(columns).take(pa.array(first)).to_pylist()
    ]
    verdicts = [
        owner not in replaced and (target is None or target.may_hold(shard_hash(owner)))
        for owner in owners
    ]
    return np.array(verdicts, dtype=np.bool_)[number]


def groups(rows: pa.Table, columns: Sequence[str]) -> tuple[Ints, Ints]:
    """Returns, for the distinct values of some columns, the first row of each, and for each row the
    number of its own.

    As arrays: a full shard's keys as Python text would take more memory than all its rows.
    """
    first = number = np.zeros(rows.num_rows, dtype=np.int64)
    for name in columns:
        encoded = rows.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        number = number * len(encoded.dictionary) + encoded.indices.to_numpy()
        _, first, number = np.unique(number, return_index=True, return_inverse=True)
    return first, number


def joined(table: str, parts: Sequence[pa.Table]) -> pa.Table:
    """Returns rows of a table together, with all columns of today's schema and of any of them."""
    empty = SCHEMAS.get(table, pa.schema([])).empty_table()
    return pa.concat_tables([empty, *parts], promote_options="permissive")


def _sorted(table: str, rows: pa.Table) -> pa.Table:
    """Returns rows in the order of their keys; nulls come first."""
    keys: dict[str, Any] = {}
    for name in KEYS[table]:
        keys |= {f"has {name}": pc.is_valid(rows.column(name)), name: rows.column(name)}
    return rows.take(
        pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    )


def _uris(recordings: pa.Table) -> set[str]:
    return set(recordings.column("uri").to_pylist())


def ensure_file(catalog_uri: str, table: str, call_date: str) -> None:
    """Gives a table without any object an empty, typed one: readers fail on a table that has none.
    Raises: StorageError.
    """
    if not list_files(catalog_uri, table):
        _write(
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


def _write(uri: str, rows: pa.Table) -> None:
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
