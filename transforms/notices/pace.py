"""How fast a target is sent to, and when it is left alone since it fails."""

from __future__ import annotations

from dataclasses import dataclass

_FAILURES_BEFORE_REST = 8
"""A few events that fail by themselves let no target rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast tries follow each other, and how often marks are written."""

    first_wait_seconds: float = 0.5
    """Before a second try; it doubles with each."""
    most_wait_seconds: float = 30.0
    failures_in_a_row: int = 64
    """After so many, none delivered between them, a target is left alone,"""
    failing_seconds: float = 10.0
    """but no sooner than this after the first of them: a receiver that begins anew is back by then.
    """
    mark_seconds: float = 20.0

    def wait_seconds(self, before: int) -> float:
        """Returns how long is waited. Args: before: how often that was done."""
        return min(self.first_wait_seconds * 2 ** min(before, 16), self.most_wait_seconds)


class Failures:
    """Those of one target since it last took anything. After some in a row it rests, each time for
    longer: all that is at hand would fail within a moment.
    """

    def __init__(self, pace: Pace) -> None:
        self.in_a_row = 0
        self._pace = pace
        self._since = 0.0
        """When the first of them was, as `time.monotonic` has it, as are all moments here."""
        self._rests = 0
        self._rests_until = 0.0

    def end(self) -> None:
        """Begins anew: the target took something."""
        self.in_a_row = self._rests = 0

    def add(self, now: float) -> float:
        """Counts one; returns until when the target rests."""
        if not self.in_a_row:
            self._since = now
        self.in_a_row += 1
        if self.in_a_row >= _FAILURES_BEFORE_REST and now >= self._rests_until:
            self._rests_until = now + self._pace.wait_seconds(self._rests)
            self._rests += 1
        return self._rests_until

    def are_too_many(self, now: float) -> bool:
        """Whether the target is to be left alone for this run."""
        is_long = now - self._since >= self._pace.failing_seconds
        return self.in_a_row >= self._pace.failures_in_a_row and is_long
