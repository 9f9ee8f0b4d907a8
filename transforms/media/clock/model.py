"""The clock of one sender as values: what a packet run tells of it, and the lines laid through it.

Media time counts samples at 48 kHz from the first packet of a packet run, by the sender's clock.
Server time is the clock of the machine that recorded, in Unix ns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from transforms.media.units import NS_PER_MS, NS_PER_SECOND, samples_to_ns

LEAST_STEP_NS = 5 * NS_PER_MS
PATH_STEP_NS = 60 * NS_PER_MS
"""A rise that no report can judge is taken for a change of path below this, else for a stall."""
CHANCE = 4
"""Times the usual error of a least delay that chance makes seldom."""
CLOCK_STEP_NS = 150 * NS_PER_MS
"""A fall that no report can judge is a change of path, and below this without a doubt."""
REPORT_NOISE_NS = 8 * NS_PER_MS
MAX_SKEW = 2_200e-6
"""Beyond what cheap devices and virtual machines do (some 2,000 ppm): such a fit is not applied."""
ABSURD_RATE = 2 * MAX_SKEW
"""Reports whose two clocks drift apart faster say nothing."""
WALL_CLOCK_RATE = 100e-6
"""A sender's wall clock, disciplined or not, is not further off than this."""
USUAL_WALL_CLOCK_RATE = 20e-6
"""And most are disciplined."""
METADATA_NOISE_NS = 25 * NS_PER_MS
"""What the network may have added to the only arrivals that are known."""
OWN_FIT_NS = 600 * NS_PER_SECOND
BEND_S = 0.0009
"""How far least delays may lie off one straight line, on either side, before another is drawn."""


class ClockMethod(StrEnum):
    """How the server times of a packet run were found."""

    ARRIVAL_ENVELOPE = "arrival_envelope"
    """By the least delays of the arrivals in the dump."""
    METADATA = "metadata"
    """By the metadata and sender reports: the dump has no arrivals that can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPoint:
    """A sender report (RFC 3550 s6.4.1) on the media time of a packet run."""

    media_sample: int
    """Its RTP timestamp, counted from the first packet of the packet run."""
    sender_unix_ns: int
    """Its wall clock; wrong by any constant."""
    arrival_unix_ns: int | None = None
    """When it arrived; None to take it for sent with the packet of its media time."""


class StepEvidence(StrEnum):
    """What sender reports say of a lasting step between media time and arrivals."""

    NONE = "none"
    """There is no step: a packet run begins."""
    CONFIRMED = "confirmed"
    """The sender's own clock shows it: its capture stood still."""
    DENIED = "denied"
    """The sender's own clock went on: the network took another path."""
    UNKNOWN = "unknown"
    """No usable reports on both sides."""
    GRADUAL = "gradual"
    """As unknown, but it came little by little: a queue, most likely."""


@dataclass(frozen=True, slots=True)
class Step:
    """A lasting step of the least delay, and what is known of it."""

    index: int
    """First packet after it."""
    size_ns: int
    """By the arrivals."""
    evidence: StepEvidence = StepEvidence.UNKNOWN
    stall_ns: int | None = None
    """As in `Plateau`, like the following."""
    other_stall_ns: int | None = None
    pause_ns: int = 0
    doubt_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """A part of a packet run between lasting steps: its least delays, and their lower hull."""

    media_start_sample: int
    media_stop_sample: int
    point_count: int
    """Least delays looked at, one per quarter second."""
    mean_media_ns: int
    mean_delay_ns: int
    spread_media_ns: int
    """Standard deviation of the points in media time."""
    hull: tuple[tuple[int, int], ...]
    """Their lower convex hull, enough to fit a line under all of them: (media time of a packet's
    end in ns, delay in ns above `PacketRunClock.base_unix_ns`).
    """
    evidence: StepEvidence
    """Of the step before it."""
    stall_ns: int | None = None
    """By how much the delay rises at the step before it as the capture stood still, where sender
    reports say so; with what the sender's rate makes of `pause_ns`.
    """
    other_stall_ns: int | None = None
    """By how much instead if what reports say beyond the arrivals was their own clock, set anew."""
    pause_ns: int = 0
    """How long no packet came before it: so long the sender's rate counts in the stall."""
    doubt_ns: int = 0
    """By how much another choice of steps between the same reports would move it."""
    chance_ns: int = 0
    """How far above the network's least so few packets may well lie all of them."""
    mean_floor: tuple[int, int] | None = None
    """Mean (media time, delay) of the least delays of each 5 s, as in `hull`."""
    ends: tuple[tuple[int, int], ...] = ()
    """The least delays of the first 5 s, of the 5 s before the last 2 s, and of these."""
    is_reported: bool = False
    """Whether sender reports come behind it, and would show what comes to stay."""

    def least_delay_ns(self, rate: float) -> float:
        """Returns the height, at media time 0, of the highest line of a slope below all delays."""
        return min(y - rate * x for x, y in self.hull)

    def usual_excess_ns(self, rate: float) -> float:
        """Returns how far the mean of the least delays lies above that line."""
        return self.mean_delay_ns - rate * self.mean_media_ns - self.least_delay_ns(rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketRunClock:
    """What one packet run tells of its sender's clock, before a line is fitted."""

    base_unix_ns: int
    """Server time of media time 0 if the first packet had come with the least delay."""
    plateaus: tuple[Plateau, ...]
    method: ClockMethod
    report_rate: tuple[float, float] | None = None
    """How much slower media time runs than the sender's wall clock, as a part of one, and what that
    is off by; None where reports do not tell.
    """

    @property
    def first_server_unix_ns(self) -> int:
        """About when the packet run begins, at the nominal rate."""
        return self.base_unix_ns + min(y for _, y in self.plateaus[0].hull)


def starting_earlier(clock: PacketRunClock, samples: int) -> PacketRunClock:
    """Returns the same clock with media time counted from that much earlier, before which nothing
    was observed.
    """
    earlier_ns = samples_to_ns(samples)
    plateaus = tuple(
        replace(
            plateau,
            media_start_sample=plateau.media_start_sample + samples if number else 0,
            media_stop_sample=plateau.media_stop_sample + samples,
            mean_media_ns=plateau.mean_media_ns + earlier_ns,
            hull=tuple((x + earlier_ns, y) for x, y in plateau.hull),
            mean_floor=plateau.mean_floor
            and (plateau.mean_floor[0] + earlier_ns, plateau.mean_floor[1]),
            ends=tuple((x + earlier_ns, y) for x, y in plateau.ends),
        )
        for number, plateau in enumerate(clock.plateaus)
    )
    return replace(clock, base_unix_ns=clock.base_unix_ns - earlier_ns, plateaus=plateaus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPiece:
    """A part of a packet run whose media time maps to server time by one straight line."""

    media_start_sample: int
    """First sample, counted from the first packet of the packet run."""
    server_start_unix_ns: int
    """Server time of that sample, codec look-ahead not yet taken off (the containers' pre-skip does
    that).
    """
    skew_ppm: float
    """How much faster the sender's clock runs than the server's; 0 at the nominal rate."""
    is_fitted: bool
    """False where the nominal rate was taken because the skew cannot be known."""
    sync_error_ns: int
    """Bound on the error of server times in the piece."""

    @property
    def clock_rate_ratio(self) -> float:
        """Server seconds in a second of media."""
        return 1 / (1 + self.skew_ppm * 1e-6)
