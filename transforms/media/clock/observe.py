"""What one run of packets tells of its sender's clock: plateaus of least delay between steps (see
`fit`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media.clock.bends import find_bends
from transforms.media.clock.evidence import judge_steps, wall_behind_media
from transforms.media.clock.model import (
    ABSURD_RATE,
    MAX_SKEW,
    METADATA_NOISE_NS,
    REPORT_NOISE_NS,
    WALL_CLOCK_RATE,
    ClockMethod,
    PacketRunClock,
    Plateau,
    ReportPoint,
    StepEvidence,
)
from transforms.media.clock.steps import drop_ramps, find_ramps, find_steps
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, samples_to_ns

_POINT_NS = 250 * NS_PER_MS
"""The envelope is the least delay of each quarter second."""


def in_order(arrival_unix_ns: Ints) -> Ints:
    """Returns when packets would have come at the latest had they kept their places: one that was
    overtaken moves no other.
    """
    if (arrival_unix_ns[1:] >= arrival_unix_ns[:-1]).all():
        return arrival_unix_ns
    times: Ints = np.minimum.accumulate(arrival_unix_ns[::-1])[::-1]
    return times


def observe_clock(
    media_sample: Ints,
    duration_samples: npt.NDArray[np.integer[Any]],
    arrival_unix_ns: Ints,
    reports: Sequence[ReportPoint],
    last_arrival_unix_ns: int | None = None,
) -> PacketRunClock:
    """Returns what one run of one SSRC tells of its sender's clock.

    Args:
      media_sample: unwrapped RTP time of each audio packet in sequence order, counted from the
        first; shape (packets,).
      duration_samples: each packet's length; a packet arrives once its last sample was captured.
      arrival_unix_ns: server clock at its arrival; all equal where the dump has none but the first.
      reports: the SSRC's sender reports, in any order.
      last_arrival_unix_ns: when the last packet arrived, where the dump has no arrivals and
        something else says so.
    """
    if media_sample.size == 0:
        raise ValueError("a run without packets has no clock")
    points = sorted(reports, key=lambda point: (point.media_sample, point.sender_unix_ns))
    method = ClockMethod.ARRIVAL_ENVELOPE
    if media_sample[-1] > SAMPLE_RATE_HZ and not np.ptp(arrival_unix_ns):
        method = ClockMethod.METADATA
        ends = media_sample + duration_samples
        base = int(arrival_unix_ns[0]) - samples_to_ns(int(duration_samples[0]))
        span = None
        if last_arrival_unix_ns is not None:
            span = last_arrival_unix_ns - int(arrival_unix_ns[0])
        known = _arrivals_by_reports(ends, int(arrival_unix_ns[0]), span, points)
        if known is None:
            # Two arrivals make a line; of one the rate stays nominal. The error says so.
            late = 0 if span is None else span - samples_to_ns(int(ends[-1] - ends[0]))
            x, y = (
                np.array([ends[0], ends[-1]]) * NS_PER_SECOND // SAMPLE_RATE_HZ,
                np.array([0, late], dtype=np.int64),
            )
            used = slice(0, 1 if span is None else 2)
            plateau = _plateau(0, int(ends[-1]), x[used], y[used], x[used], StepEvidence.NONE)
            return PacketRunClock(base_unix_ns=base, plateaus=(plateau,), method=method)
        arrival_unix_ns = known
    media_ns = media_sample + duration_samples
    media_ns *= NS_PER_SECOND
    media_ns //= SAMPLE_RATE_HZ
    base = int(arrival_unix_ns[0] - media_ns[0])
    delay = arrival_unix_ns - media_ns
    delay -= base
    time = in_order(arrival_unix_ns)
    steps = find_steps(time, delay)
    ramps = find_ramps(steps, time, delay - (arrival_unix_ns - time))
    evidence = judge_steps(steps, ramps, media_sample, time, points)
    # Little by little, and no report says otherwise: a queue.
    evidence = [
        StepEvidence.DENIED if is_ramp and said == StepEvidence.UNKNOWN else said
        for is_ramp, said in zip(ramps, evidence, strict=True)
    ]
    steps, evidence = drop_ramps(steps, evidence, time)
    marks = [
        (0, StepEvidence.NONE),
        *((index, said) for (index, _), said in zip(steps, evidence, strict=True)),
    ]
    parted: list[tuple[int, StepEvidence]] = []
    for (start, said), (stop, _) in itertools.pairwise(
        [*marks, (len(media_sample), StepEvidence.NONE)]
    ):
        parted.append((start, said))
        parted += [
            (start + place, bend)
            for place, bend in find_bends(media_ns[start:stop], delay[start:stop], points)
        ]
    plateaus = []
    for (start, said), (stop, _) in itertools.pairwise(
        [*parted, (len(media_sample), StepEvidence.NONE)]
    ):
        first_sample = int(media_sample[start]) if start else 0
        stop_sample = (
            int(media_sample[stop])
            if stop < len(media_sample)
            else int(media_sample[-1] + duration_samples[-1])
        )
        plateaus.append(
            _plateau(
                first_sample,
                stop_sample,
                media_ns[start:stop],
                delay[start:stop],
                time[start:stop],
                said,
            )
        )
    return PacketRunClock(base_unix_ns=base, plateaus=tuple(plateaus), method=method)


def _arrivals_by_reports(
    ends: Ints, first_unix_ns: int, span_ns: int | None, points: Sequence[ReportPoint]
) -> Ints | None:
    """Returns when packets would have arrived by the sender's reports, beginning with the one
    arrival that is known.

    Where the last arrival is known too, and is further from what the reports say than a network or
    a clock would be, the sender's wall clock runs at another rate: it is brought to end there.

    None when there are too few reports, or they imply an absurd rate.

    Args:
      ends: media time at the end of each packet.
      first_unix_ns: the first packet's arrival.
      span_ns: from the first packet's arrival to the last one's; None if unknown.
      points: by media time.
    """
    media, behind = wall_behind_media(points)
    if len(media) < 2:
        return None
    rate = float(np.median(np.diff(behind) / np.diff(media)))
    if abs(rate) * SAMPLE_RATE_HZ / NS_PER_SECOND > ABSURD_RATE:
        return None
    # A report sent while the capture stood knows part of the stall.
    moved = np.abs(np.diff(behind) - rate * np.diff(media)) > REPORT_NOISE_NS
    keep = np.concatenate([[True], ~(moved[:-1] & moved[1:]), [True]])
    media, behind = media[keep], behind[keep]
    # Between two reports a stall is at the longest pause there: a mute, most likely.
    moved = np.diff(behind) - rate * np.diff(media)
    drift = rate * (ends - media[0]) + behind[0]
    for number in np.flatnonzero(np.abs(moved) > REPORT_NOISE_NS).tolist():
        first, stop = np.searchsorted(
            ends, [media[number], media[number + 1]], side="right"
        ).tolist()
        stop = min(stop, len(ends) - 1)
        if stop > first > 0:
            pauses = np.diff(ends[first - 1 : stop + 1])
            longest = int(pauses.argmax())
            at = first + (
                longest if pauses[longest] > 2 * int(np.median(pauses)) else len(pauses) // 2
            )
        else:
            at = first
        drift[at:] += moved[number]
    media_ns = ends / SAMPLE_RATE_HZ * NS_PER_SECOND
    wall = media_ns + drift
    wall -= wall[0]
    if span_ns is not None and wall[-1] > 0:
        off = span_ns - float(wall[-1])
        if (
            METADATA_NOISE_NS + WALL_CLOCK_RATE * wall[-1]
            < abs(off)
            < MAX_SKEW * wall[-1] + NS_PER_SECOND
        ):
            wall += off * (media_ns - media_ns[0]) / (media_ns[-1] - media_ns[0])
    arrivals: Ints = first_unix_ns + np.rint(wall).astype(np.int64)
    return arrivals


def _plateau(
    start: int, stop: int, media_ns: Ints, delay: Ints, time: Ints, evidence: StepEvidence
) -> Plateau:
    bins = (time - time[0]) // _POINT_NS
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    least = np.minimum.reduceat(delay, firsts)
    # Of each quarter second the first packet of the least delay.
    alike = np.flatnonzero(delay == np.repeat(least, np.diff(firsts, append=len(bins))))
    picked = alike[np.flatnonzero(np.diff(bins[alike], prepend=-1))]
    x, y = media_ns[picked], delay[picked]
    hull = _lower_hull(x, y)
    return Plateau(
        media_start_sample=start,
        media_stop_sample=stop,
        point_count=len(picked),
        mean_media_ns=int(x.mean()),
        mean_delay_ns=int(y.mean()),
        spread_media_ns=int(x.std()),
        hull=tuple((int(x[index]), int(y[index])) for index in hull),
        evidence=evidence,
    )


def _lower_hull(x: Ints, y: Ints) -> list[int]:
    """Returns indices of the lower convex hull, left to right (Andrew's monotone chain)."""
    order = np.lexsort((y, x))
    order = order[
        np.flatnonzero(np.diff(x[order], prepend=x[order[0]] - 1))
    ]  # of one place the lowest
    # Who lies on or above the line between its neighbours is no corner. Most go so, many at once;
    # few are left to be walked.
    is_thinned = False
    while not is_thinned and len(order) > 2:
        steps_x, steps_y = (
            np.diff(x[order]).astype(np.float64),
            np.diff(y[order]).astype(np.float64),
        )
        is_corner = steps_y[:-1] * steps_x[1:] < steps_y[1:] * steps_x[:-1]
        is_thinned = 10 * int(is_corner.sum()) > 9 * len(is_corner)
        order = order[np.concatenate([[True], is_corner, [True]])]
    hull: list[tuple[int, int, int]] = []
    for px, py, index in zip(x[order].tolist(), y[order].tolist(), order.tolist(), strict=True):
        while len(hull) >= 2:
            (ax, ay, _), (bx, by, _) = hull[-2:]
            if (by - ay) * (px - ax) < (py - ay) * (bx - ax):
                break
            hull.pop()
        hull.append((px, py, index))
    return [index for _, _, index in hull]
