"""Which steps of the least delay are the server's: those that all who are there show at one moment.

A capture that stands still and a new path are of one participant. Where the server's clock is set,
everybody's packets seem to come later from one moment on, or earlier, by the same time.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media import caps
from transforms.media.clock.model import USUAL_WALL_CLOCK_RATE
from transforms.media.server_clock import ClockWatch, ServerClockStep, StepSighting, WallSpan
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints

_LEAST_STEP_NS = 40 * NS_PER_MS
"""What is less is not told from two paths of which the delay changed at once."""
MOMENT_NS = 300 * NS_PER_MS
"""How far the moments of one step may seem apart."""
_BESIDE_NS = 2 * NS_PER_SECOND
"""Two sudden steps so near to each other may hide each other."""
_SIZE_NS = 10 * NS_PER_MS
"""How far the sizes of one step may seem apart, and what their noise adds."""
_MOST_OF_SIZE = 4
"""The part of a step that its size may be off by, at most: one in so many."""
_EDGE_NS = NS_PER_SECOND
"""Who was there so long before and after a step, and shows none, denies it."""
_OUTVOTING = 3
"""So many times as many have to show a step as were there and show none."""
_PATHS_NS = 60 * NS_PER_MS
"""By how much paths and queues may change what sender reports say of a server's clock."""
_LEAST_GAP_STEP_NS = 200 * NS_PER_MS
"""What is less may be what paths changed by."""
_LEAST_SUSPECT_NS = 150 * NS_PER_MS
_LEAST_LONG_STALL_NS = 600 * NS_PER_MS
_LONGEST_NS = 2 * NS_PER_SECOND
"""What lies across a longer pause may have come little by little."""
_APART_NS = 6 * NS_PER_SECOND
"""Between two steps of one clock."""
_RESOLUTION_NS = NS_PER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One part of a track, as it tells of its server's clock."""

    participant_id: str
    watch: ClockWatch


