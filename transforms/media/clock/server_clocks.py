"""How the clocks of the servers that recorded a call differ: where one was set, and which do not
agree.

Servers are taken to be in step as long as nothing says otherwise. A participant session that is in
two archives says it: the same packets arrived at both, or its sender reports tie both servers'
clocks to its own wall clock. That may be set itself, and the paths to two servers differ.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transforms.media.clock.model import MAX_SKEW, WALL_CLOCK_RATE
from transforms.media.clock.server_steps import Witness, find_server_steps
from transforms.media.server_clock import ClockWatch, ServerClock, WallSpan, WatchedSpan
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ
from transforms.media.wraparound import unwrap

_PATHS_NS = 200 * NS_PER_MS
"""By how much the same clock may seem apart by two paths to it."""
_MOST_APART_NS = 60 * NS_PER_SECOND
"""What is more is a wall clock that was wrong, not a server's."""
_MOST_BY_STAMPS_NS = 10 * NS_PER_SECOND
"""What is more is a sender whose time stamps began anew, or stood while it was quiet."""
_STOOD_NS = 500 * NS_PER_MS
"""For how long a sender's media clock may have stood."""
_LEAST_APART_NS = 60 * NS_PER_MS
"""Servers that write at once are apart if they seem so by more."""
_ALIKE_NS = 250 * NS_PER_MS
"""How far two participants may be apart on what they say of two servers."""
_LEAST_OVERLAP_NS = NS_PER_SECOND // 2
_MOST_OVERLAP_NS = 10 * NS_PER_SECOND
"""A track that is in two archives at once, with packets of its own in each, was in one after the
other: by so much the clocks may be apart. Much longer, it is two senders.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPart:
    """One archive's share of a track, as a witness of the clock of the server that wrote it."""

    archive_uri: str
    participant_id: str
    user_session_id: str
    output_type: str
    first_unix_ns: int
    """When its first packet run begins, as the server wrote it."""
    watch: ClockWatch


def find_server_clocks(parts: Sequence[CallPart]) -> dict[str, ServerClock]:
    """Returns the clock of each archive's server; the same for the same parts, in any order.

    The call's clock is that which its earliest archive began with.

    Args:
      parts: all of one call session that have packets.
    """
    parts = sorted(
        parts,
        key=lambda part: (
            part.participant_id,
            part.user_session_id,
            part.archive_uri,
            part.output_type,
            part.first_unix_ns,
        ),
    )
    by_archive: dict[str, list[CallPart]] = {}
    for part in parts:
        by_archive.setdefault(part.archive_uri, []).append(part)
    first_ns = {uri: min(part.first_unix_ns for part in by_archive[uri]) for uri in by_archive}
    archives = sorted(by_archive, key=lambda uri: (first_ns[uri], uri))
    clocks = {
        uri: ServerClock(
            steps=find_server_steps(
                [
                    Witness(participant_id=part.participant_id, watch=part.watch)
                    for part in by_archive[uri]
                ]
            )
        )
        for uri in archives
    }
    if len(archives) > 1:
        _compare(archives, first_ns, clocks, parts)
    return clocks


