"""Clocks of which the truth is known: skew, stalls, changes of path, bursts, jitter, with and
without sender reports.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.media import ingest, make_timing
from tests.support.simulation.sender import Sender, server_unix_ns
from tests.support.simulation.sending import simulate
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import ClockPiece, PacketRunClock, ReportPoint, StepEvidence
from transforms.media.clock.observe import observe_clock
from transforms.media.units import ns_to_samples, samples_to_ns

RATE = 48_000
DURATION = 960
START_S = 1_700_000_000
LEAST_DELAY_S = 0.030
MS = 1_000_000
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KnownPacketRun:
    """A run whose every sample's server time is known, less the constant least delay that nobody
    can know.
    """

    clock: PacketRunClock
    media_sample: npt.NDArray[np.int64]
    true_ns: npt.NDArray[np.float64]


def make_packet_run(
    seconds: float,
    *,
    skew_ppm: float = 0.0,
    jitter_ms: float = 5.0,
    stalls: Sequence[tuple[float, float]] = (),
    path: Sequence[tuple[float, float]] = (),
    reports: bool = True,
    report_wall_s: float = 0.0,
    report_rate: float = 1.0,
    wall_steps: Sequence[tuple[float, float]] = (),
    sparse: bool = False,
    first_together_s: float = 0.0,
    start_s: float = 0.0,
    seed: int = 1,
) -> KnownPacketRun:
    """Simulates a sender and a network.

    Args:
      seconds: of media.
      skew_ppm: how much faster the sender's clock runs.
      jitter_ms: delay added by the network, uniform from 0.
      stalls: (media second, seconds) at which the sender's media clock stood still.
      path: (media second, seconds) at which the network's delay changed for good.
      reports: whether there is a sender report every 5 s.
      report_wall_s: how wrong the sender's wall clock is.
      report_rate: seconds its wall clock counts in a second.
      wall_steps: (media second, seconds) at which it was set.
      sparse: DTX: half of each second only a packet every 400 ms.
      first_together_s: packets of the first seconds come late, all together.
      start_s: when the run begins on the server's clock.
    """
    rng = np.random.default_rng(seed)
    index = np.arange(round(seconds * 50))
    if sparse:
        index = index[(index % 50 < 25) | (index % 20 == 0)]
    media = index * DURATION

    def server_s(sample: npt.NDArray[np.int64]) -> Times:
        time = sample / RATE / (1 + skew_ppm * 1e-6)
        for at, size in stalls:
            time = time + np.where(sample / RATE >= at, size, 0)
        return time + start_s

    true_s = server_s(media)
    delay = LEAST_DELAY_S + rng.uniform(0, jitter_ms / 1000, len(media))
    for at, size in path:
        delay = delay + np.where(media / RATE >= at, size, 0)
    arrival = true_s + DURATION / RATE / (1 + skew_ppm * 1e-6) + delay
    if first_together_s:
        arrival = np.maximum(arrival, start_s + first_together_s + LEAST_DELAY_S)
    arrival = np.maximum.accumulate(arrival)
    points = []
    if reports:
        at_media = (np.arange(2.3, seconds, 5) * RATE).astype(np.int64)
        wall = (server_s(at_media) + report_wall_s) * report_rate
        for at, size in wall_steps:
            wall = wall + np.where(at_media / RATE >= at, size, 0)
        points = [
            ReportPoint(media_sample=int(sample), sender_unix_ns=int(time * 1e9))
            for sample, time in zip(at_media, wall, strict=True)
        ]
    clock = observe_clock(
        media,
        np.full(len(media), DURATION),
        START_S * 1_000_000_000
        + (np.floor(arrival * 1000) * MS).astype(np.int64),  # dumps count whole ms
        points,
    )
    least_s = LEAST_DELAY_S + min(itertools.accumulate((size for _, size in path), initial=0.0))
    return KnownPacketRun(
        clock=clock, media_sample=media, true_ns=START_S * 1e9 + (true_s + least_s) * 1e9
    )


def errors_ms(packet_run: KnownPacketRun, pieces: tuple[ClockPiece, ...]) -> Times:
    """Returns how far each packet's server time is from the truth, and checks that the pieces' own
    bounds hold.
    """
    starts = np.array([piece.media_start_sample for piece in pieces])
    owner = np.searchsorted(starts, packet_run.media_sample, side="right") - 1
    base = np.array([piece.server_start_unix_ns for piece in pieces], dtype=np.float64)
    ratio = np.array([piece.clock_rate_ratio for piece in pieces])
    placed = base[owner] + (packet_run.media_sample - starts[owner]) * ratio[owner] / RATE * 1e9
    found: Times = (placed - packet_run.true_ns) / MS
    return found


def check_bounds(
    packet_run: KnownPacketRun, pieces: tuple[ClockPiece, ...], away_from_s: Sequence[float] = ()
) -> Times:
    """As `errors_ms`, without the second around each given point, after checking
    `sync_error_ns`.
    """
    found = errors_ms(packet_run, pieces)
    starts = np.array([piece.media_start_sample for piece in pieces])
    owner = np.searchsorted(starts, packet_run.media_sample, side="right") - 1
    bound = np.array([piece.sync_error_ns for piece in pieces])[owner] / MS
    keep = np.ones(len(found), dtype=bool)
    for at in away_from_s:
        keep &= np.abs(packet_run.media_sample / RATE - at) > 0.5
    assert (np.abs(found[keep]) <= bound[keep] + 0.01).all()
    return found[keep]


def fit(packet_run: KnownPacketRun) -> tuple[ClockPiece, ...]:
    (pieces,) = fit_clocks([packet_run.clock])
    return pieces


@pytest.mark.parametrize("jitter_ms", [0.0, 5.0, 40.0])
@pytest.mark.parametrize("sparse", [False, True], ids=["talking", "dtx"])
def test_one_minute_is_placed_within_2_ms(jitter_ms: float, sparse: bool) -> None:
    packet_run = make_packet_run(60, jitter_ms=jitter_ms, sparse=sparse)
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize(
    ("seconds", "skew_ppm"),
    [(600, 37), (1320, 150), (1320, -150), (3600, 500), (3600, -500)],
    ids=str,
)
def test_skew_is_found_within_2_ppm(seconds: float, skew_ppm: float) -> None:
    packet_run = make_packet_run(seconds, skew_ppm=skew_ppm)
    pieces = fit(packet_run)
    assert all(piece.is_fitted and abs(piece.skew_ppm - skew_ppm) <= 2 for piece in pieces)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize("seed", range(4))
def test_forty_short_segments_share_one_device_clock(seed: int) -> None:
    rng = np.random.default_rng(seed)
    starts = np.cumsum(15 + rng.uniform(0.05, 600, 40))
    packet_runs = [
        make_packet_run(15, skew_ppm=80, start_s=float(at), seed=100 * seed + n)
        for n, at in enumerate(starts)
    ]
    fitted = fit_clocks([packet_run.clock for packet_run in packet_runs])
    assert len({piece.skew_ppm for pieces in fitted for piece in pieces}) == 1
    assert fitted[0][0].skew_ppm == pytest.approx(80, abs=15)
    for packet_run, pieces in zip(packet_runs, fitted, strict=True):
        assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize("size_ms", [20, 50, 150, 500])
@pytest.mark.parametrize("skew_ppm", [0, 150], ids=["steady", "skewed"])
def test_stall_that_reports_confirm_is_placed_on_its_packet(size_ms: int, skew_ppm: float) -> None:
    packet_run = make_packet_run(300, skew_ppm=skew_ppm, stalls=[(123.0, size_ms / 1000)])
    assert [plateau.evidence for plateau in packet_run.clock.plateaus] == [
        StepEvidence.NONE,
        StepEvidence.CONFIRMED,
    ]
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert abs(pieces[1].media_start_sample / RATE - 123.0) <= 0.02
    assert np.abs(check_bounds(packet_run, pieces, [123.0])).max() <= 2.0


def test_several_stalls_between_two_reports_are_all_followed() -> None:
    packet_run = make_packet_run(60, stalls=[(31.0, 0.03), (32.0, 0.2), (33.5, 0.04)])
    pieces = fit(packet_run)
    assert len(pieces) == 4
    assert np.abs(check_bounds(packet_run, pieces, [31.0, 32.0, 33.5])).max() <= 5.0


def test_small_step_without_reports_moves_nothing_and_is_owned_up_to() -> None:
    packet_run = make_packet_run(60, reports=False, stalls=[(30.0, 0.04)])
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert pieces[0].sync_error_ns >= 40 * MS
    found = check_bounds(packet_run, pieces)
    assert found[0] == pytest.approx(0, abs=1.5)
    assert found[-1] == pytest.approx(-40, abs=1.5)


def test_large_step_without_reports_is_followed() -> None:
    packet_run = make_packet_run(60, reports=False, stalls=[(30.0, 0.1)])
    assert np.abs(check_bounds(packet_run, fit(packet_run), [30.0])).max() <= 2.0


def test_small_stalls_without_reports_never_add_up() -> None:
    packet_run = make_packet_run(
        600, reports=False, stalls=[(50.0 * n, 0.04) for n in range(1, 11)]
    )
    assert np.abs(errors_ms(packet_run, fit(packet_run))).max() < 60 + 2


@pytest.mark.parametrize("size_ms", [40, -40, 15, 150, -150, 2_000])
@pytest.mark.parametrize("skew_ppm", [0, 100], ids=["steady", "skewed"])
def test_change_of_path_moves_nothing(size_ms: int, skew_ppm: float) -> None:
    packet_run = make_packet_run(600, skew_ppm=skew_ppm, path=[(300.0, size_ms / 1000)])
    assert packet_run.clock.plateaus[-1].evidence == StepEvidence.DENIED
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


def test_stall_after_a_change_of_path_moves_by_the_stall_alone() -> None:
    packet_run = make_packet_run(600, path=[(200.0, 0.04)], stalls=[(400.0, 0.1)])
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [400.0])).max() <= 2.0


def test_path_that_becomes_a_little_better_is_owned_up_to_before() -> None:
    """The network's least delay is that of its longest part, and then it is 6 ms less."""
    stalls_s = [20.0, 80.0, 210.0]
    packet_run = make_packet_run(270, stalls=[(at, 0.1) for at in stalls_s], path=[(160.0, -0.006)])
    check_bounds(packet_run, fit(packet_run), stalls_s)


