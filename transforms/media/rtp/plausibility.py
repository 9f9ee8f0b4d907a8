"""What of a dump is not believed: arrival times out of order, and sources too many to be real."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.units import Ints

_BACK_MS = 10_000
"""Arrivals that go back by no more are a clock being set, or threads of the recorder."""


def mend_arrivals(offset_ms: Ints) -> tuple[Ints, int]:
    """Returns arrival offsets that rise as a recorder writes them, and how many were not believed.

    Those out of line are taken as the one before them. Where they are more than half, none is
    believed: all become the first.
    """
    if offset_ms.size == 0 or int(np.diff(offset_ms).min(initial=0)) >= -_BACK_MS:
        return offset_ms, 0
    # The longest row of offsets that rises (patience sorting): a wild one far ahead would else push
    # all others out of line.
    tails: list[int] = []
    lengths = np.zeros(offset_ms.size, dtype=np.int64)
    for index, value in enumerate(offset_ms.tolist()):
        place = bisect.bisect_right(tails, value)
        tails[place : place + 1] = [value]
        lengths[index] = place + 1
    in_line = np.zeros(offset_ms.size, dtype=bool)
    wanted, limit = len(tails), np.iinfo(np.int64).max
    for index in range(offset_ms.size - 1, -1, -1):
        if lengths[index] == wanted and offset_ms[index] <= limit:
            in_line[index] = True
            limit = offset_ms[index]
            wanted -= 1
    out_of_line = int(offset_ms.size - in_line.sum())
    if 2 * out_of_line > offset_ms.size:
        return np.full_like(offset_ms, offset_ms[0]), offset_ms.size
    last = np.maximum.accumulate(np.where(in_line, np.arange(offset_ms.size), -1))
    mended: Ints = offset_ms[np.where(last >= 0, last, int(in_line.argmax()))]
    return mended, out_of_line


def main_sources(ssrc: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Returns which packets are of the sources with the most packets."""
    values, inverse, counts = np.unique(ssrc, return_inverse=True, return_counts=True)
    if len(values) <= caps.MAX_SOURCES:
        return np.ones(len(ssrc), dtype=bool)
    kept = np.zeros(len(values), dtype=bool)
    kept[np.argsort(-counts, kind="stable")[: caps.MAX_SOURCES]] = True
    mask: npt.NDArray[np.bool_] = kept[inverse]
    return mask


def longest(lengths: list[int], count: int) -> list[int]:
    """Returns the indices of the longest, in their order."""
    if len(lengths) <= count:
        return list(range(len(lengths)))
    return sorted(sorted(range(len(lengths)), key=lambda index: -lengths[index])[:count])
