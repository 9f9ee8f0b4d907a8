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
from typing import BinaryIO

import numpy as np

from transforms.media.track.likeness import (
    MOST_JUDGED_NS,
    SamePackets,
    Take,
    find_same_packets,
    is_same_sound,
    take_prints,
)
from transforms.media.track.overlaps import (
    Group,
    LeftOutReason,
    TimedPacketRun,
    group_of,
    groups_of,
    mark_overlaps,
    part_group,
    places_of,
    runs_of,
)
from transforms.media.track.shares import Bools, Patch, Share
from transforms.media.track.staged_packets import PartIndex, read_packet_run
from transforms.media.track.timeline import Piece, plan_pieces
from transforms.media.units import NS_PER_MS, NS_PER_SECOND

MOST_LANES = 8
"""Sounds of one track at once; an honest one has one, or two while it is published anew."""
_SLACK_NS = 40 * NS_PER_MS
"""Two packets: what clocks leave open of where a packet run begins. It follows at once, then."""
_SPLIT_NS = NS_PER_SECOND
"""A packet run that overlaps the one before by no more is parted: a few packets of it lie in
another lane, and all the rest goes on in the same file.
"""
_MOST_COMPARED = 32
"""Times the packets of a track that are compared: honest ones take a few, a hostile one is not to
cost the square of its packets. Beyond it packets are not taken for equal.
"""
_MOST_JUDGED_OF_TRACK_NS = 600 * NS_PER_SECOND
_LEAST_JUDGING_NS = 5 * NS_PER_SECOND
"""What finding the packets of an overlap costs, in time of decoding them."""
_MARGIN_NS = NS_PER_SECOND
"""What is looked at on either side of an overlap: recordings of the same packets may lie so far
apart.
"""


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
    timed_runs = runs_of(plan_pieces(parts))
    mark_overlaps(timed_runs)
    packet_count = sum(timed.packet_run.packet_count for timed in timed_runs)
    planner = _Planner(packet_count, open_packets)
    for timed in timed_runs:
        planner.add(timed)
    return planner.plan()


@dataclass(slots=True, eq=False)
class _Laid:
    """What of a packet run lies in a lane."""

    timed: TimedPacketRun
    kept: Bools | None
    """Which of its packets; None for all."""
    media_sample: int
    """Where the first begins."""
    stop_ns: int
    patches: list[tuple[int, Patch]] = field(default_factory=list)
    """Each with the server time at which what it is taken from ends."""


