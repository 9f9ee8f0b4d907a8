"""Where the least delay of a run steps, ramps or bends, and what sender reports say of it (see
`fit`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from transforms.media.clock.model import (
    ABSURD_RATE,
    BEND_S,
    CHANCE,
    LEAST_STEP_NS,
    OWN_FIT_NS,
    PATH_STEP_NS,
    REPORT_NOISE_NS,
    ReportPoint,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, Reals

WINDOW_NS = 2 * NS_PER_SECOND
"""A step must hold for this long on both sides: the least of 2 s of delays is the network's
least.
"""
_BIN_NS = 50 * NS_PER_MS
_PAUSE_NS = 500 * NS_PER_MS
"""A longer pause between packets tells no more of steps; a DTX refresh comes every 400 ms."""
_LAST_PACKETS = 3
_BEFORE_PACKETS = 100
_BLOCK_NS = 60 * NS_PER_SECOND
_OWN_FIT_BLOCKS = OWN_FIT_NS // _BLOCK_NS
_BEND_REPORTS = 12
_BEND_NOISE = 2e-6
_BEND_EDGE_BLOCKS = 3
"""Beside a bend the middle of five blocks is of both lines."""


def wall_behind_media(points: Sequence[ReportPoint]) -> tuple[Ints, Ints]:
    """Returns media times of sender reports, rising, and how far media time is behind the sender's
    wall clock there, in ns.
    """
    media = np.array([point.media_sample for point in points], dtype=np.int64)
    wall = np.array(
        [point.sender_unix_ns - points[0].sender_unix_ns for point in points], dtype=np.int64
    )
    if not media.size:
        return media, wall
    behind = wall - (media - media[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    # Of reports on the same sample the last one knows the whole stall.
    keep = np.concatenate([np.diff(media) > 0, [True]])
    return media[keep], behind[keep]


def find_steps(time: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns (index of the first packet after it, size in ns) of every lasting step of the least
    delay, in order.

    Pauses count as half a second at most: a window of 2 s then has packets on both sides of a mute,
    however long it was.
    """
    pauses = np.diff(time, prepend=time[0])
    bins = np.minimum(pauses, _PAUSE_NS)
    np.cumsum(bins, out=bins)
    bins //= _BIN_NS
    count = int(bins[-1]) + 1
    width = WINDOW_NS // _BIN_NS
    least = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    least[bins[firsts]] = np.minimum.reduceat(delay, firsts)
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
            # Who still waits behind slower ones is on the way down: it would pull the line of those
            # before.
            stop = int(np.searchsorted(bins, at, side="right"))
            level = int(least[max(0, at - 1 - width) : max(1, at - 1)].min())
            early = np.flatnonzero(delay[first:stop] < level - LEAST_STEP_NS // 2)
            index = first + int(early[0]) if early.size else index
        if 0 < index < len(delay) and (not found or index > found[-1][0]):
            found.append((index, size))
    return _significant(found, time, delay) or _step_at_last_pause(pauses, delay)


def _significant(steps: list[tuple[int, int]], time: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns the steps without those that few packets and much jitter make by chance.

    Of n packets the least delay lies about the n-th part of the usual excess above the network's
    least. What is short, or large, is left to be judged by what is around it.
    """
    found: list[tuple[int, int]] = []
    edges = [*(index for index, _ in steps), len(delay)]
    for (index, size), stop in zip(steps, edges[1:], strict=True):
        start = found[-1][0] if found else 0
        before, after = delay[start:index], delay[index:stop]
        is_long = min(time[index - 1] - time[start], time[stop - 1] - time[index]) >= WINDOW_NS // 2
        noise = sum(
            (float(part.mean()) - float(part.min())) / len(part) for part in (before, after)
        )
        if not (
            is_long
            and abs(size) < PATH_STEP_NS
            and abs(int(after.min()) - int(before.min())) < CHANCE * noise
        ):
            found.append((index, size))
    return found


def _step_at_last_pause(pauses: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns a step at a pause in the last second, which windows do not see: who spoke a word
    after a mute, and left.

    Packets that a network held back come faster than they were sent; after a step they come as they
    were sent.
    """
    after = np.flatnonzero(pauses >= _PAUSE_NS)
    if not after.size or len(delay) - after[-1] < _LAST_PACKETS:
        return []
    index = int(after[-1])
    last, before = delay[index:], delay[max(0, index - _BEFORE_PACKETS) : index]
    size = int(last.min()) - int(before.min())
    return [(index, size)] if abs(size) >= PATH_STEP_NS and np.ptp(last) <= abs(size) // 4 else []


def _rises(least: Ints, width: int) -> list[tuple[int, int]]:
    """Returns (bin, size) of each rise of the least delay that holds for a window."""
    none = np.iinfo(np.int64).max
    padded = np.concatenate([np.full(width, none), least, np.full(width, none)])
    windows = _least_of_windows(padded, width)
    before = windows[: len(least)]  # the least of the window that ends before each bin
    after = windows[width : width + len(least)]  # and of that which begins with it
    known = (before != none) & (after != none)
    difference = np.where(known, after - np.where(known, before, 0), 0)
    # The last part of a run cannot tell a late burst from a step.
    difference[max(0, len(least) - width // 2) :] = 0
    threshold = max(LEAST_STEP_NS, 6 * _middle(np.abs(difference[known])))
    found: list[tuple[int, int]] = []
    last = 0
    for at in np.flatnonzero(difference >= threshold).tolist():
        since = least[max(last, at - width) : at]
        level = int(since.min()) if since.size else none
        if level != none and int(after[at]) - level >= threshold:
            found.append((at, int(after[at]) - level))
            last = at
    return found


def _least_of_windows(values: Ints, width: int) -> Ints:
    """Returns the least of each `width` values in a row, by the least of 2, 4, 8, ... in a row."""
    least, span = values, 1
    while 2 * span <= width:
        least = np.minimum(least[:-span], least[span:])
        span *= 2
    rest = width - span
    return np.minimum(least[: len(least) - rest], least[rest:])


def _middle(values: Ints) -> float:
    """Returns the median, 0 of nothing. Whole ms are nearly all alike, over which a search for the
    middle is slow.
    """
    if not values.size:
        return 0.0
    values.sort()
    half = len(values) // 2
    return (
        float(values[half])
        if len(values) % 2
        else (float(values[half - 1]) + float(values[half])) / 2
    )


def judge_steps(
    steps: Sequence[tuple[int, int]],
    ramps: Sequence[bool],
    media_sample: Ints,
    time: Ints,
    points: Sequence[ReportPoint],
) -> list[StepEvidence]:
    """Returns what the sender reports that came before and after each step (index, size in ns) say
    of it.
    """
    said = [StepEvidence.UNKNOWN] * len(steps)
    if len(points) < 2 or not steps:
        return said
    beside = np.minimum(
        np.searchsorted(media_sample, [point.media_sample for point in points]), len(time) - 1
    )
    came = [
        (
            int(time[place]) if point.arrival_unix_ns is None else point.arrival_unix_ns,
            point.sender_unix_ns,
            point.media_sample,
        )
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
    if abs(rate) > ABSURD_RATE:
        return said  # reports that imply an absurd rate say nothing
    # What a sender's reports are off by when nothing happens: 3 standard deviations, by the median
    # of the deviations.
    noise = (
        4.5 * float(np.median(np.abs(np.diff(behind)[quiet] - rate * np.diff(wall)[quiet])))
        if rates.size
        else 0.0
    )

    def told(first: int, last: int) -> tuple[float, range]:
        """How far media time fell behind between two reports, and the steps between them."""
        moved = float(behind[last] - behind[first] - rate * (wall[last] - wall[first]))
        inside = np.searchsorted(time[index], [when[first], when[last]], side="right").tolist()
        return moved, range(*inside)

    done = 0
    for (first, last), group in itertools.groupby(
        zip(last_before.tolist(), first_after.tolist(), strict=True)
    ):
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
        if _explains(moved, sharp, noise) or (
            _explains(moved_around, more, noise) and not _explains(moved, here, noise)
        ):
            verdicts = [
                StepEvidence.DENIED if ramps[place] else StepEvidence.CONFIRMED for place in mine
            ]
        elif _explains(moved, here, noise):
            verdicts = [StepEvidence.CONFIRMED] * len(mine)
        elif abs(sum(here)) <= noise:
            continue  # too little to be told
        elif abs(moved) <= REPORT_NOISE_NS or moved * sum(here) < 0:
            verdicts = [StepEvidence.DENIED] * len(mine)
        else:
            # Something stood still while the network was crowded: the step that is like it, or what
            # is less than it.
            alike = [_explains(moved, [steps[place][1]], noise) for place in mine]
            less = abs(sum(here)) <= abs(moved)
            unlike = (
                StepEvidence.DENIED
                if any(alike)
                else StepEvidence.CONFIRMED
                if less
                else StepEvidence.UNKNOWN
            )
            verdicts = [StepEvidence.CONFIRMED if is_alike else unlike for is_alike in alike]
        said[mine.start : mine.stop] = verdicts
    return said


def _explains(moved: float, sizes: Sequence[int], noise: float) -> bool:
    """Whether steps are what the sender's clock shows: nearer to it than nothing at all, and no
    rise that a fall takes back.
    """
    total = sum(sizes)
    if abs(moved) <= noise or sum(abs(size) for size in sizes) > 1.5 * abs(total):
        return False
    tolerance = min(max(REPORT_NOISE_NS, 0.35 * abs(total)), PATH_STEP_NS)
    return abs(moved - total) <= min(tolerance, 0.999 * abs(moved))


def find_ramps(steps: Sequence[tuple[int, int]], time: Ints, delay: Ints) -> list[bool]:
    """Returns which steps are part of a rise or a fall that came little by little.

    A capture that stood still is missed at once; a queue fills and empties over many packets.
    """
    found = [False] * len(steps)
    jumps = [
        int(
            np.abs(np.diff(delay[max(0, index - _LAST_PACKETS) : index + _LAST_PACKETS])).max(
                initial=0
            )
        )
        for index, _ in steps
    ]
    first = 0
    for number in range(1, len(steps) + 1):
        if number < len(steps):
            (index, size), (index_before, size_before) = steps[number], steps[number - 1]
            is_sharp = max(jumps[number - 1], jumps[number]) >= PATH_STEP_NS
            if (
                not is_sharp
                and (size > 0) == (size_before > 0)
                and time[index] - time[index_before] <= WINDOW_NS
            ):
                continue
        total = abs(sum(size for _, size in steps[first:number]))
        if (
            number - first >= _LAST_PACKETS
            and total >= PATH_STEP_NS
            and max(jumps[first:number]) < total // 4
        ):
            found[first:number] = [True] * (number - first)
        first = number
    return found


def drop_ramps(
    steps: list[tuple[int, int]], evidence: list[StepEvidence], time: Ints
) -> tuple[list[tuple[int, int]], list[StepEvidence]]:
    """Returns the steps and what is said of them, without those in the middle of a ramp of the
    network's making.
    """
    denied = [said == StepEvidence.DENIED for said in evidence]
    near = [
        denied[k]
        and denied[k + 1]
        and (steps[k][1] > 0) == (steps[k + 1][1] > 0)
        and time[after[0]] - time[before[0]] <= _PAUSE_NS
        for k, (before, after) in enumerate(itertools.pairwise(steps))
    ]
    kept = [
        k for k in range(len(steps)) if not (0 < k < len(steps) - 1 and near[k - 1] and near[k])
    ]
    return [steps[k] for k in kept], [evidence[k] for k in kept]


def find_bends(
    media_ns: Ints, delay: Ints, points: Sequence[ReportPoint]
) -> list[tuple[int, StepEvidence]]:
    """Returns where between two steps the clock changes its rate (index of the first packet), and
    what is known of it.

    A microphone was changed, or a crystal warmed up. The network's delay may drift as well: reports
    tell. Without them a clock it is if delays run straight before and after.
    """
    if media_ns[-1] - media_ns[0] < 2 * OWN_FIT_NS:
        return []
    block = (media_ns - media_ns[0]) // _BLOCK_NS
    firsts = np.flatnonzero(np.diff(block, prepend=-1))
    trend = float(delay[firsts[-1] :].min() - delay[: firsts[1]].min()) / float(
        media_ns[firsts[-1]] - media_ns[0]
    )
    flat = delay - trend * (media_ns - media_ns[0])
    least = [
        start + int(flat[start:stop].argmin())
        for start, stop in itertools.pairwise([*firsts.tolist(), len(flat)])
    ]
    x, y = (media_ns[least] - media_ns[0]) / 1e9, flat[least] / 1e9
    # The middle of five: a crowded minute or two is no bend.
    padded = np.concatenate([y[:2], y, y[-2:]])
    y = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    edges = [0, *_break_lines(x, y, 0, len(x)), len(x)]
    slopes, off = [], []
    for a, b in itertools.pairwise(edges):
        line = np.polyfit(x[a:b], y[a:b], 1)
        slopes.append(float(line[0]))
        # Of a short line only the ends are there, which say nothing.
        off.append(
            float(
                np.abs(y[a:b] - np.polyval(line, x[a:b]))[_BEND_EDGE_BLOCKS:-_BEND_EDGE_BLOCKS].max(
                    initial=0.0
                )
            )
        )
    media, behind = wall_behind_media(points)
    seconds = (media * NS_PER_SECOND / SAMPLE_RATE_HZ - media_ns[0]) / 1e9
    ends = [*(float(x[edge]) for edge in edges[:-1]), math.inf]
    told = [_slope(seconds, behind / 1e9, a, b) for a, b in itertools.pairwise(ends)]
    found = []
    for number, edge in enumerate(edges[1:-1]):
        change = slopes[number + 1] - slopes[number]
        (before, noise_before), (after, noise_after) = told[number], told[number + 1]
        noise = 2 * (noise_before + noise_after)
        if noise >= abs(change):
            if max(off[number : number + 2]) > 2 * BEND_S:
                continue  # it comes and goes: nothing a clock would do
            verdict = StepEvidence.CONFIRMED
        elif abs(after - before - change) <= max(noise, _BEND_NOISE, 0.35 * abs(change)):
            verdict = StepEvidence.CONFIRMED
        else:
            verdict = StepEvidence.DENIED
        found.append((int(firsts[edge]), verdict))
    return found


def _slope(x: Reals, y: Reals, start: float, stop: float) -> tuple[float, float]:
    """Returns the slope of the points between two places and how far it may be off; infinitely so
    for few points.
    """
    mine = (x >= start) & (x < stop)
    if mine.sum() < _BEND_REPORTS:
        return 0.0, math.inf
    line = np.polyfit(x[mine], y[mine], 1)
    left_over = y[mine] - np.polyval(line, x[mine])
    return float(line[0]), float(left_over.std() / (x[mine].std() * math.sqrt(mine.sum())))


def _break_lines(x: Reals, y: Reals, start: int, stop: int) -> list[int]:
    """Returns where straight lines break that follow the points closely, none shorter than 10
    minutes.
    """
    if stop - start < 2 * _OWN_FIT_BLOCKS:
        return []

    def left_over(a: int, b: int) -> Reals:
        found: Reals = y[a:b] - np.polyval(np.polyfit(x[a:b], y[a:b], 1), x[a:b])
        return found

    inside = slice(
        _BEND_EDGE_BLOCKS if start else 0,
        stop - start - (_BEND_EDGE_BLOCKS if stop < len(x) else 0),
    )
    if np.abs(left_over(start, stop)[inside]).max() <= BEND_S:
        return []
    places = range(
        start + _OWN_FIT_BLOCKS, stop - _OWN_FIT_BLOCKS + 1, max(1, (stop - start) // 60)
    )
    cost = [
        float(np.square(left_over(start, at)).sum() + np.square(left_over(at, stop)).sum())
        for at in places
    ]
    at = places[int(np.argmin(cost))]
    return [*_break_lines(x, y, start, at), at, *_break_lines(x, y, at, stop)]