def _compare(
    archives: Sequence[str],
    first_ns: dict[str, int],
    clocks: dict[str, ServerClock],
    parts: Sequence[CallPart],
) -> None:
    """Finds by how much each archive's clock is ahead of the first one's, in place."""
    said: dict[tuple[str, str], dict[str, list[_Said]]] = {}
    overlap_ns: dict[str, int] = {}
    place = {uri: number for number, uri in enumerate(archives)}
    sessions = itertools.groupby(
        parts, key=lambda part: (part.participant_id, part.user_session_id)
    )
    for (participant, _), found in sessions:
        own: dict[str, list[CallPart]] = {}
        for part in found:
            own.setdefault(part.archive_uri, []).append(part)
        in_order = sorted(own, key=place.__getitem__)
        told = [uri for uri in in_order if any(part.watch.walls for part in own[uri])]
        pairs = [*itertools.pairwise(in_order), *itertools.pairwise(told)]
        for one, other in dict.fromkeys(pairs):
            heard = _hear(own[one], clocks[one], own[other], clocks[other])
            if heard is not None:
                said.setdefault((one, other), {}).setdefault(participant, []).append(heard)
            else:
                apart_ns = _overlap_ns(own[one], own[other])
                overlap_ns[other] = max(overlap_ns.get(other, 0), apart_ns)
    tied: dict[str, dict[str, _Apart]] = {uri: {} for uri in archives}
    stop_ns = dict(first_ns)
    for part in parts:
        for span in part.watch.spans:
            stop_ns[part.archive_uri] = max(stop_ns[part.archive_uri], span.stop_unix_ns)
    for (one, other), heard_of in said.items():
        steps = clocks[one].steps
        are_two = min(stop_ns[one], stop_ns[other]) - first_ns[other] > _MOST_OVERLAP_NS
        apart = _settle(heard_of, sum(step.size_ns for step in steps), are_two=are_two)
        unsure_ns = sum(step.error_ns for step in steps)
        apart = replace(apart, doubt_ns=apart.doubt_ns + unsure_ns)
        tied[one][other] = apart
        tied[other][one] = replace(apart, size_ns=-apart.size_ns)
    known: set[str] = set()
    for number, uri in enumerate(archives):
        if uri in known:
            continue
        if number:
            # One that was set may have written this archive, too, and nobody says so.
            doubt_ns = max(
                (_set_ns(clocks[one], first_ns[uri]) for one in archives[:number]), default=0
            )
            doubt_ns = max(doubt_ns, overlap_ns.get(uri, 0))
            clocks[uri] = replace(clocks[uri], doubt_ns=doubt_ns)
        _spread(uri, tied, place, clocks, known)


def _set_ns(clock: ServerClock, written_unix_ns: int) -> int:
    """Returns by how much a clock was set, or may have been, before it wrote a time."""
    moved_ns = clock.ahead_at_ns(written_unix_ns) - clock.ahead_ns
    unsure_ns = sum(
        step.error_ns
        for step in clock.steps
        if not step.size_ns and step.turn_unix_ns <= written_unix_ns
    )
    return abs(moved_ns) + unsure_ns


def _spread(
    first: str,
    tied: dict[str, dict[str, _Apart]],
    place: dict[str, int],
    clocks: dict[str, ServerClock],
    known: set[str],
) -> None:
    """Puts the clocks of all archives that are tied to one on its clock, in place: each by what is
    least in doubt.
    """
    waiting = [(clocks[first].doubt_ns, place[first], clocks[first].ahead_ns, first)]
    while waiting:
        doubt_ns, _, ahead_ns, uri = heapq.heappop(waiting)
        if uri in known:
            continue
        known.add(uri)
        clocks[uri] = replace(clocks[uri], ahead_ns=ahead_ns, doubt_ns=doubt_ns)
        for other, apart in tied[uri].items():
            if other not in known:
                far_ns = doubt_ns + apart.doubt_ns
                heapq.heappush(waiting, (far_ns, place[other], ahead_ns + apart.size_ns, other))


@dataclass(frozen=True, slots=True)
class _Said:
    """By how much one archive's clock is ahead of another's, by one participant session."""

    ahead_ns: int
    reach_ns: int
    """How much less it may be."""
    is_sure: bool
    """Whether the same packets say it, and no wall clock."""
    is_backed: bool = False
    """Whether its wall clock and its media clock say the same: neither was set, but the network may
    have become slower.
    """
    may_have_stood: bool = False
    """Whether its media clock alone says it, which may have stood between the archives."""


@dataclass(frozen=True, slots=True)
class _Apart:
    """By how much one archive's clock is ahead of another's, and how far that may be off."""

    size_ns: int = 0
    doubt_ns: int = 0


