"""Thinned points: the least and the greatest stay, and there are never many."""

from __future__ import annotations

import numpy as np
import pytest

from transforms.media.inspection.thinning import Points, ThinnedPoints, thin

MS = 1_000_000


def test_of_each_column_the_lowest_and_the_highest_stay() -> None:
    column = np.array([3, 1, 1, 3, 2, 1, 3])
    height = np.array([5, 4, 9, 1, 7, 6, 3])
    picked = thin(column, height)
    assert [(int(column[at]), int(height[at])) for at in picked] == [
        (1, 4), (1, 9), (2, 7), (3, 1), (3, 5),
    ]  # fmt: skip
    assert thin(column[:0], height[:0]).size == 0


@pytest.mark.parametrize("run_count", [1, 40])
def test_many_points_become_few_and_the_extremes_of_all_stay(run_count: int) -> None:
    rng = np.random.default_rng(7)
    held = ThinnedPoints()
    rate = 300e-6
    for number in range(run_count):
        media_ns = np.arange(400_000 // run_count, dtype=np.int64) * 20 * MS
        value_ns = np.rint(rate * media_ns).astype(np.int64)
        value_ns += rng.integers(0, 30 * MS, len(media_ns))
        value_ns[len(media_ns) // 2] = round(rate * int(media_ns[len(media_ns) // 2])) - 7 * MS
        value_ns[len(media_ns) // 3] += 900 * MS
        windows = [
            Points(media_ns=media_ns[part], value_ns=value_ns[part])
            for part in (slice(0, 5_000), slice(5_000, None))
        ]
        assert held.add(windows, rate) == number
    kept = [held[number].height_ns(rate) for number in range(run_count)]
    assert 10_000 < sum(map(len, kept)) <= 50_000
    for height_ns in kept:
        assert height_ns.min() == pytest.approx(-7 * MS, abs=2)
        assert height_ns.max() >= 900 * MS


def test_few_points_all_stay() -> None:
    held = ThinnedPoints()
    media_ns = np.arange(100, dtype=np.int64) * 20 * MS
    held.add([Points(media_ns=media_ns, value_ns=media_ns % 7)], 0.0)
    held.add([Points(media_ns=media_ns[:0], value_ns=media_ns[:0])], 0.0)
    held.add([], 0.0)
    assert (held[0].media_ns == media_ns).all()
    assert held[1].media_ns.size == held[2].media_ns.size == 0
