"""Fields of many records at once: like reading them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.buffers import rows_at

FIELDS = np.dtype([("first", "u1"), ("word", ">u4"), ("half", ">u2")])


@given(st.binary(max_size=40), st.data())
def test_rows_are_what_lies_there_and_zeros_behind_the_end(
    data: bytes, draw: st.DataObject
) -> None:
    positions = draw.draw(st.lists(st.integers(0, len(data) + 10), max_size=20))
    rows = rows_at(np.frombuffer(data, dtype=np.uint8), np.array(positions, dtype=np.int64), FIELDS)
    for row, position in zip(rows, positions, strict=True):
        taken = data[position : position + 7].ljust(7, b"\0")
        assert (row["first"], row["word"], row["half"]) == (
            taken[0],
            int.from_bytes(taken[1:5], "big"),
            int.from_bytes(taken[5:], "big"),
        )


@pytest.mark.parametrize("count", [0, 1, 1_000])
def test_rows_are_a_copy(count: int) -> None:
    buffer = np.arange(200, dtype=np.uint8)
    rows = rows_at(buffer, np.full(count, 3, dtype=np.int64), FIELDS)
    buffer[:] = 0
    assert len(rows) == count
    assert (rows["first"] == 3).all()