@pytest.mark.parametrize("rise_s", [0.03, 0.07])
@pytest.mark.parametrize("first_s", [0.0, 60.0])
def test_queue_that_builds_over_a_minute_without_reports_is_owned_up_to(
    first_s: float, rise_s: float
) -> None:
    """It looks like a clock that runs fast, nearly."""
    path = [(first_s + second, rise_s / 60) for second in range(1, 61)]
    packet_run = make_packet_run(first_s + 120, reports=False, path=path)
    pieces = fit(packet_run)
    assert np.abs(check_bounds(packet_run, pieces)).max() > 20


@pytest.mark.parametrize("skew_ppm", [1_000, -1_000, 2_000, -2_000])
@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_clock_that_is_far_off_is_followed(skew_ppm: float, reports: bool) -> None:
    packet_run = make_packet_run(1_200, skew_ppm=skew_ppm, reports=reports, stalls=[(500.0, 0.1)])
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [500.0])).max() <= 2.0


@pytest.mark.parametrize("rate", [1.001, 0.999])
def test_wall_clock_that_runs_at_another_rate_moves_nothing(rate: float) -> None:
    packet_run = make_packet_run(1_200, report_rate=rate, stalls=[(600.0, 0.05)])
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [600.0])).max() <= 2.0


def test_doubt_before_the_first_report_is_not_carried_into_a_stall() -> None:
    """40 ms that no report judges, then a stall of 60 ms: 60 are put in, and 40 stay in doubt."""
    packet_run = make_packet_run(120, path=[(1.2, 0.04)], stalls=[(30.0, 0.06)])
    pieces = fit(packet_run)
    moved_ns = pieces[1].server_start_unix_ns - (
        pieces[0].server_start_unix_ns
        + samples_to_ns(pieces[1].media_start_sample) * pieces[0].clock_rate_ratio
    )
    assert moved_ns == pytest.approx(60 * MS, abs=MS)
    assert all(40 * MS <= piece.sync_error_ns < 50 * MS for piece in pieces)
    assert np.abs(check_bounds(packet_run, pieces, [30.0])).max() <= 2.0