def _settle(said: dict[str, list[_Said]], step_ns: int, *, are_two: bool) -> _Apart:
    """Returns by how much clocks are apart by all that participants say.

    Who sees them in step is right: a wall clock is not set by just what two servers are apart. One
    wall clock alone may have been set itself: it is believed, and its word stays in doubt.

    Args:
      said: by participant, at least one.
      step_ns: by how much the earlier clock was set on the whole: the later one may be the same.
      are_two: whether both archives were written at once, so that it was not one server.
    """
    heard = sorted(
        (
            min(each, key=lambda one: (not one.is_sure, abs(one.ahead_ns), one.ahead_ns))
            for each in said.values()
        ),
        key=lambda one: (one.ahead_ns, one.reach_ns, one.is_sure),
    )
    groups = [
        [one for one in heard if abs(one.ahead_ns - other.ahead_ns) <= _ALIKE_NS] for other in heard
    ]
    best = max(groups, key=len)
    middle_ns = round(statistics.median(one.ahead_ns for one in best))
    reach_ns = min(one.reach_ns for one in best)
    if abs(middle_ns - step_ns) < abs(middle_ns) and abs(middle_ns - step_ns) <= reach_ns:
        # The same server went on.
        return _Apart(step_ns, abs(step_ns) if abs(middle_ns) <= reach_ns else 0)
    if are_two and abs(middle_ns) > _LEAST_APART_NS:
        in_step = sum(abs(one.ahead_ns) <= _LEAST_APART_NS for one in heard)
    else:
        in_step = sum(abs(one.ahead_ns) <= one.reach_ns for one in heard)
    if in_step and (in_step >= len(best) or (2 * abs(middle_ns) <= reach_ns and not are_two)):
        return _Apart()
    if 2 * len(best) <= len(heard):
        return _Apart(0, max(abs(one.ahead_ns) for one in heard))
    if len(best) == 1 and best[0].may_have_stood:
        return _Apart(0, abs(middle_ns))
    is_sure = len(best) > 1 or best[0].is_sure or (are_two and best[0].is_backed)
    return _Apart(middle_ns, reach_ns if is_sure else max(reach_ns, abs(middle_ns)))


def _hear(
    before: Sequence[CallPart],
    before_clock: ServerClock,
    after: Sequence[CallPart],
    after_clock: ServerClock,
) -> _Said | None:
    """Returns what one participant session says of two archives; None where it says nothing.

    Args:
      before: its parts in the archive that begins earlier.
      before_clock: what is known of that one's clock.
      after, after_clock: the same of the other one.
    """
    same = [
        apart_ns
        for one in _spans(before, before_clock)
        for other in _spans(after, after_clock)
        if (apart_ns := _by_packets(one, other)) is not None
    ]
    if same:
        return _Said(round(statistics.median(same)), _PATHS_NS, is_sure=True)
    by_stamps = min(
        (
            heard
            for one in _spans(before, before_clock)
            for other in _spans(after, after_clock)
            if (heard := _by_stamps(one, other)) is not None
        ),
        key=lambda heard: (heard.reach_ns, heard.ahead_ns),
        default=None,
    )
    walls = [
        (
            abs(
                max(one.begin_unix_ns, other.begin_unix_ns)
                - min(one.stop_unix_ns, other.stop_unix_ns)
            ),
            other.first_ahead_ns - one.last_ahead_ns
            if one.begin_unix_ns <= other.begin_unix_ns
            else other.last_ahead_ns - one.first_ahead_ns,
        )
        for one in _walls(before, before_clock)
        for other in _walls(after, after_clock)
    ]
    if not walls:
        return by_stamps
    pause_ns, ahead_ns = min(walls)
    if abs(ahead_ns) > _MOST_APART_NS:
        return by_stamps
    by_walls = _Said(ahead_ns, _PATHS_NS + round(WALL_CLOCK_RATE * pause_ns), is_sure=False)
    if by_stamps is None:
        return by_walls
    is_backed = abs(by_stamps.ahead_ns - ahead_ns) <= _ALIKE_NS
    if not is_backed and abs(by_stamps.ahead_ns) <= by_stamps.reach_ns:
        return by_stamps
    return replace(by_walls, is_backed=is_backed)


