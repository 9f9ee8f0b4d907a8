"""Parts the packet runs of a track into lanes, so that no two sounds of it lie on each other.

    lane 0   |--- one packet run ---|      |-- one that comes after --|
    lane 1              |--- another one at the same time ---|

A lane becomes one file; all sound in the mix. Packets that are there twice are placed once, and
each packet is placed in one lane or left out for a reason with a name. Of what does not overlap no
packet is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import BinaryIO

import numpy as np

from transforms.media.opus.packet import GRID_SAMPLES
from transforms.media.track.likeness import (
    MOST_JUDGED_NS,
    Prints,
    Take,
    find_same_packets,
    is_same_sound,
    take_prints,
)
from transforms.media.track.shares import Bools, Patch, Share
from transforms.media.track.staged_packets import PartIndex, StagedPacketRun, read_packet_run
from transforms.media.track.timeline import Piece, plan_pieces
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints, samples_to_ns

MOST_LANES = 8
"""Sounds of one track at once; an honest one has one, or two while it is published anew."""
_SLACK_NS = 40 * NS_PER_MS
"""Two packets: what clocks leave open of where a packet run begins. It follows at once, then."""
_SPLIT_NS = NS_PER_SECOND
"""A packet run that overlaps the one before by no more is parted: a few packets of it lie in
another lane, and all the rest goes on in the same file.
"""
_GRID_NS = samples_to_ns(GRID_SAMPLES // 2)
_MARGIN_NS = NS_PER_SECOND
"""What is looked at on either side of an overlap: recordings of the same packets may lie so far
apart.
"""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """How many of the packets of one segment's dump are placed."""

    part: int
    """Index of the part it is in."""
    base_filename: str
    packet_count: int
    lent_count: int
    """Of these, how many lie where another recording of the same packets lost them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Packets of one segment's dump that are in no lane."""

    part: int
    """Index of the part they are in."""
    base_filename: str
    reason: LeftOutReason
    packet_count: int
    copy_count: int
    """Of these, how many only a redundant copy brought."""
    media_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePlan:
    """Where all packets of a track go."""

    lanes: tuple[tuple[Piece, ...], ...]
    """The pieces of each, for `place_packets`; none without packets."""
    placed: tuple[Placed, ...]
    left_out: tuple[LeftOut, ...]


def plan_lanes(parts: Sequence[PartIndex], open_packets: Callable[[int], BinaryIO]) -> LanePlan:
    """Returns the lanes of a track: the same each time for the same parts.

    Packet runs are taken in order of server time. Each goes to the first lane in which nothing else
    lies at its time, and that is the first one for nearly all. Where one overlaps others, packets
    are compared: equal ones are left out, and those that the others lost are put in their holes.
    Where a new source takes over from another one and says the same, it begins when the other ends.

    Memory grows by 60 bytes for each packet that overlaps.

    Args:
      parts: indexes of all parts of the track.
      open_packets: opens the staged packets of a part, by its index.
    """
    runs = _runs_of(plan_pieces(parts))
    _mark_overlaps(runs)
    planner = _Planner(open_packets)
    for run in runs:
        planner.add(run)
    return planner.plan()


# --- packet runs and what is laid of them ---------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Run:
    """A packet run on its clock."""

    pieces: tuple[Piece, ...]
    start_ns: int
    """Server time, as all times here."""
    stop_ns: int
    overlap_ns: tuple[int, int] | None = None
    """Where other packet runs may lie at the same time; None where none does."""
    prints: Prints | None = None
    """Of the packets there."""

    @property
    def packet_run(self) -> StagedPacketRun:
        return self.pieces[0].packet_run

    @property
    def part(self) -> int:
        return self.pieces[0].part


@dataclass(slots=True, eq=False)
class _Laid:
    """What of a packet run lies in a lane."""

    run: _Run
    kept: Bools | None
    """Which of its packets; None for all."""
    media_sample: int
    """Where the first begins."""
    stop_ns: int
    patches: list[Patch] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Group:
    """Consecutive packets of a packet run that are to lie in one lane."""

    first: int
    stop: int
    media_sample: int
    """Where the first begins."""
    start_ns: int
    stop_ns: int