def test_two_stalls_between_two_reports_are_confirmed_together() -> None:
    packet_run = make_packet_run(60, stalls=[(28.0, 0.039), (31.8, 0.040)])
    assert [plateau.evidence for plateau in packet_run.clock.plateaus] == [
        StepEvidence.NONE,
        StepEvidence.CONFIRMED,
        StepEvidence.CONFIRMED,
    ]
    pieces = fit(packet_run)
    assert np.abs(check_bounds(packet_run, pieces, [28.0, 31.8])).max() <= 2.0


def test_stall_and_path_of_one_size_between_two_reports_are_in_doubt() -> None:
    packet_run = make_packet_run(60, stalls=[(28.5, 0.04)], path=[(31.0, 0.04)])
    check_bounds(packet_run, fit(packet_run), [28.5, 31.0])


@pytest.mark.parametrize("size_s", [0.05, 0.2, 0.6, 2.0])
@pytest.mark.parametrize("at_s", [62.29, 62.3, 62.32], ids=["before", "at", "behind"])
def test_stall_in_which_a_report_is_sent_is_followed(at_s: float, size_s: float) -> None:
    packet_run = make_packet_run(120, stalls=[(at_s, size_s)])
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [at_s])).max() <= 2.0


def test_crowded_network_that_clears_again_moves_nothing() -> None:
    packet_run = make_packet_run(120, path=[(30.0, 0.1), (60.0, -0.1)])
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_first_packets_late_together_set_no_clock(reports: bool) -> None:
    packet_run = make_packet_run(60, first_together_s=2.0, reports=reports)
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize(
    "wall_s", [7.0, -40.0, -(1_700_000_000 + 2_208_988_800 - 5)], ids=["7s", "40s", "1900"]
)
def test_wrong_wall_clock_of_the_sender_does_not_matter(wall_s: float) -> None:
    packet_run = make_packet_run(60, report_wall_s=wall_s, stalls=[(30.0, 0.05)])
    assert np.abs(check_bounds(packet_run, fit(packet_run), [30.0])).max() <= 2.0


