"""What a packet run shows of the clock of the server that recorded it: a few numbers, to be
compared with those of everybody else in the call.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.clock.model import (
    ClockMethod,
    PacketRunClock,
    Plateau,
    ReportPoint,
    StepEvidence,
)
from transforms.media.clock.sudden_steps import LEAST_STEP_NS, find_sudden_steps
from transforms.media.server_clock import ClockWatch, StepSighting, WallSpan, WatchedSpan
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, samples_to_ns

_PARTING_NS = 100 * NS_PER_MS
"""Sender reports before and after a step of this size are looked at apart."""
_ALIKE_NS = 4 * NS_PER_MS
"""How far what the packets near to a step say of it is from what all say, where that is all."""
_INSET_NS = 10 * NS_PER_SECOND
"""The ends of a hull are packets as they came, not those of the least delay."""
_LEAST_RATE_NS = 30 * NS_PER_SECOND
_REPORTS = 8
"""Of so many the least is near the network's least."""
_SHOWN_EXCESS = 4
"""Times the usual excess of a least delay from which on a step shows."""


def watch_packet_run(
    clock: PacketRunClock,
    media_stop_sample: Ints,
    arrival_unix_ns: Ints,
    place: npt.NDArray[np.integer[Any]],
    reports: Iterable[ReportPoint],
    ssrc: int,
    first_rtp_timestamp: int,
) -> ClockWatch:
    """Returns what a packet run shows of its server's clock.

    Args:
      clock: of the packet run.
      media_stop_sample: where each packet ends, counted from the first; shape (packets,).
      arrival_unix_ns: when each arrived.
      place: of each in its dump, which has packets in the order of their arrival.
      reports: those of its sender that belong to it, in any order.
      ssrc: its source.
      first_rtp_timestamp: RTP time stamp of media time 0; taken to 32 bits.
    """
    first, last = clock.plateaus[0], clock.plateaus[-1]
    has_arrivals = clock.method == ClockMethod.ARRIVAL_ENVELOPE
    measured = measure_steps(clock)
    came = np.argsort(place, kind="stable")
    media_ns, came_unix_ns = media_stop_sample[came], arrival_unix_ns[came]
    media_ns *= NS_PER_SECOND
    media_ns //= SAMPLE_RATE_HZ
    steps = [_known_better(each, measured) for each in find_sudden_steps(media_ns, came_unix_ns)]
    sightings = tuple(steps)
    span = WatchedSpan(
        begin_unix_ns=clock.base_unix_ns + round(_height(first, 0, 0.0)),
        stop_unix_ns=clock.base_unix_ns + sum(last.hull[-1]),
        least_step_ns=_least_step_ns(clock.plateaus),
        ssrc=ssrc,
        first_rtp_timestamp=first_rtp_timestamp % (1 << 32),
    )
    return ClockWatch(
        sightings=sightings if has_arrivals else (),
        spans=(span,) if has_arrivals else (),
        walls=tuple(_walls(clock, steps, reports)),
    )


def _known_better(sudden: StepSighting, measured: Sequence[StepSighting]) -> StepSighting:
    """Returns a sudden step with what the plateaus on both sides tell of it.

    All their packets tell its size better than those near to it, where nothing else happened.
    """
    same = [each for each in measured if _is_same(sudden, each)]
    size_ns = min(
        (each.size_ns for each in same),
        key=lambda size: abs(size - sudden.size_ns),
        default=sudden.size_ns,
    )
    return replace(
        sudden,
        is_stall=any(each.is_stall for each in same),
        size_ns=size_ns if abs(size_ns - sudden.size_ns) <= _ALIKE_NS else sudden.size_ns,
    )


def _is_same(one: StepSighting, other: StepSighting) -> bool:
    """Whether a sudden step is one between plateaus."""
    return (
        one.since_unix_ns - NS_PER_SECOND <= other.at_unix_ns
        and other.since_unix_ns - NS_PER_SECOND <= one.at_unix_ns
        and abs(one.size_ns - other.size_ns) < abs(one.size_ns) / 2
    )


def join_watches(watches: Sequence[ClockWatch]) -> ClockWatch:
    """Returns what packet runs of one part show together: the largest steps, the longest spans."""
    sightings = [each for watch in watches for each in watch.sightings]
    spans = [each for watch in watches for each in watch.spans]
    walls = sorted(
        (each for watch in watches for each in watch.walls), key=lambda wall: wall.begin_unix_ns
    )
    half = caps.MAX_WALL_SPANS // 2
    if len(walls) > 2 * half:
        walls = [*walls[:half], *walls[-half:]]
    sightings.sort(key=lambda each: -abs(each.size_ns))
    if len(sightings) >= caps.MAX_STEP_SIGHTINGS:
        del sightings[caps.MAX_STEP_SIGHTINGS :]
        # What is smaller may have been left out.
        least_ns = abs(sightings[-1].size_ns)
        spans = [replace(each, least_step_ns=max(each.least_step_ns, least_ns)) for each in spans]
    return ClockWatch(
        sightings=tuple(sorted(sightings, key=lambda each: each.at_unix_ns)),
        spans=tuple(
            sorted(
                heapq.nlargest(
                    caps.MAX_WATCHED_SPANS,
                    spans,
                    key=lambda each: each.stop_unix_ns - each.begin_unix_ns,
                ),
                key=lambda each: each.begin_unix_ns,
            )
        ),
        walls=tuple(walls),
    )


