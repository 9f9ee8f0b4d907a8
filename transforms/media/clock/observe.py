"""What one packet run tells of its sender's clock: plateaus of least delay between steps.

`fit` says what they are and what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media.clock.bends import find_bends
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
    Step,
    StepEvidence,
)
from transforms.media.clock.report_evidence import judge_steps
from transforms.media.clock.report_series import wall_behind_media
from transforms.media.clock.steps import (
    WINDOW_NS,
    drop_ramps,
    find_ramps,
    find_steps,
    without_strays,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, samples_to_ns

_POINT_NS = 250 * NS_PER_MS
"""The envelope is the least delay of each quarter second."""
_FLOOR_NS = 5 * NS_PER_SECOND
"""The least of so much is the network's least, whatever the jitter."""
_CHANCE = 0.01


def in_order(arrival_unix_ns: Ints) -> Ints:
    """Returns when packets would have arrived at the latest had they kept their places.

    A packet that was overtaken by others moves none of them.

    Args:
      arrival_unix_ns: arrivals in sequence order; returned as they are if they rise.
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
    """Returns the plateaus of a packet run, with what sender reports say of the steps between.

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
        raise ValueError("a packet run without packets has no clock")
    points = sorted(reports, key=lambda point: (point.media_sample, point.sender_unix_ns))
    method = ClockMethod.ARRIVAL_ENVELOPE
    if media_sample[-1] > SAMPLE_RATE_HZ and not np.ptp(arrival_unix_ns):
        method = ClockMethod.METADATA
        end_sample = media_sample + duration_samples
        span_ns = None
        if last_arrival_unix_ns is not None:
            span_ns = last_arrival_unix_ns - int(arrival_unix_ns[0])
        by_reports = _arrivals_by_reports(end_sample, int(arrival_unix_ns[0]), span_ns, points)
        if by_reports is None:
            base_unix_ns = int(arrival_unix_ns[0]) - samples_to_ns(int(duration_samples[0]))
            plateau = _plateau_by_ends(int(end_sample[0]), int(end_sample[-1]), span_ns)
            return PacketRunClock(base_unix_ns=base_unix_ns, plateaus=(plateau,), method=method)
        arrival_unix_ns = by_reports
    media_ns = media_sample + duration_samples
    media_ns *= NS_PER_SECOND
    media_ns //= SAMPLE_RATE_HZ
    base_unix_ns = int(arrival_unix_ns[0] - media_ns[0])
    delay_ns = arrival_unix_ns - media_ns
    delay_ns -= base_unix_ns
    ordered_ns = in_order(arrival_unix_ns)
    steps = without_strays(find_steps(ordered_ns, delay_ns), ordered_ns)
    late_ns = delay_ns
    if ordered_ns is not arrival_unix_ns:
        late_ns = delay_ns - (arrival_unix_ns - ordered_ns)
    ramps = find_ramps(steps, ordered_ns, late_ns)
    judgement = judge_steps(
        steps, ramps, media_sample, ordered_ns, delay_ns, duration_samples, points
    )
    judged = [step for step in judgement.steps if 0 < step.index < len(delay_ns)]
    begins = [Step(0, 0, StepEvidence.NONE), *drop_ramps(judged, ordered_ns)]
    parted = _part_at_bends(begins, media_ns, delay_ns, points)
    plateaus = []
    for step, stop in zip(
        parted, [*(step.index for step in parted[1:]), len(media_sample)], strict=True
    ):
        start = step.index
        first_sample = int(media_sample[start]) if start else 0
        stop_sample = (
            int(media_sample[stop])
            if stop < len(media_sample)
            else int(media_sample[-1] + duration_samples[-1])
        )
        part = slice(start, stop)
        plateau = _plateau(
            first_sample, stop_sample, media_ns[part], delay_ns[part], ordered_ns[part], step
        )
        plateaus.append(replace(plateau, is_reported=stop <= judgement.reported_until))
    chances_ns = _chances_ns(plateaus, parted, delay_ns, ordered_ns)
    return PacketRunClock(
        base_unix_ns=base_unix_ns,
        plateaus=tuple(
            replace(plateau, chance_ns=chance_ns)
            for plateau, chance_ns in zip(plateaus, chances_ns, strict=True)
        ),
        method=method,
        report_rate=judgement.rate if method == ClockMethod.ARRIVAL_ENVELOPE else None,
    )


