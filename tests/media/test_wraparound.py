"""Wrap-around arithmetic: unwrapping undoes wrapping, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.wraparound import unwrap, unwrap_sequence


@pytest.mark.parametrize(
    ("wrapped", "reference", "bits", "expected"),
    [
        (5, 3, 16, 5),
        (0, 65_535, 16, 65_536),
        (65_535, 65_536, 16, 65_535),
        (65_535, 0, 16, -1),
        (0, (1 << 32) - 1, 32, 1 << 32),
        ((1 << 32) - 960, 1 << 32, 32, (1 << 32) - 960),
        (7, (5 << 32) + 7, 32, (5 << 32) + 7),
        (32_768, 0, 16, -32_768),
        (32_767, 0, 16, 32_767),
    ],
    ids=[
        "same",
        "forward_wrap",
        "back_over_wrap",
        "below_zero",
        "wrap_32",
        "back_32",
        "fifth_round",
        "half",
        "below_half",
    ],
)
def test_unwrap_gives_nearest_number(
    wrapped: int, reference: int, bits: int, expected: int
) -> None:
    assert unwrap(wrapped, reference, bits) == expected


@given(st.sampled_from([16, 32]), st.integers(-(1 << 40), 1 << 40), st.data())
def test_unwrap_inverts_wrap(bits: int, reference: int, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    number = reference + data.draw(st.integers(-half, half - 1))
    assert unwrap(number % (1 << bits), reference, bits) == number


@given(st.sampled_from([16, 32]), st.data())
def test_unwrap_sequence_inverts_wrap(bits: int, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    first = data.draw(st.integers(0, (1 << bits) - 1))
    steps = data.draw(st.lists(st.integers(-half, half - 1), max_size=50))
    numbers = first + np.cumsum([0, *steps])
    wrapped = numbers % (1 << bits)
    unwrapped = unwrap_sequence(
        wrapped.astype(np.uint16) if bits == 16 else wrapped.astype(np.uint32), bits
    )
    assert unwrapped.dtype == np.int64
    assert unwrapped.tolist() == numbers.tolist()


def test_unwrap_sequence_keeps_order_across_wrap() -> None:
    wrapped = np.array([65_534, 65_535, 1, 0, 2], dtype=np.uint16)
    assert unwrap_sequence(wrapped, 16).tolist() == [65_534, 65_535, 65_537, 65_536, 65_538]


def test_unwrap_sequence_of_nothing_is_empty() -> None:
    assert unwrap_sequence(np.zeros(0, dtype=np.uint32), 32).tolist() == []
