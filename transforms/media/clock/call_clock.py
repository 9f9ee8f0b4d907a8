"""Puts what a packet run tells on the clock of its call, where its server's was another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from transforms.media.clock.model import ClockMethod, PacketRunClock, Plateau, StepEvidence
from transforms.media.clock.observe import lower_hull
from transforms.media.clock.server_steps import MOMENT_NS, tolerance_ns
from transforms.media.clock.server_watch import measure_steps
from transforms.media.server_clock import (
    ServerClock,
    ServerClockStep,
    steps_passed,
)


def on_call_clock(clock: PacketRunClock, server: ServerClock) -> tuple[PacketRunClock, int]:
    """Returns a packet run as it would have been recorded by its call's clock.

    What begins after a step of the server's clock moves as a whole. Of what goes on across it, all
    behind it moves, and what reports said of it says nothing of what is left: it is neither a stall
    nor a path.

    Args:
      clock: as it was observed.
      server: the clock of the server that recorded it.

    Returns:
      the clock, and how far its server times may be off for what is not known of the server, in ns.
    """
    if server.is_calls:
        return clock, 0
    begin_unix_ns = clock.base_unix_ns + sum(clock.plateaus[0].hull[0])
    stop_unix_ns = clock.base_unix_ns + sum(clock.plateaus[-1].hull[-1])
    passed = steps_passed(server.steps, begin_unix_ns)
    inside = [
        step for step in server.steps[passed:] if stop_unix_ns - step.size_ns > step.since_unix_ns
    ]
    doubt_ns = server.doubt_ns + sum(step.error_ns for step in [*server.steps[:passed], *inside])
    doubt_ns += sum(
        abs(step.size_ns)
        for step in server.steps
        if step.since_unix_ns + step.size_ns <= begin_unix_ns <= step.at_unix_ns
    )
    if clock.method == ClockMethod.METADATA:
        # Its arrivals lie between two that are known: the step lies somewhere between, too.
        doubt_ns += sum(abs(step.size_ns) for step in inside)
    plateaus = _without_steps(clock, inside)
    base_unix_ns = clock.base_unix_ns - server.ahead_at_ns(begin_unix_ns)
    return replace(clock, base_unix_ns=base_unix_ns, plateaus=tuple(plateaus)), doubt_ns


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a step of the server's clock lies in a packet run."""

    plateau: int
    """The first one with a point behind it."""
    point: int
    """The first point of that plateau's hull behind it; 0 where the step parts two plateaus."""
    step: ServerClockStep
    is_alone: bool
    """Whether nothing else happened between the two."""


def _without_steps(clock: PacketRunClock, steps: Sequence[ServerClockStep]) -> list[Plateau]:
    cuts = [cut for step in steps if (cut := _find_cut(clock, step)) is not None]
    found: list[Plateau] = []
    for number, plateau in enumerate(clock.plateaus):
        behind_ns = [
            sum(cut.step.size_ns for cut in cuts if (cut.plateau, cut.point) <= (number, point))
            for point in range(len(plateau.hull))
        ]
        if any(cut.is_alone and (cut.plateau, cut.point) == (number, 0) for cut in cuts):
            # What is left of it is what its size is not known by, and moves nothing.
            plateau = replace(
                plateau, evidence=StepEvidence.DENIED, stall_ns=None, other_stall_ns=None
            )
        found.append(_moved(plateau, behind_ns))
    return found


def _find_cut(clock: PacketRunClock, step: ServerClockStep) -> _Cut | None:
    """Returns the first point of a packet run that came after a step; None where none did.

    What was written before the step's time, by either clock, is before it, and what was written
    after that is behind it. Where a clock that was set back showed a time twice, the step is where
    its size makes the delays run on.
    """
    places = [
        (number, point)
        for number, plateau in enumerate(clock.plateaus)
        for point in range(len(plateau.hull))
    ]
    y = np.array([y for plateau in clock.plateaus for _, y in plateau.hull], dtype=np.int64)
    x = np.array([x for plateau in clock.plateaus for x, _ in plateau.hull], dtype=np.int64)
    written_ns = clock.base_unix_ns + x + y
    is_before = written_ns < step.since_unix_ns + min(step.size_ns, 0) - MOMENT_NS
    is_behind = written_ns > step.at_unix_ns + max(step.size_ns, 0) + MOMENT_NS
    least = int(np.flatnonzero(is_before)[-1]) + 1 if is_before.any() else 0
    most = max(least, int(np.flatnonzero(is_behind)[0]) if is_behind.any() else len(y))
    # What a cut at each point saves of all the ups and downs.
    rises_ns = np.diff(y, prepend=y[0])
    saved_ns = np.abs(rises_ns) - np.abs(rises_ns - step.size_ns)
    saved_ns[0] = 0
    saved_ns = np.append(saved_ns, 0)
    cut = least + int(saved_ns[least : most + 1].argmax())
    if cut == len(y):
        return None
    number, point = places[cut]
    is_alone = False
    if point == 0 and number:
        seen = measure_steps(clock)[number - 1]
        apart_ns = abs(seen.size_ns - step.size_ns)
        is_alone = apart_ns <= tolerance_ns(step.size_ns, step.error_ns + seen.noise_ns)
    return _Cut(number, point, step, is_alone)


def _moved(plateau: Plateau, behind_ns: Sequence[int]) -> Plateau:
    """Returns a plateau by the clock of its call.

    Args:
      plateau: as it was observed.
      behind_ns: by how much the server's clock had been set at each point of its hull.
    """
    if not any(behind_ns):
        return plateau
    points = [(x, y - size) for (x, y), size in zip(plateau.hull, behind_ns, strict=True)]
    x = np.array([x for x, _ in points], dtype=np.float64)
    # The least of both parts; how much of it lies on either side the media time tells, about.
    mean_ns = np.interp(np.linspace(x[0], x[-1], 64), x, np.array(behind_ns)).mean()
    floor = plateau.mean_floor

    def moved(point: tuple[int, int]) -> tuple[int, int]:
        before = int(np.searchsorted(x, point[0], side="right")) - 1
        return point[0], point[1] - behind_ns[max(0, before)]

    return replace(
        plateau,
        mean_delay_ns=plateau.mean_delay_ns - round(float(mean_ns)),
        mean_floor=None if floor is None else (floor[0], floor[1] - round(float(mean_ns))),
        ends=tuple(map(moved, plateau.ends)),
        hull=_hull_of(points) if len(set(behind_ns)) > 1 else tuple(points),
    )


def _hull_of(points: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    x, y = np.array(points, dtype=np.int64).T
    return tuple((int(x[index]), int(y[index])) for index in lower_hull(x, y))
