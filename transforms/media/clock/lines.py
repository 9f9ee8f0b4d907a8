"""Which plateaus of a packet run lie on one straight line, which steps move the time line, and what
is in doubt.

A delay is the sum of what the sender's stalls add (never taken back) and what the network adds to
its least (which may be). A step between two plateaus is one of these:

- confirmed by reports: a stall, the time line moves;
- denied: the network's, however large;
- unknown: a rise of which 60 ms or more stay to the end is a stall, what is less moves nothing,
  unless three or more come to 120 ms together; a fall moves nothing, and from 150 ms on it may be
  more than what the network had added;
- gradual: a queue, it moves nothing, but what stays of it may be the sender's.

The network's share is counted from the least of the whole packet run: a path that was slow at first
was slow, not early. What else the unknown steps may have been is tried, all of it together: how far
a plateau would be moved by it is its doubt, before the steps and behind them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import (
    CLOCK_STEP_NS,
    PATH_STEP_NS,
    Plateau,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Reals, samples_to_ns

_TOGETHER_NS = NS_PER_SECOND
"""Steps of unknown reason within this are one."""
_FASTEST_DRIFT = 0.02
_PATTERN_NS = 2 * PATH_STEP_NS
"""Small rises that add up to more than this, and stay, are no path's."""
_GIVEN_BACK = 0.7
"""A rise of which so much is taken back later was the network's."""
_MOST_DOUBTS = 7
_OWN_LEVEL_NS = 4 * NS_PER_MS
_SAME_PATH_NS = 8 * NS_PER_MS
_CHAIN_NOISE_NS = NS_PER_MS
_NEW_ROW_NS = 5 * NS_PER_MS
"""A row is parted where more than this is in doubt on one side only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Consecutive plateaus between which the time line does not move."""

    first: int
    """Number of its first plateau among those of the packet run."""
    last: int
    level_ns: float
    """Height at media time 0: their least delay, less what the network's path added."""
    doubt_ns: float
    """By how much they would be moved if unknown steps were something else."""


def find_lines(plateaus: Sequence[Plateau], rates: Sequence[float]) -> list[Line]:
    """Returns the lines of a packet run, in order; together they hold all its plateaus.

    Args:
      plateaus: of the packet run.
      rates: of each plateau, the slope of its line; the same between confirmed steps.
    """
    turn_ns, level_ns = _levels(plateaus, rates)
    stall_ns, doubts = _stalls(plateaus, rates, level_ns)
    moved_ns = np.cumsum(stall_ns)
    above_ns = level_ns - moved_ns
    least_ns = _least_ns(plateaus, above_ns)
    very_least_ns = float(above_ns.min())
    doubt_ns = _what_else(doubts, stall_ns, level_ns)
    doubt_ns[-1] += _late_rise_ns(plateaus, rates[-1], float(turn_ns[-1] + level_ns[-1]))
    between_ns = np.array([plateau.doubt_ns for plateau in plateaus])
    doubt_ns += between_ns
    moves = [
        number
        for number, plateau in enumerate(plateaus)
        if not number or stall_ns[number] or plateau.evidence == StepEvidence.CONFIRMED
    ]
    found: list[Line] = []
    # The chain of stalls is known by reports and by least delays of a few packets: where the path
    # adds next to nothing the least delay of the plateaus themselves is surer.
    chain_ns = _CHAIN_NOISE_NS * float(np.count_nonzero(stall_ns[1:])) ** 0.5
    for start, stop in itertools.pairwise([*moves, len(plateaus)]):
        excess_ns = float(above_ns[start:stop].min()) - least_ns
        chance_ns = min(plateau.chance_ns for plateau in plateaus[start:stop])
        is_own = excess_ns <= _OWN_LEVEL_NS + 2 * chain_ns and (
            excess_ns < 0 or chance_ns <= chain_ns
        )
        unsure_ns = chance_ns + abs(excess_ns) if is_own else chain_ns + min(excess_ns, chance_ns)
        unsure_ns += max(0.0, least_ns + min(0.0, excess_ns) - very_least_ns)
        rows = [
            start,
            *(
                number
                for number in range(start + 1, stop)
                if abs(between_ns[number] - between_ns[number - 1]) > _NEW_ROW_NS
            ),
        ]
        found += [
            Line(
                first=first,
                last=last - 1,
                level_ns=float(moved_ns[start] + least_ns + excess_ns * is_own + turn_ns[first]),
                doubt_ns=float(doubt_ns[first:last].max()) + unsure_ns,
            )
            for first, last in itertools.pairwise([*rows, stop])
        ]
    return found


