"""What is told of steps, for clocks and lines that are given."""

from __future__ import annotations

import pytest

from transforms.media.clock.model import (
    ClockMethod,
    ClockPiece,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.clock.verdicts import Outcome, judge_outcomes, server_time

SECOND = 48_000
MS = 1_000_000
S = 1_000 * MS
BASE = 1_700_000_000 * S


def make_plateau(
    start_s: int, stop_s: int, level_ms: float, evidence: StepEvidence, rate: float = 0.0
) -> Plateau:
    """Returns a plateau whose least delays lie on a line of a slope, `level_ms` high at its
    start.
    """
    x = (start_s * S, stop_s * S)
    y = tuple(round(level_ms * MS + rate * (at - x[0])) for at in x)
    return Plateau(
        media_start_sample=start_s * SECOND,
        media_stop_sample=stop_s * SECOND,
        point_count=2,
        mean_media_ns=sum(x) // 2,
        mean_delay_ns=sum(y) // 2,
        spread_media_ns=S,
        hull=tuple(zip(x, y, strict=True)),
        evidence=evidence,
    )


def make_clock(*plateaus: Plateau) -> PacketRunClock:
    return PacketRunClock(base_unix_ns=BASE, plateaus=plateaus, method=ClockMethod.ARRIVAL_ENVELOPE)


def make_piece(start_s: int, server_ms: float, skew_ppm: float = 0.0) -> ClockPiece:
    """Returns a piece. Args: server_ms: by how much its first sample lies behind the base and its
    media time.
    """
    return ClockPiece(
        media_start_sample=start_s * SECOND,
        server_start_unix_ns=BASE + start_s * S + round(server_ms * MS),
        skew_ppm=skew_ppm,
        is_fitted=bool(skew_ppm),
        sync_error_ns=MS,
    )


@pytest.mark.parametrize(
    ("evidence", "moved_ms", "outcome"),
    [
        (StepEvidence.CONFIRMED, 80.0, Outcome.SILENCE),
        (StepEvidence.UNKNOWN, 80.0, Outcome.SILENCE),
        (StepEvidence.UNKNOWN, 120.0, Outcome.SILENCE),
        (StepEvidence.UNKNOWN, -70.0, Outcome.CUT),
        (StepEvidence.CONFIRMED, 0.4, Outcome.RATE),
        (StepEvidence.DENIED, None, Outcome.PATH),
        (StepEvidence.UNKNOWN, None, Outcome.DOUBT),
        (StepEvidence.CONFIRMED, None, Outcome.DOUBT),
    ],
)
def test_a_step_is_told_with_what_became_of_it(
    evidence: StepEvidence, moved_ms: float | None, outcome: Outcome
) -> None:
    clock = make_clock(
        make_plateau(0, 10, 5, StepEvidence.NONE), make_plateau(10, 20, 85, evidence)
    )
    pieces = [make_piece(0, 5)]
    if moved_ms is not None:
        pieces.append(make_piece(10, 5 + moved_ms))
    (step,) = judge_outcomes(clock, pieces)
    assert (step.media_sample, step.size_ns, step.evidence) == (10 * SECOND, 80 * MS, evidence)
    assert step.outcome == outcome
    assert step.moved_ns == round((moved_ms or 0) * MS)
    assert step.server_unix_ns == BASE + 10 * S + round((5 + (moved_ms or 0)) * MS)


def test_steps_are_measured_across_the_slope_of_their_pieces() -> None:
    rate = 200e-6  # media 200 ppm slow: 2 ms in 10 s
    ppm = (1 / (1 + rate) - 1) * 1e6
    clock = make_clock(
        make_plateau(0, 100, 0, StepEvidence.NONE, rate),
        make_plateau(100, 200, 50, StepEvidence.DENIED, rate),
        make_plateau(200, 300, 70, StepEvidence.CONFIRMED, rate),
    )
    pieces = [make_piece(0, 0, ppm), make_piece(200, 40, ppm)]
    denied, confirmed = judge_outcomes(clock, pieces)
    # The first plateau ends 20 ms above its start: of the 50 only 30 are a step.
    assert denied.size_ns == pytest.approx(30 * MS, abs=10)
    assert confirmed.size_ns == pytest.approx(0, abs=10)
    assert denied.server_unix_ns == pytest.approx(BASE + 100 * S + 20 * MS, abs=10)
    assert confirmed.moved_ns == pytest.approx(0, abs=10)


def test_a_line_that_begins_without_a_step_is_told_too() -> None:
    clock = make_clock(make_plateau(0, 100, 0, StepEvidence.NONE))
    (step,) = judge_outcomes(clock, [make_piece(0, 0), make_piece(50, 30)])
    assert step.evidence == StepEvidence.NONE
    assert (step.outcome, step.moved_ns, step.size_ns) == (Outcome.SILENCE, 30 * MS, 30 * MS)


def test_one_line_through_one_plateau_has_nothing_to_tell() -> None:
    assert (
        judge_outcomes(make_clock(make_plateau(0, 9, 0, StepEvidence.NONE)), [make_piece(0, 0)])
        == ()
    )


def test_server_time_goes_by_the_rate_of_the_piece() -> None:
    piece = make_piece(10, 0, skew_ppm=-1_000.0)
    assert server_time(piece, 20 * SECOND) == pytest.approx(BASE + 20 * S + 10.01 * MS, abs=10)
    assert server_time(piece, 0) == pytest.approx(BASE - 10.01 * MS, abs=10)
