"""The envelope of the arrivals: late packets move nothing, lasting delays are followed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.clock import ClockFit, fit_clock, ns_to_samples, samples_to_ns

START_NS = 1_767_607_200_000_000_000
MS = 1_000_000


def fit(count: int, late_ms: dict[int, int] | None = None, stalls_ms: dict[int, int] | None = None) -> ClockFit:
    """Fits 20 ms packets that begin at `START_NS`; `late_ms` of single packets, `stalls_ms` from a packet on."""
    media = np.arange(count, dtype=np.int64) * 960
    duration = np.full(count, 960)
    arrival = START_NS + (np.arange(count) + 1) * 20 * MS
    for index, delay in (late_ms or {}).items():
        arrival[index] += delay * MS
    for index, delay in (stalls_ms or {}).items():
        arrival[index:] += delay * MS
    return fit_clock(media, duration, arrival)


def pieces_of(found: ClockFit) -> list[tuple[int, int]]:
    """Returns (packet number, ms from the start by which its server time is off) of each piece."""
    return [
        (piece.media_start_sample // 960, (piece.server_start_unix_ns - START_NS) // MS - piece.media_start_sample // 48)
        for piece in found.pieces
    ]


def test_even_arrivals_give_one_line_from_the_first_sample() -> None:
    found = fit(500)
    assert (pieces_of(found), found.method) == ([(0, 0)], "arrival_envelope")


def test_late_packets_move_nothing() -> None:
    assert pieces_of(fit(500, late_ms=dict.fromkeys(range(0, 500, 3), 180))) == [(0, 0)]


def test_late_first_packet_moves_nothing() -> None:
    assert pieces_of(fit(500, late_ms={0: 400})) == [(0, 0)]


def test_delay_that_comes_back_after_a_while_moves_nothing() -> None:
    assert pieces_of(fit(500, late_ms=dict.fromkeys(range(200, 260), 300))) == [(0, 0)]


def test_lasting_delay_is_followed_from_its_first_packet() -> None:
    assert pieces_of(fit(500, stalls_ms={200: 300})) == [(0, 0), (200, 300)]


def test_stalls_add_up() -> None:
    assert pieces_of(fit(500, stalls_ms={100: 60, 250: 200})) == [(0, 0), (100, 60), (250, 260)]


@pytest.mark.parametrize(("delay_ms", "pieces"), [(9, [(0, 0)]), (10, [(0, 0), (200, 10)])], ids=["below", "at"])
def test_lasting_delay_below_the_step_is_not_followed(delay_ms: int, pieces: list[tuple[int, int]]) -> None:
    assert pieces_of(fit(500, stalls_ms={200: delay_ms})) == pieces


def test_delay_at_the_very_end_is_not_called_a_stall() -> None:
    assert pieces_of(fit(500, stalls_ms={470: 300})) == [(0, 0)]


def test_run_shorter_than_a_second_has_one_line() -> None:
    assert pieces_of(fit(40, stalls_ms={10: 100})) == [(0, 0)]


def test_single_packet_ends_when_it_arrives() -> None:
    found = fit_clock(np.array([0]), np.array([2_880]), np.array([START_NS]))
    assert [piece.server_start_unix_ns for piece in found.pieces] == [START_NS - 60 * MS]


def test_dump_without_arrivals_takes_the_first_of_the_metadata() -> None:
    count = 100
    found = fit_clock(np.arange(count) * 960, np.full(count, 960), np.full(count, START_NS))
    assert found.method == "metadata"
    assert [(p.media_start_sample, p.server_start_unix_ns) for p in found.pieces] == [(0, START_NS - 20 * MS)]


def test_run_without_packets_is_refused() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match=r"a run without packets has no clock"):
        fit_clock(nothing, nothing, nothing)


@given(st.integers(-(1 << 50), 1 << 50))
def test_samples_survive_the_way_through_nanoseconds(samples: int) -> None:
    assert ns_to_samples(samples_to_ns(samples)) == samples


@pytest.mark.parametrize(("samples", "ns"), [(0, 0), (48_000, 1_000_000_000), (1, 20_833), (2, 41_667), (-48, -1_000_000)])
def test_samples_in_nanoseconds_are_rounded_to_the_nearest(samples: int, ns: int) -> None:
    assert samples_to_ns(samples) == ns


@given(st.lists(st.integers(0, 500), min_size=60, max_size=200), st.sampled_from([480, 960, 2_880]))
def test_no_packet_is_placed_after_it_arrived(delays_ms: list[int], duration: int) -> None:
    media = np.arange(len(delays_ms), dtype=np.int64) * duration
    ends_ns = (media + duration) * 1_000_000_000 // 48_000
    arrival = START_NS + ends_ns + np.array(delays_ms) * MS
    found = fit_clock(media, np.full(len(media), duration), arrival)
    starts = np.array([piece.media_start_sample for piece in found.pieces])
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    mapped = []
    for sample in media.tolist():
        piece = found.pieces[int(np.searchsorted(starts, sample, side="right")) - 1]
        mapped.append(piece.server_start_unix_ns + samples_to_ns(sample + duration - piece.media_start_sample))
    assert (np.array(mapped) <= arrival + 1).all()
    # Server time never runs backwards over a piece's border.
    assert (np.diff(mapped) >= 0).all()
