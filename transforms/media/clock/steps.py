"""Where the least delay of a packet run steps, and which steps are ramps.

A step holds for some seconds on both sides. A ramp is a row of steps: a queue that fills or empties
packet by packet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from transforms.media.clock.model import (
    CHANCE,
    LEAST_STEP_NS,
    PATH_STEP_NS,
    Step,
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
_NOTHING_NS = int(np.iinfo(np.int64).max)
_LAST_PACKETS = 3
_BEFORE_PACKETS = 100


def find_steps(arrival_ns: Ints, delay_ns: Ints) -> list[tuple[int, int]]:
    """Returns the lasting steps of the least delay as (first packet after, size in ns).

    Pauses count as half a second at most: a window of 2 s then has packets on both sides of a mute,
    however long it was.

    Args:
      arrival_ns: when each packet arrived, in order.
      delay_ns: of each packet, its arrival less its media time.
    """
    pauses_ns = np.diff(arrival_ns, prepend=arrival_ns[0])
    bins = np.minimum(pauses_ns, _PAUSE_NS)
    np.cumsum(bins, out=bins)
    bins //= _BIN_NS
    count = int(bins[-1]) + 1
    width = WINDOW_NS // _BIN_NS
    least_ns = np.full(count, _NOTHING_NS, dtype=np.int64)
    firsts = np.flatnonzero(np.diff(bins, prepend=-1))
    least_ns[bins[firsts]] = np.minimum.reduceat(delay_ns, firsts)
    up = _rises(least_ns, width)
    # A fall is a rise seen backwards: the first bin after it is one past its last bin in that view.
    down = [(count - at, -size_ns) for at, size_ns in _rises(least_ns[::-1], width)]
    found: list[tuple[int, int]] = []
    before = 0
    for at, size_ns in sorted([*up, *down]):
        index = int(np.searchsorted(bins, at, side="left"))
        # Within the bins around, at the first packet that is up already, or down.
        first = int(np.searchsorted(bins, at - 1, side="left"))
        if size_ns > 0:
            level_ns = int(least_ns[max(before, at - width) : at].min(initial=_NOTHING_NS))
            if level_ns == _NOTHING_NS:
                level_ns = int(least_ns[max(0, at - width) : at].min())
            late = np.flatnonzero(delay_ns[first : index + 1] < level_ns + size_ns // 2)
            index = min(first + int(late[-1]) + 1, len(delay_ns) - 1) if late.size else index
        else:
            # Who still waits behind slower ones is on the way down: it would pull the line of those
            # before.
            stop = int(np.searchsorted(bins, at, side="right"))
            level_ns = int(least_ns[max(0, at - 1 - width) : max(1, at - 1)].min())
            early = np.flatnonzero(delay_ns[first:stop] < level_ns - LEAST_STEP_NS // 2)
            index = first + int(early[0]) if early.size else index
        before = at
        if 0 < index < len(delay_ns) and (not found or index > found[-1][0]):
            found.append((index, size_ns))
    return _significant(found, arrival_ns, delay_ns) or _step_at_last_pause(pauses_ns, delay_ns)


def without_strays(steps: Sequence[tuple[int, int]], arrival_ns: Ints) -> list[tuple[int, int]]:
    """Returns the steps, those as one between which only a packet or two came late.

    Unless nothing else came for long: who said a word between two mutes.
    """
    found: list[tuple[int, int]] = []
    for index, size_ns in steps:
        if (
            found
            and index - found[-1][0] < _LAST_PACKETS
            and (
                arrival_ns[index] - arrival_ns[index - 1] < _PAUSE_NS
                or arrival_ns[found[-1][0]] - arrival_ns[found[-1][0] - 1] < _PAUSE_NS
            )
        ):
            before, before_ns = found.pop()
            size_ns += before_ns
            # Of a fall, who came early is the first.
            index = before if size_ns < 0 else index
        if abs(size_ns) >= LEAST_STEP_NS:
            found.append((index, size_ns))
    return found


def _significant(
    steps: list[tuple[int, int]], arrival_ns: Ints, delay_ns: Ints
) -> list[tuple[int, int]]:
    """Returns the steps without those that few packets and much jitter make by chance.

    Of n packets the least delay lies about the n-th part of the usual excess above the network's
    least. What is short, or large, is left to be judged by what is around it.
    """
    found: list[tuple[int, int]] = []
    edges = [*(index for index, _ in steps), len(delay_ns)]
    for (index, size_ns), stop in zip(steps, edges[1:], strict=True):
        start = found[-1][0] if found else 0
        before, after = delay_ns[start:index], delay_ns[index:stop]
        is_long = (
            min(arrival_ns[index - 1] - arrival_ns[start], arrival_ns[stop - 1] - arrival_ns[index])
            >= WINDOW_NS // 2
        )
        noise_ns = sum(
            (float(part.mean()) - float(part.min())) / len(part) for part in (before, after)
        )
        if not (
            is_long
            and abs(size_ns) < PATH_STEP_NS
            and abs(int(after.min()) - int(before.min())) < CHANCE * noise_ns
        ):
            found.append((index, size_ns))
    return found


def _step_at_last_pause(pauses_ns: Ints, delay_ns: Ints) -> list[tuple[int, int]]:
    """Returns a step at a pause in the last second, which windows do not see.

    It is there when somebody spoke a word after a mute, and left. Packets that a network held back
    come faster than they were sent; after a step they come as they were sent.
    """
    after = np.flatnonzero(pauses_ns >= _PAUSE_NS)
    if not after.size or len(delay_ns) - after[-1] < _LAST_PACKETS:
        return []
    index = int(after[-1])
    last, before = delay_ns[index:], delay_ns[max(0, index - _BEFORE_PACKETS) : index]
    size_ns = int(last.min()) - int(before.min())
    return (
        [(index, size_ns)]
        if abs(size_ns) >= PATH_STEP_NS and np.ptp(last) <= abs(size_ns) // 4
        else []
    )


def _rises(least_ns: Ints, width: int) -> list[tuple[int, int]]:
    """Returns (bin, size) of each rise of the least delay that holds for a window."""
    none = _NOTHING_NS
    padded = np.concatenate([np.full(width, none), least_ns, np.full(width, none)])
    windows = _least_of_windows(padded, width)
    before = windows[: len(least_ns)]  # the least of the window that ends before each bin
    after = windows[width : width + len(least_ns)]  # and of that which begins with it
    known = (before != none) & (after != none)
    difference_ns = np.where(known, after - np.where(known, before, 0), 0)
    # The last part of a packet run cannot tell a late burst from a step.
    difference_ns[max(0, len(least_ns) - width // 2) :] = 0
    threshold_ns = max(LEAST_STEP_NS, _quiet_ns(np.abs(difference_ns[known])))
    found: list[tuple[int, int]] = []
    last = 0
    for at in np.flatnonzero(difference_ns >= threshold_ns).tolist():
        since = least_ns[max(last, at - width) : at]
        level_ns = int(since.min()) if since.size else none
        if level_ns != none and int(after[at]) - level_ns >= threshold_ns:
            found.append((at, int(after[at]) - level_ns))
            last = at
    return found


def _least_of_windows(values: Ints, width: int) -> Ints:
    """Returns the least of each `width` values in a row, by the least of 2, 4, 8, ... in a row."""
    least_ns, span = values, 1
    while 2 * span <= width:
        least_ns = np.minimum(least_ns[:-span], least_ns[span:])
        span *= 2
    rest = width - span
    return np.minimum(least_ns[: len(least_ns) - rest], least_ns[rest:])


def _quiet_ns(differences_ns: Ints) -> float:
    """Returns 4 standard deviations of what is there when nothing steps, 0 of nothing.

    By what three of ten stay below: in a short packet run most differences may be those of steps.
    It sorts: arrivals in whole ms are nearly all alike, and numpy's search for a place is slow over
    those.
    """
    if not differences_ns.size:
        return 0.0
    differences_ns.sort()
    return 10.4 * float(differences_ns[3 * len(differences_ns) // 10])


def find_ramps(steps: Sequence[tuple[int, int]], arrival_ns: Ints, delay_ns: Ints) -> list[bool]:
    """Returns which steps are part of a rise or a fall that came little by little.

    A capture that stood still is missed at once; a queue fills and empties over many packets.
    """
    found = [False] * len(steps)
    jumps_ns = [
        int(
            np.abs(np.diff(delay_ns[max(0, index - _LAST_PACKETS) : index + _LAST_PACKETS])).max(
                initial=0
            )
        )
        for index, _ in steps
    ]
    first = 0
    for number in range(1, len(steps) + 1):
        if number < len(steps):
            (index, size_ns), (index_before, size_before_ns) = steps[number], steps[number - 1]
            is_sharp = max(jumps_ns[number - 1], jumps_ns[number]) >= PATH_STEP_NS
            if (
                not is_sharp
                and (size_ns > 0) == (size_before_ns > 0)
                and arrival_ns[index] - arrival_ns[index_before] <= WINDOW_NS
            ):
                continue
        total_ns = abs(sum(size_ns for _, size_ns in steps[first:number]))
        if (
            number - first >= _LAST_PACKETS
            and total_ns >= PATH_STEP_NS
            and max(jumps_ns[first:number]) < total_ns // 4
        ):
            found[first:number] = [True] * (number - first)
        first = number
    return found


def drop_ramps(steps: Sequence[Step], arrival_ns: Ints) -> list[Step]:
    """Returns the steps without those in the middle of a ramp of the network's."""
    near = [
        before.evidence == after.evidence
        and after.evidence in (StepEvidence.DENIED, StepEvidence.GRADUAL)
        and before.size_ns * after.size_ns > 0
        and before.doubt_ns == after.doubt_ns
        and arrival_ns[after.index] - arrival_ns[before.index] <= _PAUSE_NS
        for before, after in itertools.pairwise(steps)
    ]
    return [
        step
        for k, step in enumerate(steps)
        if not (0 < k < len(steps) - 1 and near[k - 1] and near[k])
    ]
