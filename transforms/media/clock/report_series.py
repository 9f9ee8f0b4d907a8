"""Sender reports as a series: how far media time is behind the sender's wall clock, and what that
is off by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.media.clock.model import (
    ABSURD_RATE,
    LEAST_STEP_NS,
    WALL_CLOCK_RATE,
    ReportPoint,
)
from transforms.media.units import (
    NS_PER_MS,
    NS_PER_SECOND,
    SAMPLE_RATE_HZ,
    Ints,
    Reals,
    samples_to_ns,
)

BESIDE_NS = NS_PER_SECOND
"""A report and a packet that were sent together come this far apart at most."""
_TREND_NS = 30 * NS_PER_SECOND
"""Media between two steps that is long enough to tell a rate by its arrivals."""
_FEW_REPORTS = 5
_USUAL_NOISE_NS = 4 * NS_PER_MS
"""What two reports are off by, 3 standard deviations, where too few tell it."""
_USUAL_RATE = 100e-6
_MOST_RATE = 500e-6
_AVERAGED = 4


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


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast media time falls behind the sender's wall clock, as a part of one."""

    rate: float
    error: float
    noise_ns: float
    """What the distance between two reports is off by, 3 standard deviations."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """Means of each report and some more on one side of it, as long as nothing happens; shape
    (how many more are asked for, reports) each.
    """

    left_ns: Reals
    wall_ns: Reals
    share: Reals
    """1 by the number of reports there are."""


@dataclass(frozen=True, slots=True)
class ReportSeries:
    """Sender reports in the order they arrived; shape (reports,) each."""

    arrival_ns: Ints
    before: _Beside
    """How far media time is behind the wall clock, beyond what the rate makes, of each report and
    those before it.
    """
    after: _Beside
    """And of those behind it."""
    used: Rate
    said: Rate | None
    """The rate by the reports; None where the arrivals had to tell it."""

    def lag_ns(self, first: int, last: int) -> tuple[float, float]:
        """Returns how far media time fell behind between two reports, and what that is off by.

        All reports tell it that lie quietly beside the two, as many as make it surer.
        """
        lags_ns, off_ns = self._lags_ns([first], [last])
        return float(lags_ns[0]), float(off_ns[0])

    def lags_ns(self) -> tuple[Reals, Reals]:
        """Returns the same between each report and the next one; shape (reports - 1,)."""
        return self._lags_ns(slice(None, -1), slice(1, None))

    def _lags_ns(self, first: list[int] | slice, last: list[int] | slice) -> tuple[Reals, Reals]:
        apart_ns = self.after.wall_ns[:, last] - self.before.wall_ns[:, first]
        shares = self.after.share[:, last] + self.before.share[:, first]
        off_ns = self.used.noise_ns * np.sqrt(shares / 2) + self.used.error * np.abs(apart_ns)
        lags_ns = self.after.left_ns[:, last] - self.before.left_ns[:, first]
        best = off_ns.argmin(axis=0), np.arange(off_ns.shape[1])
        return lags_ns[best], off_ns[best]


def _beside(
    left_ns: Reals, wall_ns: Reals, is_quiet: npt.NDArray[np.bool_], direction: int
) -> _Beside:
    """Returns the means of reports and those on one side of them.

    Args:
      left_ns: of each report.
      wall_ns: of each report.
      is_quiet: whether nothing happens between each report and the next one.
      direction: 1 for those behind, -1 for those before.
    """
    # Seen backwards those before are those behind.
    values = np.stack([left_ns, wall_ns, np.ones(len(left_ns))])[:, ::direction]
    goes_on = np.append(is_quiet[::direction], False)
    sums, is_there = values.copy(), goes_on
    found = [sums.copy()]
    for more in range(1, min(_AVERAGED, values.shape[1])):
        sums[:, :-more] += np.where(is_there[:-more], values[:, more:], 0.0)
        found.append(sums.copy())
        is_there = is_there & np.append(goes_on[more:], np.zeros(more, dtype=np.bool_))
    left, wall, counts = np.stack(found, axis=1)[:, :, ::direction]
    return _Beside(left / counts, wall / counts, 1 / counts)


def read_reports(
    steps: Sequence[tuple[int, int]],
    media_sample: Ints,
    arrival_ns: Ints,
    duration_samples: npt.NDArray[np.integer[Any]],
    points: Sequence[ReportPoint],
) -> ReportSeries | None:
    """Returns the sender reports of a packet run as a series; None where they say nothing.

    Args:
      steps: (first packet after it, size in ns) of each step of the least delay, 0 of those that
        came little by little.
      media_sample: where each packet begins in media time.
      arrival_ns: when each packet arrived, in order.
      duration_samples: of each packet.
      points: the sender reports.
    """
    if len(points) < 2:
        return None
    report_ns, wall_ns, behind_ns = _in_order_of_arrival(
        steps, media_sample, arrival_ns, duration_samples, points
    )
    if len(wall_ns) < 2:
        return None
    # Number of the report before which each step lies.
    after = np.searchsorted(report_ns, arrival_ns[[index for index, _ in steps]], side="left")
    busy = after[(after > 0) & (after < len(report_ns))] - 1
    said = _quiet_rate(wall_ns, behind_ns, busy)
    used = said
    if used is None and all(point.arrival_unix_ns is None for point in points):
        edges = [0, *(index for index, _ in steps), len(arrival_ns)]
        used = _rate_by_arrivals(edges, media_sample, arrival_ns)
    if used is None:
        used = Rate(0.0, _USUAL_RATE, _USUAL_NOISE_NS)
    elif abs(used.rate) > ABSURD_RATE:
        return None  # reports that imply an absurd rate say nothing
    elif abs(used.rate) <= used.error:
        # Of few reports the rate is not known, and what most senders have is nearer.
        share = _USUAL_RATE**2 / (_USUAL_RATE**2 + used.error**2)
        used = Rate(used.rate * share, used.error * share**0.5, used.noise_ns)
    left_ns: Reals = behind_ns - used.rate * wall_ns
    is_quiet = np.abs(np.diff(left_ns)) <= max(used.noise_ns, LEAST_STEP_NS)
    is_quiet[busy] = False
    walls_ns = wall_ns.astype(np.float64)
    return ReportSeries(
        arrival_ns=report_ns,
        before=_beside(left_ns, walls_ns, is_quiet, -1),
        after=_beside(left_ns, walls_ns, is_quiet, 1),
        used=used,
        said=said,
    )


def _in_order_of_arrival(
    steps: Sequence[tuple[int, int]],
    media_sample: Ints,
    arrival_ns: Ints,
    duration_samples: npt.NDArray[np.integer[Any]],
    points: Sequence[ReportPoint],
) -> tuple[Ints, Ints, Ints]:
    """Returns when reports arrived, their wall clock, and how far media time is behind it."""
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
    # In a pause a sender counts on by its wall clock, not by the clock of its microphone.
    before = np.maximum(np.searchsorted(arrival_ns, report_arrival_ns, side="right") - 1, 0)
    keep = report_arrival_ns - arrival_ns[before] <= BESIDE_NS
    report_arrival_ns, wall_ns, report_sample, before = (
        values[keep] for values in (report_arrival_ns, wall_ns, report_sample, before)
    )
    if not wall_ns.size:
        return report_arrival_ns, wall_ns, wall_ns
    wall_ns = wall_ns - wall_ns[0]
    behind_ns = wall_ns - (report_sample - report_sample[0]) * NS_PER_SECOND // SAMPLE_RATE_HZ
    # Some count on from where the last packet begins, others from near its end: it shows where
    # packets become longer or shorter. By the steps of the arrivals it is known what they do.
    from_end_ns = behind_ns - (
        duration_samples[before].astype(np.int64) * NS_PER_SECOND // SAMPLE_RATE_HZ
    )
    after = np.searchsorted(report_arrival_ns, [arrival_ns[index] for index, _ in steps])
    seen_ns = np.bincount(
        np.minimum(after, len(wall_ns)), [size for _, size in steps], len(wall_ns) + 1
    )[1 : len(wall_ns)]
    if np.abs(np.diff(from_end_ns) - seen_ns).sum() < np.abs(np.diff(behind_ns) - seen_ns).sum():
        behind_ns = from_end_ns
    return report_arrival_ns, wall_ns, behind_ns


def _quiet_rate(wall_ns: Ints, behind_ns: Ints, busy: Ints) -> Rate | None:
    """Returns the rate of the time when nothing happens; None where something always happens.

    The noise is 3 standard deviations, by the median of the deviations.

    Args:
      wall_ns: of each report.
      behind_ns: how far media time is behind it.
      busy: numbers of the reports behind which steps lie.
    """
    wall_steps_ns, behind_steps_ns = np.diff(wall_ns), np.diff(behind_ns)
    quiet = wall_steps_ns > 0
    quiet[busy] = False
    rates = behind_steps_ns[quiet] / wall_steps_ns[quiet]
    if not rates.size:
        return None
    rate = float(np.median(rates))
    off_ns = np.abs(behind_steps_ns - rate * wall_steps_ns)
    noise_ns = 4.5 * float(np.median(off_ns[quiet]))
    if len(rates) < _FEW_REPORTS:
        noise_ns = max(noise_ns, _USUAL_NOISE_NS)
    # Each part between two things that happen is a straight line, all have one slope.
    quiet &= off_ns <= max(1.5 * noise_ns, NS_PER_MS)
    part = np.concatenate([[0], np.cumsum(~quiet)])
    x, y = _less_mean(wall_ns, part), _less_mean(behind_ns, part)
    spread = float(np.square(x).sum())
    if not spread:
        return None
    # Whole ms, and what senders round, are off by as much in long series as in short ones.
    error = max(noise_ns, NS_PER_MS) / math.sqrt(2 * spread)
    return Rate(float((x * y).sum()) / spread, error, noise_ns)


def _less_mean(values: Ints, part: Ints) -> Reals:
    """Returns values less the mean of those of their part; parts are numbered from 0."""
    counts = np.bincount(part)
    offsets = values.astype(np.float64) - values[0]
    found: Reals = offsets - (np.bincount(part, weights=offsets) / counts)[part]
    return found


def _rate_by_arrivals(edges: Sequence[int], media_sample: Ints, arrival_ns: Ints) -> Rate:
    """Returns what `_quiet_rate` does, for reports between which something always happens.

    Of a segment of which only the first and the last report are known the arrivals tell the rate,
    as far as the server's clock and the sender's run alike; where they are too few it may be any
    that a sound card has.

    Args:
      edges: indices of the packets at which steps part them, the ends included.
      media_sample: where each packet begins in media time.
      arrival_ns: when each packet arrived, in order.
    """
    rise_ns = run_ns = 0
    for start, stop in itertools.pairwise(edges):
        media_ns = samples_to_ns(int(media_sample[stop - 1] - media_sample[start]))
        if media_ns < _TREND_NS:
            continue
        third = max(1, (stop - start) // 3)
        delay_ns = arrival_ns[start:stop] - media_sample[start:stop] * NS_PER_SECOND // (
            SAMPLE_RATE_HZ
        )
        first = int(delay_ns[:third].argmin())
        last = stop - start - third + int(delay_ns[-third:].argmin())
        rise_ns += int(delay_ns[last] - delay_ns[first])
        run_ns += int(arrival_ns[start + last] - arrival_ns[start + first])
    if not run_ns:
        return Rate(0.0, _MOST_RATE, _USUAL_NOISE_NS)
    return Rate(rise_ns / run_ns, WALL_CLOCK_RATE, _USUAL_NOISE_NS)