def find_server_steps(witnesses: Sequence[Witness]) -> tuple[ServerClockStep, ...]:
    """Returns the steps of a server's clock, in order; the same for the same witnesses.

    Two participants or more have to show a step at one moment and of one size, one of them a step
    that lasts; or one, whose packets' times go back. The wall clock of a sender shows it, too, who
    was gone just then, or mute. Nobody who was there may show none, unless three times as many show
    it, or two whose times go back. Whose delay changes by another size just then was moved by
    something of his own as well: he says nothing, as long as more show it. Whose reports confirm a
    stall of that size then denies it, unless more than twice as many show it.

    What only one shows who was there alone may be the server's: that is a step of size 0 with its
    size as what it may be off by. It takes what is hardly one sender's: a fall or a change of path
    of which the network seldom does the like, or a stall without reports of an unusual length.

    Args:
      witnesses: the parts of one archive and call.
    """
    seen = [(place, each) for place, own in enumerate(witnesses) for each in own.watch.sightings]
    seen.sort(key=lambda found: (-abs(found[1].size_ns), found[1].at_unix_ns, found[0]))
    court = _Court(witnesses, seen)
    found: list[ServerClockStep] = []
    # The largest come first, and of them who saw the moment best.
    for place, seed in sorted(
        seen[: caps.MAX_STEP_SEEDS],
        key=lambda each: (
            -(abs(each[1].size_ns) // _LEAST_STEP_NS),
            each[1].at_unix_ns - each[1].since_unix_ns,
            each[1].at_unix_ns,
            each[0],
        ),
    ):
        del place
        if abs(seed.size_ns) < _LEAST_STEP_NS or seed.is_stall or not seed.is_lasting:
            continue
        if any(
            seed.since_unix_ns - _APART_NS <= step.at_unix_ns
            and step.since_unix_ns <= seed.at_unix_ns + _APART_NS
            for step in found
        ):
            continue
        step = court.judge(seed)
        if step is not None:
            found.append(step)
        if len(found) == caps.MAX_SERVER_STEPS:
            break
    for gap in court.gaps[: caps.MAX_STEP_SEEDS]:
        if len(found) == caps.MAX_SERVER_STEPS:
            break
        if not any(
            gap.since_unix_ns <= step.at_unix_ns and step.since_unix_ns <= gap.at_unix_ns
            for step in found
        ):
            step = court.judge_gap(gap)
            if step is not None:
                found.append(step)
    return tuple(sorted(found, key=lambda step: step.at_unix_ns))


class _Court:
    """Hears all witnesses of one archive and call."""

    def __init__(
        self, witnesses: Sequence[Witness], seen: Sequence[tuple[int, StepSighting]]
    ) -> None:
        self._participants = [witness.participant_id for witness in witnesses]
        self._seen = seen
        self._since_ns = _column(each.since_unix_ns for _, each in seen)
        self._at_ns = _column(each.at_unix_ns for _, each in seen)
        spans = [(place, span) for place, own in enumerate(witnesses) for span in own.watch.spans]
        self._span_of = _column(place for place, _ in spans)
        self._begin_ns = _column(span.begin_unix_ns for _, span in spans)
        self._stop_ns = _column(span.stop_unix_ns for _, span in spans)
        self._least_ns = _column(span.least_step_ns for _, span in spans)
        self.gaps = sorted(
            _gaps(witnesses),
            key=lambda gap: (gap.at_unix_ns - gap.since_unix_ns, gap.since_unix_ns, gap.size_ns),
        )
        """Between sender reports of one participant, the shortest first."""
        self._gap_since_ns = _column(gap.since_unix_ns for gap in self.gaps)
        self._gap_at_ns = _column(gap.at_unix_ns for gap in self.gaps)

    def judge(self, seed: StepSighting) -> ServerClockStep | None:
        """Returns the step of the server's clock that one of its witnesses shows; None for none."""
        near, moved = self._near(seed, MOMENT_NS), set[int]()
        shown: dict[str, _Shown] = {}
        agreed: set[str] = set()
        stalled: set[str] = set()
        back: set[str] = set()
        for place, sightings in sorted(near.items()):
            own = [
                each
                for each in sightings
                if not each.is_stall and each.at_unix_ns - each.since_unix_ns <= _LONGEST_NS
            ]
            if any(each.is_stall and _is_alike(each, seed) for each in sightings):
                stalled.add(self._participants[place])
            best = _best([each for each in own if each.is_lasting], seed)
            if best is not None:
                shown.setdefault(self._participants[place], best)
            if best is not None or _best(own, seed) is not None:
                agreed.add(self._participants[place])
                moved.add(place)
            if any(each.is_back and _is_alike(each, seed) for each in own):
                back.add(self._participants[place])
        for place, sightings in self._near(seed, _BESIDE_NS).items():
            if any(abs(each.size_ns) >= abs(seed.size_ns) / _MOST_OF_SIZE for each in sightings):
                moved.add(place)
        if not shown:
            return None
        by_walls, denied, is_just = self._walls_on(seed)
        stalled -= by_walls
        there = self._there(seed)
        # Whose packets show none while his wall clock does, says nothing.
        seen = set(agreed)
        if abs(seed.size_ns) >= _LEAST_GAP_STEP_NS:
            seen |= by_walls - {self._participants[place] for place in there}
        others = {self._participants[place] for place in there} - agreed - by_walls
        still = {self._participants[place] for place in there - moved} - by_walls
        if len(seen) <= max(2 * len(stalled), len(others), len(denied)) or (
            len(back) < 2 and len(seen) < _OUTVOTING * len(still)
        ):
            return None
        if len(seen) > 1 or back:
            return _step_of(list(shown.values()))
        least_ns = _LEAST_SUSPECT_NS if seed.size_ns < 0 or is_just else _LEAST_LONG_STALL_NS
        if abs(seed.size_ns) < least_ns:
            return None
        return ServerClockStep(
            since_unix_ns=seed.since_unix_ns,
            at_unix_ns=seed.at_unix_ns,
            size_ns=0,
            error_ns=abs(seed.size_ns),
        )

    def _walls_on(self, seed: StepSighting) -> tuple[set[str], set[str], bool]:
        """Returns whose sender reports show a step as well, whose show none, and whether any show
        it of just that size.
        """
        shown, denied, is_just = set(), set(), False
        is_around = (self._gap_since_ns <= seed.since_unix_ns) & (
            self._gap_at_ns >= seed.at_unix_ns
        )
        size_ns = abs(seed.size_ns)
        for index in np.flatnonzero(is_around).tolist():
            gap = self.gaps[index]
            if abs(gap.size_ns - seed.size_ns) <= max(_PATHS_NS, size_ns / _MOST_OF_SIZE) and (
                2 * gap.size_ns * np.sign(seed.size_ns) >= size_ns
            ):
                shown.add(gap.participant_id)
                is_just |= abs(gap.size_ns - seed.size_ns) <= _PATHS_NS
            elif abs(gap.size_ns) <= min(_PATHS_NS, size_ns / _MOST_OF_SIZE):
                denied.add(gap.participant_id)
        return shown, denied - shown, is_just

    def judge_gap(self, seed: _Gap) -> ServerClockStep | None:
        """Returns the step that sender reports of two participants or more show on both sides of a
        gap in which nobody was there to see it; None for none.
        """
        if abs(seed.size_ns) < _LEAST_GAP_STEP_NS:
            return None
        overlaps = (self._gap_since_ns < seed.at_unix_ns) & (self._gap_at_ns > seed.since_unix_ns)
        shown: dict[str, _Shown] = {}
        unlike: list[_Gap] = []
        for index in np.flatnonzero(overlaps).tolist():
            gap = self.gaps[index]
            apart_ns = abs(gap.size_ns - seed.size_ns)
            length_ns = gap.at_unix_ns - gap.since_unix_ns
            reach_ns = _PATHS_NS // 2 + round(USUAL_WALL_CLOCK_RATE * length_ns)
            if apart_ns <= min(reach_ns, abs(seed.size_ns) / _MOST_OF_SIZE):
                shown.setdefault(
                    gap.participant_id,
                    _Shown(gap.since_unix_ns, gap.at_unix_ns, gap.size_ns, _PATHS_NS),
                )
            else:
                unlike.append(gap)
        if len(shown) < 2:
            return None
        since_unix_ns = max(each.since_unix_ns for each in shown.values())
        at_unix_ns = min(each.at_unix_ns for each in shown.values())
        was_there = (self._begin_ns <= since_unix_ns) & (self._stop_ns >= at_unix_ns)
        is_denied = any(
            gap.since_unix_ns <= since_unix_ns
            and at_unix_ns <= gap.at_unix_ns
            and gap.participant_id not in shown
            for gap in unlike
        )
        if is_denied or since_unix_ns > at_unix_ns or was_there.any():
            return None
        return _step_of(list(shown.values()))

    def _near(self, seed: StepSighting, reach_ns: int) -> dict[int, list[StepSighting]]:
        """Returns the sightings at about the moment of one, by the part that has them."""
        is_near = (self._since_ns - reach_ns <= seed.at_unix_ns) & (
            self._at_ns + reach_ns >= seed.since_unix_ns
        )
        found: dict[int, list[StepSighting]] = {}
        for index in np.flatnonzero(is_near).tolist():
            place, sighting = self._seen[index]
            found.setdefault(place, []).append(sighting)
        return found

    def _there(self, seed: StepSighting) -> set[int]:
        """Returns the parts that were there before and after a step of that size, to show it."""
        was_there = (
            (self._begin_ns + _EDGE_NS <= seed.since_unix_ns)
            & (self._stop_ns - seed.size_ns >= seed.at_unix_ns + _EDGE_NS)
            & (self._least_ns <= abs(seed.size_ns))
        )
        return set(self._span_of[was_there].tolist())


@dataclass(frozen=True, slots=True)
class _Gap:
    """From the last sender report before a time to the first one behind it, by the server's clock
    before it, and by how much more that clock went on than the sender's.
    """

    participant_id: str
    since_unix_ns: int
    at_unix_ns: int
    size_ns: int


def _gaps(witnesses: Sequence[Witness]) -> Iterator[_Gap]:
    walls: dict[str, list[WallSpan]] = {}
    for witness in witnesses:
        walls.setdefault(witness.participant_id, []).extend(witness.watch.walls)
    for participant_id, own in sorted(walls.items()):
        own.sort(key=lambda wall: (wall.begin_unix_ns, wall.stop_unix_ns))
        for before, behind in itertools.pairwise(own):
            size_ns = behind.first_ahead_ns - before.last_ahead_ns
            since_unix_ns, at_unix_ns = before.stop_unix_ns, behind.begin_unix_ns - size_ns
            if since_unix_ns < at_unix_ns:
                yield _Gap(participant_id, since_unix_ns, at_unix_ns, size_ns)
        for wall in own:
            # Set in between, where nothing was sudden enough to part it.
            size_ns = wall.last_ahead_ns - wall.first_ahead_ns
            since_unix_ns, at_unix_ns = wall.begin_unix_ns, wall.stop_unix_ns - size_ns
            if abs(size_ns) >= _LEAST_GAP_STEP_NS and since_unix_ns < at_unix_ns:
                yield _Gap(participant_id, since_unix_ns, at_unix_ns, size_ns)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A step as one participant shows it."""

    since_unix_ns: int
    at_unix_ns: int
    size_ns: int
    noise_ns: int


def _column(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def tolerance_ns(size_ns: int, noise_ns: int) -> float:
    """Returns how far two sightings of a step may be apart in size. Args: noise_ns: of both."""
    return min(_SIZE_NS + noise_ns, abs(size_ns) / _MOST_OF_SIZE)


def _is_alike(one: StepSighting, other: StepSighting) -> bool:
    apart_ns = abs(one.size_ns - other.size_ns)
    return apart_ns <= tolerance_ns(other.size_ns, one.noise_ns + other.noise_ns)


def _best(own: Sequence[StepSighting], seed: StepSighting) -> _Shown | None:
    """Returns a step of a part as large as the seed, or all of them together where they are."""
    alike = [each for each in own if _is_alike(each, seed)]
    if alike:
        one = min(alike, key=lambda each: (abs(each.size_ns - seed.size_ns), each.at_unix_ns))
        return _Shown(one.since_unix_ns, one.at_unix_ns, one.size_ns, one.noise_ns)
    if not own:
        return None
    total_ns = sum(each.size_ns for each in own)
    noise_ns = sum(each.noise_ns for each in own)
    if abs(total_ns - seed.size_ns) > tolerance_ns(seed.size_ns, seed.noise_ns + noise_ns):
        return None
    return _Shown(
        min(each.since_unix_ns for each in own),
        max(each.at_unix_ns for each in own),
        total_ns,
        noise_ns,
    )


def _step_of(shown: Sequence[_Shown]) -> ServerClockStep:
    """Returns a step in the middle of what participants show of it."""
    size_ns = round(statistics.median(each.size_ns for each in shown))
    apart_ns = statistics.median(abs(each.size_ns - size_ns) for each in shown)
    noise_ns = min(each.noise_ns for each in shown) // len(shown)
    at_unix_ns = min(each.at_unix_ns for each in shown)
    return ServerClockStep(
        since_unix_ns=min(max(each.since_unix_ns for each in shown), at_unix_ns),
        at_unix_ns=at_unix_ns,
        size_ns=size_ns,
        error_ns=_RESOLUTION_NS + round(max(apart_ns, noise_ns)),
    )
