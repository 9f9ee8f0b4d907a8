"""Which of the steps between two sender reports make the sum that these show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.units import NS_PER_MS

# What a set costs, beside the square of what its sum is off by, in tolerances.
_COST_TAKEN = 0.5
"""Of each step in it: captures stand still seldom."""
_COST_GRADUAL = 3.0
"""Of a ramp in it, too: a capture that stood still is missed at once."""
_COST_OUTSIDE = 1.5
"""Of a step in it, too, that only begins or ends between the reports."""
_COST_LEFT_OUT = 0.7
"""Of a sharp step left out: a path changes seldom by `_LARGE_NS` or more, by less more often."""
_LARGE_NS = 60 * NS_PER_MS
_ABOUT_AS_GOOD = 2.5
"""Sets that cost no more than this above the best are its rivals."""
_EXACT_NS = 8 * NS_PER_MS
"""With a larger tolerance costs tell nothing: all sets that fit are rivals."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A step that may be a stall."""

    size_ns: int
    slack_ns: int
    """How much less it may be: what a queue added to it meanwhile."""
    noise_ns: float
    """What it is off by, more or less."""
    is_gradual: bool
    """Whether it came little by little."""
    is_outside: bool
    """Whether it lies before the first report of all, or behind the last one."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The set that explains best what reports show."""

    is_in: tuple[bool, ...]
    """Of each candidate."""
    doubt_ns: tuple[int, ...]
    """By how much other sets that fit as well would move what is between this candidate and the
    next.
    """


def explain(candidates: Sequence[Candidate], lag_ns: float, tolerance_ns: float) -> Choice | None:
    """Returns the set of steps whose sum is what the sender's clock shows; None if there is none.

    A set holds only steps of the sign of the sum: a rise that a fall takes back was the network's.

    Args:
      candidates: in order.
      lag_ns: how far media time fell behind the sender's wall clock.
      tolerance_ns: what sums are off by.
    """
    sizes = np.array([step.size_ns for step in candidates], dtype=np.float64)
    is_in = (np.arange(1 << len(sizes))[:, None] >> np.arange(len(sizes))) & 1
    alike = sizes * lag_ns > 0
    is_in = is_in[~(is_in & ~alike).any(axis=1)]
    # Of a stall in which a report was sent that report knows a part.
    slack = np.array(
        [abs(step.size_ns) if step.is_outside else step.slack_ns for step in candidates],
        dtype=np.float64,
    )
    over_ns = np.abs(is_in @ sizes) - abs(lag_ns)
    off_ns = np.where(over_ns > 0, np.maximum(0.0, over_ns - is_in @ slack), -over_ns)
    # Several sums in whole ms are off by a little more.
    noise = np.array([step.noise_ns for step in candidates])
    most_ns = tolerance_ns * np.sqrt(np.maximum(1, is_in.sum(axis=1))) + is_in @ noise
    fits = off_ns <= most_ns
    if not fits.any():
        return None
    is_in, off = is_in[fits], off_ns[fits] / tolerance_ns
    gradual = np.array([step.is_gradual for step in candidates], dtype=np.float64)
    outside = np.array([step.is_outside for step in candidates], dtype=np.float64)
    left_out = (1 - gradual) * (1 - outside) * np.minimum(1.0, np.abs(sizes) / _LARGE_NS)
    left_out *= _COST_LEFT_OUT
    cost = (
        np.square(off)
        + is_in @ (_COST_TAKEN + gradual * _COST_GRADUAL + outside * _COST_OUTSIDE)
        + (1 - is_in) @ left_out
    )
    best = int(cost.argmin())
    # Reports that are far apart leave all that fit.
    is_exact = tolerance_ns <= _EXACT_NS
    others = is_in[cost <= cost[best] + _ABOUT_AS_GOOD] if is_exact else is_in
    # What lies outside the reports and is not taken stays unknown: its doubt is counted as such.
    counted = np.where((outside > 0) & (is_in[best] == 0), 0.0, sizes)
    so_far = np.cumsum(others * counted, axis=1)
    doubt_ns = np.abs(so_far - np.cumsum(is_in[best] * counted)).max(axis=0)
    doubt_ns[-1] = 0.0  # behind the last one all sums are what reports show
    return Choice(
        tuple(map(bool, is_in[best].tolist())), tuple(np.rint(doubt_ns).astype(int).tolist())
    )