@pytest.mark.parametrize("wall_s", [0.08, 0.3, -0.3, 2.0, -2.0])
def test_wall_clock_that_is_set_moves_nothing(wall_s: float) -> None:
    packet_run = make_packet_run(120, wall_steps=[(60.0, wall_s)])
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


@pytest.mark.parametrize("wall_s", [0.3, -0.3, 2.0, -2.0])
@pytest.mark.parametrize("is_path", [False, True], ids=["stall", "path"])
def test_wall_clock_that_is_set_beside_a_step_is_owned_up_to(is_path: bool, wall_s: float) -> None:
    steps = [(61.0, 0.06)]
    packet_run = (
        make_packet_run(120, wall_steps=[(60.0, wall_s)], path=steps)
        if is_path
        else make_packet_run(120, wall_steps=[(60.0, wall_s)], stalls=steps)
    )
    check_bounds(packet_run, fit(packet_run), [61.0])


@pytest.mark.parametrize("skew_ppm", [150, -1_000])
def test_wall_clock_that_counts_by_the_microphone_tells_no_rate(skew_ppm: float) -> None:
    # Its reports show no skew: so slow a path would look alike for two minutes, not for twenty.
    report_rate = 1 + skew_ppm * 1e-6
    long = make_packet_run(1_200, skew_ppm=skew_ppm, report_rate=report_rate)
    (piece,) = fit(long)
    assert piece.skew_ppm == pytest.approx(skew_ppm, abs=2)
    assert np.abs(check_bounds(long, (piece,))).max() <= 2.0
    short = make_packet_run(120, skew_ppm=skew_ppm, report_rate=report_rate)
    check_bounds(short, fit(short))


def test_reports_of_an_absurd_rate_say_nothing() -> None:
    packet_run = make_packet_run(120, report_rate=1.5, stalls=[(60.0, 0.04)])
    assert {plateau.evidence for plateau in packet_run.clock.plateaus[1:]} == {StepEvidence.UNKNOWN}
    assert len(fit(packet_run)) == 1


def test_less_than_30_s_takes_the_nominal_rate_and_owns_up() -> None:
    packet_run = make_packet_run(20, skew_ppm=400)
    pieces = fit(packet_run)
    assert [(piece.skew_ppm, piece.is_fitted) for piece in pieces] == [(0.0, False)]
    assert np.abs(check_bounds(packet_run, pieces)).max() > 5  # it is off, and says so
    assert pieces[0].sync_error_ns >= 10 * MS


