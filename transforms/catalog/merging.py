"""Merges new rows into one date of a table: those of the same calls, archives or runs are replaced,
the others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.catalog import bundles, partitions
from transforms.catalog.bundles import Span
from transforms.catalog.parquet_objects import write
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.row_keys import (
    furthest,
    groups,
    joined,
    later_columns,
    owner_columns,
    sent_as_before,
    sorted_by_key,
    unix_us,
)
from transforms.catalog.rows.ids import CALL_COLUMNS
from transforms.catalog.schema import (
    ADDED_TABLES,
    KEYS,
    MAX_SHARD_ROWS,
    SCHEMAS,
    owner_key,
    shard_bits,
    shard_hash,
    shard_name,
    to_table,
)
from transforms.elements import DroppedFile, ReplacedKey, Row, SectionRef
from transforms.media.values import CallKey, OutputType
from transforms.storage import objects, uris

_ROWS_AT_A_TIME = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMerge:
    """One shard of one date of a table, to be merged."""

    table: str
    call_date: str
    bits: int
    shard: int
    covering: tuple[CatalogFile, ...]
    """The objects that have its old rows."""
    is_needed: bool
    """Whether an object is to be there even without rows."""
    spans: tuple[Span, ...]
    """Where the new rows are, perhaps among those of other shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedShard:
    """What merging a shard did."""

    row_count: int
    dropped: tuple[DroppedFile, ...]
    """Files of `recordings` rows that are gone, of which no new row names the same. Rows of a call
    share a shard, and no two calls a file.
    """

    @property
    def dropped_media(self) -> tuple[str, ...]:
        """Their URIs."""
        return tuple(file.uri for file in self.dropped)


def plan_partition(
    catalog_uri: str,
    table: str,
    call_date: str,
    sections: Iterable[SectionRef],
    shard_rows: int = MAX_SHARD_ROWS,
) -> list[ShardMerge]:
    """Returns the shards of one date of a table, each to be merged by itself, and then
    `take_superseded_away`.

    Args:
      catalog_uri: root of the catalog.
      table: its name.
      call_date: the partition.
      sections: new rows, and the owners whose old rows go.
      shard_rows: rows per shard.

    Raises:
      StorageError: reading fails.
    """
    sections = sorted(sections, key=attrgetter("uri"))
    files = partitions.list_files(catalog_uri, table, call_date)
    # A partition never goes back to fewer shards: files that come and go from night to night help
    # nobody.
    bits = max((file.bits for file in files), default=0)
    added = sum(section.row_count for section in sections)
    # Rows that go are told from those that stay only where that matters: as a rule all fit by far.
    if sum(map(partitions.count_rows, files)) + added > shard_rows << bits:
        replaced = {
            key
            for section in sections
            for key in bundles.read_keys(bundles.span_of(section), table)
        }
        owners = owner_columns(SCHEMAS[table].names)
        held = sum(
            int(_keeps(partitions.read_table(file, table, owners), table, replaced).sum())
            for file in files
        )
        bits = max(bits, shard_bits(held + added, shard_rows))
    return [
        ShardMerge(
            table=table,
            call_date=call_date,
            bits=bits,
            shard=shard,
            covering=_finest([file for file in files if shard >> (bits - file.bits) == file.shard]),
            is_needed=bool(files),
            spans=tuple(bundles.span_of(section, bits, shard) for section in sections),
        )
        for shard in range(1 << bits)
    ]


def _finest(covering: Sequence[CatalogFile]) -> tuple[CatalogFile, ...]:
    """Returns the finest of the objects that cover a shard: where one is there beside a coarser, a
    run that split that was killed before it took it away.
    """
    finest = max((file.bits for file in covering), default=0)
    return tuple(file for file in covering if file.bits == finest)


def merge_shard(
    catalog_uri: str,
    merge: ShardMerge,
    make_sure: Callable[[pa.Table], None] | None = None,
    check: Callable[[], None] | None = None,
) -> MergedShard:
    """Replaces the rows of some calls, archives or runs in a shard; merging twice gives the same
    rows.

    Memory holds the shard and the rows that go into it, as Arrow tables.

    Args:
      catalog_uri: root of the catalog.
      merge: what to merge.
      make_sure: is given the new rows before they stand.
      check: raises what is to keep the shard from being written; called when that is next.

    Raises:
      StorageError: reading or writing fails.
    """
    table = merge.table
    name = uris.join(
        catalog_uri, table, f"call_date={merge.call_date}", shard_name(merge.bits, merge.shard)
    )
    target = CatalogFile(uri=name, call_date=merge.call_date, bits=merge.bits, shard=merge.shard)
    replaced: set[ReplacedKey] = set()
    new = joined(table, list(_new_rows(merge, target, replaced)))
    if make_sure is not None:
        make_sure(new)
    read = [partitions.read_all_columns(file, table) for file in merge.covering]
    old = _distinct(joined(table, read), table)
    goes_with: Collection[ReplacedKey] = () if table in ADDED_TABLES else replaced
    kept = old.filter(pa.array(_keeps(old, table, goes_with, target)))
    new = _carried(new, old, table)
    dropped: list[DroppedFile] = []
    if table == "recordings":
        goes = old.filter(pa.array(_owned_by(old, table, replaced)))
        stays = _uris(kept) | _uris(new)
        dropped = _dropped(goes, _uris(goes) - stays, merge.call_date)
    del old, read
    rows = joined(table, [kept, new]).combine_chunks()
    if table in ADDED_TABLES:
        rows = _distinct(rows, table)
    rows = sorted_by_key(table, rows)
    if rows.num_rows or merge.is_needed:
        if check is not None:
            check()
        write(name, rows)
    return MergedShard(row_count=rows.num_rows, dropped=tuple(dropped))


