"""What sender reports say of the steps of a packet run's least delay.

A step between arrivals and media time has two causes that look alike: the sender's capture stood
still, or the network took another path. The pair of times in each sender report (RFC 3550 s6.4.1)
tells them apart, as no network is in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import (
    ABSURD_RATE,
    MAX_SKEW,
    PATH_STEP_NS,
    REPORT_NOISE_NS,
    WALL_CLOCK_RATE,
    ReportPoint,
    StepEvidence,
)
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, Ints, samples_to_ns

_TREND_NS = 30 * NS_PER_SECOND
"""Media between two steps that is long enough to tell a rate by its arrivals."""


def wall_behind_media(points: Sequence[ReportPoint]) -> tuple[Ints, Ints]:
    """Returns the media times of sender reports, and how far it is behind the wall clock there.

    Args:
      points: by media time.

    Returns:
      samples, rising, and how far media time is behind the sender's wall clock, in ns; the same
      number of each, at most one for each point.
    """
    report_sample = np.array([point.media_sample for point in points], dtype=np.int64)
    wall_ns = np.array(
        [point.sender_unix_ns - points[0].sender_unix_ns for point in points], dtype=np.int64
    )
    if not report_sample.size:
        return report_sample, wall_ns
    behind_ns = wall_ns - (report_sample - report_sample[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    # Of reports on the same sample the last one knows the whole stall.
    keep = np.concatenate([np.diff(report_sample) > 0, [True]])
    return report_sample[keep], behind_ns[keep]


def judge_steps(
    steps: Sequence[tuple[int, int]],
    ramps: Sequence[bool],
    media_sample: Ints,
    arrival_ns: Ints,
    points: Sequence[ReportPoint],
) -> list[StepEvidence]:
    """Returns what the sender reports that came before and after each step say of it.

    Args:
      steps: (index of the first packet after it, size in ns) of each, in order.
      ramps: of each step, whether it came little by little.
      media_sample: where each packet begins in media time.
      arrival_ns: when each packet arrived, in order.
      points: the sender reports.
    """
    found = [StepEvidence.UNKNOWN] * len(steps)
    if len(points) < 2 or not steps:
        return found
    index = np.array([at for at, _ in steps])
    reports = _in_order_of_arrival(media_sample, arrival_ns, points)
    last_before = np.searchsorted(reports.arrival_ns, arrival_ns[index - 1], side="right") - 1
    first_after = np.searchsorted(reports.arrival_ns, arrival_ns[index], side="left")
    around = list(zip(last_before.tolist(), first_after.tolist(), strict=True))
    quiet = _quiet_rate(reports, around)
    if quiet is None and all(point.arrival_unix_ns is None for point in points):
        edges = [0, *index.tolist(), len(arrival_ns)]
        quiet = _rate_by_arrivals(reports, edges, media_sample, arrival_ns)
    rate, noise_ns = quiet or (0.0, 0.0)
    if abs(rate) > ABSURD_RATE:
        return found  # reports that imply an absurd rate say nothing
    judge = _Judge(steps, ramps, arrival_ns[index], reports, rate, noise_ns)
    done = 0
    for (first, last), group in itertools.groupby(around):
        mine = range(done, done + sum(1 for _ in group))
        done = mine.stop
        if first >= 0 and last < len(reports.arrival_ns):
            found[mine.start : mine.stop] = judge.judge(first, last, mine)
    return found


@dataclass(frozen=True, slots=True)
class _Reports:
    """Sender reports in the order they arrived; shape (reports,) each."""

    arrival_ns: Ints
    wall_ns: Ints
    """The sender's wall clock, from the first report on."""
    behind_ns: Ints
    """How far media time is behind it."""


