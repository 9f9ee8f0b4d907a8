"""The clocks of servers: one that is set in mid-call, and two that do not agree. The truth is the
clock that the call began with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tests.support.media import ingest, make_timing
from tests.support.simulation.sender import CALL_START_NS, Sender, server_unix_ns
from tests.support.simulation.sending import simulate
from transforms.media import caps
from transforms.media.clock.call_clock import on_call_clock
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.server_clocks import CallPart, find_server_clocks
from transforms.media.clock.server_steps import Witness, find_server_steps
from transforms.media.clock.server_watch import join_watches
from transforms.media.rtp.ingest import IngestedSegment
from transforms.media.server_clock import ClockWatch, ServerClock, StepSighting, WatchedSpan

MS = 1_000_000
SECOND = 1_000 * MS
Call = Mapping[str, Mapping[str, Sequence[Sender]]]
"""By archive and participant, one sender for each dump."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a participant's packets are put in one archive."""

    error_ms: float
    """The worst, but for the second around a stall."""
    bound_ms: float
    """The least that is stated of it."""
    packet_runs: int


def _ingest(sender: Sender) -> IngestedSegment:
    simulated = simulate(sender)
    timing = make_timing(
        first_rtp_unix_ms=simulated.timing["first_rtp_unix_timestamp"],
        last_rtp_unix_ms=simulated.timing["last_rtp_unix_timestamp"],
    )
    return ingest(simulated.dump, timing=timing)


def _place(call: Call) -> tuple[dict[str, ServerClock], dict[tuple[str, str], Placed]]:
    """Returns the clocks of a call's servers, and where everybody is put by them."""
    found = {
        (archive, name): [(sender, _ingest(sender)) for sender in senders]
        for archive, people in call.items()
        for name, senders in people.items()
    }
    parts = [
        CallPart(
            archive_uri=archive,
            participant_id=name,
            user_session_id=name,
            output_type="audio_only",
            first_unix_ns=min(
                each.clock.first_server_unix_ns for _, one in segments for each in one.packet_runs
            ),
            watch=join_watches([each.watch for _, one in segments for each in one.packet_runs]),
        )
        for (archive, name), segments in found.items()
    ]
    clocks = find_server_clocks(parts)
    for other in itertools.islice(itertools.permutations(parts), 4):
        assert find_server_clocks(other) == clocks
    placed = {}
    for (archive, name), segments in found.items():
        runs = [(sender, each) for sender, one in segments for each in one.packet_runs]
        on_call = [on_call_clock(each.clock, clocks[archive]) for _, each in runs]
        errors, bounds = [], []
        fitted = fit_clocks([clock for clock, _ in on_call])
        for (sender, each), (_, doubt_ns), pieces in zip(runs, on_call, fitted, strict=True):
            media = each.records["media_sample"]
            # A dump without arrivals shows nothing.
            media_zero = sum(
                span.first_rtp_timestamp - sender.first_rtp_timestamp for span in each.watch.spans
            )
            starts = np.array([piece.media_start_sample for piece in pieces])
            which = np.searchsorted(starts, media, side="right") - 1
            begin = np.array([piece.server_start_unix_ns for piece in pieces])[which]
            rate = np.array([piece.clock_rate_ratio for piece in pieces])[which]
            put_ns = begin + (media - starts[which]) * rate * 1e9 / 48_000
            away = np.ones(len(media), dtype=bool)
            for at, _ in sender.stalls:
                away &= np.abs((media + media_zero) / 48_000 - at) > 1.0
            true_ns = server_unix_ns(sender, media + media_zero)
            errors.append(float(np.abs(put_ns - true_ns)[away].max()) / MS)
            bounds.append((min(piece.sync_error_ns for piece in pieces) + doubt_ns) / MS)
        placed[archive, name] = Placed(
            error_ms=max(errors), bound_ms=min(bounds), packet_runs=len(runs)
        )
    return clocks, placed


def _sizes_ms(clock: ServerClock) -> list[int]:
    return [round(step.size_ns / MS) for step in clock.steps]


def _talk(name: str, **changes: Any) -> Sender:
    """A sender of a voice of its own."""
    number = sum(map(ord, name))
    fields: dict[str, Any] = {"seconds": 100.0, "jitter_ms": 5.0, "skew_ppm": number % 80 - 40.0}
    return Sender(**{**fields, "seed": number, "ssrc": number, **changes})


