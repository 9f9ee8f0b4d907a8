"""The clock of a server as values: what parts of tracks show of it, and how it differs from the
clock of its call.

Server times of a call are by the clock that its first archive began with. A server's clock may be
set in mid-call, and two servers of one call may not agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSighting:
    """A step of the least delay, as one packet run shows it.

    Times are arrivals by the server's clock before the step.
    """

    since_unix_ns: int
    """When the last packets before it arrived."""
    at_unix_ns: int
    """By when it had happened: about when the first packet after it arrived."""
    size_ns: int
    noise_ns: int
    """How far the size may be off."""
    is_lasting: bool
    """Whether the least delay is that much higher, or lower, for seconds."""
    is_stall: bool
    """Whether sender reports confirm that the sender's capture stood still."""
    is_back: bool = False
    """Whether the times of packets go back that came one after the other: no stall does that, and
    no path.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedSpan:
    """A packet run as a witness of the server's clock. Times are arrivals as they were written."""

    begin_unix_ns: int
    """When media time 0 would have arrived with the least delay."""
    stop_unix_ns: int
    least_step_ns: int
    """A smaller step does not show in it."""
    ssrc: int
    first_rtp_timestamp: int
    """That of media time 0, 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallSpan:
    """Sender reports of a packet run: how far the server's clock is ahead of the sender's.

    Least values of a few reports, so that the network's path is in them, and no queue.
    """

    begin_unix_ns: int
    """When the first report arrived, as it was written."""
    stop_unix_ns: int
    first_ahead_ns: int
    """By the first few reports."""
    last_ahead_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWatch:
    """What one part of a track shows of the clock of the server that recorded it; small."""

    sightings: tuple[StepSighting, ...] = ()
    spans: tuple[WatchedSpan, ...] = ()
    walls: tuple[WallSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerClockStep:
    """A server's clock was set in mid-call, or may have been: all who were there show it at one
    moment.
    """

    since_unix_ns: int
    """When the last packets before it arrived."""
    at_unix_ns: int
    """When the first packet after it would have, by the clock before it."""
    size_ns: int
    """By how much it was set ahead; below 0 for back, and 0 where it may as well be one sender's.
    """
    error_ns: int
    """How far the size may be off."""

    @property
    def turn_unix_ns(self) -> int:
        """What was written later came after the step; of a clock that was set back the middle of
        the time that it showed twice.
        """
        return self.at_unix_ns + self.size_ns // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerClock:
    """How the clock of the server that wrote an archive differs from that of its call."""

    ahead_ns: int = 0
    """By how much it is ahead, before any step."""
    doubt_ns: int = 0
    """How far that may be off."""
    steps: tuple[ServerClockStep, ...] = ()
    """In order."""

    @property
    def is_calls(self) -> bool:
        """Whether it is the clock of the call, as far as is known."""
        return not self.ahead_ns and not self.doubt_ns and not self.steps

    def ahead_at_ns(self, written_unix_ns: int) -> int:
        """Returns by how much the server's clock was ahead when it wrote a time."""
        return self.ahead_ns + sum(
            step.size_ns for step in self.steps[: steps_passed(self.steps, written_unix_ns)]
        )


def steps_passed(steps: Sequence[ServerClockStep], written_unix_ns: int) -> int:
    """Returns how many steps came before a time was written."""
    passed = 0
    for step in steps:
        if written_unix_ns < step.turn_unix_ns:
            break
        passed += 1
    return passed