@pytest.mark.parametrize("skew_ppm", [400, -400])
@pytest.mark.parametrize("at_s", [8.0, 20.0])
def test_rate_that_is_not_known_is_owned_up_to_on_both_sides_of_a_stall(
    skew_ppm: float, at_s: float
) -> None:
    """What the drift is off by before a stall is where it begins behind it, too."""
    packet_run = make_packet_run(28, skew_ppm=skew_ppm, stalls=[(at_s, 0.1)])
    pieces = fit(packet_run)
    assert [piece.is_fitted for piece in pieces] == [False, False]
    assert np.abs(check_bounds(packet_run, pieces, [at_s])).max() > 5


@pytest.mark.parametrize("skew_ppm", [2_000, -2_000])
@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_rate_of_a_cheap_device_is_fitted(skew_ppm: float, reports: bool) -> None:
    packet_run = make_packet_run(120, skew_ppm=skew_ppm, reports=reports)
    (piece,) = fit(packet_run)
    assert piece.is_fitted
    assert piece.skew_ppm == pytest.approx(skew_ppm, abs=10)
    assert np.abs(check_bounds(packet_run, (piece,))).max() <= 2.0


@pytest.mark.parametrize("skew_ppm", [2_400, -2_400, 4_000])
def test_absurd_fit_is_not_applied_and_owned_up_to(skew_ppm: float) -> None:
    packet_run = make_packet_run(120, skew_ppm=skew_ppm, reports=False)
    pieces = fit(packet_run)
    assert not any(piece.is_fitted for piece in pieces)
    assert {piece.skew_ppm for piece in pieces} == {0.0}
    check_bounds(packet_run, pieces)


def test_another_headset_gets_a_clock_of_its_own() -> None:
    packet_runs = [
        make_packet_run(900, skew_ppm=20),
        make_packet_run(900, skew_ppm=-60, start_s=1000, seed=2),
    ]
    fitted = fit_clocks([packet_run.clock for packet_run in packet_runs])
    assert fitted[0][0].skew_ppm == pytest.approx(20, abs=2)
    assert fitted[1][0].skew_ppm == pytest.approx(-60, abs=2)
    for packet_run, pieces in zip(packet_runs, fitted, strict=True):
        assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


def _without_arrivals(points: Sequence[ReportPoint], seconds: int = 60) -> PacketRunClock:
    media = np.arange(seconds * 50) * DURATION
    return observe_clock(
        media, np.full(len(media), DURATION), np.full(len(media), START_S * 1_000_000_000), points
    )


def test_dump_without_arrivals_runs_at_the_nominal_rate_from_its_first() -> None:
    clock = _without_arrivals([])
    assert clock.method == "metadata"
    (piece,) = fit_clocks([clock])[0]
    assert piece.server_start_unix_ns == START_S * 1_000_000_000 - 20 * MS
    assert (piece.skew_ppm, piece.is_fitted) == (0.0, False)
    assert piece.sync_error_ns >= 30 * MS  # 500 ppm of a minute


def test_dump_without_arrivals_takes_stalls_from_the_reports() -> None:
    points = [
        ReportPoint(
            media_sample=second * RATE,
            sender_unix_ns=(second * 1000 + (200 if second > 30 else 0)) * MS,
        )
        for second in range(1, 60, 2)
    ]
    clock = _without_arrivals(points)
    pieces = fit_clocks([clock])[0]
    last = pieces[-1]
    at_end = (
        last.server_start_unix_ns
        + (59 * RATE - last.media_start_sample) * last.clock_rate_ratio / RATE * 1e9
    )
    assert at_end - START_S * 1e9 == pytest.approx((59_000 + 200 - 20) * MS, abs=5 * MS)


def test_one_packet_is_at_its_arrival() -> None:
    clock = observe_clock(np.array([0]), np.array([DURATION]), np.array([5_000_000_000]), [])
    (piece,) = fit_clocks([clock])[0]
    assert piece.server_start_unix_ns == 5_000_000_000 - 20 * MS
    assert not piece.is_fitted


def test_two_packets_far_apart_and_reports_of_one_moment_say_nothing() -> None:
    media = np.array([0, 40 * RATE])
    reports = [ReportPoint(media_sample=0, sender_unix_ns=0)] * 2
    clock = observe_clock(
        media, np.full(2, DURATION), START_S * 1_000_000_000 + samples_to_ns(1) * media, reports
    )
    assert [plateau.evidence for plateau in clock.plateaus] == [StepEvidence.NONE]


