"""Packet runs of a track on its clock: where they lie on each other, and parts of one.

Times are server time in ns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from transforms.media.opus.packet import GRID_SAMPLES
from transforms.media.track.likeness import Prints
from transforms.media.track.shares import Bools
from transforms.media.track.staged_packets import StagedPacketRun
from transforms.media.track.timeline import Piece
from transforms.media.units import Ints, samples_to_ns

_GRID_NS = samples_to_ns(GRID_SAMPLES // 2)
"""What rounding may be to blame for."""


class LeftOutReason(StrEnum):
    """Why a staged packet is in no lane."""

    EQUAL_DUPLICATE = "equal_duplicate"
    """Another recording of the same packets has it, with the same bytes."""
    HAND_OVER = "hand_over"
    """It is the same sound as that of the source which it takes over from."""
    SHORT_OVERLAP = "short_overlap"
    """It lies on others, by no more than clocks leave open."""
    TOO_MANY_AT_ONCE = "too_many_at_once"
    """There are as many sounds at once as there may be."""


@dataclass(slots=True, eq=False)
class TimedPacketRun:
    """A packet run on its clock."""

    pieces: tuple[Piece, ...]
    start_ns: int
    """Server time, as all times here."""
    stop_ns: int
    overlap_ns: tuple[int, int] | None = None
    """Where other packet runs may lie at the same time; None where none does."""
    prints: Prints | None = None
    """Of the packets there."""
    left_out: dict[LeftOutReason, Bools] = field(default_factory=dict)
    """Which of its packets are in no lane; shape (packets,) each."""

    def leave_out(self, which: Ints, reason: LeftOutReason) -> None:
        """Notes that packets are in no lane."""
        if len(which):
            count = self.packet_run.packet_count
            self.left_out.setdefault(reason, np.zeros(count, dtype=np.bool_))[which] = True

    @property
    def packet_run(self) -> StagedPacketRun:
        return self.pieces[0].packet_run

    @property
    def part(self) -> int:
        return self.pieces[0].part


@dataclass(slots=True, eq=False)
class Group:
    """Consecutive packets of a packet run that are to lie in one lane."""

    first: int
    stop: int
    media_sample: int
    """Where the first begins."""
    start_ns: int
    stop_ns: int


def runs_of(pieces: Sequence[Piece]) -> list[TimedPacketRun]:
    """Returns the packet runs that pieces are of, in their order."""
    timed_runs = []
    edges = [number for number, piece in enumerate(pieces) if piece.opens_packet_run]
    for first, stop in itertools.pairwise([*edges, len(pieces)]):
        mine = tuple(pieces[first:stop])
        stop_ns = mine[-1].server_unix_ns(mine[-1].media_stop_sample)
        timed_runs.append(TimedPacketRun(mine, mine[0].clock.server_start_unix_ns, stop_ns))
    return timed_runs


def mark_overlaps(timed_runs: Sequence[TimedPacketRun]) -> None:
    """Notes where packet runs lie on each other."""
    furthest_ns = None
    for number, timed in enumerate(timed_runs):
        following = timed_runs[number + 1] if number + 1 < len(timed_runs) else None
        spans = []
        if furthest_ns is not None and timed.start_ns < furthest_ns - _GRID_NS:
            spans.append((timed.start_ns, min(timed.stop_ns, furthest_ns)))
        if following is not None and following.start_ns < timed.stop_ns - _GRID_NS:
            spans.append((following.start_ns, timed.stop_ns))
        if spans:
            timed.overlap_ns = (min(first for first, _ in spans), max(stop for _, stop in spans))
        furthest_ns = timed.stop_ns if furthest_ns is None else max(furthest_ns, timed.stop_ns)


def groups_of(
    timed: TimedPacketRun, free: Bools, same: Sequence[tuple[TimedPacketRun, int]]
) -> list[Group]:
    """Returns the packets that are to be laid yet, parted where others were taken from between
    them, and where the recordings of the same packets end.

    Args:
      timed: whose packets.
      free: which of them; shape (packets,).
      same: other recordings, and media time there less that here.
    """
    if not free.any():
        return []
    edges = (np.flatnonzero(np.diff(free.astype(np.int8))) + 1).tolist()
    prints = timed.prints
    assert prints is not None
    if same and len(prints.index):
        stop_sample = max(other.packet_run.media_stop_sample - shift for other, shift in same)
        within = int(np.searchsorted(prints.media_sample, stop_sample))
        edges.append(int(prints.index[0]) + within)
    edges = sorted({0, len(free), *edges})
    return [
        group_of(timed, first, stop) for first, stop in itertools.pairwise(edges) if free[first]
    ]


def group_of(timed: TimedPacketRun, first: int, stop: int) -> Group:
    """Returns consecutive packets as a group."""
    media_sample, start_ns = (0, timed.start_ns) if first == 0 else _begin_of(timed, first)
    is_end = stop == timed.packet_run.packet_count
    stop_ns = timed.stop_ns if is_end else _begin_of(timed, stop - 1, at_end=True)[1]
    return Group(first, stop, media_sample, start_ns, stop_ns)


def _begin_of(timed: TimedPacketRun, index: int, *, at_end: bool = False) -> tuple[int, int]:
    """Returns where a packet among those that were looked at begins, or ends: media time and server
    time.
    """
    prints = timed.prints
    assert prints is not None
    place = min(int(np.searchsorted(prints.index, index)), len(prints.index) - 1)
    media_sample, start_ns = int(prints.media_sample[place]), int(prints.start_ns[place])
    if at_end:
        return media_sample + int(prints.duration_samples[place]), int(prints.stop_ns[place])
    return media_sample, start_ns


def places_of(group: Group) -> Ints:
    """Returns the places of a group's packets in their packet run."""
    return np.arange(group.first, group.stop, dtype=np.int64)


def part_group(timed: TimedPacketRun, group: Group, stop_ns: int) -> tuple[Group | None, Group]:
    """Returns the packets of a group that end by a moment, and those that come after."""
    prints = timed.prints
    assert prints is not None
    mine = (prints.index >= group.first) & (prints.index < group.stop)
    ends_ns = np.maximum.accumulate(prints.stop_ns[mine])
    count = int(np.searchsorted(ends_ns, stop_ns + _GRID_NS, side="right"))
    count = min(count, group.stop - group.first - 1)
    middle = group.first + count
    head = group_of(timed, group.first, middle) if count else None
    return head, group_of(timed, middle, group.stop)