def _least_ns(plateaus: Sequence[Plateau], above_ns: Reals) -> float:
    """Returns the network's least delay of a packet run.

    That of the longest plateau near the very least one: a little less for a while is what a stall
    was taken for too long by, not a path that was better for that while.
    """
    near = np.flatnonzero(above_ns <= above_ns.min() + _SAME_PATH_NS)
    longest = max(near.tolist(), key=lambda number: plateaus[number].point_count)
    return float(above_ns[longest])


def _levels(plateaus: Sequence[Plateau], rates: Sequence[float]) -> tuple[Reals, Reals]:
    """Returns what the changes of slope so far add to the height of a line at media time 0, and the
    heights of the lines less that: where the slope changes, they meet at the step instead.
    """
    turns = [0.0]
    for plateau, before, after in zip(plateaus[1:], rates, rates[1:], strict=False):
        turns.append(turns[-1] + (before - after) * samples_to_ns(plateau.media_start_sample))
    heights = [plateau.least_delay_ns(rate) for plateau, rate in zip(plateaus, rates, strict=True)]
    return np.array(turns), np.array(heights) - turns


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Steps that may be something else."""

    places: tuple[int, ...]
    """Numbers of the plateaus behind them."""
    others_ns: tuple[tuple[float, ...], ...]
    """By how much the time line moves at each instead, one or more ways."""


def _stalls(
    plateaus: Sequence[Plateau], rates: Sequence[float], level_ns: Reals
) -> tuple[Reals, list[_Doubt]]:
    """Returns by how much the time line moves before each plateau, and what may be otherwise."""
    rise_ns = np.diff(level_ns, prepend=level_ns[0])
    stall_ns = np.zeros(len(plateaus))
    doubts: list[_Doubt] = []
    for number, plateau in enumerate(plateaus):
        if plateau.evidence == StepEvidence.CONFIRMED:
            drift_ns = rates[number] * plateau.pause_ns
            stall_ns[number] = (
                rise_ns[number] if plateau.stall_ns is None else plateau.stall_ns - drift_ns
            )
            if plateau.other_stall_ns is not None:
                doubts.append(_Doubt((number,), ((plateau.other_stall_ns - drift_ns,),)))
    is_path = np.array([plateau.evidence == StepEvidence.DENIED for plateau in plateaus])
    # What is left is what nobody knows.
    raised_ns = level_ns - np.cumsum(stall_ns) - np.cumsum(rise_ns * is_path)
    above_ns = raised_ns - _queued_ns(plateaus, rise_ns)
    heights = {
        is_sharp: (values_ns, np.minimum.accumulate(values_ns[::-1])[::-1])
        for is_sharp, values_ns in ((True, above_ns), (False, raised_ns))
    }
    small: list[tuple[int, ...]] = []
    for places in _groups(plateaus, rise_ns):
        first, last = places[0], places[-1]
        steps_ns = tuple(float(rise_ns[place]) for place in places)
        is_sharp = plateaus[first].evidence == StepEvidence.UNKNOWN
        heights_ns, least_behind_ns = heights[is_sharp]
        total_ns = float(heights_ns[last] - heights_ns[first - 1])
        span_ns = _TOGETHER_NS + samples_to_ns(
            plateaus[last].media_start_sample - plateaus[first].media_start_sample
        )
        if not is_sharp and abs(total_ns) > _FASTEST_DRIFT * span_ns:
            continue  # so fast a queue fills, and nothing else little by little
        if total_ns < 0:
            if is_sharp and -total_ns >= CLOCK_STEP_NS:
                doubts.append(_Doubt(places, (steps_ns,)))
            continue
        stays_ns = float(least_behind_ns[last] - heights_ns[first - 1])
        if stays_ns < (1 - _GIVEN_BACK) * total_ns:
            continue
        if is_sharp and stays_ns >= PATH_STEP_NS:
            share = min(1.0, stays_ns / total_ns)
            stall_ns[list(places)] = [step_ns * share for step_ns in steps_ns]
            # All of it was the path's, or none, and what is taken back later was the path's.
            none_ns = (0.0,) * len(places)
            doubts.append(_Doubt(places, (none_ns, steps_ns) if share < 1 else (none_ns,)))
        else:
            doubts.append(_Doubt(places, (steps_ns,)))
            small += [places] * is_sharp
    if small:
        together_ns = sum(float(rise_ns[list(places)].sum()) for places in small)
        if together_ns >= _PATTERN_NS and len(small) > 2:
            taken = set(small)
            for places in small:
                stall_ns[list(places)] = rise_ns[list(places)]
            doubts = [
                _Doubt(doubt.places, ((0.0,) * len(doubt.places),))
                if doubt.places in taken
                else doubt
                for doubt in doubts
            ]
    return stall_ns, doubts


def _queued_ns(plateaus: Sequence[Plateau], rise_ns: Reals) -> Reals:
    """Returns how much of each plateau's height queues have added that filled little by little.

    What falls, empties them first: it takes nothing back of a stall meanwhile.
    """
    queued_ns = [0.0]
    for plateau, step_ns in zip(plateaus[1:], rise_ns[1:].tolist(), strict=True):
        is_queue = plateau.evidence == StepEvidence.GRADUAL or (
            plateau.evidence == StepEvidence.UNKNOWN and step_ns < 0
        )
        queued_ns.append(max(0.0, queued_ns[-1] + step_ns) if is_queue else queued_ns[-1])
    return np.array(queued_ns, dtype=np.float64)


def _groups(plateaus: Sequence[Plateau], rise_ns: Reals) -> list[tuple[int, ...]]:
    """Returns the steps that no report judges, those together that follow each other at once."""
    found: list[list[int]] = []
    for number, plateau in enumerate(plateaus):
        if plateau.evidence not in (StepEvidence.UNKNOWN, StepEvidence.GRADUAL):
            continue
        before = plateaus[number - 1]
        if (
            found
            and found[-1][-1] == number - 1
            and before.evidence == plateau.evidence
            and rise_ns[number] * rise_ns[number - 1] > 0
            and samples_to_ns(before.media_stop_sample - before.media_start_sample)
            < _TOGETHER_NS * (3 if plateau.evidence == StepEvidence.GRADUAL else 1)
        ):
            found[-1].append(number)
        else:
            found.append([number])
    return [tuple(places) for places in found]


def _what_else(doubts: Sequence[_Doubt], stall_ns: Reals, level_ns: Reals) -> Reals:
    """Returns how far each plateau would be moved, at most, if steps were something else.

    The largest are tried in all combinations, the others count with their size for what is behind
    them.
    """
    # By how much each way moves what is behind each of its steps.
    ways_ns = [
        np.cumsum(np.array(doubt.others_ns) - stall_ns[list(doubt.places)], axis=1)
        for doubt in doubts
    ]
    order = sorted(range(len(doubts)), key=lambda number: -float(np.abs(ways_ns[number]).max()))
    most = min(_MOST_DOUBTS, max(3, 20 - len(level_ns).bit_length()))
    found: Reals = np.zeros(len(level_ns))
    for number in order[most:]:
        sizes_ns = np.abs(ways_ns[number]).max(axis=0)
        found[list(doubts[number].places)] += np.diff(sizes_ns, prepend=0.0)
    found = np.cumsum(found)
    choices: list[list[Reals]] = []
    for number in order[:most]:
        choices.append([np.zeros(len(level_ns))])
        for way_ns in ways_ns[number]:
            change_ns = np.zeros(len(level_ns))
            change_ns[list(doubts[number].places)] = np.diff(way_ns, prepend=0.0)
            choices[-1].append(np.cumsum(change_ns))
    moved_ns = np.cumsum(stall_ns)
    now_ns = moved_ns + float((level_ns - moved_ns).min())
    worst: Reals = np.zeros(len(level_ns))
    for changes in itertools.product(*choices):
        other_moved_ns = moved_ns + sum(changes)
        other_moved_ns += float((level_ns - other_moved_ns).min())
        np.maximum(worst, np.abs(other_moved_ns - now_ns), out=worst)
    return found + worst


def _late_rise_ns(plateaus: Sequence[Plateau], rate: float, height_ns: float) -> float:
    """Returns how far delays end above the line of the last plateau, where no report comes behind.

    Where reports came before, above what came last while they did.
    """
    last = plateaus[-1]
    if last.is_reported or not last.ends:
        return 0.0
    _, before_ns, last_ns = (y - rate * x for x, y in last.ends)
    has_reports = any(plateau.is_reported for plateau in plateaus)
    return max(0.0, last_ns - (before_ns if has_reports else height_ns) - _OWN_LEVEL_NS / 2)