def _runs_of(pieces: Sequence[Piece]) -> list[_Run]:
    runs = []
    edges = [number for number, piece in enumerate(pieces) if piece.opens_packet_run]
    for first, stop in itertools.pairwise([*edges, len(pieces)]):
        mine = tuple(pieces[first:stop])
        stop_ns = mine[-1].server_unix_ns(mine[-1].media_stop_sample)
        runs.append(_Run(mine, mine[0].clock.server_start_unix_ns, stop_ns))
    return runs


def _mark_overlaps(runs: Sequence[_Run]) -> None:
    """Notes where packet runs lie on each other."""
    furthest_ns = None
    for number, run in enumerate(runs):
        following = runs[number + 1] if number + 1 < len(runs) else None
        spans = []
        if furthest_ns is not None and run.start_ns < furthest_ns - _GRID_NS:
            spans.append((run.start_ns, min(run.stop_ns, furthest_ns)))
        if following is not None and following.start_ns < run.stop_ns - _GRID_NS:
            spans.append((following.start_ns, run.stop_ns))
        if spans:
            run.overlap_ns = (min(first for first, _ in spans), max(stop for _, stop in spans))
        furthest_ns = run.stop_ns if furthest_ns is None else max(furthest_ns, run.stop_ns)


# --- the plan -------------------------------------------------------------------------------------


