"""Where the least delay of a run steps, ramps or bends, and what sender reports say of it (see
`fit`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from transforms.media.clock.model import (
    CHANCE,
    LEAST_STEP_NS,
    PATH_STEP_NS,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints

WINDOW_NS = 2 * NS_PER_SECOND
"""A step must hold for this long on both sides: the least of 2 s of delays is the network's
least.
"""
_BIN_NS = 50 * NS_PER_MS
_PAUSE_NS = 500 * NS_PER_MS
"""A longer pause between packets tells no more of steps; a DTX refresh comes every 400 ms."""
_LAST_PACKETS = 3
_BEFORE_PACKETS = 100


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