def measure_steps(clock: PacketRunClock) -> list[StepSighting]:
    """Returns the step before each plateau but the first, of whatever size, measured beside it.

    A plateau may be long, and its sender's clock run fast: what counts are the least delays near
    the step.
    """
    rate = _rate(clock.plateaus)
    found = []
    for before, after in itertools.pairwise(clock.plateaus):
        edge_ns = samples_to_ns(after.media_start_sample)
        level_ns = _height(before, edge_ns, rate)
        at_unix_ns = clock.base_unix_ns + round(edge_ns + level_ns)
        found.append(
            StepSighting(
                since_unix_ns=min(clock.base_unix_ns + sum(before.hull[-1]), at_unix_ns),
                at_unix_ns=at_unix_ns,
                size_ns=round(_height(after, edge_ns, rate) - level_ns),
                noise_ns=round(_noise_ns(before) + _noise_ns(after)),
                is_lasting=True,
                is_stall=after.evidence == StepEvidence.CONFIRMED,
            )
        )
    return found


def _height(plateau: Plateau, media_ns: int, rate: float) -> float:
    """Returns the least delay of a plateau at a media time at or beyond one of its ends."""
    x, y = zip(*plateau.hull, strict=True)
    inset_ns = min(_INSET_NS, (x[-1] - x[0]) // 2)
    inside_ns: int = min(max(media_ns, x[0] + inset_ns), x[-1] - inset_ns)
    return float(np.interp(inside_ns, x, y)) + rate * (media_ns - inside_ns)


def _rate(plateaus: Sequence[Plateau]) -> float:
    """Returns about how much slower than the server's a sender's clock runs, as a part of one."""
    longest = max(plateaus, key=lambda plateau: plateau.hull[-1][0] - plateau.hull[0][0])
    first_ns, last_ns = longest.hull[0][0], longest.hull[-1][0]
    if last_ns - first_ns < _LEAST_RATE_NS:
        return 0.0
    rise_ns = _height(longest, last_ns, 0.0) - _height(longest, first_ns, 0.0)
    length_ns = last_ns - first_ns - 2 * _INSET_NS
    return rise_ns / length_ns


def _excess_ns(plateau: Plateau) -> float:
    """Returns how far the least delays of a plateau lie above its hull, about."""
    x, y = zip(*plateau.hull, strict=True)
    return max(0.0, plateau.mean_delay_ns - float(np.interp(plateau.mean_media_ns, x, y)))


def _noise_ns(plateau: Plateau) -> float:
    return NS_PER_MS + _excess_ns(plateau) / min(4, plateau.point_count)


def _least_step_ns(plateaus: Sequence[Plateau]) -> int:
    points = sum(plateau.point_count for plateau in plateaus)
    usual = sum(plateau.point_count * _excess_ns(plateau) for plateau in plateaus)
    return LEAST_STEP_NS + round(_SHOWN_EXCESS * usual / points)


def _walls(
    clock: PacketRunClock, steps: Sequence[StepSighting], reports: Iterable[ReportPoint]
) -> Iterator[WallSpan]:
    """Yields how far the server's clock is ahead of the sender's between two large steps."""
    came = sorted((_arrival_unix_ns(clock, point), point.sender_unix_ns) for point in reports)
    begin = 0
    parting = [each for each in steps if abs(each.size_ns) >= _PARTING_NS]
    parting.sort(key=lambda each: each.at_unix_ns)
    for step in [*parting, None]:
        stop = len(came)
        if step is not None:
            # One that came while a clock was set back may be on either side: it is left out.
            turn_unix_ns = step.at_unix_ns + min(step.size_ns, 0) - NS_PER_SECOND
            stop = max(begin, bisect.bisect_left(came, (turn_unix_ns,)))
        ahead_ns = [arrival - wall for arrival, wall in came[begin:stop]]
        if ahead_ns:
            yield WallSpan(
                begin_unix_ns=came[begin][0],
                stop_unix_ns=came[stop - 1][0],
                first_ahead_ns=min(ahead_ns[:_REPORTS]),
                last_ahead_ns=min(ahead_ns[-_REPORTS:]),
            )
        if step is not None:
            past_unix_ns = step.at_unix_ns + max(step.size_ns, 0) + NS_PER_SECOND
            begin = max(stop, bisect.bisect_left(came, (past_unix_ns,)))


def _arrival_unix_ns(clock: PacketRunClock, point: ReportPoint) -> int:
    """Returns when a report came: one of which that is not known, with the packets beside it."""
    if point.arrival_unix_ns is not None:
        return point.arrival_unix_ns
    media_ns = samples_to_ns(point.media_sample)
    plateau = next(
        (p for p in reversed(clock.plateaus) if p.media_start_sample <= point.media_sample),
        clock.plateaus[0],
    )
    x, y = zip(*plateau.hull, strict=True)
    return clock.base_unix_ns + media_ns + round(float(np.interp(media_ns, x, y)))