def _in_order_of_arrival(
    media_sample: Ints, arrival_ns: Ints, points: Sequence[ReportPoint]
) -> _Reports:
    beside = np.minimum(
        np.searchsorted(media_sample, [point.media_sample for point in points]), len(arrival_ns) - 1
    )
    came = [
        (
            int(arrival_ns[place]) if point.arrival_unix_ns is None else point.arrival_unix_ns,
            point.sender_unix_ns,
            point.media_sample,
        )
        for point, place in zip(points, beside.tolist(), strict=True)
    ]
    report_arrival_ns, wall_ns, report_sample = np.array(sorted(came), dtype=np.int64).T
    wall_ns = wall_ns - wall_ns[0]
    behind_ns = wall_ns - (report_sample - report_sample[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    return _Reports(report_arrival_ns, wall_ns, behind_ns)


def _quiet_rate(reports: _Reports, around: Sequence[tuple[int, int]]) -> tuple[float, float] | None:
    """Returns how fast media time falls behind the wall clock, and what reports are off by in ns.

    Both are of the time when nothing happens: 3 standard deviations, by the median of the
    deviations. None where something happens between any two reports.

    Args:
      reports: that are looked at.
      around: the last report before each step, and the first one after it.
    """
    wall_steps_ns, behind_steps_ns = np.diff(reports.wall_ns), np.diff(reports.behind_ns)
    quiet = wall_steps_ns > 0
    for first, last in around:
        quiet[max(first, 0) : last] = False
    rates = behind_steps_ns[quiet] / wall_steps_ns[quiet]
    if not rates.size:
        return None
    rate = float(np.median(rates))
    deviations_ns = np.abs(behind_steps_ns[quiet] - rate * wall_steps_ns[quiet])
    return rate, 4.5 * float(np.median(deviations_ns))


def _rate_by_arrivals(
    reports: _Reports, edges: Sequence[int], media_sample: Ints, arrival_ns: Ints
) -> tuple[float, float]:
    """Returns what `_quiet_rate` does, for reports between which something always happens.

    Of a segment of which only the first and the last report are known the arrivals tell the rate,
    as far as the server's clock and the sender's run alike; where they are too few it may be any
    that a sound card has.

    Args:
      reports: that are looked at.
      edges: indices of the packets at which steps part them, the ends included.
      media_sample: where each packet begins in media time.
      arrival_ns: when each packet arrived, in order.
    """
    rise_ns = run_ns = 0
    for start, stop in itertools.pairwise(edges):
        media_ns = samples_to_ns(int(media_sample[stop - 1] - media_sample[start]))
        if media_ns < _TREND_NS:
            continue
        third = (stop - start) // 3
        delay_ns = arrival_ns[start:stop] - media_sample[start:stop] * NS_PER_SECOND // (
            SAMPLE_RATE_HZ
        )
        first = int(delay_ns[:third].argmin())
        last = stop - start - third + int(delay_ns[-third:].argmin())
        rise_ns += int(delay_ns[last] - delay_ns[first])
        run_ns += int(arrival_ns[start + last] - arrival_ns[start + first])
    span_ns = float(abs(reports.wall_ns[-1] - reports.wall_ns[0]))
    if not run_ns:
        return 0.0, MAX_SKEW * span_ns
    return rise_ns / run_ns, WALL_CLOCK_RATE * span_ns


class _Judge:
    """Says of the steps between two reports what these say of them."""

    def __init__(
        self,
        steps: Sequence[tuple[int, int]],
        ramps: Sequence[bool],
        step_arrival_ns: Ints,
        reports: _Reports,
        rate: float,
        noise_ns: float,
    ) -> None:
        self._steps = steps
        self._ramps = ramps
        self._step_arrival_ns = step_arrival_ns
        """Of each step, when the first packet after it arrived."""
        self._reports = reports
        self._rate = rate
        self._noise_ns = noise_ns

    def judge(self, first: int, last: int, mine: range) -> list[StepEvidence]:
        """Returns the evidence of steps. Args: mine: those that have no report between them."""
        lag_ns, inside = self._between(first, last)
        sharp_ns = [self._steps[place][1] for place in inside if not self._ramps[place]]
        here_ns = [self._steps[place][1] for place in inside]
        # A report sent while the capture stood knows part of the stall, the one after it the rest.
        lag_around_ns, around = self._between(
            max(0, first - 1), min(len(self._reports.arrival_ns) - 1, last + 1)
        )
        sharp_around_ns = [self._steps[place][1] for place in around if not self._ramps[place]]
        if self._explains(lag_ns, sharp_ns) or (
            self._explains(lag_around_ns, sharp_around_ns) and not self._explains(lag_ns, here_ns)
        ):
            return [
                StepEvidence.DENIED if self._ramps[place] else StepEvidence.CONFIRMED
                for place in mine
            ]
        if self._explains(lag_ns, here_ns):
            return [StepEvidence.CONFIRMED] * len(mine)
        if abs(sum(here_ns)) <= self._noise_ns:
            return [StepEvidence.UNKNOWN] * len(mine)  # too little to be told
        if abs(lag_ns) <= REPORT_NOISE_NS or lag_ns * sum(here_ns) < 0:
            return [StepEvidence.DENIED] * len(mine)
        # Something stood still while the network was crowded: the step that is like it, or what is
        # less than it.
        alike = [self._explains(lag_ns, [self._steps[place][1]]) for place in mine]
        is_less = abs(sum(here_ns)) <= abs(lag_ns)
        unlike = (
            StepEvidence.DENIED
            if any(alike)
            else StepEvidence.CONFIRMED
            if is_less
            else StepEvidence.UNKNOWN
        )
        return [StepEvidence.CONFIRMED if is_alike else unlike for is_alike in alike]

    def _between(self, first: int, last: int) -> tuple[float, range]:
        """Returns how far media time fell behind between two reports, and the steps between."""
        behind_ns, wall_ns = self._reports.behind_ns, self._reports.wall_ns
        lag_ns = float(
            behind_ns[last] - behind_ns[first] - self._rate * (wall_ns[last] - wall_ns[first])
        )
        begin_ns, end_ns = self._reports.arrival_ns[first], self._reports.arrival_ns[last]
        inside = np.searchsorted(self._step_arrival_ns, [begin_ns, end_ns], side="right").tolist()
        return lag_ns, range(*inside)

    def _explains(self, lag_ns: float, sizes_ns: Sequence[int]) -> bool:
        """Tells whether steps are what the sender's clock shows.

        They are nearer to it than nothing at all, and hold no rise that a fall takes back.

        Args:
          lag_ns: how far media time fell behind.
          sizes_ns: of the steps.
        """
        total_ns = sum(sizes_ns)
        is_taken_back = sum(abs(size_ns) for size_ns in sizes_ns) > 1.5 * abs(total_ns)
        if abs(lag_ns) <= self._noise_ns or is_taken_back:
            return False
        tolerance_ns = min(max(REPORT_NOISE_NS, 0.35 * abs(total_ns)), PATH_STEP_NS)
        return abs(lag_ns - total_ns) <= min(tolerance_ns, 0.999 * abs(lag_ns))