def _call(size_s: float, at_s: float = 50.0, **changes: Any) -> dict[str, list[Sender]]:
    """Two who stay, one who leaves before the step and one who comes after."""
    steps = ((at_s, size_s),)
    return {
        "stays": [_talk("stays", server_steps=steps, **changes)],
        "listens": [_talk("listens", server_steps=steps, start_s=1.3, seconds=97, **changes)],
        "left": [_talk("left", server_steps=steps, start_s=3.0, seconds=30, **changes)],
        "came": [_talk("came", server_steps=steps, start_s=60.0, seconds=35, **changes)],
    }


# --- one clock that is set ------------------------------------------------------------------------


@pytest.mark.parametrize("report_every_s", [5.0, None], ids=["reports", "no_reports"])
@pytest.mark.parametrize("size_s", [-1.9, -0.8, -0.06, 0.06, 0.3, 1.9])
def test_step_that_all_show_moves_nobody(size_s: float, report_every_s: float | None) -> None:
    clocks, placed = _place({"a": _call(size_s, report_every_s=report_every_s)})

    (step,) = clocks["a"].steps
    assert abs(step.size_ns / SECOND - size_s) < 0.003
    assert abs(step.at_unix_ns - CALL_START_NS - 50 * SECOND) < 50 * MS
    for one in placed.values():
        assert one.error_ms < 3.0
        assert one.error_ms < one.bound_ms < 10.0


@pytest.mark.parametrize("size_s", [-4.0, -2.1, 2.1, 4.0])
@pytest.mark.parametrize(
    "silence",
    [{}, {"dtx": ((45.0, 12.0),)}, {"dtx": ((45.0, 12.0),), "dtx_refresh_s": None}],
    ids=["speech", "refreshed", "mute"],
)
def test_step_of_seconds_parts_and_loses_nothing_that_is_heard(
    size_s: float, silence: dict[str, Any]
) -> None:
    people = _call(size_s)
    people["pauses"] = [_talk("pauses", server_steps=((50.0, size_s),), **silence)]

    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([size_s * 1_000], abs=3)
    for one in placed.values():
        assert one.error_ms < 3.0
        assert one.error_ms < one.bound_ms


def test_clock_that_is_set_there_and_back_is_told_twice() -> None:
    steps = ((40.0, 0.7), (70.0, -0.4))
    people = {
        name: [_talk(name, server_steps=steps, start_s=start_s, seconds=seconds)]
        for name, start_s, seconds in (
            ("stays", 0.0, 100),
            ("listens", 1.0, 98),
            ("between", 45.0, 20),
            ("came", 75.0, 20),
        )
    }
    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([700, -400], abs=3)
    for one in placed.values():
        assert one.error_ms < 3.0
        assert one.error_ms < one.bound_ms


def test_segments_of_one_participant_move_as_they_lie_about_the_step() -> None:
    steps = ((50.0, -0.8),)
    people = _call(-0.8)
    people["comes and goes"] = [
        _talk("x", server_steps=steps, start_s=10.0, seconds=20),
        _talk("y", server_steps=steps, start_s=40.0, seconds=20),
        _talk("z", server_steps=steps, start_s=70.0, seconds=20),
    ]
    _, placed = _place({"a": people})

    assert placed["a", "comes and goes"].packet_runs == 3
    assert placed["a", "comes and goes"].error_ms < 3.0


def test_stall_and_path_of_their_own_stay_beside_the_step() -> None:
    people = _call(-0.8)
    people["stalls"] = [_talk("stalls", server_steps=((50.0, -0.8),), stalls=((30.0, 0.25),))]
    people["roams"] = [_talk("roams", server_steps=((50.0, -0.8),), paths=((70.0, 0.08),))]

    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([-800], abs=3)
    assert placed["a", "stalls"].error_ms < 5.0
    assert placed["a", "roams"].error_ms < 5.0


def test_one_who_stalls_at_the_step_denies_nothing() -> None:
    people = _call(-0.8)
    people["stalls"] = [_talk("stalls", server_steps=((50.0, -0.8),), stalls=((49.5, 0.3),))]

    clocks, _ = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([-800], abs=3)


