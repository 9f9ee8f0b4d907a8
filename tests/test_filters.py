"""Filters: which calls and tracks a run is about."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.beam import CALL
from transforms.filters import CALL_FLAG, EXCLUDED_CALL_FLAG, Filters, TrackNames, is_glob
from transforms.media.values import CallKey, OutputType, TrackKey

AUDIO, SHARED = OutputType.AUDIO_ONLY, OutputType.SCREENSHARE_AUDIO_ONLY
CIDS = ("support:1", "support:*", "Support:1", "default:a b\nc")
FOUND_BY = {
    "support:1": {"support:1"},
    "support:*": {"support:1", "support:*"},
    "*": set(CIDS),
    "*:?": {"support:1", "support:*", "Support:1"},
    "[sS]upport:1": {"support:1", "Support:1"},
    "support:[!1]": {"support:*"},
    "support:[*]": {"support:*"},
    "default:a*c": {"default:a b\nc"},
    "support:": set(),
    "support:[": set(),
    "upport:*": set(),
    "SUPPORT:*": set(),
}
"""Which of these calls each value stands for."""
_CALLS = st.lists(st.sampled_from(sorted(FOUND_BY)), max_size=2).map(tuple)


@pytest.mark.parametrize("value", FOUND_BY)
@pytest.mark.parametrize("cid", CIDS)
def test_value_stands_for_the_calls_it_matches(value: str, cid: str) -> None:
    is_found = cid in FOUND_BY[value]
    assert Filters(calls=(value,)).wants_cid(cid) is is_found
    assert Filters(excluded_calls=(value,)).wants_cid(cid) is not is_found
    assert Filters(calls=(cid,), excluded_calls=(value,)).wants_cid(cid) is not is_found


@pytest.mark.parametrize("cid", ["a:[x]", "a:[!]", "a:]x[", "a:[", "a:[]", "a:[!]]", "a:*?[]"])
def test_call_with_odd_characters_is_found_by_itself(cid: str) -> None:
    assert Filters(calls=(cid,)).wants_cid(cid)


@given(st.text("ab:[]!-*?\n", max_size=8), st.text("ab:[]!-*?\n", max_size=8))
@example("a:[]", "a:[]")
@example("a:[!]", "a:[!]")
def test_what_is_no_glob_stands_for_itself_alone(value: str, other: str) -> None:
    assert Filters(calls=(value,)).wants_cid(value)
    if is_glob(value):
        assert re.search(r"[*?]|\[.*\]", value, re.DOTALL)
        Filters(calls=(value,)).wants_cid(other)  # whatever it is, it is no error
    else:
        assert fnmatchcase(other, value) is (other == value)


@given(
    track=st.builds(
        TrackKey,
        call=st.sampled_from(CIDS).map(
            lambda cid: CallKey(
                call_type=cid.partition(":")[0], call_id=cid.partition(":")[2], call_session_id="s"
            )
        ),
        participant_id=st.sampled_from(["ann", "bob"]),
        user_session_id=st.sampled_from(["s1", "s2"]),
        output_type=st.sampled_from(OutputType),
    ),
    track_ids=st.sets(st.sampled_from(["t1", "t2", "t3"])),
    calls=_CALLS,
    excluded_calls=_CALLS,
    people=st.tuples(*[st.sets(st.sampled_from(["ann", "bob", "eve"]), max_size=2)] * 2),
    sessions=st.sets(st.sampled_from(["s1", "s2", "s3"]), max_size=2),
    wanted_ids=st.sets(st.sampled_from(["t1", "t2", "t4"]), max_size=2),
    types=st.sets(st.sampled_from(OutputType), max_size=2),
)
def test_track_is_wanted_by_every_kind_that_is_given_and_by_none_that_is_excluded(
    track: TrackKey,
    track_ids: set[str],
    calls: tuple[str, ...],
    excluded_calls: tuple[str, ...],
    people: tuple[set[str], set[str]],
    sessions: set[str],
    wanted_ids: set[str],
    types: set[OutputType],
) -> None:
    who, not_who = people
    asked = [
        any(track.call.cid in FOUND_BY[value] for value in calls) if calls else None,
        track.participant_id in who if who else None,
        track.user_session_id in sessions if sessions else None,
        bool(track_ids & wanted_ids) if wanted_ids else None,
        track.output_type in types if types else None,
    ]
    left_out = track.participant_id in not_who or any(
        track.call.cid in FOUND_BY[value] for value in excluded_calls
    )
    filters = Filters(
        calls=calls,
        excluded_calls=excluded_calls,
        participants=tuple(who),
        excluded_participants=tuple(not_who),
        user_sessions=tuple(sessions),
        track_ids=tuple(wanted_ids),
        output_types=tuple(types),
    )

    assert filters.wants_track(track, track_ids) is (False not in asked and not left_out)
    assert filters.narrows_tracks is bool(who or not_who or sessions or wanted_ids or types)
    assert filters.is_about_a_part is bool(calls or filters.narrows_tracks)


def _names(cid: str = "default:a", participant_id: str = "bob", **names: object) -> TrackNames:
    given = {"user_session_id": "s1", "output_type": SHARED, "track_ids": ("t1", "t2"), **names}
    return TrackNames(call_cid=cid, participant_id=participant_id, **given)  # type: ignore[arg-type]


def test_a_name_counts_only_where_the_other_filters_let_it() -> None:
    filters = Filters(
        calls=("default:a",), participants=("bob",), user_sessions=("s1",), track_ids=("t1", "t3"),
        output_types=(SHARED,),
    )  # fmt: skip
    call, person = (CALL_FLAG, "default:a"), {("--participant", "bob"), ("--user-session", "s1")}
    track, shared = ("--track-id", "t1"), ("--output-type", "screenshare_audio_only")

    assert filters.matched_by(_names()) == {call, *person, shared, track}
    assert filters.matched_by(_names(output_type=AUDIO)) == {call, *person}
    assert filters.matched_by(_names(output_type=None, track_ids=())) == {call, *person}
    assert filters.matched_by(_names(user_session_id="s2")) == {call}
    assert filters.matched_by(_names(participant_id="eve")) == {call}
    assert filters.matched_by(_names("default:b")) == set()
    assert filters.all_named == {call, *person, shared, track, ("--track-id", "t3")}
    assert Filters().matched_by(_names()) == set()


def test_what_there_is_in_place_of_a_name_is_with_the_other_names() -> None:
    """Else one would be told that there are the sessions of others, or the very name."""
    filters = Filters(participants=("bob",), user_sessions=("s9",))

    assert ("--user-session", "s1") in filters.names_of(_names())
    assert ("--user-session", "s1") not in filters.names_of(_names(participant_id="eve"))
    assert ("--participant", "bob") not in filters.names_of(_names())


def test_calls_and_people_that_are_left_out_are_found_too() -> None:
    filters = Filters(
        calls=("default:*",), excluded_calls=("default:a", "x:*"), excluded_participants=("bob",)
    )
    globs, left_out = (CALL_FLAG, "default:*"), (EXCLUDED_CALL_FLAG, "default:a")

    assert filters.matched_by(_names()) == {globs, left_out}, "bob is in a call that is left out"
    assert filters.matched_by(_names("default:b")) == {globs, ("--exclude-participant", "bob")}
    assert filters.matched_by(_names("x:1")) == {(EXCLUDED_CALL_FLAG, "x:*")}


@pytest.mark.parametrize(
    ("filters", "mistakes"),
    [
        (Filters(calls=("a:b",)), [(CALL_FLAG, "a:b")]),
        (Filters(calls=("a:*",)), []),
        (Filters(calls=("a:*",), participants=("eve",)), []),
        (
            Filters(calls=("a:*", "a:b"), participants=("eve",)),
            [(CALL_FLAG, "a:b"), ("--participant", "eve")],
        ),
        (Filters(excluded_calls=("a:b",), excluded_participants=("eve",)), []),
        (
            Filters(excluded_calls=("a:*",), track_ids=("t",), user_sessions=("s",)),
            [("--track-id", "t"), ("--user-session", "s")],
        ),
    ],
)
def test_only_what_must_be_there_is_a_mistake(
    filters: Filters, mistakes: list[tuple[str, str]]
) -> None:
    assert filters.must_be_there(filters.all_named) == mistakes
    assert filters.must_be_there(frozenset()) == []


def test_people_are_missed_where_a_glob_finds_calls() -> None:
    filters = Filters(calls=("a:*", "b:*"), participants=("eve",))

    missing = {(CALL_FLAG, "a:*"), ("--participant", "eve")}
    assert filters.must_be_there(missing) == [("--participant", "eve")]


def test_many_stars_take_no_time() -> None:
    """Cids and patterns come from strangers."""
    assert not Filters(calls=("a:" + "*x" * 200,)).wants_cid("a:" + "x" * 4_000 + "y" * 200)
    assert Filters(calls=("*:" + "*x" * 200 + "*",)).wants_call(CALL) is False