def take_superseded_away(catalog_uri: str, table: str, call_date: str, bits: int) -> None:
    """Deletes the objects of a date that were split into finer ones, once all of those are there.
    Raises: StorageError.
    """
    for file in partitions.list_files(catalog_uri, table, call_date):
        if file.bits != bits:
            objects.delete(file.uri)


def merge_partition(
    catalog_uri: str,
    table: str,
    call_date: str,
    sections: Iterable[SectionRef],
    shard_rows: int = MAX_SHARD_ROWS,
) -> MergedShard:
    """Merges all shards of one date of a table, one after the other. Args, Raises: as
    `plan_partition`.
    """
    merges = plan_partition(catalog_uri, table, call_date, sections, shard_rows)
    done = [merge_shard(catalog_uri, merge) for merge in merges]
    take_superseded_away(catalog_uri, table, call_date, merges[0].bits)
    return MergedShard(
        row_count=sum(each.row_count for each in done),
        dropped=tuple(
            sorted((file for each in done for file in each.dropped), key=attrgetter("uri"))
        ),
    )


def add_rows(
    catalog_uri: str, table: str, call_date: str, rows: Sequence[Row], check: Callable[[], None]
) -> None:
    """Adds rows to a date of a table, beside all that their owners have there; of a key that is
    there already the row is replaced. Adding twice gives the same rows.

    Args:
      catalog_uri: root of the catalog.
      table: its name.
      call_date: the partition.
      rows: few.
      check: raises what is to keep an object from being written; called before each.

    Raises:
      StorageError: reading or writing fails.
    """
    files = partitions.list_files(catalog_uri, table, call_date)
    if not files:
        name = uris.join(catalog_uri, table, f"call_date={call_date}", shard_name(0, 0))
        files = [CatalogFile(uri=name, call_date=call_date, bits=0, shard=0)]
    listed = {file.uri for file in files if file.size_bytes}
    for file in _finest(files):
        added = [row for row in rows if file.may_hold(shard_hash(owner_key(table, row)))]
        if not added:
            continue
        old = [partitions.read_all_columns(file, table)] if file.uri in listed else []
        every = _distinct(joined(table, [*old, to_table(table, added)]), table)
        check()
        write(file.uri, sorted_by_key(table, every.combine_chunks()))


def _new_rows(
    merge: ShardMerge, target: CatalogFile, replaced: set[ReplacedKey]
) -> Iterator[pa.Table]:
    """Yields the new rows of a shard, some thousands at a time, as Python objects they are large;
    puts their owners, and those without any, into `replaced`.
    """
    batch: list[Row] = []
    for span in merge.spans:
        for key, rows in bundles.read_rows(span, merge.table):
            if target.bits == 0 or target.may_hold(shard_hash(key)):
                replaced.add(key)
                batch += rows
            if len(batch) >= _ROWS_AT_A_TIME:
                yield to_table(merge.table, batch)
                batch = []
    yield to_table(merge.table, batch)


def _distinct(rows: pa.Table, table: str) -> pa.Table:
    """Returns the rows of an object, of each key the newest, or of a table to which rows are only
    added the furthest. What a later version may have added to its key tells two rows apart as well,
    but not of those: an event is known by its id, and what is there twice would be told twice.
    """
    later = [
        name
        for name in (() if table in ADDED_TABLES else later_columns(rows, table))
        if pa.types.is_string(rows.schema.field(name).type)
        or pa.types.is_integer(rows.schema.field(name).type)
    ]
    first, number = groups(rows, (*KEYS[table], *later))
    if len(first) == rows.num_rows:
        return rows
    ranks = furthest(rows) if table in ADDED_TABLES else [unix_us(rows, "created_at")]
    order = np.lexsort((np.arange(rows.num_rows), *ranks, number))
    newest = np.sort(order[np.diff(number[order], append=len(first)) > 0])
    if table in ADDED_TABLES:
        return sent_as_before(rows, newest, number)
    return rows.take(pa.array(newest))


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
    return _judged(
        rows,
        table,
        lambda owner: (
            owner not in replaced and (target is None or target.may_hold(shard_hash(owner)))
        ),
    )


def _owned_by(
    rows: pa.Table, table: str, replaced: Collection[ReplacedKey]
) -> npt.NDArray[np.bool_]:
    """Returns for each row whether its owner is one of the replaced."""
    return _judged(rows, table, lambda owner: owner in replaced)


def _judged(
    rows: pa.Table, table: str, verdict: Callable[[ReplacedKey], bool]
) -> npt.NDArray[np.bool_]:
    """Returns for each row what is said of its owner; each is asked for once."""
    columns = owner_columns(SCHEMAS[table].names)
    first, number = groups(rows, columns)
    owners = rows.select(columns).take(pa.array(first)).to_pylist()
    return np.array([verdict(owner_key(table, row)) for row in owners], dtype=np.bool_)[number]


def _dropped(recordings: pa.Table, media_uris: set[str], call_date: str) -> list[DroppedFile]:
    """Returns some of the files of `recordings` rows, each once, sorted by URI."""
    columns = (*CALL_COLUMNS, "participant_id", "user_session_id", "output_type", "uri")
    rows = {row["uri"]: row for row in recordings.select(columns).to_pylist()}
    return [
        DroppedFile(
            uri=uri,
            call=CallKey(**{name: rows[uri][name] for name in CALL_COLUMNS}),
            call_date=call_date,
            participant_id=rows[uri]["participant_id"],
            user_session_id=rows[uri]["user_session_id"],
            output_type=rows[uri]["output_type"] and OutputType(rows[uri]["output_type"]),
        )
        for uri in sorted(media_uris)
    ]


def _uris(recordings: pa.Table) -> set[str]:
    return set(recordings.column("uri").to_pylist())
