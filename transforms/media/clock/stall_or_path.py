"""Which plateaus of a packet run lie on one straight line, and which steps move the time line.

A delay is the sum of what the sender's stalls add (never taken back) and what the network adds to
its least (which may be). A step between two plateaus is one of three:

- confirmed by reports: a stall, the time line moves;
- denied: the network's, however large. It is measured from one plateau of 3 s or more to the next:
  packets in between that could not overtake each other tell no level;
- unknown: a fall gives back what the network had added; a rise of 60 ms or more that stays to the
  end is a stall; what is less moves nothing until it adds up to that.

The network's share is counted from the least of the whole packet run: a path that was slow at first
was slow, not early.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from transforms.media.clock.model import (
    CHANCE,
    LEAST_STEP_NS,
    PATH_STEP_NS,
    Plateau,
    StepEvidence,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, samples_to_ns

LONG_PLATEAU_NS = 3 * NS_PER_SECOND
"""Packets that came late together, or could not overtake each other, are a burst, not a path of
their own.
"""
_MOST_CHANCE_NS = 15 * NS_PER_MS
_SLOW_START_NS = 10 * NS_PER_SECOND
"""Delay that falls within this of a start was a network that was crowded at first."""


@dataclass(slots=True)
class Line:
    """Consecutive plateaus between which the time line does not move."""

    first: int
    """Number of its first plateau among those of the packet run."""
    last: int
    level_ns: float
    """Their least delay, less what the network's path added."""
    is_clear: bool = True
    """Whether the level was taken while the path added nothing."""
    excess_ns: float = 0.0
    """How far above the level they end, for reasons unknown."""
    doubt_ns: float = 0.0
    """What is in doubt by falls of unknown reason."""


def find_lines(plateaus: Sequence[Plateau], rates: Sequence[float]) -> list[Line]:
    """Returns the lines of a packet run, in order; together they hold all its plateaus.

    Args:
      plateaus: of the packet run.
      rates: of each plateau, the slope of its line; the same between confirmed steps.
    """
    finder = _LineFinder(plateaus, _measure_levels(plateaus, rates))
    for number in range(len(plateaus)):
        finder.add(number)
    return finder.end()


@dataclass(frozen=True, slots=True)
class _Levels:
    """How high the least delays of plateaus lie; one entry for each plateau, in ns."""

    turn_ns: Sequence[float]
    """What the changes of slope so far add to the height of a line at media time 0."""
    level_ns: Sequence[float]
    """Heights of lines at media time 0, less the turns: where the slope changes, the lines meet at
    the step instead.
    """
    denied_ns: Sequence[float]
    """Sum of the denied steps so far."""
    lowest_after_ns: Sequence[float]
    """The least height from here on, less the denied steps."""
    noise_ns: Sequence[float]
    """Usual error of the least delay. Of n least delays the least lies about the n-th part of their
    usual excess above the network's.
    """


def _measure_levels(plateaus: Sequence[Plateau], rates: Sequence[float]) -> _Levels:
    turns = [0.0]
    for plateau, before, after in zip(plateaus[1:], rates, rates[1:], strict=False):
        turns.append(turns[-1] + (before - after) * samples_to_ns(plateau.media_start_sample))
    levels = [
        plateau.least_delay_ns(rate) - turn
        for plateau, rate, turn in zip(plateaus, rates, turns, strict=True)
    ]
    added = [
        after - before if plateau.evidence == StepEvidence.DENIED else 0.0
        for plateau, before, after in zip(plateaus, [0.0, *levels], levels, strict=False)
    ]
    denied = list(itertools.accumulate(added))
    lowest_after = list(
        itertools.accumulate(
            (y - path for y, path in zip(levels[::-1], denied[::-1], strict=True)), min
        )
    )[::-1]
    noises = [
        plateau.usual_excess_ns(rate) / plateau.point_count
        for plateau, rate in zip(plateaus, rates, strict=True)
    ]
    return _Levels(turns, levels, denied, lowest_after, noises)


