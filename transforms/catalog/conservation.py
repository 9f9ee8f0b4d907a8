"""Whether every record of every dump is accounted for: what a row of `dumps` counts, and what the
rows above it add up to.

Goes by the names of the columns that are there: a later version may have fates that this one does
not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from transforms.catalog.shards import CALL, DUMPS, SESSION, Shard, number_together
from transforms.catalog.sums import Flags, column, extreme_by, sum_by
from transforms.media.units import Ints

RECORDS = "records"
FATE_PREFIX = "records_"
"""Columns that begin with it: how many records of a dump met one fate."""
SUMMED = ("claimed_ms", "found_ms", "missing_ms")
_TRACK_TELLERS = ("output_type", "track_type", "part")
"""Columns that tell the tracks of a session apart, where both tables have them."""

Finding = tuple[str, Flags, Callable[[int], str]]
"""The table, which of its rows are wrong, and what is, by the number of a row."""


def check(shard: Shard) -> Iterator[Finding]:
    """Yields what does not add up in a shard. Catalogs and rows without these columns pass."""
    dumps, tracks, calls = shard.rows[DUMPS], shard.rows["tracks"], shard.rows["calls"]
    if RECORDS in dumps.schema.names:
        yield _check_records(dumps)
    if set(SESSION) <= set(dumps.schema.names):
        for name in set(SUMMED) & set(dumps.schema.names) & set(tracks.schema.names):
            columns = (
                *SESSION,
                *(each for each in _TRACK_TELLERS if _both_have(each, dumps, tracks)),
            )
            yield _check_sum("tracks", tracks, DUMPS, dumps, name, columns)
    for name in set(SUMMED) & set(tracks.schema.names) & set(calls.schema.names):
        table, bad, what = _check_sum("calls", calls, "tracks", tracks, name, CALL)
        yield table, bad & ~_are_newer(tracks, calls), what


def _both_have(name: str, one: pa.Table, other: pa.Table) -> bool:
    return name in one.schema.names and name in other.schema.names


def _check_records(dumps: pa.Table) -> Finding:
    fates = [name for name in dumps.schema.names if name.startswith(FATE_PREFIX)]
    records = column(dumps, RECORDS)
    of_fates = [column(dumps, name) for name in fates]
    total = sum((fate.values for fate in of_fates), np.zeros(dumps.num_rows, dtype=np.int64))
    # A row of a version that counted nothing has null in all.
    judged = records.known & np.any([fate.known for fate in of_fates] or [records.known], axis=0)

    def what(row: int) -> str:
        name = dumps.column("base_filename")[row] if "base_filename" in dumps.schema.names else ""
        return (
            f"records of dump {str(name)!r} are {records.values[row]}, their fates add up to "
            f"{total[row]}"
        )

    return DUMPS, judged & (records.values != total), what


def _are_newer(tracks: pa.Table, calls: pa.Table) -> Flags:
    """Returns which calls have tracks newer than their row: a run about some tracks only leaves
    that as it was.
    """
    if not calls.num_rows:
        return np.zeros(0, dtype=np.bool_)
    own, others = number_together([calls, tracks.select(CALL)], CALL)
    groups = int(max(own.max(initial=-1), others.max(initial=-1))) + 1
    newest = extreme_by(others, column(tracks, "created_at"), groups, largest=True)
    made = column(calls, "created_at")
    return made.known & newest.known[own] & (newest.values[own] > made.values)


def _check_sum(
    table: str, rows: pa.Table, of: str, parts: pa.Table, name: str, columns: tuple[str, ...]
) -> Finding:
    """Returns the rows of a table that are not the sum of those of another; several rows that the
    columns do not tell apart are judged together.
    """
    if not rows.num_rows:
        return table, np.zeros(0, dtype=np.bool_), str
    own, others = number_together([rows, parts.select(columns)], columns)
    groups = int(max(own.max(initial=-1), others.max(initial=-1))) + 1
    stated, found = column(rows, name), column(parts, name)
    total = sum_by(others, found.values, groups)
    sums = sum_by(own, stated.values, groups)
    unknown: Ints = np.bincount(own[~stated.known], minlength=groups)
    # A part that an earlier version made does not say: the sum cannot be told.
    unknown = unknown + np.bincount(others[~found.known], minlength=groups)

    def what(row: int) -> str:
        group = own[row]
        return f"{name} of {table} is {sums[group]}, its rows of {of} add up to {total[group]}"

    return table, (unknown[own] == 0) & (sums[own] != total[own]), what
