"""Points of a drawing, thinned to what it can show: of each column the least and the greatest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints, Reals

_MOST_POINTS = 50_000
"""Of one track; a drawing is some thousand pixels wide."""
_FIRST_COLUMN_NS = 20 * NS_PER_MS
_WIDEST_COLUMN_NS = 3_600 * NS_PER_SECOND


def thin(column: Ints, height: Ints | Reals) -> Ints:
    """Returns the indices of the lowest and the highest point of each column, by columns.

    Args:
      column: that each point lies in.
      height: of each point; shape (points,) both.
    """
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((height, column))
    firsts = np.flatnonzero(np.diff(column[order], prepend=column[order[0]] - 1))
    lasts = np.append(firsts[1:], len(order)) - 1
    picked: Ints = order[np.union1d(firsts, lasts)]
    return picked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Points of one packet run; shape (points,) each."""

    media_ns: Ints
    value_ns: Ints
    """What is shown over media time, before the clock's rate is taken off."""

    def height_ns(self, rate: float) -> Reals:
        """Returns the values less those of a line of a slope through 0."""
        height: Reals = self.value_ns - rate * self.media_ns
        return height


class ThinnedPoints:
    """Points of the packet runs of one track. Memory holds some ten thousand, however many come."""

    def __init__(self) -> None:
        self._column_ns = _FIRST_COLUMN_NS
        self._runs: list[tuple[Points, float]] = []
        """Of each packet run its points, and the slope by which they are compared."""
        self._count = 0

    def add(self, windows: Iterable[Points], rate: float) -> int:
        """Takes the points of a packet run; returns its number, from 0.

        Args:
          windows: its points, some at a time; of none it has none.
          rate: slope of the line that they lie along.
        """
        none = np.zeros(0, dtype=np.int64)
        self._runs.append((Points(media_ns=none, value_ns=none), rate))
        for window in windows:
            held, thinned = self._runs[-1][0], self._thinned(window, rate)
            joined = Points(
                media_ns=np.concatenate([held.media_ns, thinned.media_ns]),
                value_ns=np.concatenate([held.value_ns, thinned.value_ns]),
            )
            self._runs[-1] = (joined, rate)
            self._count += len(thinned.media_ns)
            while self._count > _MOST_POINTS and self._column_ns < _WIDEST_COLUMN_NS:
                self._column_ns *= 2
                self._runs = [(self._thinned(each, slope), slope) for each, slope in self._runs]
                self._count = sum(len(each.media_ns) for each, _ in self._runs)
        return len(self._runs) - 1

    def __getitem__(self, number: int) -> Points:
        """Returns what is left of a packet run's points."""
        return self._runs[number][0]

    def _thinned(self, points: Points, rate: float) -> Points:
        picked = thin(points.media_ns // self._column_ns, points.height_ns(rate))
        return Points(media_ns=points.media_ns[picked], value_ns=points.value_ns[picked])