class _LineFinder:
    """Takes one plateau after the other, and lets it go on with the line before or begin one."""

    def __init__(self, plateaus: Sequence[Plateau], levels: _Levels) -> None:
        self._plateaus = plateaus
        self._levels = levels
        self._lines: list[Line] = []
        self._path_ns = 0.0
        """What the network's path adds, as far as is known."""
        self._least_path_ns = 0.0
        self._unsure_ns = 0.0
        """Sum of the steps taken for stalls by their size alone."""
        self._anchor_ns: float | None = None
        """Level of the last long plateau of the line at hand; None before it has one."""
        self._anchored = 0
        """Number of the plateau the next one is measured against."""
        self._is_only_denied = True
        """Whether all steps since then were denied."""

    def add(self, number: int) -> None:
        """Takes the next plateau, by its number."""
        is_long = self._is_long(number)
        level_ns = self._levels.level_ns[number] - self._path_ns
        begins_line = not self._lines or self._plateaus[number].evidence == StepEvidence.CONFIRMED
        if not begins_line:
            level_ns, begins_line = self._follow(number, level_ns, is_long)
        if begins_line:
            self._begin_line(number, level_ns)
        line = self._lines[-1]
        line.last = number
        if not self._is_only_denied:
            line.excess_ns = level_ns - line.level_ns
        if is_long:
            self._anchor_ns, self._anchored, self._is_only_denied = level_ns, number, True
            self._least_path_ns = min(self._least_path_ns, self._path_ns)

    def end(self) -> list[Line]:
        """Returns the lines, their levels as heights at media time 0."""
        for line in self._lines:
            line.level_ns += self._least_path_ns + self._levels.turn_ns[line.first]
        return self._lines

    def _is_long(self, number: int) -> bool:
        """Whether a plateau tells a level: it lasts, and is no ramp of a queue."""
        plateau = self._plateaus[number]
        return (
            lasts(plateau.media_start_sample, plateau.media_stop_sample, LONG_PLATEAU_NS)
            and CHANCE * self._levels.noise_ns[number] < _MOST_CHANCE_NS
        )

    def _follow(self, number: int, level_ns: float, is_long: bool) -> tuple[float, bool]:
        """Returns a plateau's level on the line before, and whether it begins a line all the same.

        The step before it is not confirmed.
        """
        line = self._lines[-1]
        before_ns = line.level_ns if self._anchor_ns is None else self._anchor_ns
        self._is_only_denied &= self._plateaus[number].evidence == StepEvidence.DENIED
        noises = self._levels.noise_ns
        chance_ns = (
            min(LEAST_STEP_NS + CHANCE * (noises[number] + noises[self._anchored]), _MOST_CHANCE_NS)
            if is_long
            else 0.0
        )
        by_itself_ns = abs(self._levels.level_ns[number] - before_ns)
        if self._anchor_ns is None and level_ns < line.level_ns:
            # Packets that came late together tell no level, those behind them do.
            line.level_ns = level_ns
        elif (
            self._path_ns and by_itself_ns < chance_ns and by_itself_ns < abs(level_ns - before_ns)
        ):
            level_ns = self._end_path(number)
        elif abs(level_ns - before_ns) < chance_ns:
            line.level_ns = min(line.level_ns, level_ns)
            line.excess_ns = max(
                line.excess_ns, 0.0 if self._is_only_denied else level_ns - line.level_ns
            )
            level_ns = min(before_ns, level_ns)
        elif self._is_only_denied:
            self._path_ns += level_ns - before_ns if is_long else 0.0
            level_ns = before_ns
        elif level_ns < line.level_ns:
            return self._fall(number, level_ns)
        else:
            return level_ns, self._stays_up(number)
        return level_ns, False

    def _end_path(self, number: int) -> float:
        """All that the path had added is gone: here the level shows as it is. Returns it."""
        line, level_ns = self._lines[-1], self._levels.level_ns[number]
        self._path_ns = 0.0
        line.level_ns = min(line.level_ns, level_ns) if line.is_clear else level_ns
        line.is_clear = True
        return line.level_ns

    def _fall(self, number: int, level_ns: float) -> tuple[float, bool]:
        """As `_follow`, of a fall of unknown reason below the line: the path takes back first."""
        line = self._lines[-1]
        taken_back_ns = min(line.level_ns - level_ns, max(self._path_ns, 0.0))
        self._path_ns, level_ns = self._path_ns - taken_back_ns, level_ns + taken_back_ns
        fall_ns = line.level_ns - level_ns
        has_lasted = lasts(
            self._plateaus[line.first].media_start_sample,
            self._plateaus[number].media_start_sample,
            _SLOW_START_NS,
        )
        begins_line = fall_ns >= PATH_STEP_NS and has_lasted
        if not begins_line:
            self._path_ns, level_ns = self._path_ns - fall_ns, line.level_ns
            line.doubt_ns += fall_ns if has_lasted else 0.0
        return level_ns, begins_line

    def _stays_up(self, number: int) -> bool:
        """Whether a rise lasts to the end: delay that comes down again was a crowded network."""
        return (
            self._levels.lowest_after_ns[number]
            + self._levels.denied_ns[number]
            - self._path_ns
            - self._lines[-1].level_ns
            >= PATH_STEP_NS
        )

    def _begin_line(self, number: int, level_ns: float) -> None:
        if self._lines and self._plateaus[number].evidence == StepEvidence.UNKNOWN:
            # A stall by its size, but it may be the network's.
            self._unsure_ns += abs(level_ns - self._lines[-1].level_ns)
        self._lines.append(
            Line(
                first=number,
                last=number,
                level_ns=level_ns,
                is_clear=not self._path_ns,
                doubt_ns=self._unsure_ns,
            )
        )
        self._anchor_ns, self._anchored, self._is_only_denied = None, number, True


def lasts(start_sample: int, stop_sample: int, length_ns: int) -> bool:
    """Tells whether the media time between two samples is `length_ns` or more."""
    return samples_to_ns(stop_sample - start_sample) >= length_ns