def _chances_ns(
    plateaus: Sequence[Plateau], begins: Sequence[Step], delay_ns: Ints, ordered_ns: Ints
) -> list[int]:
    """Returns, for each plateau, how far above the network's least all its packets may well lie.

    What delay packets have beyond the least around them is known of the whole packet run. Of n such
    the least lies above what they all exceed once in a hundred times.
    """
    if len(plateaus) == 1:
        return [0]  # it is the least by what it is measured by
    stops = [*(step.index for step in begins[1:]), len(delay_ns)]
    blocks = []
    for step, stop in zip(begins, stops, strict=True):
        block = (ordered_ns[step.index : stop] - ordered_ns[step.index]) // _FLOOR_NS
        firsts = np.flatnonzero(np.diff(block, prepend=-1))
        blocks.append(firsts + step.index)
    firsts = np.concatenate(blocks)
    least_ns = np.minimum.reduceat(delay_ns, firsts)
    counts = np.diff(firsts, append=len(delay_ns))
    is_full = counts >= 10
    firsts, least_ns, counts = firsts[is_full], least_ns[is_full], counts[is_full]
    # Some of their packets, evenly.
    behind = np.cumsum(counts)
    every = np.arange(0, int(counts.sum()), max(1, len(delay_ns) // 20_000))
    its_block = np.searchsorted(behind, every, side="right")
    place = every - (behind - counts - firsts)[its_block]
    every_ns = delay_ns[place] - least_ns[its_block]
    if not every_ns.size:
        return [0] * len(plateaus)
    every_ns.sort()
    found = []
    for step, stop in zip(begins, stops, strict=True):
        share = 1 - _CHANCE ** (1 / (stop - step.index))
        found.append(int(every_ns[min(len(every_ns) - 1, int(share * len(every_ns)))]))
    return found


def _part_at_bends(
    begins: Sequence[Step], media_ns: Ints, delay_ns: Ints, points: Sequence[ReportPoint]
) -> list[Step]:
    """Returns what begins each plateau: the steps, and the bends between them."""
    # Once for all of them: a hostile dump has many, and as many reports.
    behind = cache(lambda: wall_behind_media(points))
    parted: list[Step] = []
    for step, stop in zip(
        begins, [*(step.index for step in begins[1:]), len(media_ns)], strict=True
    ):
        part = slice(step.index, stop)
        parted.append(step)
        parted += [
            Step(step.index + place, 0, bend)
            for place, bend in find_bends(media_ns[part], delay_ns[part], behind)
        ]
    return parted


def _plateau_by_ends(first_stop_sample: int, last_stop_sample: int, span_ns: int | None) -> Plateau:
    """Returns the plateau of a packet run of which only the ends are known.

    Two arrivals make a line; of one the rate stays nominal, and the error of the fit says so.

    Args:
      first_stop_sample: end of the first packet.
      last_stop_sample: end of the last packet.
      span_ns: from the first packet's arrival to the last one's; None if unknown.
    """
    late_ns = (
        0 if span_ns is None else span_ns - samples_to_ns(last_stop_sample - first_stop_sample)
    )
    x = np.array([first_stop_sample, last_stop_sample]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    y = np.array([0, late_ns], dtype=np.int64)
    known = slice(0, 1 if span_ns is None else 2)
    begin = Step(0, 0, StepEvidence.NONE)
    return _plateau(0, last_stop_sample, x[known], y[known], x[known], begin)


def _arrivals_by_reports(
    stop_sample: Ints, first_unix_ns: int, span_ns: int | None, points: Sequence[ReportPoint]
) -> Ints | None:
    """Returns when packets would have arrived by the sender reports, from a known first arrival.

    Where the last arrival is known too, and is further from what the reports say than a network or
    a clock would be, the sender's wall clock runs at another rate: it is brought to end there.

    None when there are too few reports, or they imply an absurd rate.

    Args:
      stop_sample: media time at the end of each packet.
      first_unix_ns: the first packet's arrival.
      span_ns: from the first packet's arrival to the last one's; None if unknown.
      points: by media time.
    """
    report_sample, behind_ns = wall_behind_media(points)
    if len(report_sample) < 2:
        return None
    rate = float(np.median(np.diff(behind_ns) / np.diff(report_sample)))
    if abs(rate) * SAMPLE_RATE_HZ / NS_PER_SECOND > ABSURD_RATE:
        return None
    # A report sent while the capture stood knows part of the stall.
    has_stall = np.abs(np.diff(behind_ns) - rate * np.diff(report_sample)) > REPORT_NOISE_NS
    keep = np.concatenate([[True], ~(has_stall[:-1] & has_stall[1:]), [True]])
    report_sample, behind_ns = report_sample[keep], behind_ns[keep]
    # Between two reports a stall is at the longest pause there: a mute, most likely.
    stall_ns = np.diff(behind_ns) - rate * np.diff(report_sample)
    drift_ns = rate * (stop_sample - report_sample[0]) + behind_ns[0]
    for number in np.flatnonzero(np.abs(stall_ns) > REPORT_NOISE_NS).tolist():
        first, stop = np.searchsorted(
            stop_sample, [report_sample[number], report_sample[number + 1]], side="right"
        ).tolist()
        stop = min(stop, len(stop_sample) - 1)
        if stop > first > 0:
            pauses = np.diff(stop_sample[first - 1 : stop + 1])
            longest = int(pauses.argmax())
            at = first + (
                longest if pauses[longest] > 2 * int(np.median(pauses)) else len(pauses) // 2
            )
        else:
            at = first
        drift_ns[at:] += stall_ns[number]
    media_ns = stop_sample / SAMPLE_RATE_HZ * NS_PER_SECOND
    wall_ns = media_ns + drift_ns
    wall_ns -= wall_ns[0]
    if span_ns is not None and wall_ns[-1] > 0:
        missing_ns = span_ns - float(wall_ns[-1])
        if (
            METADATA_NOISE_NS + WALL_CLOCK_RATE * wall_ns[-1]
            < abs(missing_ns)
            < MAX_SKEW * wall_ns[-1] + NS_PER_SECOND
        ):
            wall_ns += missing_ns * (media_ns - media_ns[0]) / (media_ns[-1] - media_ns[0])
    arrivals: Ints = first_unix_ns + np.rint(wall_ns).astype(np.int64)
    return arrivals


def _plateau(
    start_sample: int,
    stop_sample: int,
    media_ns: Ints,
    delay_ns: Ints,
    ordered_ns: Ints,
    begin: Step,
) -> Plateau:
    """Returns a plateau from its packets: media time at their ends, delays, arrivals in order."""
    point = _least_of_blocks(delay_ns, ordered_ns, _POINT_NS)
    x, y = media_ns[point], delay_ns[point]
    hull = lower_hull(x, y)
    # The least of the least: blocks of both lengths begin together.
    floor = _least_of_blocks(y, ordered_ns[point], _FLOOR_NS, int(ordered_ns[0]))
    floor_x, floor_y = x[floor], y[floor]
    early = int(np.searchsorted(ordered_ns, ordered_ns[0] + _FLOOR_NS, "right"))
    last = int(np.searchsorted(ordered_ns, ordered_ns[-1] - WINDOW_NS))
    # However long a pause before the last 2 s was.
    before = (
        int(np.searchsorted(ordered_ns[:last], ordered_ns[last - 1] - _FLOOR_NS)) if last else 0
    )
    edges = [(0, early), (before, last or len(delay_ns)), (last, len(delay_ns))]
    ends = [start + int(delay_ns[start:stop].argmin()) for start, stop in edges]
    return Plateau(
        media_start_sample=start_sample,
        media_stop_sample=stop_sample,
        point_count=len(x),
        mean_media_ns=int(x.mean()),
        mean_delay_ns=int(y.mean()),
        spread_media_ns=int(x.std()),
        mean_floor=(int(floor_x.mean()), int(floor_y.mean())),
        ends=tuple((int(media_ns[at]), int(delay_ns[at])) for at in ends),
        hull=tuple((int(x[index]), int(y[index])) for index in hull),
        evidence=begin.evidence,
        stall_ns=begin.stall_ns,
        other_stall_ns=begin.other_stall_ns,
        pause_ns=begin.pause_ns,
        doubt_ns=begin.doubt_ns,
    )


def _least_of_blocks(
    delay_ns: Ints, ordered_ns: Ints, block_ns: int, begin_ns: int | None = None
) -> Ints:
    """Returns the index of the first packet of the least delay of each block of time.

    Args:
      delay_ns: of each packet.
      ordered_ns: arrivals in order.
      block_ns: length of a block.
      begin_ns: when the first block begins; None for the first arrival.
    """
    bins = (ordered_ns - (ordered_ns[0] if begin_ns is None else begin_ns)) // block_ns
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    least_ns = np.minimum.reduceat(delay_ns, firsts)
    alike = np.flatnonzero(delay_ns == np.repeat(least_ns, np.diff(firsts, append=len(bins))))
    picked: Ints = alike[np.flatnonzero(np.diff(bins[alike], prepend=-1))]
    return picked


def lower_hull(x: Ints, y: Ints) -> list[int]:
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
