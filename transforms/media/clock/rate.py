"""How fast a sender's media clock runs against the server's: by its arrivals, and by its reports.

Arrivals tell it by the linear program of Moon, Skelly and Towsley ("Estimation and Removal of Clock
Skew from Network Delay Measurements", INFOCOM 1999): of all lines below every delay the one nearest
to them. A queue that fills slowly tilts it. Sender reports tell it without a network, as far as the
sender's wall clock runs as the server's does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import (
    LEAST_STEP_NS,
    MAX_SKEW,
    USUAL_WALL_CLOCK_RATE,
    WALL_CLOCK_RATE,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, samples_to_ns

NOMINAL_RATE_ERROR = 500e-6
"""What most senders are off by at most; a rate that is known no better says nothing."""
_USUAL_RATE = 50e-6
_NOT_SURE = 3
_HARDLY_SURE = 5
"""Times the sway of the least delays, below which a rate may be all of the network's."""
_CLEAR_ERROR = 100e-6
"""Plateaus that tell the rate by themselves need no common level."""
_LONGEST_DRIFT_NS = 300 * NS_PER_SECOND
"""No queue fills evenly for so long, and no path goes on changing."""
_RESOLUTION_NS = NS_PER_MS
"""rtpdump counts arrivals in whole ms."""
_LONG_PLATEAU_NS = 3 * NS_PER_SECOND
"""Packets that came late together, or could not overtake each other, tell no slope."""


@dataclass(frozen=True, slots=True)
class Skew:
    """How a sender's clock runs against the server's."""

    rate: float
    """How much slower it runs, as a part of one."""
    error: float
    """By how much the rate may be off."""


def reported_rate(packet_runs: Sequence[PacketRunClock]) -> Skew | None:
    """Returns the rate by the sender reports of all packet runs; None where none tell."""
    known = [
        Skew(*found.report_rate)
        for found in packet_runs
        if found.report_rate is not None and abs(found.report_rate[0]) <= MAX_SKEW
    ]
    if not known:
        return None
    weights = [1 / skew.error**2 for skew in known]
    rate = sum(skew.rate * w for skew, w in zip(known, weights, strict=True)) / sum(weights)
    return Skew(rate, min(skew.error for skew in known))


def nominal_rate_error(plateaus: Sequence[Plateau], reported: Skew | None) -> float:
    """Returns by how much the nominal rate may be off."""
    if reported is not None and reported.error < NOMINAL_RATE_ERROR:
        return min(abs(reported.rate) + reported.error, MAX_SKEW)
    known = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    seen = _fit_lines([[plateau] for plateau in known]) if known else Skew(0.0, math.inf)
    is_fast = abs(seen.rate) - seen.error > NOMINAL_RATE_ERROR
    return abs(seen.rate) + seen.error if is_fast else NOMINAL_RATE_ERROR


def fit_rate(plateaus: Sequence[Plateau], reported: Skew | None) -> Skew | None:
    """Returns the slope of the lines nearest below all plateaus; None when it cannot be known.

    A queue that builds slowly tilts them: what reports deny is not taken. A slope that no sound
    card has counts as unknown. Plateaus of less than 3 s are ramps of a queue, and tell no slope.
    Those between which a queue came and went share a line.
    """
    known = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    usable = [
        plateau
        for plateau in known
        if samples_to_ns(plateau.media_stop_sample - plateau.media_start_sample) >= _LONG_PLATEAU_NS
    ] or known
    sure = reported if reported and reported.error < NOMINAL_RATE_ERROR else None
    if not usable:
        return sure
    lines = [[plateau] for plateau in usable]
    skew = _fit_lines(lines)
    joined: list[list[Plateau]] = []
    for plateau in usable:
        if (
            joined
            and skew.error > _CLEAR_ERROR
            and plateau.evidence in (StepEvidence.DENIED, StepEvidence.GRADUAL)
        ):
            before = joined[-1][-1]
            step_ns = abs(plateau.least_delay_ns(skew.rate) - before.least_delay_ns(skew.rate))
            distance_ns = abs(plateau.mean_media_ns - before.mean_media_ns)
            if step_ns < LEAST_STEP_NS + skew.error * distance_ns:
                joined[-1].append(plateau)
                continue
        joined.append([plateau])
    if len(joined) < len(lines):
        skew = _fit_lines(joined)
    sway = _sway(joined, skew.rate)
    seen = Skew(skew.rate, max(skew.error, sway))
    if sure:
        length_ns = samples_to_ns(sum(p.media_stop_sample - p.media_start_sample for p in usable))
        return _between(seen, sure, is_long=length_ns >= _LONGEST_DRIFT_NS)
    if abs(seen.rate) <= _NOT_SURE * sway:
        # A sender is seldom so far off: more likely a queue that fills slowly tilts the line.
        share = _USUAL_RATE**2 / (_USUAL_RATE**2 + sway**2)
        seen = Skew(seen.rate * share, seen.error)
    if abs(seen.rate) > MAX_SKEW or seen.error > NOMINAL_RATE_ERROR:
        return None
    if abs(seen.rate) <= _HARDLY_SURE * sway:
        # A path that became slower for good does it as well: then the clock is hardly off.
        seen = Skew(seen.rate, max(seen.error, abs(seen.rate)))
    return seen


