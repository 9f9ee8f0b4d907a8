"""RTP time -> server time: the lower envelope of the arrivals, one skew per device, steps told
apart by sender reports.

A packet's delay is its arrival less its media time. The network only ever adds to it, so the least
delays tell the clocks:

    delay |      .  .    .                 .  '    what the network added
          |  .  .  ' .  ._____. _._ . ___.____     a step that lasts: the sender's capture stood
          |             |                           still, or a new path
          |__._____.___|                           the slope: the sender's clock runs slow or fast
          +------------------------------------ media time

In two parts. `observe_clock` (in `observe`) looks at one run of packets and keeps little: plateaus
between lasting steps (found in `clock_steps`), each with the lower hull of its delays, and what the
sender reports say of each step. `fit_clocks`, here, lays straight lines under the plateaus of all
runs of a participant session together (one device, one skew), by the linear program of Moon, Skelly
and Towsley ("Estimation and Removal of Clock Skew from Network Delay Measurements", INFOCOM 1999):
of all lines below every delay the one nearest to them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import (
    BEND_S,
    CHANCE,
    LEAST_STEP_NS,
    MAX_SKEW,
    METADATA_NOISE_NS,
    OWN_FIT_NS,
    PATH_STEP_NS,
    WALL_CLOCK_RATE,
    ClockMethod,
    ClockPiece,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, samples_to_ns

_MOST_CHANCE_NS = 15 * NS_PER_MS
_BURST_NS = 3 * NS_PER_SECOND
"""Packets that came late together, or could not overtake each other, are a burst, not a path of
their own.
"""
_SLOW_START_NS = 10 * NS_PER_SECOND
"""Delay that falls within this of a start was a network that was crowded at first."""
_NOMINAL_SKEW_BOUND = 500e-6
_LEAST_FIT_SAMPLES = 30 * SAMPLE_RATE_HZ
_OWN_FIT_SAMPLES = 600 * SAMPLE_RATE_HZ
_OWN_FIT_APART_NS = 2 * NS_PER_MS
_DUMP_RESOLUTION_NS = NS_PER_MS
"""rtpdump counts arrivals in whole ms."""


def fit_clocks(packet_runs: Sequence[PacketRunClock]) -> tuple[tuple[ClockPiece, ...], ...]:
    """Returns, for each run of one participant session and track type, how its media time maps to
    server time.

    One skew for all of them, given 30 s of media; 10 minutes or more without a step get their own
    where it moves their ends by more than 2 ms against each other. With less, or an absurd fit, the
    nominal rate.
    """
    plateaus = [plateau for packet_run in packet_runs for plateau in packet_run.plateaus]
    total = sum(plateau.media_stop_sample - plateau.media_start_sample for plateau in plateaus)
    common = _fit_skew(plateaus) if total >= _LEAST_FIT_SAMPLES else None
    return tuple(_lay_lines(packet_run, common) for packet_run in packet_runs)


@dataclass(frozen=True, slots=True)
class _Skew:
    rate: float
    """How much slower the sender's clock runs than the server's, as a part of one."""
    error: float


def _fit_skew(plateaus: Sequence[Plateau]) -> _Skew | None:
    """Returns the slope of the lines nearest below all plateaus, None when it is absurd or not to
    be known.

    Plateaus of less than 3 s are ramps of a queue, and tell no slope. Those between which a queue
    came and went share a line.
    """
    known = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    usable = [
        p for p in known if _lasts(p.media_start_sample, p.media_stop_sample, _BURST_NS)
    ] or known
    if not usable:
        return None
    lines = [[plateau] for plateau in usable]
    skew = _fit_lines(lines)
    joined: list[list[Plateau]] = []
    for plateau in usable:
        if joined and plateau.evidence == StepEvidence.DENIED:
            before = joined[-1][-1]
            apart = abs(_least_delay(plateau, skew.rate) - _least_delay(before, skew.rate))
            distance = abs(plateau.mean_media_ns - before.mean_media_ns)
            if apart < LEAST_STEP_NS + skew.error * distance:
                joined[-1].append(plateau)
                continue
        joined.append([plateau])
    if len(joined) < len(lines):
        skew = _fit_lines(joined)
    return None if abs(skew.rate) > MAX_SKEW or skew.error > _NOMINAL_SKEW_BOUND else skew


def _fit_lines(lines: Sequence[Sequence[Plateau]]) -> _Skew:
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
        """How far the delays lie above the highest lines of this slope, summed: convex in the
        slope.
        """
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
    mean_above = max(above(rate) / float(weight.sum()), _DUMP_RESOLUTION_NS / 2)
    within = np.array([plateau.spread_media_ns for plateau in every], dtype=np.float64)
    around = its_x - np.repeat(mean_x, [len(line) for line in lines])
    spread = math.sqrt(float((each * (within**2 + around**2)).sum()))
    # Whole ms may tilt the line by one of them from end to end, however many packets there are.
    longest = max(line[-1].hull[-1][0] - line[0].hull[0][0] for line in lines)
    return _Skew(
        rate, 2 * mean_above / spread + _DUMP_RESOLUTION_NS / longest if spread else math.inf
    )


def _lay_lines(packet_run: PacketRunClock, common: _Skew | None) -> tuple[ClockPiece, ...]:
    """Returns one piece per stretch between steps that count, each on the least delay of its
    plateaus.
    """
    skews = _skews(packet_run.plateaus, common)
    pieces = []
    for stretch in _follow(packet_run.plateaus, [skew.rate if skew else 0.0 for skew, _ in skews]):
        plateaus = packet_run.plateaus[stretch.first : stretch.last + 1]
        skew, strange_rate = skews[stretch.first]
        rate = skew.rate if skew else 0.0
        start_sample = plateaus[0].media_start_sample
        start_ns, length_ns = (
            samples_to_ns(start_sample),
            samples_to_ns(plateaus[-1].media_stop_sample - start_sample),
        )
        # How far the usual delay lies above the least one says how well the least one is known.
        points = sum(plateau.point_count for plateau in plateaus)
        usual = sum(
            plateau.point_count
            * (plateau.mean_delay_ns - rate * plateau.mean_media_ns - _least_delay(plateau, rate))
            for plateau in plateaus
        )
        doubt = _DUMP_RESOLUTION_NS + max(0.0, usual / points) / math.sqrt(points) * 3
        doubt += (
            skew.error if skew else _NOMINAL_SKEW_BOUND
        ) * length_ns + strange_rate * length_ns
        doubt += stretch.doubt_ns + stretch.excess_ns
        # Lines are drawn through what is nearly straight.
        doubt += 2e9 * BEND_S * min(1.0, length_ns / (2 * OWN_FIT_NS))
        if packet_run.method == ClockMethod.METADATA:
            by_line = abs(rate) if plateaus[0].point_count <= 2 else WALL_CLOCK_RATE
            doubt += METADATA_NOISE_NS + by_line * length_ns
        pieces.append(
            ClockPiece(
                media_start_sample=start_sample,
                server_start_unix_ns=packet_run.base_unix_ns
                + start_ns
                + round(stretch.level_ns + rate * start_ns),
                skew_ppm=(1 / (1 + rate) - 1) * 1e6,
                is_fitted=skew is not None,
                sync_error_ns=round(doubt),
            )
        )
    return tuple(pieces)


def _skews(plateaus: Sequence[Plateau], common: _Skew | None) -> list[tuple[_Skew | None, float]]:
    """Returns each plateau's skew, and by how much its own seems to be another though it is not
    applied.
    """
    starts = [
        number
        for number, plateau in enumerate(plateaus)
        if number == 0 or plateau.evidence == StepEvidence.CONFIRMED
    ]
    found: list[tuple[_Skew | None, float]] = []
    for start, stop in itertools.pairwise([*starts, len(plateaus)]):
        length = plateaus[stop - 1].media_stop_sample - plateaus[start].media_start_sample
        own = _fit_skew(plateaus[start:stop]) if length >= _LEAST_FIT_SAMPLES else None
        apart = max(0.0, abs(own.rate - common.rate) - own.error) if own and common else 0.0
        if (
            own
            and length >= _OWN_FIT_SAMPLES
            and (common is None or apart * samples_to_ns(length) > _OWN_FIT_APART_NS)
        ):
            found += [(own, 0.0)] * (stop - start)
        else:
            found += [(common, apart)] * (stop - start)
    return found


def _least_delay(plateau: Plateau, rate: float) -> float:
    return min(y - rate * x for x, y in plateau.hull)


@dataclass(slots=True)
class _Stretch:
    """Plateaus between which the time line does not move."""

    first: int
    last: int
    level_ns: float
    """Their least delay, less what the network's path added."""
    is_clear: bool = True
    """Whether the level was taken while nothing was added."""
    excess_ns: float = 0.0
    """How far above it they end, for reasons unknown."""
    doubt_ns: float = 0.0
    """What is in doubt by falls of unknown reason."""