class _Planner:
    """Lays packet runs into lanes, one after the other in order of server time."""

    def __init__(self, open_packets: Callable[[int], BinaryIO]) -> None:
        self._open_packets = open_packets
        self._lanes: list[list[_Laid]] = []
        self._compared: list[_Run] = []
        """Those whose prints are held."""
        self._placed: Counter[tuple[int, str]] = Counter()
        self._lent: Counter[tuple[int, str]] = Counter()
        self._left_out: dict[tuple[int, str, LeftOutReason], list[int]] = {}

    def add(self, run: _Run) -> None:
        """Places a packet run, or leaves packets of it out."""
        count = run.packet_run.packet_count
        if run.overlap_ns is None:
            self._lay_group(run, _group(run, 0, count), np.ones(count, dtype=np.bool_))
            return
        first_ns, stop_ns = run.overlap_ns
        with self._open_packets(run.part) as file:
            run.prints = take_prints(file, run.pieces, first_ns - _MARGIN_NS, stop_ns + _MARGIN_NS)
        free = np.ones(count, dtype=np.bool_)
        live = self._live(run.start_ns)
        same = [
            (laid, found)
            for laid in live
            if laid.run.prints is not None
            and (found := find_same_packets(run.prints, laid.run.prints)) is not None
        ]
        is_equal = np.zeros(len(run.prints.index), dtype=np.bool_)
        for _, found in same:
            is_equal |= found.is_equal
        self._leave_out(run, run.prints.index[is_equal], LeftOutReason.EQUAL_DUPLICATE, free)
        for laid, found in same:
            self._lend(run, laid, found.shift_samples, free)
        for group in _groups(run, free, [(laid.run, found.shift_samples) for laid, found in same]):
            self._lay_group(run, group, free)
        self._compared.append(run)
        self._forget(run.start_ns - _MARGIN_NS)

    def _forget(self, before_ns: int) -> None:
        """Lets go of the prints of packet runs that nothing can lie on any more, or of which
        nothing is in a lane.
        """
        laid = {id(lane[-1].run) for lane in self._lanes}
        kept = [run for run in self._compared if run.stop_ns > before_ns and (id(run) in laid)]
        for run in self._compared:
            if run not in kept:
                run.prints = None
        self._compared = kept

    def _live(self, start_ns: int) -> list[_Laid]:
        """Returns what reaches over a moment."""
        return [
            laid
            for lane in self._lanes
            for laid in itertools.takewhile(
                lambda laid: laid.stop_ns > start_ns - _MARGIN_NS, reversed(lane)
            )
        ]

    def _lend(self, run: _Run, laid: _Laid, shift_samples: int, free: Bools) -> None:
        """Puts packets where another recording of the same packets lost them."""
        mine, theirs = run.prints, laid.run.prints
        assert mine is not None
        assert theirs is not None
        start = mine.media_sample + shift_samples
        after = np.searchsorted(theirs.media_sample, start)
        inner = np.clip(after, 1, len(theirs.index) - 1) if len(theirs.index) > 1 else after
        fits = (after > 0) & (after < len(theirs.index))
        before = np.maximum(inner - 1, 0)
        inner = np.minimum(inner, len(theirs.index) - 1)
        fits &= theirs.media_sample[before] + theirs.duration_samples[before] <= start
        fits &= start + mine.duration_samples <= theirs.media_sample[inner]
        if laid.kept is not None:  # within what lies in this lane
            kept = np.concatenate([laid.kept, [True]])  # the last one for those that were lent
            fits &= kept[theirs.index[before]] & kept[theirs.index[inner]]
        fits &= free[mine.index] & (mine.index >= 0)
        if not fits.any():
            return
        taken = np.zeros(len(free), dtype=np.bool_)
        taken[mine.index[fits]] = True
        free &= ~taken
        key = (run.part, run.packet_run.base_filename)
        self._placed[key] += int(taken.sum())
        self._lent[key] += int(taken.sum())
        laid.patches.append(
            Patch(
                part=run.part, packet_run=run.packet_run, taken=taken, shift_samples=shift_samples
            )
        )
        laid.run.prints = theirs.with_lent(mine, fits, shift_samples)

    def _lay_group(self, run: _Run, group: _Group, free: Bools, first_lane: int = 0) -> None:
        """Puts packets into the first lane that has room for them, from a given one on."""
        for number in range(first_lane, MOST_LANES):
            if number == len(self._lanes):
                self._lanes.append([])
            lane = self._lanes[number]
            stop_ns = max((laid.stop_ns for laid in lane[-1:]), default=group.start_ns)
            if group.start_ns >= stop_ns - _SLACK_NS:
                self._lay(run, group, lane)
                return
            if group.stop_ns - group.start_ns <= _SLACK_NS:
                self._leave_out(run, _places(group), LeftOutReason.SHORT_OVERLAP, free)
                return
            if group.stop_ns <= stop_ns:
                continue
            head, tail = _parted(run, group, stop_ns)
            is_same = self._takes_over(run, lane[-1].run, group.start_ns, stop_ns)
            if is_same or stop_ns - group.start_ns <= _SPLIT_NS:
                if head is not None and is_same:
                    self._leave_out(run, _places(head), LeftOutReason.HAND_OVER, free)
                elif head is not None:
                    self._lay_group(run, head, free, number + 1)
                self._lay(run, tail, lane)
                return
        self._leave_out(run, _places(group), LeftOutReason.TOO_MANY_AT_ONCE, free)

    def _takes_over(self, run: _Run, before: _Run, start_ns: int, stop_ns: int) -> bool:
        """Whether a new source of a published track says what the one before it says to its end."""
        one, other = before.packet_run, run.packet_run
        if (
            one.is_encrypted
            or other.is_encrypted
            or one.ssrc == other.ssrc
            or one.track_id != other.track_id
            or stop_ns - start_ns > MOST_JUDGED_NS
        ):
            return False
        with self._open_packets(before.part) as file, self._open_packets(run.part) as own:
            takes = Take(file=file, pieces=before.pieces), Take(file=own, pieces=run.pieces)
            return is_same_sound(*takes, start_ns, stop_ns)

    def _lay(self, run: _Run, group: _Group, lane: list[_Laid]) -> None:
        count = run.packet_run.packet_count
        self._placed[run.part, run.packet_run.base_filename] += group.stop - group.first
        if group.stop - group.first == count:
            lane.append(_Laid(run, None, 0, group.stop_ns))
            return
        kept = np.zeros(count, dtype=np.bool_)
        kept[group.first : group.stop] = True
        if lane and lane[-1].run is run and lane[-1].kept is not None:
            lane[-1].kept |= kept
            lane[-1].stop_ns = group.stop_ns
        else:
            lane.append(_Laid(run, kept, group.media_sample, group.stop_ns))

    def _leave_out(self, run: _Run, which: Ints, reason: LeftOutReason, free: Bools) -> None:
        if not len(which):
            return
        free[which] = False
        key = (run.part, run.packet_run.base_filename, reason)
        copies, media_samples = self._read_sums(run, which)
        so_far = self._left_out.setdefault(key, [0, 0, 0])
        so_far[0] += len(which)
        so_far[1] += copies
        so_far[2] += media_samples

    def _read_sums(self, run: _Run, which: Ints) -> tuple[int, int]:
        """Returns how many of some packets are redundant copies, and how long all are."""
        copies = total = first = 0
        with self._open_packets(run.part) as file:
            for window in read_packet_run(file, run.packet_run):
                mine = which[(which >= first) & (which < first + len(window.records))] - first
                copies += int(window.records["is_copy"][mine].sum())
                total += int(window.records["duration_samples"][mine].sum())
                first += len(window.records)
        return copies, total

    def plan(self) -> LanePlan:
        """Returns where everything lies."""
        return LanePlan(
            lanes=tuple(
                tuple(piece for laid in lane for piece in self._pieces(laid))
                for lane in self._lanes
            ),
            placed=tuple(
                Placed(
                    part=part,
                    base_filename=name,
                    packet_count=count,
                    lent_count=self._lent[part, name],
                )
                for (part, name), count in sorted(self._placed.items())
            ),
            left_out=tuple(
                LeftOut(
                    part=part,
                    base_filename=name,
                    reason=reason,
                    packet_count=count,
                    copy_count=copies,
                    media_samples=media_samples,
                )
                for (part, name, reason), (count, copies, media_samples) in sorted(
                    self._left_out.items()
                )
            ),
        )

    def _pieces(self, laid: _Laid) -> tuple[Piece, ...]:
        """Returns the pieces of what lies in a lane, from the one on that has its first packet."""
        pieces = laid.run.pieces
        if laid.kept is None and not laid.patches:
            return pieces
        kept = laid.kept
        if kept is None:
            kept = np.ones(laid.run.packet_run.packet_count, dtype=np.bool_)
        share = Share(kept=kept, first_media_sample=laid.media_sample, patches=tuple(laid.patches))
        starts = [piece.clock.media_start_sample for piece in pieces]
        skipped = max(0, int(np.searchsorted(starts, laid.media_sample, side="right")) - 1)
        return tuple(
            replace(piece, share=share, opens_packet_run=number == 0)
            for number, piece in enumerate(pieces[skipped:])
        )