class _Planner:
    """Lays packet runs into lanes, one after the other in order of server time."""

    def __init__(self, packet_count: int, open_packets: Callable[[int], BinaryIO]) -> None:
        """Args: packet_count: of all packet runs; open_packets: as `plan_lanes` has it."""
        self._open_packets = open_packets
        self._lanes: list[list[_Laid]] = []
        self._compared: list[TimedPacketRun] = []
        """Those whose prints are held."""
        self._packets_to_compare = _MOST_COMPARED * packet_count
        self._judged_ns = 0
        self._placed: Counter[tuple[int, str]] = Counter()
        self._lent: Counter[tuple[int, str]] = Counter()
        self._left_out: dict[tuple[int, str, LeftOutReason], list[int]] = {}

    def add(self, timed: TimedPacketRun) -> None:
        """Places a packet run, or leaves packets of it out."""
        if timed.overlap_ns is None:
            self._lay_group(timed, group_of(timed, 0, timed.packet_run.packet_count))
            return
        first_ns, stop_ns = timed.overlap_ns
        with self._open_packets(timed.part) as file:
            timed.prints = take_prints(
                file, timed.pieces, first_ns - _MARGIN_NS, stop_ns + _MARGIN_NS
            )
        live = self._live(timed.start_ns)
        same = [(laid, found) for laid in live if (found := self._compare(timed, laid)) is not None]
        is_free = np.ones(timed.packet_run.packet_count, dtype=np.bool_)
        for _, found in same:
            equal = timed.prints.index[found.is_equal]
            is_free[equal] = False
            timed.leave_out(equal, LeftOutReason.EQUAL_DUPLICATE)
        for laid, found in same:
            self._lend(timed, laid, found.shift_samples, is_free)
        shifts = [(laid.timed, found.shift_samples) for laid, found in same]
        for group in groups_of(timed, is_free, shifts):
            self._lay_group(timed, group)
        self._count_left_out(timed)
        self._compared.append(timed)
        self._let_go(timed.start_ns)

    def _live(self, start_ns: int) -> list[_Laid]:
        """Returns what reaches over a moment."""
        return [
            laid
            for lane in self._lanes
            for laid in itertools.takewhile(
                lambda laid: laid.stop_ns > start_ns - _MARGIN_NS, reversed(lane)
            )
        ]

    def _let_go(self, start_ns: int) -> None:
        """Lets go of the prints of packet runs that nothing can lie on any more, or of which
        nothing is in a lane.
        """
        live = {id(laid.timed) for laid in self._live(start_ns)}
        for timed in self._compared:
            if id(timed) not in live:
                timed.prints = None
        self._compared = [timed for timed in self._compared if timed.prints is not None]

    def _compare(self, timed: TimedPacketRun, laid: _Laid) -> SamePackets | None:
        """Returns how a packet run lies to another recording of the same packets, None when what
        is laid is none.
        """
        mine, theirs = timed.prints, laid.timed.prints
        if mine is None or theirs is None:
            return None
        theirs = theirs.within(timed.start_ns - _MARGIN_NS, timed.stop_ns + _MARGIN_NS)
        self._packets_to_compare -= len(mine.index) + len(theirs.index)
        return find_same_packets(mine, theirs) if self._packets_to_compare >= 0 else None

    def _lend(self, timed: TimedPacketRun, laid: _Laid, shift_samples: int, is_free: Bools) -> None:
        """Puts packets where another recording of the same packets lost them.

        Args:
          timed: whose packets.
          laid: the other recording.
          shift_samples: media time there less that here.
          is_free: which packets are in no lane yet and not left out; changed in place.
        """
        mine, theirs = timed.prints, laid.timed.prints
        at_once = sum(stop_ns > timed.start_ns for stop_ns, _ in laid.patches)
        if mine is None or theirs is None or at_once >= MOST_LANES:
            return
        start = mine.media_sample + shift_samples
        last = len(theirs.index) - 1
        after = np.searchsorted(theirs.media_sample, start)
        fits = is_free[mine.index] & (after > 0) & (after <= last)
        before, after = np.maximum(after - 1, 0), np.minimum(after, last)
        fits &= theirs.media_sample[before] + theirs.duration_samples[before] <= start
        fits &= start + mine.duration_samples <= theirs.media_sample[after]
        if laid.kept is not None:  # within what lies in this lane
            kept = np.concatenate([laid.kept, [True]])  # the last one for those that were lent
            fits &= kept[theirs.index[before]] & kept[theirs.index[after]]
        if not fits.any():
            return
        taken = np.zeros(len(is_free), dtype=np.bool_)
        taken[mine.index[fits]] = True
        is_free &= ~taken
        key = (timed.part, timed.packet_run.base_filename)
        self._placed[key] += int(taken.sum())
        self._lent[key] += int(taken.sum())
        patch = Patch(
            part=timed.part,
            packet_run=timed.packet_run,
            taken=taken,
            first_media_sample=int(start[fits.argmax()]),
            shift_samples=shift_samples,
        )
        laid.patches.append((timed.stop_ns, patch))
        laid.timed.prints = theirs.with_lent(mine, fits, shift_samples)

    def _lay_group(self, timed: TimedPacketRun, group: Group, first_lane: int = 0) -> None:
        """Puts packets into the first lane that has room for them, from a given one on."""
        for number in range(first_lane, MOST_LANES):
            if number == len(self._lanes):
                self._lanes.append([])
            lane = self._lanes[number]
            stop_ns = lane[-1].stop_ns if lane else group.start_ns
            if group.start_ns >= stop_ns - _SLACK_NS:
                self._lay(timed, group, lane)
                return
            if group.stop_ns - group.start_ns <= _SLACK_NS:
                timed.leave_out(places_of(group), LeftOutReason.SHORT_OVERLAP)
                return
            if group.stop_ns <= stop_ns:
                continue
            head, tail = part_group(timed, group, stop_ns)
            is_same = self._takes_over(timed, lane[-1].timed, group.start_ns, stop_ns)
            if is_same or stop_ns - group.start_ns <= _SPLIT_NS:
                if head is not None and is_same:
                    timed.leave_out(places_of(head), LeftOutReason.HAND_OVER)
                elif head is not None:
                    self._lay_group(timed, head, number + 1)
                self._lay(timed, tail, lane)
                return
        timed.leave_out(places_of(group), LeftOutReason.TOO_MANY_AT_ONCE)

    def _takes_over(
        self, timed: TimedPacketRun, before: TimedPacketRun, start_ns: int, stop_ns: int
    ) -> bool:
        """Whether a new source of a published track says what the one before it says to its end."""
        one, other = before.packet_run, timed.packet_run
        if (
            one.is_encrypted
            or other.is_encrypted
            or one.ssrc == other.ssrc
            or one.track_id != other.track_id
            or stop_ns - start_ns > MOST_JUDGED_NS
            or self._judged_ns > _MOST_JUDGED_OF_TRACK_NS
        ):
            return False
        self._judged_ns += max(stop_ns - start_ns, _LEAST_JUDGING_NS)
        with self._open_packets(before.part) as file, self._open_packets(timed.part) as own:
            takes = Take(file=file, pieces=before.pieces), Take(file=own, pieces=timed.pieces)
            return is_same_sound(*takes, start_ns, stop_ns)

    def _lay(self, timed: TimedPacketRun, group: Group, lane: list[_Laid]) -> None:
        count = timed.packet_run.packet_count
        self._placed[timed.part, timed.packet_run.base_filename] += group.stop - group.first
        if group.stop - group.first == count:
            lane.append(_Laid(timed, None, 0, group.stop_ns))
            return
        kept = np.zeros(count, dtype=np.bool_)
        kept[group.first : group.stop] = True
        if lane and lane[-1].timed is timed and lane[-1].kept is not None:
            lane[-1].kept |= kept
            lane[-1].stop_ns = group.stop_ns
        else:
            lane.append(_Laid(timed, kept, group.media_sample, group.stop_ns))

    def _count_left_out(self, timed: TimedPacketRun) -> None:
        """Adds up what a packet run leaves out, by reason."""
        found = {reason: [0, 0, 0] for reason in timed.left_out}
        if timed.left_out:
            first = 0
            with self._open_packets(timed.part) as file:
                for window in read_packet_run(file, timed.packet_run):
                    records = window.records
                    for reason, which in timed.left_out.items():
                        mine = records[which[first : first + len(records)]]
                        found[reason][0] += len(mine)
                        found[reason][1] += int(mine["is_copy"].sum())
                        found[reason][2] += int(mine["duration_samples"].sum())
                    first += len(records)
        for reason, counts in found.items():
            key = (timed.part, timed.packet_run.base_filename, reason)
            so_far = self._left_out.setdefault(key, [0, 0, 0])
            for place, count in enumerate(counts):
                so_far[place] += count
        timed.left_out.clear()

    def plan(self) -> LanePlan:
        """Returns where everything lies."""
        return LanePlan(
            lanes=tuple(
                tuple(piece for laid in lane for piece in _pieces_of(laid)) for lane in self._lanes
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


def _pieces_of(laid: _Laid) -> tuple[Piece, ...]:
    """Returns the pieces of what lies in a lane, from the one on that has its first packet."""
    pieces, kept = laid.timed.pieces, laid.kept
    if kept is None:
        if not laid.patches:
            return pieces
        kept = np.ones(laid.timed.packet_run.packet_count, dtype=np.bool_)
    share = Share(
        kept=kept,
        first_media_sample=laid.media_sample,
        patches=tuple(patch for _, patch in laid.patches),
    )
    starts = [piece.clock.media_start_sample for piece in pieces]
    skipped = max(0, int(np.searchsorted(starts, laid.media_sample, side="right")) - 1)
    return tuple(
        replace(piece, share=share, opens_packet_run=number == 0)
        for number, piece in enumerate(pieces[skipped:])
    )
