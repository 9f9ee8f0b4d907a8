"""What rows of a table have in common: whose they are, in which order they lie, which columns only
a later version knows. As arrays: a full shard's keys as Python text would take more memory than all
its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog.schema import KEYS, SCHEMAS
from transforms.media.units import Ints


def later_columns(rows: pa.Table, table: str) -> list[str]:
    """Returns the names of the columns that only a later version knows."""
    return [name for name in rows.schema.names if name not in SCHEMAS[table].names]


def owner_columns(columns: Collection[str]) -> list[str]:
    """Returns those of some columns that tell what a row belongs to."""
    names = ("call_type", "call_id", "call_session_id", "archive_uri", "run_id")
    return [name for name in names if name in columns]


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


def sorted_by_key(table: str, rows: pa.Table) -> pa.Table:
    """Returns rows in the order of their keys; nulls come first."""
    keys: dict[str, Any] = {}
    for name in KEYS[table]:
        keys |= {f"has {name}": pc.is_valid(rows.column(name)), name: rows.column(name)}
    return rows.take(
        pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    )


def unix_us(rows: pa.Table, name: str) -> Ints:
    """Returns a column of times as Unix microseconds; 0 for null."""
    found: Ints = rows.column(name).cast(pa.int64()).fill_null(0).combine_chunks().to_numpy()
    return found


def furthest(rows: pa.Table) -> list[Ints]:
    """Returns what ranks rows of `notices` that have one key, the most important last: a delivered
    one comes before all others, then that which was sent more often, then that written last. So in
    whatever order rows are merged, and however often, what was delivered stays delivered, and an
    event that is published again is not pending again.
    """
    is_delivered = pc.equal(rows.column("state"), "delivered").fill_null(False)
    return [
        unix_us(rows, "updated_at"),
        rows.column("attempts").fill_null(0).combine_chunks().to_numpy(),
        is_delivered.cast(pa.int64()).combine_chunks().to_numpy(),
    ]