def test_step_close_to_the_end_of_somebody_moves_him_as_the_others() -> None:
    """Too late for him to show it; his last packets come by the new clock all the same."""
    people = _call(-0.8)
    people["leaves"] = [_talk("leaves", server_steps=((50.0, -0.8),), seconds=51.5)]
    people["joins"] = [_talk("joins", server_steps=((50.0, -0.8),), start_s=48.2, seconds=40)]

    _, placed = _place({"a": people})

    for name in ("leaves", "joins"):
        assert placed["a", name].error_ms < 5.0


@pytest.mark.parametrize("report_every_s", [5.0, None], ids=["reports", "no_reports"])
@pytest.mark.parametrize("size_s", [-1.9, -0.8, 0.8, 1.9])
def test_dump_without_arrivals_is_in_doubt_where_a_step_is_somewhere_in_it(
    size_s: float, report_every_s: float | None
) -> None:
    people = _call(size_s)
    steps = ((50.0, size_s),)
    people["spans it"] = [
        _talk("z", server_steps=steps, zero_offsets=True, report_every_s=report_every_s)
    ]
    people["is behind"] = [_talk("zz", server_steps=steps, zero_offsets=True, start_s=60.0)]

    _, placed = _place({"a": people})

    for name in ("spans it", "is behind"):
        assert placed["a", name].error_ms < placed["a", name].bound_ms
    assert placed["a", "is behind"].error_ms < 5.0


@pytest.mark.parametrize("size_s", [-0.4, 0.4])
def test_packets_that_were_overtaken_hide_no_step(size_s: float) -> None:
    people = _call(size_s, reorder_every=7, reorder_by=20)

    clocks, _ = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([1_000 * size_s], abs=3)


@pytest.mark.parametrize("size_s", [-0.4, 0.4])
def test_reports_of_those_who_were_gone_show_a_step_that_nobody_saw(size_s: float) -> None:
    steps = ((50.0, size_s),)
    people = {
        name: [
            _talk(name, server_steps=steps, seconds=40),
            _talk(f"{name} again", server_steps=steps, start_s=55.0, seconds=35),
        ]
        for name in ("one", "other")
    }
    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([1_000 * size_s], abs=5)
    for one in placed.values():
        assert one.error_ms < 5.0
        assert one.error_ms < one.bound_ms


def test_reports_of_one_who_was_gone_beside_others_show_no_step() -> None:
    people = {
        name: [
            _talk(name, seconds=40),
            _talk(f"{name} again", start_s=55.0, seconds=35, wall_error_s=wall_error_s),
        ]
        for name, wall_error_s in (("one", -0.4), ("other", -0.4), ("third", 0.0))
    }
    assert _place({"a": people})[0]["a"] == ServerClock()


# --- what is no step of the server ----------------------------------------------------------------


@pytest.mark.parametrize("size_s", [0.06, 0.3])
def test_one_alone_shows_no_step_of_the_server(size_s: float) -> None:
    steps = ((50.0, size_s),)
    people = {
        "alone": [_talk("alone", server_steps=steps, report_every_s=None)],
        "left": [_talk("left", server_steps=steps, seconds=40)],
    }
    assert _place({"a": people})[0]["a"] == ServerClock()


@pytest.mark.parametrize("size_s", [-0.8, -0.06])
@pytest.mark.parametrize("report_every_s", [5.0, None], ids=["reports", "no_reports"])
def test_one_alone_whose_times_go_back_shows_a_step(
    size_s: float, report_every_s: float | None
) -> None:
    """No stall and no path lets one packet arrive before another that arrived before it."""
    steps = ((50.0, size_s),)
    people = {
        "alone": [_talk("alone", server_steps=steps, report_every_s=report_every_s)],
        "came": [_talk("came", server_steps=steps, start_s=60.0, seconds=35)],
    }
    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == pytest.approx([1_000 * size_s], abs=3)
    for one in placed.values():
        assert one.error_ms < 3.0
        assert one.error_ms < one.bound_ms < 20.0


