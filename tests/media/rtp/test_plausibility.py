"""What of a dump is believed: arrivals, sources, runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media import caps
from transforms.media.rtp.plausibility import longest, main_sources, mend_arrivals


def mended(*offsets: int) -> tuple[list[int], int]:
    found, count = mend_arrivals(np.array(offsets, dtype=np.int64))
    return found.tolist(), count


@pytest.mark.parametrize(
    "offsets",
    [(), (5,), (0, 20, 40), (0, 20, 15, 40), (0, 15_000, 5_001, 15_020), (0, 20, 4_000_000_000)],
    ids=["none", "one", "rising", "a_little_back", "ten_seconds_back", "far_ahead"],
)
def test_arrivals_of_a_recorder_are_left_alone(offsets: tuple[int, ...]) -> None:
    assert mended(*offsets) == (list(offsets), 0)


@pytest.mark.parametrize(
    ("offsets", "expected", "count"),
    [
        ((0, 20, 4_000_000_000, 60, 80), [0, 20, 20, 60, 80], 1),
        ((30_000, 30_020, 0, 30_060), [30_000, 30_020, 30_020, 30_060], 1),
        ((4_000_000_000, 20, 40, 60), [20, 20, 40, 60], 1),
        (
            (90_000, 90_010, 5, 90_020, 6, 90_040),
            [90_000, 90_010, 90_010, 90_020, 90_020, 90_040],
            2,
        ),
        ((60_000, 40_000, 20_000, 0), [60_000, 60_000, 60_000, 60_000], 4),
    ],
    ids=["ahead", "back", "first", "two", "falling"],
)
def test_arrivals_out_of_line_are_those_before_or_none_is_believed(
    offsets: tuple[int, ...], expected: list[int], count: int
) -> None:
    assert mended(*offsets) == (expected, count)


def test_clock_set_back_costs_the_packets_around_it_only() -> None:
    before, after = np.arange(0, 200_000, 20), np.arange(180_000, 400_000, 20)
    found, count = mend_arrivals(np.concatenate([before, after]))
    assert count == 1_000 - 1  # those of 20 s
    assert (np.diff(found) >= 0).all()
    assert found[-1] == after[-1]


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=60))
def test_mended_arrivals_rise_or_were_left_alone(offsets: list[int]) -> None:
    found, count = mended(*offsets)
    assert len(found) == len(offsets)
    assert found == sorted(found) if count else found == offsets
    assert set(found) <= set(offsets)


def test_sources_with_the_most_packets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "MAX_SOURCES", 2)
    assert main_sources(np.array([7, 7, 9, 9, 9], dtype=np.uint32)).all()
    assert main_sources(np.array([1, 7, 7, 9, 9, 9, 3], dtype=np.uint32)).tolist() == [
        False,
        *[True] * 5,
        False,
    ]


def test_longest_are_given_in_their_order() -> None:
    assert longest([5, 1, 9, 3], 2) == [0, 2]
    assert longest([2, 2, 2], 2) == [0, 1]
    assert longest([1, 2], 5) == [0, 1]