def _between(seen: Skew, said: Skew, *, is_long: bool) -> Skew:
    """Returns the rate by arrivals and by reports, each as far as it is sure.

    Args:
      seen: by arrivals.
      said: by reports.
      is_long: whether no path or queue changes evenly for as long as there are arrivals.
    """
    said_error = said.error + USUAL_WALL_CLOCK_RATE
    apart = abs(seen.rate - said.rate)
    if apart > seen.error + said.error + WALL_CLOCK_RATE:
        if is_long and apart > _NOT_SURE * seen.error:
            return seen  # no path goes on for so long: the wall clock runs as the media clock does
        # What came to stay was a path's, or the wall clock is none: most senders are hardly off.
        nearer = min(seen, said, key=lambda skew: abs(skew.rate))
        return Skew(nearer.rate, max(nearer.error, apart))
    total = seen.error**-2 + said_error**-2
    rate = (seen.rate * seen.error**-2 + said.rate * said_error**-2) / total
    return Skew(rate, max(total**-0.5, min(seen.error, abs(seen.rate - rate))))


def _sway(lines: Sequence[Sequence[Plateau]], rate: float) -> float:
    """Returns by how much the rate may be off as the network's least delay is not the same all the
    time.

    It shows where lines end above their level on one side, and where delays stay off it for long.
    """
    off_ns = lifted_ns = length_ns = 0.0
    for line in lines:
        known = [plateau for plateau in line if plateau.ends and plateau.mean_floor]
        if not known:
            continue
        (first_x, first_y), (last_x, last_y) = known[0].ends[0], known[-1].ends[1]
        length_ns += last_x - first_x
        off_ns += max(0.0, abs(last_y - first_y - rate * (last_x - first_x)) - _RESOLUTION_NS) ** 2
        level_ns = min(plateau.least_delay_ns(rate) for plateau in line)
        floors = [
            plateau.mean_floor[1] - rate * plateau.mean_floor[0] - level_ns
            for plateau in known
            if plateau.mean_floor
        ]
        lifted_ns += max(0.0, sum(floors) / len(floors) - _RESOLUTION_NS / 2) ** 2
    return float(max(off_ns, lifted_ns) ** 0.5 / length_ns) if length_ns else 0.0


def _fit_lines(lines: Sequence[Sequence[Plateau]]) -> Skew:
    """Returns the one slope of lines below plateaus, and how far it may be off."""
    x = np.array(
        [point[0] for line in lines for plateau in line for point in plateau.hull], dtype=np.float64
    )
    y = np.array(
        [point[1] for line in lines for plateau in line for point in plateau.hull], dtype=np.float64
    )
    starts = np.cumsum([0, *(sum(len(plateau.hull) for plateau in line) for line in lines)])[:-1]
    every = [plateau for line in lines for plateau in line]
    first = np.cumsum([0, *(len(line) for line in lines)])[:-1]
    each = np.array([plateau.point_count for plateau in every], dtype=np.float64)
    its_x = np.array([plateau.mean_media_ns for plateau in every], dtype=np.float64)
    its_y = np.array([plateau.mean_delay_ns for plateau in every], dtype=np.float64)
    weight = np.add.reduceat(each, first)
    mean_x = np.add.reduceat(each * its_x, first) / weight
    mean_y = np.add.reduceat(each * its_y, first) / weight

    def above(rate: float) -> float:
        """Returns how far delays lie above the highest lines of a slope, summed: it is convex."""
        level = np.minimum.reduceat(y - rate * x, starts)
        return float((weight * (mean_y - rate * mean_x - level)).sum())

    low, high = -2 * MAX_SKEW, 2 * MAX_SKEW
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = above(a), above(b)
    while high - low > 1e-9:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = above(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = above(b)
    rate = (low + high) / 2
    if abs(rate) < 1e-8:  # what the search leaves of nothing
        rate = 0.0
    mean_above = max(above(rate) / float(weight.sum()), _RESOLUTION_NS / 2)
    within = np.array([plateau.spread_media_ns for plateau in every], dtype=np.float64)
    around = its_x - np.repeat(mean_x, [len(line) for line in lines])
    spread = math.sqrt(float((each * (within**2 + around**2)).sum()))
    # Whole ms may tilt the line by one of them from end to end, however many packets there are.
    longest = max(line[-1].hull[-1][0] - line[0].hull[0][0] for line in lines)
    return Skew(rate, 2 * mean_above / spread + _RESOLUTION_NS / longest if spread else math.inf)
