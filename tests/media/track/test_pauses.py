"""Long pauses are left out of a file; packets never are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.media import as_windows
from transforms.media.track.pauses import leave_out_pauses, longest_pause_that_fits
from transforms.media.track.timeline import Hole, PlacedPacket

SECOND = 48_000


def placed(holes: Sequence[int], duration: int = 960) -> list[PlacedPacket]:
    """Returns packets of one piece with these holes before them, in samples."""
    packets, position = [], 0
    for number, hole in enumerate(holes):
        position += hole
        kind = Hole.BETWEEN_PACKET_RUNS if number == 0 else Hole.DTX if hole else Hole.NONE
        packets.append(PlacedPacket(0, position, position, duration, kind, hole, b"\xf8"))
        position += duration
    return packets


@given(
    st.lists(st.integers(0, 40_000_000), min_size=1, max_size=40),
    st.sampled_from([5_760, SECOND, 600 * SECOND]),
)
def test_packets_stay_in_order_and_pauses_are_accounted_for(holes: list[int], longest: int) -> None:
    packets = placed(holes)
    windows = list(leave_out_pauses(as_windows(packets), longest))
    start = np.concatenate([window.start_sample for window in windows])
    hole = np.concatenate([window.hole_samples for window in windows])
    left_out = np.concatenate([window.left_out_samples for window in windows])
    assert start.tolist() == (np.cumsum(hole) + 960 * np.arange(len(holes))).tolist()
    assert (hole + left_out).tolist() == holes
    for before, after, gone in zip(holes, hole.tolist(), left_out.tolist(), strict=True):
        assert after == (before if before <= longest else min(longest, SECOND))
        assert (gone > 0) == (before > longest)


@pytest.mark.parametrize(
    ("allowed_seconds", "longest_seconds"),
    [(5_000, 600), (1_500, 600), (1_200, 60), (100, 10), (10, 1), (1, 0.12), (0.1, 0.12)],
)
def test_no_more_is_left_out_than_has_to_be(allowed_seconds: float, longest_seconds: float) -> None:
    holes = [0, *(SECOND * seconds for seconds in (1_000, 600, 600, 60, 30, 5, 5, 0.5))]
    windows = as_windows(placed([round(hole) for hole in holes]))
    longest = longest_pause_that_fits(windows, round(allowed_seconds * SECOND))
    assert longest == round(longest_seconds * SECOND)


def test_shortest_packets_fit_into_fifty_times_their_length() -> None:
    packets = placed([0] + [10**9] * 100, duration=120)
    *_, window = leave_out_pauses(as_windows(packets), longest_pause_that_fits([], -1))
    assert window.start_sample[-1] + 120 <= 50 * len(packets) * 120
