"""Which dump is whose by RTP time: names may be exchanged, time stamps tell.

The metadata says with which RTP time stamp each segment begins and ends (RFC 3550 s5.1: their
origin is random), so a dump that bears another segment's name is known by both its ends.
"""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.errors import RtpdumpError
from transforms.media.rtp.dump_claims import ENDS_AGREE_SAMPLES, common_samples, without_unset
from transforms.media.rtp.packets import parse_rtp_window
from transforms.media.rtp.participant_sessions import ListedSegment
from transforms.media.rtp.rtpdump import read_rtpdump
from transforms.media.wraparound import unwrap

_HEAD_BYTES = 1 << 13
_LAST_PACKETS = 50
"""Of a dump's end, among which is the one with the highest time stamp, whatever their order."""
_MOST_CANDIDATES = 8
"""Segments that one dump is compared with at its end; real origins hardly ever meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpMatch:
    """What RTP time tells of an archive's dumps."""

    taken: Mapping[int, str]
    """By the number of a segment, the dump that is its own though it has another name."""
    head_convention_samples: int
    """By how much the first RTP time stamps of the metadata lie before the first packets, where
    that is the way of their writer.
    """


def match_dumps(
    segments: Sequence[ListedSegment],
    named: Sequence[str | None],
    unlisted: Sequence[str],
    paths: Mapping[str, Path],
) -> DumpMatch:
    """Returns which segments have another dump than the one of their name.

    A dump is taken from a segment, or from none, only when it fits another one at both ends that
    its own dump does not fit, and either each has the other's or no second one fits.

    Args:
      segments: all audio segments of an archive.
      named: of each, the dump that its name means; None for none.
      unlisted: dumps that no segment's name means.
      paths: where each dump was copied to.
    """
    firsts = {
        dump: first
        for dump in (*(each for each in named if each is not None), *unlisted)
        if (first := _first_timestamp(paths[dump])) is not None
    }
    segments = [replace(each, timing=without_unset(each.timing)) for each in segments]
    apart: dict[int, int] = {}
    for number, (segment, dump) in enumerate(zip(segments, named, strict=True)):
        claimed = segment.timing.first_rtp_timestamp
        if claimed is not None and dump in firsts:
            apart[number] = unwrap(firsts[dump] - claimed, 0, 32)
    convention = common_samples(list(apart.values()))
    claimed_both = [
        number
        for number, segment in enumerate(segments)
        if segment.timing.first_rtp_timestamp is not None
        and segment.timing.last_rtp_timestamp is not None
    ]
    alike = _begin_alike(segments, claimed_both)
    suspects = []
    for number in claimed_both:
        dump = named[number]
        fits = abs(apart.get(number, 1 << 31) - convention) <= ENDS_AGREE_SAMPLES
        # Where several begin with the same time stamp their ends tell them apart.
        if fits and dump is not None and number in alike:
            fits = _fits_end(paths[dump], segments[number])
        if not fits:
            suspects.append(number)
    if not suspects:
        return DumpMatch(taken={}, head_convention_samples=convention)
    by_first = sorted(
        ((segments[n].timing.first_rtp_timestamp or 0) + convention, n) for n in suspects
    )
    owners = {named[n]: n for n in suspects if named[n] in firsts}
    fitting: dict[str, list[int]] = {}
    for dump in (*owners, *(each for each in unlisted if each in firsts)):
        assert dump is not None
        near = [n for n in _near(by_first, firsts[dump]) if named[n] != dump]
        if near:
            fitting[dump] = [n for n in near if _fits_end(paths[dump], segments[n])]
    return DumpMatch(taken=_taken(fitting, named, owners), head_convention_samples=convention)


def _begin_alike(segments: Sequence[ListedSegment], numbers: Sequence[int]) -> set[int]:
    """Returns those of some segments that begin with the time stamp of another one."""
    firsts = sorted((segments[n].timing.first_rtp_timestamp or 0, n) for n in numbers)
    found: set[int] = set()
    for (one, n), (other, m) in itertools.pairwise(firsts):
        if other - one <= ENDS_AGREE_SAMPLES:
            found.update((n, m))
    return found


def _taken(
    fits: Mapping[str, Sequence[int]],
    named: Sequence[str | None],
    owners: Mapping[str | None, int],
) -> dict[int, str]:
    """Returns the dump of each segment that has another one than its name says."""
    found: dict[int, str] = {}
    wanted: dict[int, list[str]] = {}
    for dump, numbers in fits.items():
        for number in numbers:
            wanted.setdefault(number, []).append(dump)
    for dump, numbers in fits.items():
        mutual = [n for n in numbers if owners.get(dump) in fits.get(named[n] or "", ())]
        sole = numbers if len(numbers) == 1 and len(wanted[numbers[0]]) == 1 else []
        choice = mutual if len(mutual) == 1 else sole
        if choice and choice[0] not in found:
            found[choice[0]] = dump
    return found


def _near(by_first: Sequence[tuple[int, int]], first: int) -> list[int]:
    """Returns the segments that begin where a dump does, across the wrap too."""
    found: list[int] = []
    for origin in (first - (1 << 32), first, first + (1 << 32)):
        at = bisect.bisect_left(by_first, (origin - ENDS_AGREE_SAMPLES, -1))
        while at < len(by_first) and by_first[at][0] <= origin + ENDS_AGREE_SAMPLES:
            if len(found) == _MOST_CANDIDATES:
                return []  # so many alike tell nothing
            found.append(by_first[at][1])
            at += 1
    return found


def _first_timestamp(path: Path) -> int | None:
    """Returns the time stamp of a dump's first RTP packet; None without any in its beginning."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        for timestamps in _timestamps(io.BytesIO(head)):
            if timestamps.size:
                return int(timestamps[0])
    except RtpdumpError:
        pass  # told when it is ingested
    return None


def _fits_end(path: Path, segment: ListedSegment) -> bool:
    """Whether a dump ends where the metadata claims the segment's last packet."""
    claimed = segment.timing.last_rtp_timestamp
    assert claimed is not None, "suspects have one"
    last = np.zeros(0, dtype=np.uint32)
    try:
        with path.open("rb") as file:
            for timestamps in _timestamps(file):
                last = np.concatenate([last, timestamps])[-_LAST_PACKETS:]
    except RtpdumpError:
        pass  # the last packets before the damage count
    if not last.size:
        return False
    behind = (last - np.uint32(claimed % (1 << 32))).view(np.int32)
    return abs(int(behind.max())) <= ENDS_AGREE_SAMPLES


def _timestamps(file: BinaryIO) -> Iterator[npt.NDArray[np.uint32]]:
    """Yields the RTP time stamps of a dump, a window at a time. Raises: RtpdumpError."""
    for window in read_rtpdump(file, "").windows:
        yield parse_rtp_window(window).rtp_timestamp