def _by_stamps(one: WatchedSpan, other: WatchedSpan) -> _Said | None:
    """Returns what RTP time stamps say that go on from one archive in the other; None where they do
    not.

    The sender's media clock ran on, at about the nominal rate, and stood for a moment at most.
    """
    if one.ssrc != other.ssrc:
        return None
    later_samples = unwrap(other.first_rtp_timestamp - one.first_rtp_timestamp, 0, 32)
    later_ns = later_samples * NS_PER_SECOND // SAMPLE_RATE_HZ
    ahead_ns = other.begin_unix_ns - one.begin_unix_ns - later_ns
    if abs(ahead_ns) > _MOST_BY_STAMPS_NS:
        return None
    reach_ns = _STOOD_NS + round(MAX_SKEW * abs(later_ns)) // 4
    return _Said(ahead_ns, reach_ns, is_sure=False, may_have_stood=ahead_ns > 0)


def _overlap_ns(before: Sequence[CallPart], after: Sequence[CallPart]) -> int:
    """Returns how long a track seems to be in two archives at once; 0 where it is not for long, or
    not for short.
    """
    longest_ns = max(
        (
            min(first.stop_unix_ns, second.stop_unix_ns)
            - max(first.begin_unix_ns, second.begin_unix_ns)
            for one in before
            for other in after
            if one.output_type == other.output_type
            for first in one.watch.spans
            for second in other.watch.spans
        ),
        default=0,
    )
    return longest_ns if _LEAST_OVERLAP_NS < longest_ns <= _MOST_OVERLAP_NS else 0


def _spans(parts: Sequence[CallPart], clock: ServerClock) -> list[WatchedSpan]:
    return [
        replace(
            span,
            begin_unix_ns=span.begin_unix_ns - clock.ahead_at_ns(span.begin_unix_ns),
            stop_unix_ns=span.stop_unix_ns - clock.ahead_at_ns(span.stop_unix_ns),
        )
        for part in parts
        for span in part.watch.spans
    ]


def _walls(parts: Sequence[CallPart], clock: ServerClock) -> list[WallSpan]:
    found = []
    for part in parts:
        for wall in part.watch.walls:
            begin_ns, stop_ns = (
                clock.ahead_at_ns(written) for written in (wall.begin_unix_ns, wall.stop_unix_ns)
            )
            drift_ns = abs(wall.last_ahead_ns - wall.first_ahead_ns)
            if drift_ns > _PATHS_NS + WALL_CLOCK_RATE * (wall.stop_unix_ns - wall.begin_unix_ns):
                continue  # set in between, or no clock
            found.append(
                WallSpan(
                    begin_unix_ns=wall.begin_unix_ns - begin_ns,
                    stop_unix_ns=wall.stop_unix_ns - stop_ns,
                    first_ahead_ns=wall.first_ahead_ns - begin_ns,
                    last_ahead_ns=wall.last_ahead_ns - stop_ns,
                )
            )
    return found


def _by_packets(one: WatchedSpan, other: WatchedSpan) -> int | None:
    """Returns by how much later the packets of one source reached the other server; None where they
    are not the same.
    """
    if one.ssrc != other.ssrc:
        return None
    later_samples = unwrap(other.first_rtp_timestamp - one.first_rtp_timestamp, 0, 32)
    later_ns = later_samples * NS_PER_SECOND // SAMPLE_RATE_HZ
    stop_ns = one.stop_unix_ns - one.begin_unix_ns
    other_stop_ns = later_ns + other.stop_unix_ns - other.begin_unix_ns
    same_ns = min(stop_ns, other_stop_ns) - max(0, later_ns)
    apart_ns = other.begin_unix_ns - one.begin_unix_ns - later_ns
    # Written one after the other, they are those of a sender that counted from the same number.
    if same_ns < max(NS_PER_SECOND, abs(apart_ns)):
        return None
    return apart_ns
