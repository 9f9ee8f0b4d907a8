"""Output names: the vendor's form for plain ids, safe for any id, and never one name for two."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.catalog.output_names import (
    call_folder,
    clock_drawing_name,
    composite_name,
    escape_id,
    individual_name,
)
from transforms.media.values import CallKey, Container, OutputType, TrackKey

PLAIN = CallKey(call_type="default", call_id="weekly-sync", call_session_id="s1")


def make_call(
    call_id: str = "weekly-sync", call_type: str = "default", session: str = "s1"
) -> CallKey:
    return CallKey(call_type=call_type, call_id=call_id, call_session_id=session)


def make_track(participant: str = "alice", session: str = "sess-1", **changes: Any) -> TrackKey:
    fields: dict[str, Any] = {"call": PLAIN, "output_type": OutputType.AUDIO_ONLY, **changes}
    return TrackKey(participant_id=participant, user_session_id=session, **fields)


def short_hash(*parts: str) -> str:
    text = json.dumps(list(parts), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_plain_ids_give_the_vendor_s_names() -> None:
    assert call_folder(PLAIN) == "default/weekly-sync/s1"
    assert (
        composite_name(PLAIN, 1_795_327_874_519)
        == "composite_default_weekly-sync_audio_1795327874519.mp3"
    )
    expected = "individual_default_weekly-sync_alice_sess-1_audio_only_17.mkv"
    assert individual_name(make_track(), 17, Container.MKV) == expected


@pytest.mark.parametrize("container", list(Container))
@pytest.mark.parametrize("output_type", list(OutputType))
def test_type_and_container_stand_in_the_name(
    container: Container, output_type: OutputType
) -> None:
    name = individual_name(make_track(output_type=output_type), 0, container)
    assert name == f"individual_default_weekly-sync_alice_sess-1_{output_type}_0.{container}"


def test_further_files_of_a_track_have_their_part_in_the_name() -> None:
    expected = "individual_default_weekly-sync_alice_sess-1_audio_only_17_part2.mkv"
    assert individual_name(make_track(), 17, Container.MKV, 2) == expected
    hashed = [
        individual_name(make_track("a_b"), 17, Container.MKV, part).rpartition("-")
        for part in (0, 1)
    ]
    assert [name[0].endswith(end) for name, end in zip(hashed, ("_17", "_part1"), strict=True)]
    assert hashed[0][2] == hashed[1][2]


def test_drawings_of_clocks_are_named_as_files_are() -> None:
    expected = "clock_default_weekly-sync_alice_sess-1_audio_only_17"
    assert clock_drawing_name(make_track(), 17) == f"{expected}.svg"
    assert clock_drawing_name(make_track(), 17, 2) == f"{expected}_part2.svg"
    for track in (make_track("a/../b"), make_track("x" * 500), make_track("..", "<svg onload=x>")):
        name = clock_drawing_name(track, 17)
        assert re.fullmatch(
            r"clock_default_weekly-sync_[\w.~-]+_audio_only_17-[0-9a-f]{8}\.svg", name
        )
        kept = (
            individual_name(track, 17, Container.MKV).removeprefix("individual").removesuffix("mkv")
        )
        assert name == f"clock{kept}svg"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("abc-1.2_3", "abc-1.2_3"),
        ("a b", "a~20b"),
        ("a/b\\c", "a~2fb~5cc"),
        ("~", "~7e"),
        ("é", "~c3~a9"),
        ("", ""),
        ("x" * 41, "x" * 40),
        ("x" * 39 + "é", "x" * 39),
        ("x" * 38 + "é", "x" * 38),
        ("x" * 37 + "é", "x" * 37 + "~c3"),
    ],
    ids=[
        "safe",
        "space",
        "slashes",
        "tilde",
        "accent",
        "empty",
        "long",
        "cut_1",
        "cut_2",
        "cut_whole",
    ],
)
def test_escapes_are_two_hex_digits_and_never_cut(text: str, escaped: str) -> None:
    assert escape_id(text) == escaped


@pytest.mark.parametrize(
    "call_id",
    ["Weekly", "a_b", "a b", "x" * 41, "..", "."],
    ids=["case", "line", "space", "long", "up", "here"],
)
def test_ids_that_could_be_mistaken_get_a_hash(call_id: str) -> None:
    call = make_call(call_id)
    assert call_folder(call) == f"default/{escape_id(call_id)}-{short_hash(call_id)}/s1"
    hashed = short_hash("default", call_id, "s1")
    assert composite_name(call, 5) == f"composite_default_{escape_id(call_id)}_audio_5-{hashed}.mp3"
    track = make_track(call=call)
    hashed = short_hash("default", call_id, "alice", "sess-1", "s1")
    expected = f"individual_default_{escape_id(call_id)}_alice_sess-1_audio_only_5-{hashed}.mkv"
    assert individual_name(track, 5, Container.MKV) == expected


_VALID = st.characters(exclude_categories=["Cs"])
ids = st.text(_VALID, max_size=60) | st.text(st.sampled_from("abAB_-.~/ 01é"), max_size=6)


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
def test_no_two_calls_share_a_folder_even_where_case_is_folded(
    one: tuple[str, ...], two: tuple[str, ...]
) -> None:
    folders = [
        call_folder(CallKey(call_type=a, call_id=b, call_session_id=c)).lower()
        for a, b, c in (one, two)
    ]
    assert (folders[0] == folders[1]) is (one == two)


@given(st.tuples(ids, ids, ids, ids), st.tuples(ids, ids, ids, ids))
def test_no_two_tracks_share_a_name_even_where_case_is_folded(
    one: tuple[str, ...], two: tuple[str, ...]
) -> None:
    names = [
        individual_name(make_track(c, d, call=make_call(b, a)), 0, Container.MKV).lower()
        for a, b, c, d in (one, two)
    ]
    assert (names[0] == names[1]) is (one == two)


@given(ids, ids, ids, ids)
def test_names_are_safe_everywhere(a: str, b: str, c: str, d: str) -> None:
    call = make_call(b, a, c)
    names = [
        *call_folder(call).split("/"),
        composite_name(call, 1),
        individual_name(make_track(c, d, call=call), 1, Container.MKV),
    ]
    assert len(names) == 5
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", name)
        assert len(name) <= 255
        assert name.strip(".")


def test_name_that_spells_another_s_hash_is_still_its_own() -> None:
    honest = call_folder(make_call(".."))
    forged = call_folder(make_call(honest.split("/")[1]))
    assert honest != forged
