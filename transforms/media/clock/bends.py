"""Where a sender's clock changes its rate between two steps.

A microphone was changed, or a crystal warmed up. The delay of a network may drift as well, which
looks the same in the arrivals; sender reports tell them apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from transforms.media.clock.model import (
    BEND_S,
    OWN_FIT_NS,
    StepEvidence,
)
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, Reals

_BLOCK_NS = 60 * NS_PER_SECOND
_OWN_FIT_BLOCKS = OWN_FIT_NS // _BLOCK_NS
_BEND_REPORTS = 12
_BEND_NOISE = 2e-6
_BEND_EDGE_BLOCKS = 3
"""Beside a bend the middle of five blocks is of both lines."""


def find_bends(
    media_ns: Ints, delay_ns: Ints, behind: Callable[[], tuple[Ints, Ints]]
) -> list[tuple[int, StepEvidence]]:
    """Returns where the clock changes its rate, as (index of the first packet, what is known).

    Without reports a drift is the clock's if delays run straight before and after.

    Args:
      media_ns: media time at the end of each packet between two steps.
      delay_ns: of each packet.
      behind: gives what `wall_behind_media` does of the whole packet run's sender reports; asked
        only where there is enough media for a bend.
    """
    if media_ns[-1] - media_ns[0] < 2 * OWN_FIT_NS:
        return []
    block = (media_ns - media_ns[0]) // _BLOCK_NS
    firsts = np.flatnonzero(np.diff(block, prepend=-1))
    trend = float(delay_ns[firsts[-1] :].min() - delay_ns[: firsts[1]].min()) / float(
        media_ns[firsts[-1]] - media_ns[0]
    )
    flat_ns = delay_ns - trend * (media_ns - media_ns[0])
    least = [
        start + int(flat_ns[start:stop].argmin())
        for start, stop in itertools.pairwise([*firsts.tolist(), len(flat_ns)])
    ]
    x, y = (media_ns[least] - media_ns[0]) / 1e9, flat_ns[least] / 1e9
    # The middle of five: a crowded minute or two is no bend.
    padded = np.concatenate([y[:2], y, y[-2:]])
    y = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    edges = [0, *_break_lines(x, y, 0, len(x)), len(x)]
    slopes, deviations_s = [], []
    for a, b in itertools.pairwise(edges):
        line = np.polyfit(x[a:b], y[a:b], 1)
        slopes.append(float(line[0]))
        # Of a short line only the ends are there, which say nothing.
        deviations_s.append(
            float(
                np.abs(y[a:b] - np.polyval(line, x[a:b]))[_BEND_EDGE_BLOCKS:-_BEND_EDGE_BLOCKS].max(
                    initial=0.0
                )
            )
        )
    report_sample, behind_ns = behind()
    report_s = (report_sample * NS_PER_SECOND / SAMPLE_RATE_HZ - media_ns[0]) / 1e9
    ends = [*(float(x[edge]) for edge in edges[:-1]), math.inf]
    reported = [_slope(report_s, behind_ns / 1e9, a, b) for a, b in itertools.pairwise(ends)]
    found = []
    for number, edge in enumerate(edges[1:-1]):
        change = slopes[number + 1] - slopes[number]
        (before, noise_before), (after, noise_after) = reported[number], reported[number + 1]
        noise = 2 * (noise_before + noise_after)
        if noise >= abs(change):
            if max(deviations_s[number : number + 2]) > 2 * BEND_S:
                continue  # it comes and goes: nothing a clock would do
            verdict = StepEvidence.CONFIRMED
        elif abs(after - before - change) <= max(noise, _BEND_NOISE, 0.35 * abs(change)):
            verdict = StepEvidence.CONFIRMED
        else:
            verdict = StepEvidence.DENIED
        found.append((int(firsts[edge]), verdict))
    return found


def _slope(x: Reals, y: Reals, start: float, stop: float) -> tuple[float, float]:
    """Returns the slope of the points between two places, and how far it may be off.

    Of few points it may be off by any amount.
    """
    mine = (x >= start) & (x < stop)
    if mine.sum() < _BEND_REPORTS:
        return 0.0, math.inf
    line = np.polyfit(x[mine], y[mine], 1)
    left_over = y[mine] - np.polyval(line, x[mine])
    return float(line[0]), float(left_over.std() / (x[mine].std() * math.sqrt(mine.sum())))


def _break_lines(x: Reals, y: Reals, start: int, stop: int) -> list[int]:
    """Returns where straight lines break that follow points closely; none is below 10 minutes."""
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
