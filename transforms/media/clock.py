"""RTP time -> server time: the lower envelope of the arrivals, one skew per device, steps told apart by sender reports.

A packet's delay is its arrival less its media time. The network only ever adds to it, so the least delays tell the clocks:

    delay |      .  .    .                 .  '    what the network added
          |  .  .  ' .  ._____. _._ . ___.____     a step that lasts: the sender's capture stood still, or a new path
          |__._____.___|                           the slope: the sender's clock runs slow or fast
          +------------------------------------ media time

In two parts. `observe_clock` looks at one run of packets and keeps little: plateaus between lasting steps, each with the lower
hull of its delays, and what the sender reports say of each step. `fit_clocks` lays straight lines under the plateaus of all
runs of a participant session together (one device, one skew), by the linear program of Moon, Skelly and Towsley ("Estimation
and Removal of Clock Skew from Network Delay Measurements", INFOCOM 1999): of all lines below every delay the one nearest to
them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.model import ClockPiece, Plateau, RunClock, StepEvidence
from transforms.media.opus import SAMPLE_RATE_HZ

NS_PER_SECOND = 1_000_000_000
_MS = 1_000_000

WINDOW_NS = 2 * NS_PER_SECOND
"""A step must hold for this long on both sides: the least of 2 s of delays is the network's least."""
_BIN_NS = 50 * _MS
_LEAST_STEP_NS = 5 * _MS
_PATH_STEP_NS = 60 * _MS
"""A step that sender reports do not confirm is a change of path: below this it moves nothing."""
_PAUSE_NS = 500 * _MS
"""A longer pause between packets tells no more of steps; a DTX refresh comes every 400 ms."""
_CHANCE = 4
"""Times the usual error of a least delay that chance makes seldom."""
_MOST_CHANCE_NS = 15 * _MS
_LAST_PACKETS = 3
_BEFORE_PACKETS = 100
_BURST_NS = 3 * NS_PER_SECOND
"""Packets that came late together, or could not overtake each other, are a burst, not a path of their own."""
_SLOW_START_NS = 10 * NS_PER_SECOND
"""Delay that falls within this of a start was a network that was crowded at first."""
_REPORT_NOISE_NS = 8 * _MS
_POINT_NS = 250 * _MS
"""The envelope is the least delay of each quarter second."""

_MAX_SKEW = 600e-6
"""Beyond what sound cards do (some 500 ppm): such a fit is not applied."""
_ABSURD_RATE = 2 * _MAX_SKEW
"""Reports whose two clocks drift apart faster say nothing."""
_NOMINAL_SKEW_BOUND = 500e-6
_WALL_CLOCK_RATE = 100e-6
"""A sender's wall clock, disciplined or not, is not further off than this."""
_METADATA_NOISE_NS = 25 * _MS
"""What the network may have added to the only arrivals that are known."""
_LEAST_FIT_SAMPLES = 30 * SAMPLE_RATE_HZ
_OWN_FIT_SAMPLES = 600 * SAMPLE_RATE_HZ
_OWN_FIT_APART_NS = 2 * _MS
_OWN_FIT_NS = 600 * NS_PER_SECOND
_BLOCK_NS = 60 * NS_PER_SECOND
_OWN_FIT_BLOCKS = _OWN_FIT_NS // _BLOCK_NS
_BEND_S = 0.0009
"""How far least delays may lie off one straight line, on either side, before another is drawn."""
_BEND_REPORTS = 12
_BEND_NOISE = 2e-6
_BEND_EDGE_BLOCKS = 3
"""Beside a bend the middle of five blocks is of both lines."""
_DUMP_RESOLUTION_NS = _MS
"""rtpdump counts arrivals in whole ms."""

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPoint:
    """A sender report on a run's own media time."""

    media_sample: int
    """Its RTP timestamp, counted from the run's first packet."""
    sender_unix_ns: int
    """Its wall clock; wrong by any constant."""
    arrival_unix_ns: int | None = None
    """When it arrived; None to take it for sent with the packet of its media time."""