@pytest.mark.parametrize(
    ("size_s", "report_every_s"), [(0.8, None), (0.3, 5.0)], ids=["long_stall", "path_by_reports"]
)
def test_what_one_alone_shows_that_is_hardly_his_is_in_doubt_behind_it(
    size_s: float, report_every_s: float | None
) -> None:
    steps = ((50.0, size_s),)
    people = {
        "alone": [_talk("alone", server_steps=steps, report_every_s=report_every_s)],
        "left": [_talk("left", server_steps=steps, seconds=40)],
        "came": [_talk("came", server_steps=steps, start_s=60.0, seconds=35)],
    }
    clocks, placed = _place({"a": people})

    assert _sizes_ms(clocks["a"]) == [0]
    assert placed["a", "left"].bound_ms < 10.0
    for one in placed.values():
        assert one.error_ms < one.bound_ms


def test_stall_that_reports_of_one_alone_confirm_is_in_no_doubt() -> None:
    people = {"alone": [_talk("alone", stalls=((50.0, 0.8),))], "left": [_talk("left", seconds=40)]}

    assert _place({"a": people})[0]["a"] == ServerClock()


def test_two_of_three_that_stall_alike_show_no_step_of_the_server() -> None:
    stalls = ((50.0, 0.3),)
    people = {
        "one": [_talk("one", stalls=stalls, report_every_s=None)],
        "other": [_talk("other", stalls=stalls, report_every_s=None)],
        "third": [_talk("third", report_every_s=None)],
    }
    assert _place({"a": people})[0]["a"] == ServerClock()


def test_step_that_reports_of_one_confirm_is_a_stall() -> None:
    """Three captures on one machine that stood still: only one tells its wall clock."""
    stalls = ((50.0, 0.3),)
    people = {
        "one": [_talk("one", stalls=stalls, report_every_s=None)],
        "other": [_talk("other", stalls=stalls, report_every_s=None)],
        "tells": [_talk("tells", stalls=stalls)],
    }
    assert _place({"a": people})[0]["a"] == ServerClock()


def test_queues_that_drain_at_one_time_are_no_step_of_the_server() -> None:
    crowds = ((30.0, 10.0, 10.0, 3.0, 0.3),)
    people = {
        name: [_talk(name, crowds=crowds, report_every_s=None)] for name in ("one", "other", "more")
    }
    assert _place({"a": people})[0]["a"] == ServerClock()


@pytest.mark.parametrize("others", [(), ("third", "fourth")], ids=["alone", "beside_others"])
def test_packets_that_came_together_as_a_call_began_are_no_step_of_the_server(
    others: Sequence[str],
) -> None:
    people = {name: [_talk(name, first_together_s=2.0)] for name in ("one", "other")}
    people |= {name: [_talk(name)] for name in others}

    assert _place({"a": people})[0]["a"] == ServerClock()


def test_two_archives_decide_each_for_itself() -> None:
    people = _call(-0.8)
    elsewhere = {name: [_talk(name, start_s=2.0, seconds=90)] for name in ("far", "away")}

    clocks, placed = _place({"a": people, "b": elsewhere})

    assert _sizes_ms(clocks["a"]) == pytest.approx([-800], abs=3)
    assert clocks["b"].steps == ()
    assert placed["b", "far"].error_ms < 3.0


# --- two clocks that do not agree -----------------------------------------------------------------


def _over_two(ahead_s: float, **changes: Any) -> dict[str, list[Sender]]:
    """Who is in the second archive: one who was in the first as well, and one who was not."""
    return {
        "both": [
            _talk("both again", start_s=50.0, seconds=40, server_ahead_s=ahead_s, **changes),
        ],
        "new": [_talk("new", start_s=52.0, seconds=35, server_ahead_s=ahead_s)],
    }


@pytest.mark.parametrize("ahead_s", [-3.0, 3.0])
def test_participant_on_both_servers_tells_how_far_they_are_apart(ahead_s: float) -> None:
    first = {name: [_talk(name, seconds=45)] for name in ("both", "old")}

    clocks, placed = _place({"a": first, "b": _over_two(ahead_s)})

    assert (
        abs(
            sum(
                clock.ahead_ns * sign
                for clock, sign in zip((clocks["b"], clocks["a"]), (1, -1), strict=True)
            )
            / SECOND
            - ahead_s
        )
        < 0.01
    )
    for one in placed.values():
        assert one.error_ms < 10.0
        assert one.error_ms < one.bound_ms
    # One wall clock says it, which may have been set itself.
    assert placed["b", "new"].bound_ms > 3_000


