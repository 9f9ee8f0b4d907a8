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
_BURST_NS = 3 * NS_PER_SECOND
"""Packets that came late together at the start of a run are a burst, not a path of their own."""
_REPORT_NOISE_NS = 8 * _MS
_POINT_NS = 250 * _MS
"""The envelope is the least delay of each quarter second."""

_MAX_SKEW = 600e-6
"""Beyond what sound cards do (some 500 ppm): such a fit is not applied."""
_NOMINAL_SKEW_BOUND = 500e-6
_LEAST_FIT_SAMPLES = 30 * SAMPLE_RATE_HZ
_OWN_FIT_SAMPLES = 600 * SAMPLE_RATE_HZ
_OWN_FIT_APART = 10e-6
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


def samples_to_ns(samples: int) -> int:
    """Returns the length of `samples` at 48 kHz in ns, rounded to the nearest."""
    return (samples * NS_PER_SECOND + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ


def ns_to_samples(ns: int) -> int:
    """Returns a span of time in samples at 48 kHz, rounded to the nearest."""
    return (ns * SAMPLE_RATE_HZ + NS_PER_SECOND // 2) // NS_PER_SECOND


# --- looking at one run ----------------------------------------------------------------------------------------------


def observe_clock(
    media_sample: Ints, duration_samples: Ints, arrival_unix_ns: Ints, reports: Sequence[ReportPoint]
) -> RunClock:
    """Returns what one run of one SSRC tells of its sender's clock.

    Args:
      media_sample: unwrapped RTP time of each audio packet in sequence order, counted from the first; shape (packets,).
      duration_samples: each packet's length; a packet arrives once its last sample was captured.
      arrival_unix_ns: server clock at its arrival; all equal where the dump has none but the first.
      reports: the SSRC's sender reports, in any order.
    """
    if media_sample.size == 0:
        raise ValueError("a run without packets has no clock")
    points = sorted(reports, key=lambda point: point.media_sample)
    method = "arrival_envelope"
    if media_sample[-1] > SAMPLE_RATE_HZ and not np.ptp(arrival_unix_ns):
        known = _arrivals_by_reports(media_sample, duration_samples, int(arrival_unix_ns[0]), points)
        method = "metadata"
        if known is None:
            # One arrival is one point of a line: the rate stays nominal, and the error says so.
            base = int(arrival_unix_ns[0]) - samples_to_ns(int(duration_samples[0]))
            end = int(media_sample[-1] + duration_samples[-1])
            one = np.zeros(1, dtype=np.int64)
            return RunClock(base_unix_ns=base, plateaus=(_plateau(0, end, one, one, one, StepEvidence.NONE),), method=method)
        arrival_unix_ns = known
    media_ns = ((media_sample + duration_samples) * NS_PER_SECOND) // SAMPLE_RATE_HZ
    base = int(arrival_unix_ns[0] - media_ns[0])
    delay = arrival_unix_ns - media_ns - base
    time = np.maximum.accumulate(arrival_unix_ns)
    steps = _find_steps(time, delay)
    evidence = _judge_steps([(int(media_sample[index]), size) for index, size in steps], points)
    edges = [0, *(index for index, _ in steps), len(media_sample)]
    plateaus = []
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        begins = int(media_sample[start]) if number else 0
        ends = int(media_sample[stop]) if stop < len(media_sample) else int(media_sample[-1] + duration_samples[-1])
        said = StepEvidence.NONE if number == 0 else evidence[number - 1]
        plateaus.append(_plateau(begins, ends, media_ns[start:stop], delay[start:stop], time[start:stop], said))
    return RunClock(base_unix_ns=base, plateaus=tuple(plateaus), method=method)


def _arrivals_by_reports(
    media_sample: Ints, duration_samples: Ints, first_unix_ns: int, points: Sequence[ReportPoint]
) -> Ints | None:
    """Returns when packets would have arrived by the sender's reports, beginning with the one arrival that is known.

    None when there are too few reports, or they imply an absurd rate.
    """
    media = media_sample + duration_samples
    if len(points) >= 2 and points[-1].media_sample > points[0].media_sample:
        known = np.array([point.media_sample for point in points], dtype=np.float64)
        drift = np.array([p.sender_unix_ns - points[0].sender_unix_ns for p in points], dtype=np.float64)
        drift -= (known - known[0]) / SAMPLE_RATE_HZ * NS_PER_SECOND
        if abs(drift[-1]) < _MAX_SKEW * samples_to_ns(int(known[-1] - known[0])) + NS_PER_SECOND:
            wall = media / SAMPLE_RATE_HZ * NS_PER_SECOND + np.interp(media, known, drift)
            arrivals: Ints = first_unix_ns + np.rint(wall - wall[0]).astype(np.int64)
            return arrivals
    return None


def _find_steps(time: Ints, delay: Ints) -> list[tuple[int, int]]:
    """Returns (index of the first packet after it, size in ns) of every lasting step of the least delay, in order."""
    bins = (time - time[0]) // _BIN_NS
    count = int(bins[-1]) + 1
    width = WINDOW_NS // _BIN_NS
    if count <= width // 2:
        return []
    least = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(least, bins, delay)
    up = _rises(least, width)
    # A fall is a rise seen backwards: the first bin after it is one past its last bin in that view.
    down = [(count - at, -size) for at, size in _rises(least[::-1], width)]
    found: list[tuple[int, int]] = []
    for at, size in sorted([*up, *down]):
        index = int(np.searchsorted(bins, at, side="left"))
        if size > 0:
            # Within the bin, at the first packet that is up already.
            level = int(least[max(0, at - width) : at].min())
            first = int(np.searchsorted(bins, at - 1, side="left"))
            late = np.flatnonzero(delay[first : index + 1] < level + size // 2)
            index = min(first + int(late[-1]) + 1, len(delay) - 1) if late.size else index
        if 0 < index < len(delay) and (not found or index > found[-1][0]):
            found.append((index, size))
    return found


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


def _judge_steps(steps: Sequence[tuple[int, int]], points: Sequence[ReportPoint]) -> list[StepEvidence]:
    """Returns what the sender reports around each step (media sample, size in ns) say of it."""
    said = [StepEvidence.UNKNOWN] * len(steps)
    if len(points) < 2:
        return said
    media = np.array([point.media_sample for point in points], dtype=np.int64)
    wall = np.array([point.sender_unix_ns - points[0].sender_unix_ns for point in points], dtype=np.int64)
    behind = wall - (media - media[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    spans = np.diff(media)
    if not (spans > 0).all():
        keep = np.concatenate([[True], spans > 0])
        media, behind = media[keep], behind[keep]
        spans = np.diff(media)
        if not len(spans):
            return said
    owner = np.searchsorted(media, [at for at, _ in steps], side="left") - 1
    quiet = np.ones(len(spans), dtype=bool)
    quiet[[interval for interval in owner if 0 <= interval < len(spans)]] = False
    rates = np.diff(behind)[quiet] / spans[quiet]
    rate = float(np.median(rates)) if rates.size else 0.0
    if abs(rate) > 2 * _MAX_SKEW * NS_PER_SECOND / SAMPLE_RATE_HZ:
        return said  # reports that imply an absurd rate say nothing
    for interval in set(owner.tolist()):
        if not 0 <= interval < len(spans):
            continue
        mine = [number for number, at in enumerate(owner) if at == interval]
        moved = float(behind[interval + 1] - behind[interval] - rate * spans[interval])
        total = sum(steps[number][1] for number in mine)
        if abs(moved - total) <= max(_REPORT_NOISE_NS, 0.35 * abs(total)):
            verdict = StepEvidence.CONFIRMED
        elif abs(moved) <= _REPORT_NOISE_NS or moved * total < 0:
            verdict = StepEvidence.DENIED
        else:  # something stood still, but not by that much: both a stall and a change of path
            verdict = StepEvidence.CONFIRMED if abs(total) <= abs(moved) else StepEvidence.UNKNOWN
        for number in mine:
            said[number] = verdict
    return said


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

    One skew for all of them, given 30 s of media; a run of 10 minutes or more whose own differs by more than 10 ppm gets its
    own. With less, or an absurd fit, the nominal rate.
    """
    plateaus = [plateau for run in runs for plateau in run.plateaus]
    total = sum(plateau.media_stop_sample - plateau.media_start_sample for plateau in plateaus)
    common = _fit_skew(plateaus) if total >= _LEAST_FIT_SAMPLES else None
    pieces = []
    for run in runs:
        skew = common
        if run.plateaus[-1].media_stop_sample >= _OWN_FIT_SAMPLES:
            own = _fit_skew(run.plateaus)
            if own is not None and (common is None or abs(own.rate - common.rate) > _OWN_FIT_APART):
                skew = own
        pieces.append(_lay_line(run, skew))
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class _Skew:
    rate: float
    """How much slower the sender's clock runs than the server's, as a part of one."""
    error: float


def _fit_skew(plateaus: Sequence[Plateau]) -> _Skew | None:
    """Returns the slope of the lines nearest below all plateaus, None when it is absurd or not to be known."""
    usable = [plateau for plateau in plateaus if len(plateau.hull) >= 2]
    if not usable:
        return None
    x = np.array([point[0] for plateau in usable for point in plateau.hull], dtype=np.float64)
    y = np.array([point[1] for plateau in usable for point in plateau.hull], dtype=np.float64)
    starts = np.cumsum([0, *(len(plateau.hull) for plateau in usable)])[:-1]
    weight = np.array([plateau.point_count for plateau in usable], dtype=np.float64)
    mean_x = np.array([plateau.mean_media_ns for plateau in usable], dtype=np.float64)
    mean_y = np.array([plateau.mean_delay_ns for plateau in usable], dtype=np.float64)

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
    count = float(weight.sum())
    mean_above = max(above(rate) / count, _DUMP_RESOLUTION_NS / 2)
    spread = math.sqrt(float((weight * np.array([p.spread_media_ns for p in usable], dtype=np.float64) ** 2).sum()))
    # Whole ms may tilt the line by one of them from end to end, however many packets there are.
    longest = max(plateau.hull[-1][0] - plateau.hull[0][0] for plateau in usable)
    error = 2 * mean_above / spread + _DUMP_RESOLUTION_NS / longest if spread else math.inf
    if abs(rate) > _MAX_SKEW or error > _NOMINAL_SKEW_BOUND:
        return None
    return _Skew(rate, error)


def _lay_line(run: RunClock, skew: _Skew | None) -> tuple[ClockPiece, ...]:
    """Returns one piece per stretch between steps that count, each on the least delay of its plateaus."""
    rate = skew.rate if skew else 0.0
    levels = _levels(run.plateaus, rate)
    groups: list[list[int]] = [[0]]
    for number in range(1, len(levels)):
        if _counts(run.plateaus, levels, groups[-1], number):
            groups.append([number])
        else:
            groups[-1].append(number)
    pieces = []
    for group in groups:
        level = min(levels[number] for number in group)
        first, last = run.plateaus[group[0]], run.plateaus[group[-1]]
        start_ns = samples_to_ns(first.media_start_sample)
        length_ns = samples_to_ns(last.media_stop_sample - first.media_start_sample)
        doubt = float(_DUMP_RESOLUTION_NS)
        # How far the usual delay lies above the least one says how well the least one is known.
        points = sum(run.plateaus[number].point_count for number in group)
        usual = sum(
            run.plateaus[number].point_count
            * (run.plateaus[number].mean_delay_ns - rate * run.plateaus[number].mean_media_ns - levels[number])
            for number in group
        )
        doubt += max(0.0, usual / points) / math.sqrt(points) * 3
        doubt += (skew.error if skew else _NOMINAL_SKEW_BOUND) * length_ns
        for number in group[1:]:
            if run.plateaus[number].evidence == StepEvidence.UNKNOWN:
                doubt += abs(levels[number] - levels[number - 1])
        pieces.append(
            ClockPiece(
                media_start_sample=first.media_start_sample,
                server_start_unix_ns=run.base_unix_ns + start_ns + round(level + rate * start_ns),
                skew_ppm=(1 / (1 + rate) - 1) * 1e6,
                is_fitted=skew is not None,
                sync_error_ns=round(doubt),
            )
        )
    return tuple(pieces)


def _levels(plateaus: Sequence[Plateau], rate: float) -> list[float]:
    """Returns the least delay of each plateau, less what changes of path have added: they keep the old time.

    A change is measured from one plateau of 3 s or more to the next; what is shorter in between are packets that could not
    overtake each other, and tells no level.
    """
    levels: list[float] = []
    by_path = 0.0
    anchor: float | None = None
    only_denied = True
    for plateau in plateaus:
        level = min(y - rate * x for x, y in plateau.hull)
        only_denied &= plateau.evidence == StepEvidence.DENIED
        is_long = samples_to_ns(plateau.media_stop_sample - plateau.media_start_sample) >= _BURST_NS
        moved = None if anchor is None or not only_denied else level - anchor
        if moved is not None and abs(moved) < _PATH_STEP_NS:
            by_path += moved if is_long else min(moved, 0.0)
        levels.append(level - by_path)
        if is_long:
            anchor, only_denied = level, True
        elif moved is not None and abs(moved) < _PATH_STEP_NS:
            by_path -= min(moved, 0.0)
    return levels


def _counts(plateaus: Sequence[Plateau], levels: Sequence[float], group: Sequence[int], number: int) -> bool:
    """Whether the step before a plateau moves the time line, or is only the network's."""
    plateau = plateaus[number]
    if plateau.evidence == StepEvidence.CONFIRMED:
        return True
    before = min(levels[earlier] for earlier in group)
    if levels[number] - before >= _PATH_STEP_NS:
        # Delay that comes down again was a crowded network; it is a new path, or a stall, only if it stays.
        return min(levels[number:]) - before >= _PATH_STEP_NS
    lasted = samples_to_ns(plateaus[number].media_start_sample - plateaus[group[0]].media_start_sample)
    return before - levels[number] >= _PATH_STEP_NS and lasted >= _BURST_NS
