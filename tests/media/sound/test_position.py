"""Everything sits at its server time, whatever clocks and networks did: simulated calls with the
truth known to the sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.positions import (
    CALLS,
    EXACT_MS,
    GOOD_MS,
    HOURS,
    MINUTE,
    MS,
    Pressed,
    an_hour,
    check,
    find_all,
    forty_segments,
    press,
    pressed_call,
    twenty_minutes,
)
from tests.support.simulation.calls import Person
from tests.support.simulation.sender import CALL_START_NS, Sender
from transforms.media.units import SAMPLE_RATE_HZ


@pytest.fixture(scope="module")
def call(request: pytest.FixtureRequest) -> Iterator[Pressed]:
    """One of `CALLS` for all tests of it, which pytest puts next to each other: what all of them
    sound like is gigabytes.
    """
    yield pressed_call(request.param)
    pressed_call.cache_clear()


@pytest.mark.parametrize(
    ("call", "which"),
    [
        pytest.param(name, (name, session), id=f"{name}-{session}")
        for name, cases in CALLS.items()
        for session in cases
    ],
    indirect=["call"],
    scope="module",
)
def test_everything_is_at_its_server_time(call: Pressed, which: tuple[str, str]) -> None:
    name, session = which
    case = CALLS[name][session]
    check(call, session, case.limit_ms, least=case.least)


@pytest.mark.parametrize("call", ["stalls"], indirect=True)
@pytest.mark.parametrize(
    "session", [name for name in CALLS["stalls"] if name != "20_ms_without_reports"]
)
def test_stalls_are_placed_within_20_ms(call: Pressed, session: str) -> None:
    track = call.tracks[session]
    starts = [row.server_start_unix_ns for row in track.stats.segments]
    (segment,) = track.segments
    for at_s, _ in segment.sender.stalls:
        (belongs,) = segment.server_unix_ns([round(at_s * SAMPLE_RATE_HZ)])
        assert min(abs(start - belongs) for start in starts) <= 20 * MS


@pytest.mark.parametrize("call", ["loss"], indirect=True)
@pytest.mark.parametrize(
    "session", [name for name, case in CALLS["loss"].items() if not case.senders[0].skew_ppm]
)
def test_loss_leaves_the_length(call: Pressed, session: str) -> None:
    track = call.tracks[session]
    (segment,) = track.segments
    sent = int(segment.media_sample[-1]) + 960
    lost_at_the_ends = 10 * 960
    assert sent - 312 - lost_at_the_ends <= track.stats.duration_samples <= sent - 312
    assert track.stats.duration_samples == len(track.mkv if track.mkv is not None else [])


@pytest.mark.slow
def test_forty_segments_share_one_clock() -> None:
    pressed = forty_segments()
    check(pressed, "a", GOOD_MS, least=80)
    rows = pressed.tracks["a"].stats.segments
    assert len(rows) == 40
    assert len({row.clock_skew_ppm for row in rows}) == 1


@pytest.mark.parametrize("shift_s", [0.0, 0.007, 0.0131], ids=str)
def test_what_two_segments_hold_is_heard_once(shift_s: float) -> None:
    """Two recorders of one microphone; the second one's packets need not lie on the first one's."""
    first = Sender(
        seconds=30, seed=3, markers_s=tuple(1.0 + 3 * k for k in range(10)), base_filename="a"
    )
    begin_s = 12.0 + shift_s
    second = replace(
        first,
        start_s=begin_s,
        markers_s=tuple(
            at - begin_s for at in (13.0, 16.0, 19.0, 22.0, 25.0, 28.0, 31.0, 34.0, 37.0)
        ),
        first_marker=4,
        ssrc=9,
        base_filename="b",
    )
    pressed = press([[Person(name="a", session="a", senders=[first, second])]])
    check(pressed, "a", EXACT_MS, least=18)
    assert min(one.mix.gain for one in find_all(pressed, "a")) > 0.7


def test_participant_who_comes_and_goes_is_placed_each_time() -> None:
    often = Sender(seconds=20, markers_s=(1.0, 7.0, 13.0, 18.0))
    again = replace(often, start_s=25.017, seed=2, ssrc=5, jitter_ms=5, skew_ppm=50.0)
    anew = replace(often, start_s=50.003, seed=3, ssrc=6)
    twice = replace(often, start_s=0.5, seed=4)
    pressed = press(
        [
            [
                Person(name="alice", session="one", senders=[often, again], metadata_files=2),
                Person(name="alice", session="two", senders=[anew]),
                Person(name="bob", session="bob", senders=[twice], listed_twice=True),
            ]
        ]
    )
    for session in ("one", "two", "bob"):
        check(pressed, session, GOOD_MS, least=4)


def test_session_over_two_archives_beside_one_who_is_late() -> None:
    first = Sender(seconds=20, start_s=90, markers_s=(1.0, 7.0, 13.0, 18.0))
    second = replace(first, start_s=121.003, seed=2, ssrc=5)
    late = replace(first, start_s=390, seed=3)
    pressed = press(
        [
            [Person(name="a", session="a", senders=[first])],
            [
                Person(name="a", session="a", senders=[second]),
                Person(name="late", session="late", senders=[late]),
            ],
        ]
    )
    assert pressed.stats.start_unix_ns == pytest.approx(CALL_START_NS + 90e9 + 30e6, abs=MS)
    check(pressed, "a", EXACT_MS, least=8)
    check(pressed, "late", EXACT_MS, least=4)


@pytest.mark.parametrize("report_every_s", [5.0, None], ids=["reports", "no_reports"])
def test_voices_stay_in_step_when_the_clock_of_the_server_is_set_back(
    report_every_s: float | None,
) -> None:
    """Two are there, one left before and one comes after: markers of all are where they belong, and
    as long as they were.
    """
    base = replace(MINUTE, jitter_ms=5, report_every_s=report_every_s, server_steps=((33.0, -0.8),))
    people = {
        "stays": replace(base, skew_ppm=40.0),
        "listens": replace(base, skew_ppm=-60.0, start_s=0.41),
        "left": replace(base, seconds=20, start_s=0.82, markers_s=(1.0, 7.0, 13.0)),
        "came": replace(base, seconds=20, start_s=42.01, markers_s=(1.0, 7.0, 13.0)),
    }
    pressed = press(
        [
            [
                Person(name=name, session=name, senders=[replace(sender, seed=7 + number)])
                for number, (name, sender) in enumerate(people.items())
            ]
        ]
    )
    for name, sender in people.items():
        check(pressed, name, EXACT_MS, least=len(sender.markers_s))
        rows = pressed.tracks[name].stats.segments
        assert len(rows) == 1
        assert rows[0].sync_error_ns < 15 * MS


def test_voices_of_two_servers_that_do_not_agree_are_put_in_step() -> None:
    first = replace(MINUTE, seconds=30, jitter_ms=5, markers_s=(1.0, 7.0, 13.0, 19.0))
    later = replace(first, start_s=40.0, server_ahead_s=3.0, ssrc=5, seed=3)
    pressed = press(
        [
            [
                Person(name="both", session="both", senders=[first]),
                Person(name="too", session="too", senders=[replace(first, start_s=1.1, seed=4)]),
            ],
            [
                Person(name="both", session="both", senders=[later]),
                Person(name="too", session="too", senders=[replace(later, start_s=41.1, seed=5)]),
                Person(name="new", session="new", senders=[replace(later, start_s=42.3, seed=6)]),
            ],
        ]
    )
    for name, least in (("both", 8), ("too", 8), ("new", 4)):
        check(pressed, name, GOOD_MS, least=least)


def test_thirty_participants_are_each_at_their_moment() -> None:
    people = [
        Person(
            name=f"p{number}",
            session=f"p{number}",
            senders=[
                Sender(
                    seconds=3,
                    start_s=0.137 * number,
                    seed=number + 1,
                    markers_s=(1.0 + 0.13 * (number % 7),),
                    ssrc=number + 1,
                    wall_error_s=3.0 * number,
                )
            ],
        )
        for number in range(30)
    ]
    pressed = press([people], with_mkv=False)
    for number in range(30):
        check(pressed, f"p{number}", EXACT_MS, least=1)


@pytest.fixture(scope="module")
def minutes() -> Iterator[Pressed]:
    yield twenty_minutes()
    twenty_minutes.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("session", "limit_ms"),
    [
        ("plus_150_ppm", GOOD_MS),
        ("minus_150_ppm", GOOD_MS),
        ("no_arrivals_skewed", 25),
        ("no_arrivals_no_reports", 25),
        ("no_arrivals_wall_clock_off", 25),
    ],
)
def test_twenty_minutes_are_in_place_to_the_end(
    minutes: Pressed, session: str, limit_ms: float
) -> None:
    check(minutes, session, limit_ms, least=20)


@pytest.fixture(scope="module")
def hour() -> Iterator[Pressed]:
    yield an_hour()
    an_hour.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("session", HOURS)
def test_an_hour_is_in_place_to_the_end(hour: Pressed, session: str) -> None:
    check(hour, session, GOOD_MS, least=40)