def test_two_on_both_servers_leave_little_doubt() -> None:
    names = ("both", "as well")
    first = {name: [_talk(name, seconds=45, wall_error_s=len(name))] for name in names}
    second = {
        name: [
            _talk(
                name, start_s=50.0, seconds=40, server_ahead_s=3.0, ssrc=5, wall_error_s=len(name)
            )
        ]
        for name in names
    }
    _, placed = _place({"a": first, "b": second})

    for one in placed.values():
        assert one.error_ms < 10.0
        assert one.error_ms < one.bound_ms < 250


def test_packets_that_both_servers_have_tell_it_without_reports() -> None:
    same = _talk("both", seconds=60, report_every_s=None)
    first = {"both": [same], "old": [_talk("old", seconds=45, report_every_s=None)]}
    second = {
        "both": [replace(same, server_ahead_s=3.0)],
        "new": [_talk("new", start_s=20, seconds=35, server_ahead_s=3.0, report_every_s=None)],
    }
    _, placed = _place({"a": first, "b": second})

    for one in placed.values():
        assert one.error_ms < 5.0
        assert one.error_ms < one.bound_ms < 250


def _go_on_without_reports(names: Sequence[str]) -> tuple[dict[str, ServerClock], Any]:
    """Returns two archives of servers 3 s apart, some of whose senders' time stamps go on."""
    first = {name: [_talk(name, seconds=45, report_every_s=None)] for name in (*names, "old")}
    second = _over_two(3.0, report_every_s=None)
    for name in names:
        second[name] = [
            _talk(
                name,
                start_s=50.0,
                seconds=40,
                server_ahead_s=3.0,
                first_rtp_timestamp=10_000 + 50 * 48_000,
                report_every_s=None,
            )
        ]
    return _place({"a": first, "b": second})


def test_time_stamps_of_two_that_go_on_tell_it_without_reports() -> None:
    clocks, placed = _go_on_without_reports(["both", "as well"])

    assert clocks["b"].ahead_ns == pytest.approx(3 * SECOND, abs=10 * MS)
    for one in placed.values():
        assert one.error_ms < one.bound_ms


def test_time_stamps_of_one_alone_that_go_on_are_in_the_bound() -> None:
    """A sender's clock that stood for 3 s between the archives looks the same."""
    clocks, _ = _go_on_without_reports(["both"])

    assert clocks["b"].ahead_ns == 0
    assert clocks["b"].doubt_ns == pytest.approx(3 * SECOND, abs=10 * MS)


def test_numbers_that_begin_again_in_a_later_archive_are_not_the_same_packets() -> None:
    clocks, _ = _place(
        {"a": {"x": [_talk("x", seconds=10)]}, "b": {"x": [_talk("x", start_s=50.0, seconds=10)]}}
    )

    assert clocks["b"].ahead_ns == 0


def test_servers_that_write_at_once_are_apart_by_less_than_two_paths() -> None:
    """Two archives one after the other are of one server, most likely; two at once are not."""
    names = ("both", "as well")
    first = {name: [_talk(name, seconds=45)] for name in names}
    first["stays"] = [_talk("stays", seconds=95)]
    second = {
        name: [_talk(name, start_s=50.0, seconds=40, server_ahead_s=0.15, ssrc=5)] for name in names
    }
    second["elsewhere"] = [_talk("elsewhere", start_s=2.0, seconds=90, server_ahead_s=0.15)]

    clocks, _ = _place({"a": first, "b": second})

    assert clocks["b"].ahead_ns == pytest.approx(150 * MS, abs=10 * MS)


def test_archives_are_tied_through_others_that_begin_later() -> None:
    """Who is on both is in the first archive of one server and in the second of the other."""
    calls = {
        "a": {"stays": [_talk("stays", seconds=40)]},
        "b": {"both": [_talk("both", start_s=2.0, seconds=38, server_ahead_s=3.0)]},
        "c": {
            "stays": [_talk("stays", start_s=50.0, seconds=40, ssrc=7)],
            "both": [_talk("both", start_s=51.0, seconds=40, ssrc=9)],
        },
    }
    clocks, placed = _place(calls)

    assert clocks["b"].ahead_ns == pytest.approx(3 * SECOND, abs=10 * MS)
    assert clocks["c"].ahead_ns == 0
    for one in placed.values():
        assert one.error_ms < one.bound_ms


