"""What was made of the steps of a packet run: each with what reports say, and what became of it.

`observe` and `fit` decide; this tells what they decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from transforms.media.clock.model import ClockPiece, PacketRunClock, StepEvidence
from transforms.media.units import NS_PER_MS, samples_to_ns

_MOVED_NS = NS_PER_MS // 2
"""A line that moves by less where another begins was turned, not moved."""


class Outcome(StrEnum):
    """What became of a step."""

    SILENCE = "silence"
    """The missing time was put in as silence."""
    CUT = "cut"
    """The time line moved back: what lies behind the step comes earlier."""
    RATE = "rate"
    """The clock goes on at another rate, from where it was."""
    PATH = "path"
    """Nothing was moved: the network's, not the sender's."""
    DOUBT = "doubt"
    """Nothing was moved, though it may be the sender's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVerdict:
    """A lasting step of the least delay, or a change of the line, and what became of it."""

    media_sample: int
    """First sample behind it, in the media time of its packet run."""
    server_unix_ns: int
    """Where that sample was laid."""
    size_ns: int
    """By how much the least delay changes there."""
    evidence: StepEvidence
    """What sender reports say; `NONE` where no step was seen in the least delays."""
    outcome: Outcome
    moved_ns: int
    """By how much the time line moved; 0 where it did not."""

    @property
    def begins_piece(self) -> bool:
        """Whether another line begins there."""
        return self.outcome not in (Outcome.PATH, Outcome.DOUBT)


def server_time(piece: ClockPiece, media_sample: int) -> int:
    """Returns the server time of a sample on a piece's line, also beyond the piece, in Unix ns."""
    past_ns = samples_to_ns(media_sample - piece.media_start_sample)
    return piece.server_start_unix_ns + round(past_ns * piece.clock_rate_ratio)


def judge_outcomes(clock: PacketRunClock, pieces: Sequence[ClockPiece]) -> tuple[StepVerdict, ...]:
    """Returns the verdicts on a packet run's steps, in order of media time.

    Args:
      clock: its plateaus.
      pieces: the lines that were laid through them, in order; at least one.
    """
    starts = [plateau.media_start_sample for plateau in clock.plateaus[1:]]
    begun = {piece.media_start_sample: number for number, piece in enumerate(pieces) if number}
    plateau_of = {start: number for number, start in enumerate(starts, 1)}
    found = []
    at = 0
    for sample in sorted({*starts, *begun}):
        before = pieces[at]
        at = begun.get(sample, at)
        moved_ns = (
            pieces[at].server_start_unix_ns - server_time(before, sample)
            if (sample in begun)
            else 0
        )
        size_ns, evidence = moved_ns, StepEvidence.NONE
        if (number := plateau_of.get(sample)) is not None:
            last, first = clock.plateaus[number - 1 : number + 1]
            evidence = first.evidence
            size_ns = round(
                _floor_ns(first.hull, pieces[at], sample) - _floor_ns(last.hull, before, sample)
            )
        found.append(
            StepVerdict(
                media_sample=sample,
                server_unix_ns=server_time(pieces[at], sample),
                size_ns=size_ns,
                evidence=evidence,
                outcome=_outcome(moved_ns, sample in begun, evidence),
                moved_ns=moved_ns,
            )
        )
    return tuple(found)


def _floor_ns(hull: Sequence[tuple[int, int]], piece: ClockPiece, media_sample: int) -> float:
    """Returns how high the line of a piece's slope below a hull lies at a sample."""
    rate = piece.clock_rate_ratio - 1
    at_ns = samples_to_ns(media_sample)
    return min(y + rate * (at_ns - x) for x, y in hull)


def _outcome(moved_ns: int, begins_piece: bool, evidence: StepEvidence) -> Outcome:
    if begins_piece:
        if abs(moved_ns) < _MOVED_NS:
            return Outcome.RATE
        return Outcome.SILENCE if moved_ns > 0 else Outcome.CUT
    return Outcome.PATH if evidence == StepEvidence.DENIED else Outcome.DOUBT