def samples_to_ns(samples: int) -> int:
    """Returns the length of `samples` at 48 kHz in ns, rounded to the nearest."""
    return (samples * NS_PER_SECOND + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ


def ns_to_samples(ns: int) -> int:
    """Returns a span of time in samples at 48 kHz, rounded to the nearest."""
    return (ns * SAMPLE_RATE_HZ + NS_PER_SECOND // 2) // NS_PER_SECOND


def in_order(arrival_unix_ns: Ints) -> Ints:
    """Returns when packets would have come at the latest had they kept their places: one that was overtaken moves no other."""
    times: Ints = np.minimum.accumulate(arrival_unix_ns[::-1])[::-1]
    return times


# --- looking at one run ----------------------------------------------------------------------------------------------


def observe_clock(
    media_sample: Ints,
    duration_samples: Ints,
    arrival_unix_ns: Ints,
    reports: Sequence[ReportPoint],
    last_arrival_unix_ns: int | None = None,
) -> RunClock:
    """Returns what one run of one SSRC tells of its sender's clock.

    Args:
      media_sample: unwrapped RTP time of each audio packet in sequence order, counted from the first; shape (packets,).
      duration_samples: each packet's length; a packet arrives once its last sample was captured.
      arrival_unix_ns: server clock at its arrival; all equal where the dump has none but the first.
      reports: the SSRC's sender reports, in any order.
      last_arrival_unix_ns: when the last packet arrived, where the dump has no arrivals and something else says so.
    """
    if media_sample.size == 0:
        raise ValueError("a run without packets has no clock")
    points = sorted(reports, key=lambda point: (point.media_sample, point.sender_unix_ns))
    method = "arrival_envelope"
    if media_sample[-1] > SAMPLE_RATE_HZ and not np.ptp(arrival_unix_ns):
        method = "metadata"
        ends = media_sample + duration_samples
        base = int(arrival_unix_ns[0]) - samples_to_ns(int(duration_samples[0]))
        span = None
        if last_arrival_unix_ns is not None:
            span = last_arrival_unix_ns - int(arrival_unix_ns[0])
        known = _arrivals_by_reports(ends, int(arrival_unix_ns[0]), span, points)
        if known is None:
            # Two arrivals make a line; of one the rate stays nominal. The error says so.
            late = 0 if span is None else span - samples_to_ns(int(ends[-1] - ends[0]))
            x, y = np.array([ends[0], ends[-1]]) * NS_PER_SECOND // SAMPLE_RATE_HZ, np.array([0, late], dtype=np.int64)
            used = slice(0, 1 if span is None else 2)
            plateau = _plateau(0, int(ends[-1]), x[used], y[used], x[used], StepEvidence.NONE)
            return RunClock(base_unix_ns=base, plateaus=(plateau,), method=method)
        arrival_unix_ns = known
    media_ns = ((media_sample + duration_samples) * NS_PER_SECOND) // SAMPLE_RATE_HZ
    base = int(arrival_unix_ns[0] - media_ns[0])
    delay = arrival_unix_ns - media_ns - base
    time = in_order(arrival_unix_ns)
    steps = _find_steps(time, delay)
    ramps = _find_ramps(steps, time, delay - (arrival_unix_ns - time))
    evidence = _judge_steps(steps, ramps, media_sample, time, points)
    # Little by little, and no report says otherwise: a queue.
    evidence = [
        StepEvidence.DENIED if is_ramp and said == StepEvidence.UNKNOWN else said
        for is_ramp, said in zip(ramps, evidence, strict=True)
    ]
    steps, evidence = _drop_ramps(steps, evidence, time)
    marks = [(0, StepEvidence.NONE), *((index, said) for (index, _), said in zip(steps, evidence, strict=True))]
    parted: list[tuple[int, StepEvidence]] = []
    for (start, said), (stop, _) in itertools.pairwise([*marks, (len(media_sample), StepEvidence.NONE)]):
        parted.append((start, said))
        parted += [(start + place, bend) for place, bend in _find_bends(media_ns[start:stop], delay[start:stop], points)]
    plateaus = []
    for (start, said), (stop, _) in itertools.pairwise([*parted, (len(media_sample), StepEvidence.NONE)]):
        first_sample = int(media_sample[start]) if start else 0
        stop_sample = int(media_sample[stop]) if stop < len(media_sample) else int(media_sample[-1] + duration_samples[-1])
        plateaus.append(_plateau(first_sample, stop_sample, media_ns[start:stop], delay[start:stop], time[start:stop], said))
    return RunClock(base_unix_ns=base, plateaus=tuple(plateaus), method=method)


def _arrivals_by_reports(ends: Ints, first_unix_ns: int, span_ns: int | None, points: Sequence[ReportPoint]) -> Ints | None:
    """Returns when packets would have arrived by the sender's reports, beginning with the one arrival that is known.

    Where the last arrival is known too, and is further from what the reports say than a network or a clock would be, the
    sender's wall clock runs at another rate: it is brought to end there.

    None when there are too few reports, or they imply an absurd rate.

    Args:
      ends: media time at the end of each packet.
      first_unix_ns: the first packet's arrival.
      span_ns: from the first packet's arrival to the last one's; None if unknown.
      points: by media time.
    """
    media, behind = _behind(points)
    if len(media) < 2:
        return None
    rate = float(np.median(np.diff(behind) / np.diff(media)))
    if abs(rate) * SAMPLE_RATE_HZ / NS_PER_SECOND > _ABSURD_RATE:
        return None
    # A report sent while the capture stood knows part of the stall.
    moved = np.abs(np.diff(behind) - rate * np.diff(media)) > _REPORT_NOISE_NS
    keep = np.concatenate([[True], ~(moved[:-1] & moved[1:]), [True]])
    media, behind = media[keep], behind[keep]
    # Between two reports a stall is at the longest pause there: a mute, most likely.
    moved = np.diff(behind) - rate * np.diff(media)
    drift = rate * (ends - media[0]) + behind[0]
    for number in np.flatnonzero(np.abs(moved) > _REPORT_NOISE_NS).tolist():
        first, stop = np.searchsorted(ends, [media[number], media[number + 1]], side="right").tolist()
        stop = min(stop, len(ends) - 1)
        if stop > first > 0:
            pauses = np.diff(ends[first - 1 : stop + 1])
            longest = int(pauses.argmax())
            at = first + (longest if pauses[longest] > 2 * int(np.median(pauses)) else len(pauses) // 2)
        else:
            at = first
        drift[at:] += moved[number]
    media_ns = ends / SAMPLE_RATE_HZ * NS_PER_SECOND
    wall = media_ns + drift
    wall -= wall[0]
    if span_ns is not None and wall[-1] > 0:
        off = span_ns - float(wall[-1])
        if _METADATA_NOISE_NS + _WALL_CLOCK_RATE * wall[-1] < abs(off) < _MAX_SKEW * wall[-1] + NS_PER_SECOND:
            wall += off * (media_ns - media_ns[0]) / (media_ns[-1] - media_ns[0])
    arrivals: Ints = first_unix_ns + np.rint(wall).astype(np.int64)
    return arrivals


def _behind(points: Sequence[ReportPoint]) -> tuple[Ints, Ints]:
    """Returns media times of sender reports, rising, and how far media time is behind the sender's wall clock there, in ns."""
    media = np.array([point.media_sample for point in points], dtype=np.int64)
    wall = np.array([point.sender_unix_ns - points[0].sender_unix_ns for point in points], dtype=np.int64)
    if not media.size:
        return media, wall
    behind = wall - (media - media[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    # Of reports on the same sample the last one knows the whole stall.
    keep = np.concatenate([np.diff(media) > 0, [True]])
    return media[keep], behind[keep]


def _find_steps(time: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns (index of the first packet after it, size in ns) of every lasting step of the least delay, in order.

    Pauses count as half a second at most: a window of 2 s then has packets on both sides of a mute, however long it was.
    """
    pauses = np.diff(time, prepend=time[0])
    bins = np.cumsum(np.minimum(pauses, _PAUSE_NS)) // _BIN_NS
    count = int(bins[-1]) + 1
    width = WINDOW_NS // _BIN_NS
    least = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(least, bins, delay)
    up = _rises(least, width)
    # A fall is a rise seen backwards: the first bin after it is one past its last bin in that view.
    down = [(count - at, -size) for at, size in _rises(least[::-1], width)]
    found: list[tuple[int, int]] = []
    for at, size in sorted([*up, *down]):
        index = int(np.searchsorted(bins, at, side="left"))
        # Within the bins around, at the first packet that is up already, or down.
        first = int(np.searchsorted(bins, at - 1, side="left"))
        if size > 0:
            level = int(least[max(0, at - width) : at].min())
            late = np.flatnonzero(delay[first : index + 1] < level + size // 2)
            index = min(first + int(late[-1]) + 1, len(delay) - 1) if late.size else index
        else:
            # Who still waits behind slower ones is on the way down: it would pull the line of those before.
            stop = int(np.searchsorted(bins, at, side="right"))
            level = int(least[max(0, at - 1 - width) : max(1, at - 1)].min())
            early = np.flatnonzero(delay[first:stop] < level - _LEAST_STEP_NS // 2)
            index = first + int(early[0]) if early.size else index
        if 0 < index < len(delay) and (not found or index > found[-1][0]):
            found.append((index, size))
    return _significant(found, time, delay) or _step_at_last_pause(pauses, delay)


def _significant(steps: list[tuple[int, int]], time: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns the steps without those that few packets and much jitter make by chance.

    Of n packets the least delay lies about the n-th part of the usual excess above the network's least. What is short, or
    large, is left to be judged by what is around it.
    """
    found: list[tuple[int, int]] = []
    edges = [*(index for index, _ in steps), len(delay)]
    for (index, size), stop in zip(steps, edges[1:], strict=True):
        start = found[-1][0] if found else 0
        before, after = delay[start:index], delay[index:stop]
        is_long = min(time[index - 1] - time[start], time[stop - 1] - time[index]) >= WINDOW_NS // 2
        noise = sum((float(part.mean()) - float(part.min())) / len(part) for part in (before, after))
        if not (is_long and abs(size) < _PATH_STEP_NS and abs(int(after.min()) - int(before.min())) < _CHANCE * noise):
            found.append((index, size))
    return found


def _step_at_last_pause(pauses: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns a step at a pause in the last second, which windows do not see: who spoke a word after a mute, and left.

    Packets that a network held back come faster than they were sent; after a step they come as they were sent.
    """
    after = np.flatnonzero(pauses >= _PAUSE_NS)
    if not after.size or len(delay) - after[-1] < _LAST_PACKETS:
        return []
    index = int(after[-1])
    last, before = delay[index:], delay[max(0, index - _BEFORE_PACKETS) : index]
    size = int(last.min()) - int(before.min())
    return [(index, size)] if abs(size) >= _PATH_STEP_NS and np.ptp(last) <= abs(size) // 4 else []


def _rises(least: Ints, width: int) -> list[tuple[int, int]]:
    """Returns (bin, size) of each rise of the least delay that holds for a window."""
    none = np.iinfo(np.int64).max
    padded = np.concatenate([np.full(width, none), least, np.full(width, none)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width).min(axis=1)
    before = windows[: len(least)]  # the least of the window that ends before each bin
    after = windows[width : width + len(least)]  # and of that which begins with it
    known = (before != none) & (after != none)
    difference = np.where(known, after - np.where(known, before, 0), 0)
    # The last part of a run cannot tell a late burst from a step.
    difference[max(0, len(least) - width // 2) :] = 0
    usual = float(np.median(np.abs(difference[known]))) if known.any() else 0.0
    threshold = max(_LEAST_STEP_NS, 6 * usual)
    found: list[tuple[int, int]] = []
    last = 0
    for at in np.flatnonzero(difference >= threshold).tolist():
        since = least[max(last, at - width) : at]
        level = int(since.min()) if since.size else none
        if level != none and int(after[at]) - level >= threshold:
            found.append((at, int(after[at]) - level))
            last = at
    return found


def _judge_steps(
    steps: Sequence[tuple[int, int]], ramps: Sequence[bool], media_sample: Ints, time: Ints, points: Sequence[ReportPoint]
) -> list[StepEvidence]:
    """Returns what the sender reports that came before and after each step (index, size in ns) say of it."""
    said = [StepEvidence.UNKNOWN] * len(steps)
    if len(points) < 2 or not steps:
        return said
    beside = np.minimum(np.searchsorted(media_sample, [point.media_sample for point in points]), len(time) - 1)
    came = [
        (int(time[place]) if point.arrival_unix_ns is None else point.arrival_unix_ns, point.sender_unix_ns, point.media_sample)
        for point, place in zip(points, beside.tolist(), strict=True)
    ]
    when, wall, media = np.array(sorted(came), dtype=np.int64).T
    wall = wall - wall[0]
    behind = wall - (media - media[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    index = np.array([at for at, _ in steps])
    last_before = np.searchsorted(when, time[index - 1], side="right") - 1
    first_after = np.searchsorted(when, time[index], side="left")
    quiet = np.diff(wall) > 0
    for first, last in zip(last_before.tolist(), first_after.tolist(), strict=True):
        quiet[max(first, 0) : last] = False
    rates = np.diff(behind)[quiet] / np.diff(wall)[quiet]
    rate = float(np.median(rates)) if rates.size else 0.0
    if abs(rate) > _ABSURD_RATE:
        return said  # reports that imply an absurd rate say nothing
    # What a sender's reports are off by when nothing happens: 3 standard deviations, by the median of the deviations.
    noise = 4.5 * float(np.median(np.abs(np.diff(behind)[quiet] - rate * np.diff(wall)[quiet]))) if rates.size else 0.0

    def told(first: int, last: int) -> tuple[float, range]:
        """How far media time fell behind between two reports, and the steps between them."""
        moved = float(behind[last] - behind[first] - rate * (wall[last] - wall[first]))
        inside = np.searchsorted(time[index], [when[first], when[last]], side="right").tolist()
        return moved, range(*inside)

    done = 0
    for (first, last), group in itertools.groupby(zip(last_before.tolist(), first_after.tolist(), strict=True)):
        mine = range(done, done + sum(1 for _ in group))
        done = mine.stop
        if first < 0 or last >= len(when):
            continue
        moved, inside = told(first, last)
        sharp = [steps[place][1] for place in inside if not ramps[place]]
        here = [steps[place][1] for place in inside]
        # A report sent while the capture stood knows part of the stall, the one after it the rest.
        moved_around, around = told(max(0, first - 1), min(len(when) - 1, last + 1))
        more = [steps[place][1] for place in around if not ramps[place]]
        if _explains(moved, sharp, noise) or (_explains(moved_around, more, noise) and not _explains(moved, here, noise)):
            verdicts = [StepEvidence.DENIED if ramps[place] else StepEvidence.CONFIRMED for place in mine]
        elif _explains(moved, here, noise):
            verdicts = [StepEvidence.CONFIRMED] * len(mine)
        elif abs(sum(here)) <= noise:
            continue  # too little to be told
        elif abs(moved) <= _REPORT_NOISE_NS or moved * sum(here) < 0:
            verdicts = [StepEvidence.DENIED] * len(mine)
        else:
            # Something stood still while the network was crowded: the step that is like it, or what is less than it.
            alike = [_explains(moved, [steps[place][1]], noise) for place in mine]
            less = abs(sum(here)) <= abs(moved)
            unlike = StepEvidence.DENIED if any(alike) else StepEvidence.CONFIRMED if less else StepEvidence.UNKNOWN
            verdicts = [StepEvidence.CONFIRMED if is_alike else unlike for is_alike in alike]
        said[mine.start : mine.stop] = verdicts
    return said


def _explains(moved: float, sizes: Sequence[int], noise: float) -> bool:
    """Whether steps are what the sender's clock shows: nearer to it than nothing at all, and no rise that a fall takes back."""
    total = sum(sizes)
    if abs(moved) <= noise or sum(abs(size) for size in sizes) > 1.5 * abs(total):
        return False
    tolerance = min(max(_REPORT_NOISE_NS, 0.35 * abs(total)), _PATH_STEP_NS)
    return abs(moved - total) <= min(tolerance, 0.999 * abs(moved))


def _find_ramps(steps: Sequence[tuple[int, int]], time: Ints, delay: Ints) -> list[bool]:
    """Returns which steps are part of a rise or a fall that came little by little.

    A capture that stood still is missed at once; a queue fills and empties over many packets.
    """
    found = [False] * len(steps)
    jumps = [
        int(np.abs(np.diff(delay[max(0, index - _LAST_PACKETS) : index + _LAST_PACKETS])).max(initial=0)) for index, _ in steps
    ]
    first = 0
    for number in range(1, len(steps) + 1):
        if number < len(steps):
            (index, size), (index_before, size_before) = steps[number], steps[number - 1]
            is_sharp = max(jumps[number - 1], jumps[number]) >= _PATH_STEP_NS
            if not is_sharp and (size > 0) == (size_before > 0) and time[index] - time[index_before] <= WINDOW_NS:
                continue
        total = abs(sum(size for _, size in steps[first:number]))
        if number - first >= _LAST_PACKETS and total >= _PATH_STEP_NS and max(jumps[first:number]) < total // 4:
            found[first:number] = [True] * (number - first)
        first = number
    return found


def _drop_ramps(
    steps: list[tuple[int, int]], evidence: list[StepEvidence], time: Ints
) -> tuple[list[tuple[int, int]], list[StepEvidence]]:
    """Returns the steps and what is said of them, without those in the middle of a ramp of the network's making."""
    denied = [said == StepEvidence.DENIED for said in evidence]
    near = [
        denied[k]
        and denied[k + 1]
        and (steps[k][1] > 0) == (steps[k + 1][1] > 0)
        and time[after[0]] - time[before[0]] <= _PAUSE_NS
        for k, (before, after) in enumerate(itertools.pairwise(steps))
    ]
    kept = [k for k in range(len(steps)) if not (0 < k < len(steps) - 1 and near[k - 1] and near[k])]
    return [steps[k] for k in kept], [evidence[k] for k in kept]


def _find_bends(media_ns: Ints, delay: Ints, points: Sequence[ReportPoint]) -> list[tuple[int, StepEvidence]]:
    """Returns where between two steps the clock changes its rate (index of the first packet), and what is known of it.

    A microphone was changed, or a crystal warmed up. The network's delay may drift as well: reports tell. Without them a clock
    it is if delays run straight before and after.
    """
    if media_ns[-1] - media_ns[0] < 2 * _OWN_FIT_NS:
        return []
    block = (media_ns - media_ns[0]) // _BLOCK_NS
    firsts = np.flatnonzero(np.diff(block, prepend=-1))
    trend = float(delay[firsts[-1] :].min() - delay[: firsts[1]].min()) / float(media_ns[firsts[-1]] - media_ns[0])
    flat = delay - trend * (media_ns - media_ns[0])
    least = [start + int(flat[start:stop].argmin()) for start, stop in itertools.pairwise([*firsts.tolist(), len(flat)])]
    x, y = (media_ns[least] - media_ns[0]) / 1e9, flat[least] / 1e9
    # The middle of five: a crowded minute or two is no bend.
    padded = np.concatenate([y[:2], y, y[-2:]])
    y = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    edges = [0, *_break_lines(x, y, 0, len(x)), len(x)]
    slopes, off = [], []
    for a, b in itertools.pairwise(edges):
        line = np.polyfit(x[a:b], y[a:b], 1)
        slopes.append(float(line[0]))
        off.append(float(np.abs(y[a:b] - np.polyval(line, x[a:b]))[_BEND_EDGE_BLOCKS:-_BEND_EDGE_BLOCKS].max()))
    media, behind = _behind(points)
    seconds = (media * NS_PER_SECOND / SAMPLE_RATE_HZ - media_ns[0]) / 1e9
    ends = [*(float(x[edge]) for edge in edges[:-1]), math.inf]
    told = [_slope(seconds, behind / 1e9, a, b) for a, b in itertools.pairwise(ends)]
    found = []
    for number, edge in enumerate(edges[1:-1]):
        change = slopes[number + 1] - slopes[number]
        (before, noise_before), (after, noise_after) = told[number], told[number + 1]
        noise = 2 * (noise_before + noise_after)
        if noise >= abs(change):
            if max(off[number : number + 2]) > 2 * _BEND_S:
                continue  # it comes and goes: nothing a clock would do
            verdict = StepEvidence.CONFIRMED
        elif abs(after - before - change) <= max(noise, _BEND_NOISE, 0.35 * abs(change)):
            verdict = StepEvidence.CONFIRMED
        else:
            verdict = StepEvidence.DENIED
        found.append((int(firsts[edge]), verdict))
    return found


def _slope(x: Reals, y: Reals, start: float, stop: float) -> tuple[float, float]:
    """Returns the slope of the points between two places and how far it may be off; infinitely so for few points."""
    mine = (x >= start) & (x < stop)
    if mine.sum() < _BEND_REPORTS:
        return 0.0, math.inf
    line = np.polyfit(x[mine], y[mine], 1)
    left_over = y[mine] - np.polyval(line, x[mine])
    return float(line[0]), float(left_over.std() / (x[mine].std() * math.sqrt(mine.sum())))


def _break_lines(x: Reals, y: Reals, start: int, stop: int) -> list[int]:
    """Returns where straight lines break that follow the points closely, none shorter than 10 minutes."""
    if stop - start < 2 * _OWN_FIT_BLOCKS:
        return []

    def left_over(a: int, b: int) -> Reals:
        found: Reals = y[a:b] - np.polyval(np.polyfit(x[a:b], y[a:b], 1), x[a:b])
        return found

    inside = slice(_BEND_EDGE_BLOCKS if start else 0, stop - start - (_BEND_EDGE_BLOCKS if stop < len(x) else 0))
    if np.abs(left_over(start, stop)[inside]).max() <= _BEND_S:
        return []
    places = range(start + _OWN_FIT_BLOCKS, stop - _OWN_FIT_BLOCKS + 1, max(1, (stop - start) // 60))
    cost = [float(np.square(left_over(start, at)).sum() + np.square(left_over(at, stop)).sum()) for at in places]
    at = places[int(np.argmin(cost))]
    return [*_break_lines(x, y, start, at), at, *_break_lines(x, y, at, stop)]


def _plateau(start: int, stop: int, media_ns: Ints, delay: Ints, time: Ints, evidence: StepEvidence) -> Plateau:
    bins = (time - time[0]) // _POINT_NS
    order = np.lexsort((delay, bins))
    firsts = np.concatenate([[True], np.diff(bins[order]) > 0])
    picked = order[firsts]
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
    order = np.argsort(x, kind="stable")
    hull: list[int] = []
    points = [(int(x[index]), int(y[index]), int(index)) for index in order]
    for px, py, index in points:
        while hull:
            bx, by = int(x[hull[-1]]), int(y[hull[-1]])
            if bx == px:
                if by <= py:
                    break
                hull.pop()
                continue
            if len(hull) >= 2:
                ax, ay = int(x[hull[-2]]), int(y[hull[-2]])
                if (by - ay) * (px - ax) >= (py - ay) * (bx - ax):
                    hull.pop()
                    continue
            break
        if not hull or int(x[hull[-1]]) != px:
            hull.append(index)
    return hull


# --- fitting all runs of a session together --------------------------------------------------------------------------


def fit_clocks(runs: Sequence[RunClock]) -> tuple[tuple[ClockPiece, ...], ...]:
    """Returns, for each run of one participant session and track type, how its media time maps to server time.

    One skew for all of them, given 30 s of media; 10 minutes or more without a step get their own where it moves their ends by
    more than 2 ms against each other. With less, or an absurd fit, the nominal rate.
    """
    plateaus = [plateau for run in runs for plateau in run.plateaus]
    total = sum(plateau.media_stop_sample - plateau.media_start_sample for plateau in plateaus)
    common = _fit_skew(plateaus) if total >= _LEAST_FIT_SAMPLES else None
    return tuple(_lay_lines(run, common) for run in runs)


@dataclass(frozen=True, slots=True)
class _Skew:
    rate: float
    """How much slower the sender's clock runs than the server's, as a part of one."""
    error: float


def _fit_skew(plateaus: Sequence[Plateau]) -> _Skew | None:
    """Returns the slope of the lines nearest below all plateaus, None when it is absurd or not to be known.

    Plateaus of less than 3 s are ramps of a queue, and tell no slope. Those between which a queue came and went share a line.
    """
    known = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    usable = [p for p in known if _lasts(p.media_start_sample, p.media_stop_sample, _BURST_NS)] or known
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
            if apart < _LEAST_STEP_NS + skew.error * distance:
                joined[-1].append(plateau)
                continue
        joined.append([plateau])
    if len(joined) < len(lines):
        skew = _fit_lines(joined)
    return None if abs(skew.rate) > _MAX_SKEW or skew.error > _NOMINAL_SKEW_BOUND else skew


def _fit_lines(lines: Sequence[Sequence[Plateau]]) -> _Skew:
    """Returns the one slope of lines below plateaus, and how far it may be off."""
    x = np.array([point[0] for line in lines for plateau in line for point in plateau.hull], dtype=np.float64)
    y = np.array([point[1] for line in lines for plateau in line for point in plateau.hull], dtype=np.float64)
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
        """How far the delays lie above the highest lines of this slope, summed: convex in the slope."""
        level = np.minimum.reduceat(y - rate * x, starts)
        return float((weight * (mean_y - rate * mean_x - level)).sum())

    low, high = -2 * _MAX_SKEW, 2 * _MAX_SKEW
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
    return _Skew(rate, 2 * mean_above / spread + _DUMP_RESOLUTION_NS / longest if spread else math.inf)


def _lay_lines(run: RunClock, common: _Skew | None) -> tuple[ClockPiece, ...]:
    """Returns one piece per stretch between steps that count, each on the least delay of its plateaus."""
    skews = _skews(run.plateaus, common)
    pieces = []
    for stretch in _follow(run.plateaus, [skew.rate if skew else 0.0 for skew, _ in skews]):
        plateaus = run.plateaus[stretch.first : stretch.last + 1]
        skew, strange_rate = skews[stretch.first]
        rate = skew.rate if skew else 0.0
        start_sample = plateaus[0].media_start_sample
        start_ns, length_ns = samples_to_ns(start_sample), samples_to_ns(plateaus[-1].media_stop_sample - start_sample)
        # How far the usual delay lies above the least one says how well the least one is known.
        points = sum(plateau.point_count for plateau in plateaus)
        usual = sum(
            plateau.point_count * (plateau.mean_delay_ns - rate * plateau.mean_media_ns - _least_delay(plateau, rate))
            for plateau in plateaus
        )
        doubt = _DUMP_RESOLUTION_NS + max(0.0, usual / points) / math.sqrt(points) * 3
        doubt += (skew.error if skew else _NOMINAL_SKEW_BOUND) * length_ns + strange_rate * length_ns
        doubt += stretch.doubt_ns + stretch.excess_ns
        # Lines are drawn through what is nearly straight.
        doubt += 2e9 * _BEND_S * min(1.0, length_ns / (2 * _OWN_FIT_NS))
        if run.method == "metadata":
            by_line = abs(rate) if plateaus[0].point_count <= 2 else _WALL_CLOCK_RATE
            doubt += _METADATA_NOISE_NS + by_line * length_ns
        pieces.append(
            ClockPiece(
                media_start_sample=start_sample,
                server_start_unix_ns=run.base_unix_ns + start_ns + round(stretch.level_ns + rate * start_ns),
                skew_ppm=(1 / (1 + rate) - 1) * 1e6,
                is_fitted=skew is not None,
                sync_error_ns=round(doubt),
            )
        )
    return tuple(pieces)


def _skews(plateaus: Sequence[Plateau], common: _Skew | None) -> list[tuple[_Skew | None, float]]:
    """Returns each plateau's skew, and by how much its own seems to be another though it is not applied."""
    starts = [number for number, plateau in enumerate(plateaus) if number == 0 or plateau.evidence == StepEvidence.CONFIRMED]
    found: list[tuple[_Skew | None, float]] = []
    for start, stop in itertools.pairwise([*starts, len(plateaus)]):
        length = plateaus[stop - 1].media_stop_sample - plateaus[start].media_start_sample
        own = _fit_skew(plateaus[start:stop]) if length >= _LEAST_FIT_SAMPLES else None
        apart = max(0.0, abs(own.rate - common.rate) - own.error) if own and common else 0.0
        if own and length >= _OWN_FIT_SAMPLES and (common is None or apart * samples_to_ns(length) > _OWN_FIT_APART_NS):
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
    """Returns the stretches of a run, told apart by what its steps mean; the slope is the same between confirmed steps.

    A delay is the sum of what the sender's stalls add (never taken back) and what the network adds to its least (which may be):

    - confirmed by reports: a stall, the time line moves;
    - denied: the network's, however large. It is measured from one plateau of 3 s or more to the next: packets in between that
      could not overtake each other tell no level;
    - unknown: a fall gives back what the network had added; a rise of 60 ms or more that stays to the end is a stall; what is
      less moves nothing until it adds up to that.

    The network's share is counted from the least of the whole run: a path that was slow at first was slow, not early.
    """
    # Levels are heights of lines at media time 0. Where the slope changes, the lines meet at the step instead.
    turns = [0.0]
    for plateau, before, after in zip(plateaus[1:], rates, rates[1:], strict=False):
        turns.append(turns[-1] + (before - after) * samples_to_ns(plateau.media_start_sample))
    levels = [_least_delay(plateau, rate) - turn for plateau, rate, turn in zip(plateaus, rates, turns, strict=True)]
    added = [
        after - before if plateau.evidence == StepEvidence.DENIED else 0.0
        for plateau, before, after in zip(plateaus, [0.0, *levels], levels, strict=False)
    ]
    denied = list(itertools.accumulate(added))
    lowest_after = list(itertools.accumulate((y - path for y, path in zip(levels[::-1], denied[::-1], strict=True)), min))[::-1]
    found: list[_Stretch] = []
    by_path = least_path = 0.0
    # Of n least delays the least lies about the n-th part of their usual excess above the network's.
    noises = [
        (plateau.mean_delay_ns - rate * plateau.mean_media_ns - _least_delay(plateau, rate)) / plateau.point_count
        for plateau, rate in zip(plateaus, rates, strict=True)
    ]
    anchor: float | None = None  # the last long plateau of this stretch
    anchored = 0
    only_denied = True  # since then
    for number, plateau in enumerate(plateaus):
        is_long = _lasts(plateau.media_start_sample, plateau.media_stop_sample, _BURST_NS)
        is_long &= _CHANCE * noises[number] < _MOST_CHANCE_NS  # a ramp is no plateau
        level = levels[number] - by_path
        moves = not found or plateau.evidence == StepEvidence.CONFIRMED
        if not moves:
            stretch = found[-1]
            before = stretch.level_ns if anchor is None else anchor
            only_denied &= plateau.evidence == StepEvidence.DENIED
            chance = min(_LEAST_STEP_NS + _CHANCE * (noises[number] + noises[anchored]), _MOST_CHANCE_NS) if is_long else 0.0
            by_itself = abs(levels[number] - before)
            if anchor is None and level < stretch.level_ns:
                stretch.level_ns = level  # packets that came late together tell no level, those behind them do
            elif by_path and by_itself < chance and by_itself < abs(level - before):
                # All that was added is gone: here the level shows as it is.
                by_path, level = 0.0, levels[number]
                stretch.level_ns = min(stretch.level_ns, level) if stretch.is_clear else level
                stretch.is_clear = True
                level = stretch.level_ns
            elif abs(level - before) < chance:
                stretch.level_ns = min(stretch.level_ns, level)
                stretch.excess_ns = max(stretch.excess_ns, 0.0 if only_denied else level - stretch.level_ns)
                level = before = min(before, level)
            elif only_denied:
                by_path += level - before if is_long else 0.0
                level = before
            elif level < stretch.level_ns:
                back = min(stretch.level_ns - level, max(by_path, 0.0))
                by_path, level = by_path - back, level + back
                fall = stretch.level_ns - level
                lasted = _lasts(plateaus[stretch.first].media_start_sample, plateau.media_start_sample, _SLOW_START_NS)
                moves = fall >= _PATH_STEP_NS and lasted
                if not moves:
                    by_path, level = by_path - fall, stretch.level_ns
                    stretch.doubt_ns += fall if lasted else 0.0
            else:
                # Delay that comes down again was a crowded network.
                moves = lowest_after[number] + denied[number] - by_path - stretch.level_ns >= _PATH_STEP_NS
        if moves:
            found.append(_Stretch(number, number, level, is_clear=not by_path))
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
