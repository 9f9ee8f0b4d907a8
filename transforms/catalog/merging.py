"""Merges new rows into one date of a table: those of the same calls, archives or runs are replaced,
the others stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.catalog import partitions
from transforms.catalog.fragments import read_fragment
from transforms.catalog.parquet_objects import write
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.row_keys import (
    groups,
    joined,
    later_columns,
    owner_columns,
    sorted_by_key,
)
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
from transforms.storage import objects, uris

_ROWS_AT_A_TIME = 1_000


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
    files = partitions.list_files(catalog_uri, table, call_date)
    # A partition never goes back to fewer shards: files that come and go from night to night help
    # nobody.
    bits = max((file.bits for file in files), default=0)
    added = sum(fragment.count(table) for fragment in fragments)
    # Rows that go are told from those that stay only where that matters: as a rule all fit by far.
    if sum(map(partitions.count_rows, files)) + added > shard_rows << bits:
        owners = owner_columns(SCHEMAS[table].names)
        held = sum(
            int(_keeps(partitions.read_table(file, table, owners), table, replaced).sum())
            for file in files
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
                table,
                [
                    partitions.read_all_columns(file, table)
                    for file in covering
                    if file.bits == finest
                ],
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
        rows = sorted_by_key(table, joined(table, [kept, fresh]).combine_chunks())
        total += rows.num_rows
        if rows.num_rows or files:
            write(name, rows)
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


def _uris(recordings: pa.Table) -> set[str]:
    return set(recordings.column("uri").to_pylist())
