"""What rows of a table have in common: whose they are, in which order they lie, which columns only
a later version knows. As arrays: a full shard's keys as Python text would take more memory than all
its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
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
    one comes before all others, one that nobody refused behind them, then that which was sent more
    often, then that written last. So in whatever order rows are merged, and however often, what was
    delivered or refused stays so, and an event that is published again is not pending again.
    """
    is_delivered = pc.equal(rows.column("state"), "delivered").fill_null(False)
    return [
        unix_us(rows, "updated_at"),
        _attempts(rows),
        (~_is_withdrawn(rows)).astype(np.int64),
        is_delivered.cast(pa.int64()).combine_chunks().to_numpy(),
    ]


def sent_as_before(rows: pa.Table, chosen: Ints, number: Ints) -> pa.Table:
    """Returns the chosen rows of `notices`, of each key one, in their order. What was sent before
    its file was replaced goes out again as it went then, should the same file be there again.

    Args:
      rows: all of them.
      chosen: which; sorted.
      number: of each row, that of its key.
    """
    attempts, state = _attempts(rows), rows.column("state")
    is_sent = _is_withdrawn(rows) & (attempts > 0)
    before = np.full(int(number.max(initial=-1)) + 1, -1)
    before[number[is_sent]] = np.flatnonzero(is_sent)
    is_new = (
        pc.equal(state, "pending").fill_null(False).combine_chunks().to_numpy(zero_copy_only=False)
    )
    found = before[number[chosen]]
    takes = (found >= 0) & is_new[chosen] & (attempts[chosen] == 0)
    source = pa.array(np.where(takes, found, chosen))
    taken = rows.take(pa.array(chosen))
    for name in ("attempts", "body"):
        place = rows.schema.get_field_index(name)
        taken = taken.set_column(place, rows.schema.field(name), rows.column(name).take(source))
    return taken


def _attempts(rows: pa.Table) -> Ints:
    found: Ints = rows.column("attempts").fill_null(0).combine_chunks().to_numpy()
    return found


def _is_withdrawn(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Returns which rows of `notices` are not sent because of what we found, such as that their
    file was replaced, and not because of what the target answered.
    """
    is_failed = pc.equal(rows.column("state"), "failed").fill_null(False)
    is_ours = pc.and_(is_failed, rows.column("http_status").is_null())
    found: npt.NDArray[np.bool_] = is_ours.combine_chunks().to_numpy(zero_copy_only=False)
    return found
