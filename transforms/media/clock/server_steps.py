"""Which steps of the least delay are the server's: those that all who are there show at one moment.

A capture that stands still and a new path are of one participant. Where the server's clock is set,
everybody's packets seem to come later from one moment on, or earlier, by the same time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media import caps
from transforms.media.server_clock import ClockWatch, ServerClockStep, StepSighting
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

    Two participants or more have to show a step that lasts, at one moment and of one size, and
    nobody who was there may show none. Whose delay changes by another size just then was moved by
    something of his own as well: he says nothing, as long as more show it. Whose reports confirm a
    stall of that size then denies it, unless more than twice as many show it.

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

    def judge(self, seed: StepSighting) -> ServerClockStep | None:
        """Returns the step of the server's clock that one of its witnesses shows; None for none."""
        near, moved = self._near(seed, MOMENT_NS), set[int]()
        if len({self._participants[place] for place in near}) < 2:
            return None
        shown: dict[str, _Shown] = {}
        agreed: set[str] = set()
        stalled: set[str] = set()
        for place, sightings in sorted(near.items()):
            own = [each for each in sightings if not each.is_stall]
            if any(each.is_stall and _is_alike(each, seed) for each in sightings):
                stalled.add(self._participants[place])
            best = _best([each for each in own if each.is_lasting], seed)
            if best is not None:
                shown.setdefault(self._participants[place], best)
            if best is not None or _best(own, seed) is not None:
                agreed.add(self._participants[place])
                moved.add(place)
        for place, sightings in self._near(seed, _BESIDE_NS).items():
            if any(abs(each.size_ns) >= abs(seed.size_ns) / _MOST_OF_SIZE for each in sightings):
                moved.add(place)
        there = self._there(seed)
        others = {self._participants[place] for place in there} - agreed
        if len(shown) < 2 or len(shown) <= max(2 * len(stalled), len(others)) or there - moved:
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
class _Shown:
    """A step as one participant shows it."""

    since_unix_ns: int
    at_unix_ns: int
    size_ns: int


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
        return _Shown(one.since_unix_ns, one.at_unix_ns, one.size_ns)
    if not own:
        return None
    total_ns = sum(each.size_ns for each in own)
    noise_ns = sum(each.noise_ns for each in own)
    if abs(total_ns - seed.size_ns) > tolerance_ns(seed.size_ns, seed.noise_ns + noise_ns):
        return None
    return _Shown(
        min(each.since_unix_ns for each in own), max(each.at_unix_ns for each in own), total_ns
    )


def _step_of(shown: Sequence[_Shown]) -> ServerClockStep:
    """Returns a step in the middle of what participants show of it."""
    size_ns = round(statistics.median(each.size_ns for each in shown))
    apart_ns = statistics.median(abs(each.size_ns - size_ns) for each in shown)
    at_unix_ns = min(each.at_unix_ns for each in shown)
    return ServerClockStep(
        since_unix_ns=min(max(each.since_unix_ns for each in shown), at_unix_ns),
        at_unix_ns=at_unix_ns,
        size_ns=size_ns,
        error_ns=_RESOLUTION_NS + round(apart_ns),
    )