def test_servers_that_agree_are_left_as_they_are() -> None:
    """Another path to the other server, and the wall clock of one was set meanwhile."""
    first = {name: [_talk(name, seconds=45)] for name in ("both", "set", "old")}
    second = _over_two(0.0, paths=((0.0, 0.06),))
    second["set"] = [_talk("set", start_s=50.0, seconds=40, ssrc=7, wall_error_s=1.5)]

    clocks, _ = _place({"a": first, "b": second})

    assert clocks == {"a": ServerClock(), "b": ServerClock()}


def test_participants_who_contradict_each_other_leave_a_doubt() -> None:
    first = {name: [_talk(name, seconds=45)] for name in ("both", "other", "old")}
    second = _over_two(3.0)
    second["other"] = [
        _talk("other", start_s=50, seconds=40, server_ahead_s=3.0, ssrc=7, wall_error_s=1.5)
    ]
    clocks, placed = _place({"a": first, "b": second})

    assert clocks["b"].ahead_ns == 0
    for one in placed.values():
        assert one.error_ms < one.bound_ms


def test_servers_that_nobody_saw_both_of_are_taken_to_agree() -> None:
    first = {"old": [_talk("old", seconds=45)]}
    second = {"new": [_talk("new", start_s=50.0, seconds=35, server_ahead_s=3.0)]}

    clocks, _ = _place({"a": first, "b": second})

    assert clocks == {"a": ServerClock(), "b": ServerClock()}


def test_track_that_seems_to_be_in_two_places_at_once_puts_clocks_in_doubt() -> None:
    first = {"both": [_talk("both", seconds=45, report_every_s=None)]}
    second = _over_two(-8.0, report_every_s=None)

    clocks, _ = _place({"a": first, "b": second})

    assert clocks["b"].ahead_ns == 0
    assert 2 * SECOND < clocks["b"].doubt_ns < 4 * SECOND


def test_archive_that_the_same_server_began_after_a_step_goes_on_by_it() -> None:
    first = _call(-0.8)
    second = {
        "stays": [_talk("stays", start_s=105.0, seconds=40, server_ahead_s=-0.8, ssrc=3)],
        "new": [_talk("new", start_s=106.0, seconds=35, server_ahead_s=-0.8)],
    }
    clocks, placed = _place({"a": first, "b": second})

    assert clocks["b"].ahead_ns == pytest.approx(-0.8 * SECOND, abs=3 * MS)
    assert placed["b", "new"].error_ms < 5.0
    assert placed["b", "new"].bound_ms < 10.0


def test_archive_after_a_step_that_nobody_ties_to_it_is_in_doubt() -> None:
    second = {"new": [_talk("new", start_s=106.0, seconds=35, server_ahead_s=-0.8)]}

    clocks, placed = _place({"a": _call(-0.8), "b": second})

    assert clocks["b"].doubt_ns == pytest.approx(0.8 * SECOND, abs=3 * MS)
    assert placed["b", "new"].error_ms < placed["b", "new"].bound_ms


# --- hostile --------------------------------------------------------------------------------------


def _hostile_watch(seed: int) -> ClockWatch:
    rng = np.random.default_rng(seed)
    sightings = [
        StepSighting(
            since_unix_ns=at - 5 * MS,
            at_unix_ns=at,
            size_ns=int(size),
            noise_ns=MS,
            is_lasting=True,
            is_stall=False,
        )
        for at, size in zip(
            rng.integers(0, 3 * SECOND, caps.MAX_STEP_SIGHTINGS).tolist(),
            rng.integers(50 * MS, 90 * MS, caps.MAX_STEP_SIGHTINGS).tolist(),
            strict=True,
        )
    ]
    span = WatchedSpan(
        begin_unix_ns=-100 * SECOND,
        stop_unix_ns=100 * SECOND,
        least_step_ns=MS,
        ssrc=seed,
        first_rtp_timestamp=0,
    )
    return ClockWatch(sightings=tuple(sightings), spans=(span,) * caps.MAX_WATCHED_SPANS, walls=())


def test_thousands_of_steps_at_once_cost_seconds_at_most() -> None:
    witnesses = [
        Witness(participant_id=str(number), watch=_hostile_watch(number)) for number in range(300)
    ]
    began = time.process_time()
    find_server_steps(witnesses)
    assert time.process_time() - began < 10