def test_a_run_without_packets_is_refused() -> None:
    empty = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="without packets"):
        observe_clock(empty, empty, empty, [])


@pytest.mark.parametrize(
    "convert", [lambda n: ns_to_samples(samples_to_ns(n))], ids=["there-and-back"]
)
def test_samples_and_ns_convert_without_loss(convert: Callable[[int], int]) -> None:
    for samples in (0, 1, 119, 48_000, 48_000 * 3600 * 24 + 7):
        assert convert(samples) == samples


# --- simulated segments, read from their dumps ----------------------------------------------------


def place(sender: Sender) -> tuple[KnownPacketRun, tuple[ClockPiece, ...]]:
    """Returns a simulated segment's run and the pieces fitted to it alone."""
    simulated = simulate(sender)
    segment = ingest(
        simulated.dump,
        timing=make_timing(first_rtp_unix_ms=simulated.timing["first_rtp_unix_timestamp"]),
    )
    (packet_run,) = segment.packet_runs
    media = packet_run.records["media_sample"].astype(np.int64)
    found = KnownPacketRun(
        clock=packet_run.clock, media_sample=media, true_ns=server_unix_ns(sender, media)
    )
    return found, fit_clocks([packet_run.clock])[0]


def test_queue_that_fills_and_empties_between_two_reports_is_no_stall() -> None:
    """All in all nothing moved, by the reports and by the arrivals: that they agree confirms no
    step.
    """
    packet_run = make_packet_run(60, path=[(32.6, 0.3), (36.0, -0.3)])
    assert StepEvidence.CONFIRMED not in {plateau.evidence for plateau in packet_run.clock.plateaus}
    pieces = fit(packet_run)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0
    assert pieces[0].sync_error_ns < 5 * MS


@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
@pytest.mark.parametrize("at_s", [0.7, 30.0, 59.4], ids=["first-word", "middle", "last-word"])
def test_mute_that_stops_the_media_clock_is_followed(at_s: float, reports: bool) -> None:
    """No packets for 10 s: a window of 2 s has packets on one side of it only."""
    packet_run = make_packet_run(60, stalls=[(at_s, 10.0)], reports=reports)
    pieces = fit(packet_run)
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0


def test_burst_at_the_end_is_no_mute() -> None:
    """A network that held a second back lets it go at once: the delays fall as fast as they
    rose.
    """
    packet_run = make_packet_run(60, path=[(59.0, 0.9)])
    media, true = packet_run.media_sample, packet_run.true_ns
    arrival = np.floor((true + 20 * MS) / MS).astype(np.int64) * MS
    arrival[media >= 59 * RATE] = arrival[-1] + 100 * MS
    clock = observe_clock(media, np.full(len(media), DURATION), arrival, [])
    assert len(fit_clocks([clock])[0]) == 1


def test_packet_that_was_overtaken_moves_no_other() -> None:
    packet_run, pieces = place(Sender(seconds=66, first_late=(1, 30.0), stalls=((15.0, 0.1),)))
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [15.0])).max() <= 2.0


@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_queue_that_fills_little_by_little_is_no_stall(reports: bool) -> None:
    sender = Sender(
        seconds=66,
        jitter_ms=5,
        crowds=((50.0, 3.0, 50.0, 3.0, 0.8),),
        report_every_s=5.0 if reports else None,
    )
    packet_run, pieces = place(sender)
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 2.0
    # No clock runs so slow, and no capture stands still bit by bit: it is known without reports.
    assert pieces[0].sync_error_ns < (10 if reports else 30) * MS


def test_slow_change_of_path_that_stays_counts_in_the_bound_without_reports() -> None:
    sender = Sender(
        seconds=66, jitter_ms=5, crowds=((20.0, 15.0, 60.0, 1.0, 0.07),), report_every_s=None
    )
    packet_run, pieces = place(sender)
    assert np.abs(check_bounds(packet_run, pieces)).max() > 2
    assert max(piece.sync_error_ns for piece in pieces) >= 68 * MS


