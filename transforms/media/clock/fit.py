"""Fits straight lines from RTP media time to server time, by the least delays of the arrivals.

A packet's delay is its arrival less its media time. The network only ever adds to it, so the least
delays tell the clocks:

    delay |      .  .    .                 .  '    what the network added
          |  .  .  ' .  ._____. _._ . ___.____     a step that lasts: the sender's capture stood
          |             |                           still, or a new path
          |__._____.___|                           the slope: the sender's clock runs slow or fast
          +------------------------------------ media time

It is done in two parts. `observe_clock` (in `observe`) looks at one packet run and keeps little of
it: its plateaus (the media time between two lasting steps), each with the lower convex hull of its
delays, and what the sender reports say of each step. `fit_clocks`, here, lays straight lines under
the plateaus of all packet runs of a participant session together, which come from one device and so
have one skew. It solves the linear program of Moon, Skelly and Towsley ("Estimation and Removal of
Clock Skew from Network Delay Measurements", INFOCOM 1999): of all lines below every delay the one
nearest to them. `find_lines` (in `lines`) says which steps move the time line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import (
    BEND_S,
    LEAST_STEP_NS,
    MAX_SKEW,
    METADATA_NOISE_NS,
    OWN_FIT_NS,
    WALL_CLOCK_RATE,
    ClockMethod,
    ClockPiece,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.clock.stall_or_path import LONG_PLATEAU_NS, Line, find_lines, lasts
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, samples_to_ns

_NOMINAL_SKEW_BOUND = 500e-6
_LEAST_FIT_SAMPLES = 30 * SAMPLE_RATE_HZ
_OWN_FIT_SAMPLES = 600 * SAMPLE_RATE_HZ
_OWN_FIT_GAIN_NS = 2 * NS_PER_MS
_DUMP_RESOLUTION_NS = NS_PER_MS
"""rtpdump counts arrivals in whole ms."""


def fit_clocks(packet_runs: Sequence[PacketRunClock]) -> tuple[tuple[ClockPiece, ...], ...]:
    """Returns how the media time of each packet run maps to server time, piece by piece.

    All get one skew, given 30 s of media; 10 minutes or more without a step get their own where it
    moves their ends by more than 2 ms against each other. With less media, or an absurd fit, they
    get the nominal rate.

    Args:
      packet_runs: all of one participant session and track type.
    """
    plateaus = [plateau for packet_run in packet_runs for plateau in packet_run.plateaus]
    total = sum(plateau.media_stop_sample - plateau.media_start_sample for plateau in plateaus)
    common = _fit_skew(plateaus) if total >= _LEAST_FIT_SAMPLES else None
    return tuple(_lay_lines(packet_run, common) for packet_run in packet_runs)


@dataclass(frozen=True, slots=True)
class _Skew:
    """How a sender's clock runs against the server's."""

    rate: float
    """How much slower it runs, as a part of one."""
    error: float
    """By how much the rate may be off."""


def _fit_skew(plateaus: Sequence[Plateau]) -> _Skew | None:
    """Returns the slope of the lines nearest below all plateaus; None when it cannot be known.

    A slope that no sound card has counts as unknown. Plateaus of less than 3 s are ramps of a
    queue, and tell no slope. Those between which a queue came and went share a line.
    """
    known = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    usable = [
        p for p in known if lasts(p.media_start_sample, p.media_stop_sample, LONG_PLATEAU_NS)
    ] or known
    if not usable:
        return None
    lines = [[plateau] for plateau in usable]
    skew = _fit_lines(lines)
    joined: list[list[Plateau]] = []
    for plateau in usable:
        if joined and plateau.evidence == StepEvidence.DENIED:
            before = joined[-1][-1]
            step_ns = abs(plateau.least_delay_ns(skew.rate) - before.least_delay_ns(skew.rate))
            distance_ns = abs(plateau.mean_media_ns - before.mean_media_ns)
            if step_ns < LEAST_STEP_NS + skew.error * distance_ns:
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
    """Returns one piece for each line of a packet run, on the least delay of its plateaus."""
    skews = _skews(packet_run.plateaus, common)
    pieces = []
    for line in find_lines(packet_run.plateaus, [skew.rate if skew else 0.0 for skew, _ in skews]):
        plateaus = packet_run.plateaus[line.first : line.last + 1]
        skew, strange_rate = skews[line.first]
        rate = skew.rate if skew else 0.0
        start_sample = plateaus[0].media_start_sample
        start_ns = samples_to_ns(start_sample)
        pieces.append(
            ClockPiece(
                media_start_sample=start_sample,
                server_start_unix_ns=packet_run.base_unix_ns
                + start_ns
                + round(line.level_ns + rate * start_ns),
                skew_ppm=(1 / (1 + rate) - 1) * 1e6,
                is_fitted=skew is not None,
                sync_error_ns=round(
                    _doubt_ns(line, plateaus, skew, strange_rate, packet_run.method)
                ),
            )
        )
    return tuple(pieces)


def _doubt_ns(
    line: Line,
    plateaus: Sequence[Plateau],
    skew: _Skew | None,
    strange_rate: float,
    method: ClockMethod,
) -> float:
    """Returns how far server times on a line may be off.

    Args:
      line: that is asked about.
      plateaus: those on it.
      skew: their skew; None for the nominal rate.
      strange_rate: by how much their own skew seems to be another one.
      method: how the arrivals are known.
    """
    rate = skew.rate if skew else 0.0
    length_ns = samples_to_ns(plateaus[-1].media_stop_sample - plateaus[0].media_start_sample)
    # How far the usual delay lies above the least one says how well the least one is known.
    points = sum(plateau.point_count for plateau in plateaus)
    usual = sum(plateau.point_count * plateau.usual_excess_ns(rate) for plateau in plateaus)
    doubt_ns = _DUMP_RESOLUTION_NS + max(0.0, usual / points) / math.sqrt(points) * 3
    doubt_ns += (skew.error if skew else _NOMINAL_SKEW_BOUND) * length_ns + strange_rate * length_ns
    doubt_ns += line.doubt_ns + line.excess_ns
    # Lines are drawn through what is nearly straight.
    doubt_ns += 2e9 * BEND_S * min(1.0, length_ns / (2 * OWN_FIT_NS))
    if method == ClockMethod.METADATA:
        by_line = abs(rate) if plateaus[0].point_count <= 2 else WALL_CLOCK_RATE
        doubt_ns += METADATA_NOISE_NS + by_line * length_ns
    return doubt_ns


def _skews(plateaus: Sequence[Plateau], common: _Skew | None) -> list[tuple[_Skew | None, float]]:
    """Returns each plateau's skew (None for the nominal rate), and how far its own seems from it.

    What plateaus without a confirmed step between them have of their own is applied only where
    there is enough of it.
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
        strange_rate = max(0.0, abs(own.rate - common.rate) - own.error) if own and common else 0.0
        if (
            own
            and length >= _OWN_FIT_SAMPLES
            and (common is None or strange_rate * samples_to_ns(length) > _OWN_FIT_GAIN_NS)
        ):
            found += [(own, 0.0)] * (stop - start)
        else:
            found += [(common, strange_rate)] * (stop - start)
    return found
