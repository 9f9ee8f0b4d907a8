"""What the height and the width of a drawing stand for, and the numbers at its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.inspection.drawn_run import DrawnRun, extremes
from transforms.media.units import NS_PER_MS, Ints, Reals

_LEAST_SEEN_MS = 24.0
_LEAST_LAID_MS = 12.0
_MOST_BOUND_MS = 120.0
"""A piece in greater doubt fills the lower panel."""


@dataclass(slots=True)
class Panel:
    """A frame, and what its height stands for."""

    top: float
    bottom: float
    low_ms: float = 0.0
    high_ms: float = 1.0

    def y(self, ms: float) -> float:
        """Returns where a height is drawn; what lies far beyond the panel is brought near it."""
        at = self.bottom - (ms - self.low_ms) / (self.high_ms - self.low_ms) * (
            self.bottom - self.top
        )
        return min(max(at, self.top - 20), self.bottom + 20)


def scale_panels(
    seen: Panel, laid: Panel, runs: Sequence[DrawnRun], columns: Sequence[Ints]
) -> None:
    """Makes room for what matters: lines, floors, reports near them, and most packets.

    A queue of seconds would make all else flat: what lies far from all lines is cut off.

    Args:
      seen: the upper panel.
      laid: the lower panel.
      runs: what is drawn.
      columns: of each of them, the column that each packet is drawn in.
    """
    lines, edges, floors, bounds = [0.0], [0.0], [0.0], [0.0]
    for drawn in runs:
        for plateau in drawn.run.clock.plateaus:
            floors += [drawn.floor_ms(x, y) for x, y in (plateau.hull[0], plateau.hull[-1])]
        for number, piece in enumerate(drawn.run.pieces):
            bounds.append(piece.sync_error_ns / NS_PER_MS)
            for sample in (piece.media_start_sample, drawn.run.stop_sample_of(number)):
                lines.append(drawn.line_ms(piece, sample))
                edges += [lines[-1] - bounds[-1], lines[-1] + bounds[-1]]
    low, high = min(lines), max(lines)
    near = max(0.3 * (high - low), _LEAST_SEEN_MS)
    far = max(high - low, _MOST_BOUND_MS)
    wide = (low - far, high + far)
    reports = np.concatenate([drawn.report_ms for drawn in runs])
    reports = reports[(reports > wide[0]) & (reports < wide[1])]
    found = [
        *np.clip(edges, low - near, high + near).tolist(),
        *np.clip(floors, *wide).tolist(),
        *reports.tolist(),
    ]
    most = _percentile([drawn.seen_ms for drawn in runs], columns, 1, 80)
    least = _percentile([drawn.seen_ms for drawn in runs], columns, 0, 97)
    # Where packets stay far above all lines for long, these lie wrong: that has to be seen.
    usual = max(min(most, high + far / 2), min(least, high + 5 * far))
    seen.low_ms, seen.high_ms = _with_margin(min(found), max(*found, usual), _LEAST_SEEN_MS)
    bound = min(max(bounds), _MOST_BOUND_MS)
    behind = [drawn.laid_ms for drawn in runs]
    low = min(-bound, max(_percentile(behind, columns, 0, 3), -2 * _MOST_BOUND_MS))
    high = max(bound, min(_percentile(behind, columns, 0, 97), 2 * _MOST_BOUND_MS), 8.0)
    laid.low_ms, laid.high_ms = _with_margin(low, high, _LEAST_LAID_MS)


def _percentile(heights: Sequence[Reals], columns: Sequence[Ints], end: int, percent: int) -> float:
    """Returns a percentile of the lowest (end 0) or the highest (end 1) points of all columns."""
    found = [
        height[extremes(column, height)[end]]
        for height, column in zip(heights, columns, strict=True)
    ]
    every = np.concatenate([[0.0], *found])
    return float(np.percentile(every, percent))


def _with_margin(low: float, high: float, least: float) -> tuple[float, float]:
    high = max(high, low + least)
    margin = 0.08 * (high - low)
    return low - margin, high + margin


def ticks(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between two."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    return [
        round(number * step, 6)
        for number in range(math.ceil(low / step), math.floor(high / step) + 1)
    ]


_TIME_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)


def time_ticks(span_s: float) -> list[float]:
    """Returns round moments within a span, in seconds."""
    step = next((step for step in _TIME_STEPS_S if span_s / step <= 12), 0.0)
    if not step:
        step = 3_600.0 * math.ceil(span_s / 3_600 / 12)
    return [number * step for number in range(math.floor(span_s / step) + 1)]
