"""What sender reports say of the steps of a packet run's least delay.

A step between arrivals and media time has two causes that look alike: the sender's capture stood
still, or the network took another path. The pair of times in each sender report (RFC 3550 s6.4.1)
tells them apart, as no network is in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from transforms.media.clock.model import (
    ABSURD_RATE,
    PATH_STEP_NS,
    REPORT_NOISE_NS,
    ReportPoint,
    StepEvidence,
)
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, Ints


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
    said = [StepEvidence.UNKNOWN] * len(steps)
    if len(points) < 2 or not steps:
        return said
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
    index = np.array([at for at, _ in steps])
    last_before = np.searchsorted(report_arrival_ns, arrival_ns[index - 1], side="right") - 1
    first_after = np.searchsorted(report_arrival_ns, arrival_ns[index], side="left")
    quiet = np.diff(wall_ns) > 0
    for first, last in zip(last_before.tolist(), first_after.tolist(), strict=True):
        quiet[max(first, 0) : last] = False
    rates = np.diff(behind_ns)[quiet] / np.diff(wall_ns)[quiet]
    rate = float(np.median(rates)) if rates.size else 0.0
    if abs(rate) > ABSURD_RATE:
        return said  # reports that imply an absurd rate say nothing
    # What a sender's reports are off by when nothing happens: 3 standard deviations, by the median
    # of the deviations.
    noise_ns = (
        4.5 * float(np.median(np.abs(np.diff(behind_ns)[quiet] - rate * np.diff(wall_ns)[quiet])))
        if rates.size
        else 0.0
    )

    def lag_between(first: int, last: int) -> tuple[float, range]:
        """Returns how far media time fell behind between two reports, and the steps between."""
        lag_ns = float(behind_ns[last] - behind_ns[first] - rate * (wall_ns[last] - wall_ns[first]))
        inside = np.searchsorted(
            arrival_ns[index], [report_arrival_ns[first], report_arrival_ns[last]], side="right"
        ).tolist()
        return lag_ns, range(*inside)

    done = 0
    for (first, last), group in itertools.groupby(
        zip(last_before.tolist(), first_after.tolist(), strict=True)
    ):
        mine = range(done, done + sum(1 for _ in group))
        done = mine.stop
        if first < 0 or last >= len(report_arrival_ns):
            continue
        lag_ns, inside = lag_between(first, last)
        sharp_ns = [steps[place][1] for place in inside if not ramps[place]]
        here_ns = [steps[place][1] for place in inside]
        # A report sent while the capture stood knows part of the stall, the one after it the rest.
        lag_around_ns, around = lag_between(
            max(0, first - 1), min(len(report_arrival_ns) - 1, last + 1)
        )
        sharp_around_ns = [steps[place][1] for place in around if not ramps[place]]
        if _explains(lag_ns, sharp_ns, noise_ns) or (
            _explains(lag_around_ns, sharp_around_ns, noise_ns)
            and not _explains(lag_ns, here_ns, noise_ns)
        ):
            verdicts = [
                StepEvidence.DENIED if ramps[place] else StepEvidence.CONFIRMED for place in mine
            ]
        elif _explains(lag_ns, here_ns, noise_ns):
            verdicts = [StepEvidence.CONFIRMED] * len(mine)
        elif abs(sum(here_ns)) <= noise_ns:
            continue  # too little to be told
        elif abs(lag_ns) <= REPORT_NOISE_NS or lag_ns * sum(here_ns) < 0:
            verdicts = [StepEvidence.DENIED] * len(mine)
        else:
            # Something stood still while the network was crowded: the step that is like it, or what
            # is less than it.
            alike = [_explains(lag_ns, [steps[place][1]], noise_ns) for place in mine]
            is_less = abs(sum(here_ns)) <= abs(lag_ns)
            unlike = (
                StepEvidence.DENIED
                if any(alike)
                else StepEvidence.CONFIRMED
                if is_less
                else StepEvidence.UNKNOWN
            )
            verdicts = [StepEvidence.CONFIRMED if is_alike else unlike for is_alike in alike]
        said[mine.start : mine.stop] = verdicts
    return said


def _explains(lag_ns: float, sizes_ns: Sequence[int], noise_ns: float) -> bool:
    """Tells whether steps are what the sender's clock shows.

    They are nearer to it than nothing at all, and hold no rise that a fall takes back.

    Args:
      lag_ns: how far media time fell behind.
      sizes_ns: of the steps.
      noise_ns: what reports are off by when nothing happens.
    """
    total_ns = sum(sizes_ns)
    if abs(lag_ns) <= noise_ns or sum(abs(size_ns) for size_ns in sizes_ns) > 1.5 * abs(total_ns):
        return False
    tolerance_ns = min(max(REPORT_NOISE_NS, 0.35 * abs(total_ns)), PATH_STEP_NS)
    return abs(lag_ns - total_ns) <= min(tolerance_ns, 0.999 * abs(lag_ns))
