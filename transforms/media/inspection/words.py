"""The words and numbers in which text and drawings speak of clocks."""

from __future__ import annotations

from transforms.media.clock.model import StepEvidence
from transforms.media.clock.verdicts import Outcome

_SAID = {
    StepEvidence.CONFIRMED: "reports confirm it",
    StepEvidence.DENIED: "reports deny it",
    StepEvidence.NONE: "no step of the least delay",
}


def evidence_text(evidence: StepEvidence) -> str:
    """Returns what sender reports say of a step, in words."""
    return _SAID.get(evidence, "reports cannot tell")


def clock_text(seconds: float, digits: int = 0) -> str:
    """Returns seconds as m:ss, or h:mm:ss from an hour on. Args: digits: behind the point."""
    sign = "-" if seconds < 0 else ""
    units = round(abs(seconds) * 10**digits) if digits or abs(seconds) >= 1 else 0
    if not digits and 0 < abs(seconds) % 1 < 1 and abs(seconds) < 10:
        return f"{sign}0:{abs(seconds):04.1f}"
    whole, part = divmod(units, 10**digits)
    fraction = f".{part:0{digits}d}" if digits else ""
    minutes, second = divmod(whole, 60)
    if minutes >= 60:
        return f"{sign}{minutes // 60}:{minutes % 60:02d}:{second:02d}{fraction}"
    return f"{sign}{minutes}:{second:02d}{fraction}"


def outcome_text(outcome: Outcome, moved_ms: float) -> str:
    """Returns what became of a step, in words."""
    return {
        Outcome.SILENCE: f"{abs(moved_ms):,.1f} ms of silence put in",
        Outcome.CUT: f"moved back by {abs(moved_ms):,.1f} ms",
        Outcome.RATE: "goes on at another rate",
        Outcome.PATH: "nothing moved: path",
        Outcome.DOUBT: "nothing moved: in doubt",
    }[outcome]


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