def _follow(plateaus: Sequence[Plateau], rates: Sequence[float]) -> list[_Stretch]:
    """Returns the stretches of a run, told apart by what its steps mean; the slope is the same
    between confirmed steps.

    A delay is the sum of what the sender's stalls add (never taken back) and what the network adds
    to its least (which may be):

    - confirmed by reports: a stall, the time line moves;
    - denied: the network's, however large. It is measured from one plateau of 3 s or more to the
      next: packets in between that could not overtake each other tell no level;
    - unknown: a fall gives back what the network had added; a rise of 60 ms or more that stays to
      the end is a stall; what is less moves nothing until it adds up to that.

    The network's share is counted from the least of the whole run: a path that was slow at first
    was slow, not early.
    """
    # Levels are heights of lines at media time 0. Where the slope changes, the lines meet at the
    # step instead.
    turns = [0.0]
    for plateau, before, after in zip(plateaus[1:], rates, rates[1:], strict=False):
        turns.append(turns[-1] + (before - after) * samples_to_ns(plateau.media_start_sample))
    levels = [
        _least_delay(plateau, rate) - turn
        for plateau, rate, turn in zip(plateaus, rates, turns, strict=True)
    ]
    added = [
        after - before if plateau.evidence == StepEvidence.DENIED else 0.0
        for plateau, before, after in zip(plateaus, [0.0, *levels], levels, strict=False)
    ]
    denied = list(itertools.accumulate(added))
    lowest_after = list(
        itertools.accumulate(
            (y - path for y, path in zip(levels[::-1], denied[::-1], strict=True)), min
        )
    )[::-1]
    found: list[_Stretch] = []
    by_path = least_path = unsure = 0.0
    # Of n least delays the least lies about the n-th part of their usual excess above the
    # network's.
    noises = [
        (plateau.mean_delay_ns - rate * plateau.mean_media_ns - _least_delay(plateau, rate))
        / plateau.point_count
        for plateau, rate in zip(plateaus, rates, strict=True)
    ]
    anchor: float | None = None  # the last long plateau of this stretch
    anchored = 0
    only_denied = True  # since then
    for number, plateau in enumerate(plateaus):
        is_long = _lasts(plateau.media_start_sample, plateau.media_stop_sample, _BURST_NS)
        is_long &= CHANCE * noises[number] < _MOST_CHANCE_NS  # a ramp is no plateau
        level = levels[number] - by_path
        moves = not found or plateau.evidence == StepEvidence.CONFIRMED
        if not moves:
            stretch = found[-1]
            before = stretch.level_ns if anchor is None else anchor
            only_denied &= plateau.evidence == StepEvidence.DENIED
            chance = (
                min(LEAST_STEP_NS + CHANCE * (noises[number] + noises[anchored]), _MOST_CHANCE_NS)
                if is_long
                else 0.0
            )
            by_itself = abs(levels[number] - before)
            if anchor is None and level < stretch.level_ns:
                stretch.level_ns = (
                    level  # packets that came late together tell no level, those behind them do
                )
            elif by_path and by_itself < chance and by_itself < abs(level - before):
                # All that was added is gone: here the level shows as it is.
                by_path, level = 0.0, levels[number]
                stretch.level_ns = min(stretch.level_ns, level) if stretch.is_clear else level
                stretch.is_clear = True
                level = stretch.level_ns
            elif abs(level - before) < chance:
                stretch.level_ns = min(stretch.level_ns, level)
                stretch.excess_ns = max(
                    stretch.excess_ns, 0.0 if only_denied else level - stretch.level_ns
                )
                level = before = min(before, level)
            elif only_denied:
                by_path += level - before if is_long else 0.0
                level = before
            elif level < stretch.level_ns:
                back = min(stretch.level_ns - level, max(by_path, 0.0))
                by_path, level = by_path - back, level + back
                fall = stretch.level_ns - level
                lasted = _lasts(
                    plateaus[stretch.first].media_start_sample,
                    plateau.media_start_sample,
                    _SLOW_START_NS,
                )
                moves = fall >= PATH_STEP_NS and lasted
                if not moves:
                    by_path, level = by_path - fall, stretch.level_ns
                    stretch.doubt_ns += fall if lasted else 0.0
            else:
                # Delay that comes down again was a crowded network.
                moves = (
                    lowest_after[number] + denied[number] - by_path - stretch.level_ns
                    >= PATH_STEP_NS
                )
        if moves:
            if found and plateau.evidence == StepEvidence.UNKNOWN:
                unsure += abs(
                    level - found[-1].level_ns
                )  # a stall by its size, but it may be the network's
            found.append(_Stretch(number, number, level, is_clear=not by_path, doubt_ns=unsure))
            anchor, anchored, only_denied = None, number, True
        stretch = found[-1]
        stretch.last = number
        if not only_denied:
            stretch.excess_ns = level - stretch.level_ns
        if is_long:
            anchor, anchored, only_denied = level, number, True
            least_path = min(least_path, by_path)
    for stretch in found:
        stretch.level_ns += least_path + turns[stretch.first]
    return found


def _lasts(start_sample: int, stop_sample: int, length_ns: int) -> bool:
    return samples_to_ns(stop_sample - start_sample) >= length_ns