def test_stall_among_queues_moves_by_the_stall_alone() -> None:
    packet_run, pieces = place(
        Sender(
            seconds=66, jitter_ms=5, crowds=((20.0, 3.0, 15.0, 3.0, 0.8),), stalls=((30.0, 0.2),)
        )
    )
    assert len(pieces) == 2
    assert np.abs(check_bounds(packet_run, pieces, [30.0])).max() <= 2.0


def test_queues_tilt_no_line() -> None:
    packet_run, pieces = place(
        Sender(
            seconds=66,
            jitter_ms=5,
            skew_ppm=200.0,
            crowds=tuple((10 + 9.0 * k, 1, 2, 1, 0.3) for k in range(6)),
        )
    )
    assert [piece.is_fitted for piece in pieces] == [True]
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 3.0


def test_an_hour_of_queues_leaves_a_handful_of_plateaus_each() -> None:
    packet_run, pieces = place(
        Sender(
            seconds=3_600,
            jitter_ms=5,
            crowds=tuple((20 + 20.0 * k, 2, 3, 2, 0.3) for k in range(175)),
        )
    )
    assert len(packet_run.clock.plateaus) < 175 * 8
    assert len(pieces) == 1
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 5.0


def test_few_packets_and_much_jitter_make_no_stalls() -> None:
    pauses = tuple((3.0 + 8 * k, 1.0 + k % 4) for k in range(36))
    packet_run, pieces = place(
        Sender(seconds=300, jitter_ms=40, dtx=pauses, report_noise_ms=4.0, skew_ppm=20.0, seed=3)
    )
    assert len(pieces) <= 2
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 10.0


@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_another_headset_within_a_segment_gets_a_line_of_its_own(reports: bool) -> None:
    sender = Sender(
        seconds=3_600,
        jitter_ms=5,
        skew_ppm=((0.0, 20.0), (1_700.0, -60.0)),
        report_every_s=5.0 if reports else None,
    )
    packet_run, pieces = place(sender)
    assert pieces[0].skew_ppm == pytest.approx(20, abs=2)
    assert pieces[-1].skew_ppm == pytest.approx(-60, abs=2)
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 5.0


def test_slow_drift_of_the_clock_is_followed_for_eight_hours() -> None:
    rates = tuple((600.0 * k, 20 + 2 * float(np.sin(k / 48 * 2 * np.pi))) for k in range(48))
    packet_run, pieces = place(Sender(seconds=8 * 3_600, jitter_ms=5, skew_ppm=rates))
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 3.0


def test_slow_drift_of_the_path_is_not_where_reports_deny_it() -> None:
    sender = Sender(
        seconds=3_600, jitter_ms=5, skew_ppm=20.0, crowds=((1_000.0, 1_000.0, 5_000.0, 1.0, 0.03),)
    )
    packet_run, pieces = place(sender)
    assert np.abs(check_bounds(packet_run, pieces)).max() <= 3.0


def test_strange_rate_of_a_short_run_is_owned_up_to() -> None:
    """Under 10 minutes a run takes the common rate; what its own says otherwise is in the bound."""
    packet_runs = [
        make_packet_run(900, skew_ppm=20),
        make_packet_run(300, skew_ppm=-200, start_s=1_000, seed=2),
    ]
    fitted = fit_clocks([packet_run.clock for packet_run in packet_runs])
    assert np.abs(check_bounds(packet_runs[1], fitted[1])).max() > 5


def test_without_arrivals_two_known_ones_make_the_rate() -> None:
    media = np.arange(600 * 50) * DURATION
    first, last = START_S * 1_000_000_000, START_S * 1_000_000_000 + round(599.98e9 * (1 - 300e-6))
    clock = observe_clock(
        media, np.full(len(media), DURATION), np.full(len(media), first), [], last
    )
    (piece,) = fit_clocks([clock])[0]
    assert clock.method == "metadata"
    assert piece.skew_ppm == pytest.approx(300, abs=1)
    assert piece.sync_error_ns >= 25 * MS


def test_without_arrivals_the_reports_rate_is_the_clock_s() -> None:
    points = [
        ReportPoint(media_sample=second * RATE, sender_unix_ns=round(second * 1e9 / 1.0003))
        for second in range(1, 600, 5)
    ]
    clock = _without_arrivals(points, 600)
    (piece,) = fit_clocks([clock])[0]
    assert piece.skew_ppm == pytest.approx(300, abs=1)