# --- parts of a packet run ------------------------------------------------------------------------


def _groups(run: _Run, free: Bools, same: Sequence[tuple[_Run, int]]) -> list[_Group]:
    """Returns the packets that are to be laid yet, parted where others were taken from between
    them, and where the recordings of the same packets end.

    Args:
      run: whose packets.
      free: which of them; shape (packets,).
      same: other recordings, and media time there less that here.
    """
    if not free.any():
        return []
    edges = (np.flatnonzero(np.diff(free.astype(np.int8))) + 1).tolist()
    prints = run.prints
    assert prints is not None
    if same and len(prints.index):
        stop_sample = max(other.packet_run.media_stop_sample - shift for other, shift in same)
        within = int(np.searchsorted(prints.media_sample, stop_sample))
        edges.append(int(prints.index[0]) + within)
    edges = sorted({0, len(free), *edges})
    return [_group(run, first, stop) for first, stop in itertools.pairwise(edges) if free[first]]


def _group(run: _Run, first: int, stop: int) -> _Group:
    media_sample, start_ns = (0, run.start_ns) if first == 0 else _begin_of(run, first)
    is_end = stop == run.packet_run.packet_count
    stop_ns = run.stop_ns if is_end else _begin_of(run, stop - 1, at_end=True)[1]
    return _Group(first, stop, media_sample, start_ns, stop_ns)


def _begin_of(run: _Run, index: int, *, at_end: bool = False) -> tuple[int, int]:
    """Returns where a packet among those that were looked at begins, or ends: media time and server
    time.
    """
    prints = run.prints
    assert prints is not None
    place = min(int(np.searchsorted(prints.index, index)), len(prints.index) - 1)
    media_sample, start_ns = int(prints.media_sample[place]), int(prints.start_ns[place])
    if at_end:
        return media_sample + int(prints.duration_samples[place]), int(prints.stop_ns[place])
    return media_sample, start_ns


def _places(group: _Group) -> Ints:
    return np.arange(group.first, group.stop, dtype=np.int64)


def _parted(run: _Run, group: _Group, stop_ns: int) -> tuple[_Group | None, _Group]:
    """Returns the packets of a group that end by a moment, and those that come after."""
    prints = run.prints
    assert prints is not None
    mine = (prints.index >= group.first) & (prints.index < group.stop)
    ends_ns = np.maximum.accumulate(prints.stop_ns[mine])
    count = int(np.searchsorted(ends_ns, stop_ns + _GRID_NS, side="right"))
    count = min(count, group.stop - group.first - 1)
    middle = group.first + count
    head = _group(run, group.first, middle) if count else None
    return head, _group(run, middle, group.stop)
