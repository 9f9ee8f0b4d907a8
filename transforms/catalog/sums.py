"""Columns as arrays, hashes of them, and sums by group. What is unknown is null, and is not
judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.media.units import Ints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of integers, times in Unix microseconds among them."""

    values: Ints
    """0 where it is unknown."""
    known: Flags


def column(rows: pa.Table, name: str) -> Column:
    """Returns a column of some rows; one that is not there is unknown everywhere."""
    if name not in rows.schema.names:
        nothing = np.zeros(rows.num_rows, dtype=np.int64)
        return Column(values=nothing, known=nothing.astype(np.bool_))
    found = rows.column(name).cast(pa.int64()).combine_chunks()
    return Column(
        values=pc.fill_null(found, 0).to_numpy(zero_copy_only=False),
        known=found.is_valid().to_numpy(zero_copy_only=False),
    )


def is_one_of(rows: pa.Table, name: str, wanted: tuple[str, ...]) -> Flags:
    """Returns for each row whether a column of text has one of some values."""
    found = pc.is_in(rows.column(name), value_set=pa.array(wanted, pa.string()))
    flags: Flags = found.combine_chunks().to_numpy(zero_copy_only=False)
    return flags


def sum_by(group: Ints, values: Ints, groups: int) -> Ints:
    """Returns the exact sum of each group's values."""
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, values)
    return total


def extreme_by(group: Ints, found: Column, groups: int, *, largest: bool) -> Column:
    """Returns the largest or the least known value of each group; unknown where it has none."""
    of_group, values = group[found.known], found.values[found.known]
    ends = np.iinfo(np.int64)
    extreme = np.full(groups, ends.min if largest else ends.max, dtype=np.int64)
    (np.maximum if largest else np.minimum).at(extreme, of_group, values)
    known = np.bincount(of_group, minlength=groups) > 0
    return Column(values=np.where(known, extreme, 0), known=known)


def text_hashes(texts: Iterable[str]) -> Ints:
    """Returns 64 bits for each text, by which it is known again in the memory of a number."""
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.frombuffer(digests, dtype=np.int64)
