"""What came of many random worlds, and what is to be reached. Shared by tests and benchmarks."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tests.support.worlds.draw import draw_world
from tests.support.worlds.judge import ERROR_EDGES_MS, Missing, Pressed, RowResult, press_world
from tests.support.worlds.model import Ints
from tests.support.worlds.ranges import WorldClass

WORST = 10
LEAST_HELD = {
    WorldClass.LOSSLESS: 0.995,
    WorldClass.REALISTIC: 0.995,
    WorldClass.NO_REPORTS: 0.99,
    WorldClass.SHORT: 0.99,
    WorldClass.WILD: 0.97,
}
"""Share of rows of which the bound holds."""
MOST_EXCESS_MS = {WorldClass.REALISTIC: 50.0, WorldClass.WILD: 1_000.0}
"""How far an error may lie past its bound."""


@dataclass
class Summary:
    """Rows of one class, or of a group within it that is counted apart."""

    worlds: int = 0
    rows: list[tuple[int, RowResult]] = field(default_factory=list)
    """Each with the seed of its world; without its counts."""
    counts: Ints = field(default_factory=lambda: np.zeros(len(ERROR_EDGES_MS), np.int64))
    """Judged packets by error."""
    report_counts: Ints = field(default_factory=lambda: np.zeros(len(ERROR_EDGES_MS), np.int64))
    """Of those in dumps that hold reports and offsets."""
    close: int = 0
    report_close: int = 0
    received: int = 0
    missing: list[tuple[int, Missing]] = field(default_factory=list)
    """Each with the seed of its world."""

    def add(self, seed: int, row: RowResult) -> None:
        """Takes a row."""
        self.rows.append((seed, replace(row, counts=())))
        for place, count in row.counts:
            self.counts[place] += count
            if row.has_reports:
                self.report_counts[place] += count
        self.close += row.close
        self.report_close += row.close if row.has_reports else 0

    @property
    def held(self) -> float:
        """Share of rows of which the bound holds."""
        return _share(sum(row.excess_ms <= 0 for _, row in self.rows), len(self.rows))

    @property
    def floor_held(self) -> float:
        """The same by the second truth."""
        return _share(sum(row.floor_excess_ms <= 0 for _, row in self.rows), len(self.rows))

    @property
    def close_share(self) -> float:
        """Share of packets within 5 ms."""
        return _share(self.close, int(self.counts.sum()))

    @property
    def report_close_share(self) -> float:
        """The same where the dump holds reports and offsets."""
        return _share(self.report_close, int(self.report_counts.sum()))

    @property
    def largest_excess_ms(self) -> float:
        """How far any error lies past its bound."""
        return max((row.excess_ms for _, row in self.rows), default=0.0)

    @property
    def untold_count(self) -> int:
        """Packets with audio that are neither placed nor told of."""
        return sum(each.untold for _, each in self.missing)

    def error_ms(self, percent: float, *, with_reports: bool = False) -> float:
        """Returns a percentile of the error over packets."""
        counts = self.report_counts if with_reports else self.counts
        total = counts.cumsum()
        if not total[-1]:
            return 0.0
        return float(ERROR_EDGES_MS[np.searchsorted(total, total[-1] * percent / 100)])

    def bound_ms(self, percent: float, *, by_media: bool = False) -> float:
        """Returns a percentile of the bound over rows, or over their media."""
        if not self.rows:
            return 0.0
        bounds = np.array([row.bound_ms for _, row in self.rows])
        weights = np.array([row.media_ms if by_media else 1.0 for _, row in self.rows])
        order = np.argsort(bounds)
        total = weights[order].cumsum()
        return float(bounds[order][np.searchsorted(total, total[-1] * percent / 100)])

    def worst(self, count: int = WORST) -> list[tuple[int, RowResult, int]]:
        """Returns the tracks whose errors lie furthest past their bounds: seed, the worst row, and
        how many rows of the track do not hold.
        """
        of_track: dict[tuple[int, str], list[RowResult]] = {}
        for seed, row in self.rows:
            if row.excess_ms > 0:
                of_track.setdefault((seed, row.participant_id), []).append(row)
        found = [
            (seed, max(rows, key=lambda row: row.excess_ms), len(rows))
            for (seed, _), rows in of_track.items()
        ]
        return sorted(found, key=lambda each: -each[1].excess_ms)[:count]


def press_seed(kind: WorldClass, seed: int) -> Pressed:
    """Draws a world and presses it in a folder that is taken away."""
    with tempfile.TemporaryDirectory() as name:
        return press_world(draw_world(seed, kind), Path(name))


def _share(count: int, of: int) -> float:
    return count / of if of else 1.0
