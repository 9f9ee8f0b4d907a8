"""What sender reports say of the steps of a packet run's least delay (see `fit`)."""

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
