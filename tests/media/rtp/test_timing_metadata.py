"""Timing metadata: every field as found, unknown where absent, and an error for each thing that
cannot be.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import make_timing_metadata
from tests.support.media import DATA
from transforms.media.errors import TimingMetadataError
from transforms.media.rtp.timing_metadata import (
    ReportedTime,
    SegmentTiming,
    SessionTiming,
    parse_timing_metadata,
)
from transforms.media.values import CallKey

MEMBER = "x/alice_timing_metadata.json"


def parse(**changes: Any) -> SessionTiming:
    return parse_timing_metadata(make_timing_metadata(**changes), MEMBER)


def test_golden_metadata_gives_every_field() -> None:
    golden = (DATA / "dave_timing_metadata.json").read_bytes()
    first, second = (
        SegmentTiming(
            base_filename="dave_audio_1",
            codec="audio/opus",
            track_id="t1",
            track_type="TRACK_TYPE_AUDIO",
            first_rtp_timestamp=4_294_967_295,
            last_rtp_timestamp=959,
            first_rtp_unix_ms=1_795_327_889_161,
            last_rtp_unix_ms=1_795_327_917_075,
            first_report=ReportedTime(rtp_timestamp=0, sender_unix_ms=1_795_327_891_495),
        ),
        SegmentTiming(
            base_filename="dave_audio_10",
            codec="audio/red",
            track_id="t2",
            track_type="TRACK_TYPE_SCREEN_SHARE_AUDIO",
            first_rtp_timestamp=0,
            last_rtp_timestamp=None,
            first_rtp_unix_ms=1_795_327_889_163,
            last_rtp_unix_ms=None,
        ),
    )
    assert parse_timing_metadata(golden, MEMBER) == SessionTiming(
        member=MEMBER,
        call=CallKey(
            call_type="default", call_id="weekly-sync", call_session_id="weekly-sync-2026-11-22"
        ),
        call_start_unix_ns=1_795_327_874_519_000_000,
        participant_id="dave / Zoë 🎧",
        user_session_id="sess-dave-1",
        audio=(first, second),
        video=(
            SegmentTiming(
                base_filename="dave_video_1",
                codec="video/VP8",
                track_id="t3",
                track_type="TRACK_TYPE_VIDEO",
                first_rtp_timestamp=1,
                last_rtp_timestamp=2,
                first_rtp_unix_ms=1_795_327_889_170,
                last_rtp_unix_ms=1_795_327_889_203,
            ),
        ),
    )


def test_byte_order_mark_is_no_part_of_the_text() -> None:
    assert (
        parse_timing_metadata(
            b"\xef\xbb\xbf" + make_timing_metadata(call_id="a"), MEMBER
        ).call.call_id
        == "a"
    )


@pytest.mark.parametrize(
    "segments",
    [..., None, {}, {"audio": None, "video": None}, {"audio": []}],
    ids=["absent", "null", "empty", "nulls", "one"],
)
def test_missing_lists_are_sessions_that_sent_nothing(segments: Any) -> None:
    session = parse(segments=segments)
    assert (session.audio, session.video) == ((), ())


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("2026-01-05T10:00:00Z", 1_767_607_200_000_000_000),
        ("2026-01-05T10:00:00.123456Z", 1_767_607_200_123_456_000),
        ("2026-01-05T10:00:00.123456789Z", 1_767_607_200_123_456_000),
        ("2026-01-05T12:00:00.5+02:00", 1_767_607_200_500_000_000),
        ("2026-01-05T10:00:00", 1_767_607_200_000_000_000),
        ("2026-01-05t10:00:00z", 1_767_607_200_000_000_000),
        ("2026-01-05T10:00:00.1Z", 1_767_607_200_100_000_000),
        ("2026-01-05T10:00:00.12345678-00:00", 1_767_607_200_123_456_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        ("2016-12-31t23:59:60.25z", 1_483_228_800_250_000_000),
        ("2016-12-31T15:59:60.000000001-08:00", 1_483_228_800_000_000_000),
        ("2026-01-05T10:00:60Z", None),
        ("2016-12-31T23:60:60Z", None),
        ("2016-12-31T23:59:61Z", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (1_767_607_200, None),
        (None, None),
        (..., None),
    ],
    ids=[
        "utc",
        "us",
        "ns",
        "offset",
        "naive",
        "small_letters",
        "tenth",
        "eight_digits",
        "leap_second",
        "part_of_a_leap_second",
        "leap_second_elsewhere",
        "second_60",
        "minute_60",
        "second_61",
        "far",
        "go_zero",
        "words",
        "empty",
        "number",
        "null",
        "absent",
    ],
)
def test_call_start_is_read_or_unknown(text: Any, unix_ns: int | None) -> None:
    assert parse(call_start_time=text).call_start_unix_ns == unix_ns


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (4_294_967_295, 4_294_967_295),
        (12.0, 12),
        (-5, -5),
        (True, None),
        ("12", None),
        (None, None),
        (1 << 70, None),
        (float("nan"), None),
        (float("inf"), None),
        (..., None),
    ],
    ids=[
        "zero",
        "most",
        "float",
        "negative",
        "boolean",
        "text",
        "null",
        "over_64_bits",
        "nan",
        "infinite",
        "absent",
    ],
)
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("first_rtp_rtp_timestamp", "first_rtp_timestamp"),
        ("last_rtp_rtp_timestamp", "last_rtp_timestamp"),
    ],
)
def test_numbers_are_as_found_or_unknown(
    name: str, field: str, value: Any, expected: int | None
) -> None:
    entry = {"base_filename": "a"} | ({} if value is ... else {name: value})
    (segment,) = parse(segments={"audio": [entry]}).audio
    assert getattr(segment, field) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_767_607_200_000, 1_767_607_200_000),
        (1_767_607_200_000.0, 1_767_607_200_000),
        (31_536_000_000, 31_536_000_000),
        (31_535_999_999, None),
        (7_258_118_399_999, 7_258_118_399_999),
        (7_258_118_400_000, None),
        (0, None),
        (-62_135_596_800_000, None),
        ("1767607200000", None),
        (..., None),
    ],
    ids=["time", "float", "1971", "before", "2199", "after", "zero", "year_1", "text", "absent"],
)
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("first_rtp_unix_timestamp", "first_rtp_unix_ms"),
        ("last_rtp_unix_timestamp", "last_rtp_unix_ms"),
    ],
)
def test_times_are_those_a_call_can_have_been_at(
    name: str, field: str, value: Any, expected: int | None
) -> None:
    entry = {"base_filename": "a"} | ({} if value is ... else {name: value})
    (segment,) = parse(segments={"audio": [entry]}).audio
    assert getattr(segment, field) == expected


def test_segments_are_ordered_by_first_arrival_then_name() -> None:
    listed = [("c", 30), ("b", 20), ("a", 30), ("z", None)]
    entries = [
        {"base_filename": name, "first_rtp_unix_timestamp": at and 1_767_607_200_000 + at}
        for name, at in listed
    ]
    assert [segment.base_filename for segment in parse(segments={"audio": entries}).audio] == [
        "z",
        "b",
        "a",
        "c",
    ]


def test_segment_listed_twice_is_one() -> None:
    entries = [
        {"base_filename": "a", "codec": "audio/opus"},
        {"base_filename": "a", "codec": "audio/red"},
    ]
    (segment,) = parse(segments={"audio": entries}).audio
    assert segment.codec == "audio/opus"


def test_texts_of_a_segment_that_are_no_text_are_empty() -> None:
    (segment,) = parse(
        segments={"audio": [{"base_filename": "a", "codec": 1, "track_id": None}]}
    ).audio
    assert (segment.codec, segment.track_id, segment.track_type) == ("", "", "")


@pytest.mark.parametrize("value", [..., None, ""], ids=["absent", "null", "empty"])
def test_call_type_that_is_not_there_is_the_empty_text(value: Any) -> None:
    session = parse(call_type=value)
    assert (session.call.call_type, session.call.cid) == ("", ":standup")


def test_call_type_that_is_no_text_raises() -> None:
    with pytest.raises(TimingMetadataError, match=r"call_type is a number, expected text"):
        parse(call_type=5)


@pytest.mark.parametrize(
    "name", ["call_id", "call_session_id", "participant_id", "user_session_id"]
)
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (..., "missing or null"),
        (None, "missing or null"),
        (5, "a number"),
        ([], "a list"),
        ({}, "an object"),
        (True, "a boolean"),
    ],
    ids=["absent", "null", "number", "list", "object", "boolean"],
)
def test_id_that_is_no_text_raises(name: str, value: Any, kind: str) -> None:
    with pytest.raises(
        TimingMetadataError, match=rf"^{MEMBER}: {name} is {kind}, expected text$"
    ) as caught:
        parse(**{name: value})
    assert caught.value.member == MEMBER


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"Expecting value at byte 0, expected JSON"),
        (b'{"a": }', r"Expecting value at byte 6, expected JSON"),
        (b"{} {}", r"Extra data at byte 3, expected JSON"),
        (b'{"a": "\xff"}', r"byte 7 is not UTF-8, expected JSON"),
        (b"[" * 200_000, r"unreadable JSON"),
        (b'{"a": ' + b"1" * 5_000 + b"}", r"unreadable JSON"),
        (b"[]", r"a list at the top, expected an object"),
        (b"null", r"missing or null at the top, expected an object"),
        (b'"x"', r"text at the top, expected an object"),
    ],
    ids=[
        "empty",
        "no_value",
        "two_values",
        "not_utf8",
        "too_deep",
        "too_many_digits",
        "list",
        "null",
        "text",
    ],
)
def test_what_is_no_json_object_raises(text: bytes, message: str) -> None:
    with pytest.raises(TimingMetadataError, match=message):
        parse_timing_metadata(text, MEMBER)


def test_place_of_a_json_error_is_counted_in_bytes() -> None:
    with pytest.raises(TimingMetadataError) as caught:
        parse_timing_metadata('{"é": }'.encode(), MEMBER)
    assert caught.value.byte_offset == 7


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([1], r"segments is a list, expected an object"),
        ("x", r"segments is text, expected an object"),
        ({"audio": {"a": 1}}, r"segments\.audio is an object, expected a list"),
        ({"video": "x"}, r"segments\.video is text, expected a list"),
    ],
    ids=["list", "text", "audio_object", "video_text"],
)
def test_malformed_segments_raise(segments: Any, message: str) -> None:
    with pytest.raises(TimingMetadataError, match=message):
        parse(segments=segments)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "segments.audio[1] is a number, expected an object"),
        (None, "segments.audio[1] is missing or null, expected an object"),
        ({}, "segments.audio[1].base_filename is missing or null, expected a name"),
        ({"base_filename": ""}, "segments.audio[1].base_filename is empty, expected a name"),
        ({"base_filename": 1.5}, "segments.audio[1].base_filename is a number, expected a name"),
        (
            {"base_filename": "x" * 5_000},
            "segments.audio[1].base_filename is text, expected a name",
        ),
    ],
    ids=["number", "null", "no_name", "empty_name", "name_number", "endless_name"],
)
def test_entry_that_is_no_segment_is_left_out_and_told(entry: Any, message: str) -> None:
    session = parse(segments={"audio": [{"base_filename": "a"}, entry, {"base_filename": "b"}]})
    assert [segment.base_filename for segment in session.audio] == ["a", "b"]
    (finding,) = session.findings
    assert finding.message == f"{MEMBER}: {message}; it was left out"
    assert finding.member == MEMBER


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(encoding: str) -> None:
    with pytest.raises(TimingMetadataError, match=r"is UTF-16 text, expected UTF-8"):
        parse_timing_metadata(make_timing_metadata().decode().encode(encoding), MEMBER)


@pytest.mark.parametrize(
    ("more", "call_id"),
    [
        ('"call_id": "last"', "last"),
        ('"CALL_ID": "last"', "last"),
        ('"CALL_ID": "other", "call_id": "last"', "last"),
        ('"Call_Id": null', "first"),
        ('"call\u017fid": "other"', "first"),
        ('"callid": "other"', "first"),
    ],
    ids=["same", "other_case", "both", "null", "no_underscore", "another_key"],
)
def test_of_keys_that_are_equal_but_for_case_the_last_counts(more: str, call_id: str) -> None:
    text = make_timing_metadata(call_id="first")[:-1] + f", {more}}}".encode()
    assert parse_timing_metadata(text, MEMBER).call.call_id == call_id


def test_keys_in_any_case_are_read() -> None:
    plain = make_timing_metadata(
        segments={
            "audio": [
                {
                    "base_filename": "a",
                    "codec": "audio/opus",
                    "track_id": "t",
                    "track_type": "TRACK_TYPE_AUDIO",
                    "first_rtp_rtp_timestamp": 1,
                    "first_rtp_unix_timestamp": 1_767_607_200_000,
                    "first_rtcp_ntp_timestamp": 2,
                }
            ]
        }
    )

    def spell(value: Any, change: Any) -> Any:
        if isinstance(value, dict):
            return {change(key): spell(inner, change) for key, inner in value.items()}
        return [spell(inner, change) for inner in value] if isinstance(value, list) else value

    expected = parse_timing_metadata(plain, MEMBER)
    for change in (
        str.upper,
        str.title,
        lambda key: key.replace("s", "\u017f").replace("k", "\u212a"),
    ):
        text = json.dumps(spell(json.loads(plain), change)).encode()
        assert parse_timing_metadata(text, MEMBER) == expected


def test_objects_under_one_key_are_joined() -> None:
    one = '"segments": {"audio": [{"base_filename": "a"}]}'
    more = '"Segments": {"video": [{"base_filename": "v"}]}, "SEGMENTS": null'
    text = make_timing_metadata(segments=...)[:-1] + f", {one}, {more}}}".encode()
    session = parse_timing_metadata(text, MEMBER)
    assert [segment.base_filename for segment in (*session.audio, *session.video)] == ["a", "v"]


@pytest.mark.parametrize(
    ("fields", "pair"),
    [
        ({"rtp": 5, "ntp": 1_000}, (5, 1_000)),
        ({"rtp": 0, "ntp": 1_000}, (0, 1_000)),
        ({"ntp": 1_000}, (0, 1_000)),
        ({"rtp": None, "ntp": 1_000}, (0, 1_000)),
        ({"rtp": 5.0, "ntp": 1e3}, (5, 1_000)),
        ({"rtp": (1 << 32) - 1, "ntp": 7_258_118_399_999}, ((1 << 32) - 1, 7_258_118_399_999)),
        ({"rtp": 5}, None),
        ({"rtp": 5, "ntp": 0}, None),
        ({"rtp": 5, "ntp": None}, None),
        ({"rtp": 5, "ntp": "1000"}, None),
        ({"rtp": 5, "ntp": -1}, None),
        ({"rtp": 5, "ntp": 7_258_118_400_000}, None),
        ({"rtp": -1, "ntp": 1_000}, None),
        ({"rtp": 1 << 32, "ntp": 1_000}, None),
        ({"rtp": "5", "ntp": 1_000}, None),
        ({}, None),
    ],
)
def test_sender_reports_are_pairs_of_times(
    fields: dict[str, Any], pair: tuple[int, int] | None
) -> None:
    for which in ("first", "last"):
        entry = {f"{which}_rtcp_{name}_timestamp": value for name, value in fields.items()}
        (segment,) = parse(segments={"audio": [{"base_filename": "a", **entry}]}).audio
        reports = {"first": segment.first_report, "last": segment.last_report}
        report = reports.pop(which)
        assert (report and (report.rtp_timestamp, report.sender_unix_ms)) == pair
        assert list(reports.values()) == [None]


@pytest.mark.parametrize(
    ("codec", "codec_type"),
    [
        ("audio/opus", "audio/opus"),
        ("audio/opus;stereo=1", "audio/opus"),
        ("Audio/OPUS ; stereo=1; useinbandfec=1", "audio/opus"),
        ("audio/red;", "audio/red"),
        (";", ""),
    ],
)
def test_codec_is_known_without_its_parameters(codec: str, codec_type: str) -> None:
    (segment,) = parse(segments={"audio": [{"base_filename": "a", "codec": codec}]}).audio
    assert (segment.codec, segment.codec_type) == (codec, codec_type)


def test_id_without_end_raises() -> None:
    assert parse(participant_id="x" * 4_096).participant_id == "x" * 4_096
    with pytest.raises(
        TimingMetadataError, match=r"participant_id has 4097 characters, expected at most 4096"
    ):
        parse(participant_id="x" * 4_097)


def test_texts_of_a_segment_are_cut() -> None:
    (segment,) = parse(segments={"audio": [{"base_filename": "a", "codec": "x" * 9_000}]}).audio
    assert len(segment.codec) == 4_096


def test_flood_of_bad_entries_is_not_told_one_by_one() -> None:
    assert len(parse(segments={"audio": [1] * 5_000}).findings) == 1_000


@pytest.mark.parametrize(
    "name", ["call_id", "participant_id", "base_filename", "codec", "track_id", "track_type"]
)
def test_lone_surrogates_are_replaced_by_what_utf8_can_hold(name: str) -> None:
    lone = "a\udcff\ud800"
    if name in ("call_id", "participant_id"):
        session = parse(**{name: lone})
        text = session.call.call_id if name == "call_id" else session.participant_id
    else:
        (segment,) = parse(segments={"audio": [{"base_filename": "b", name: lone}]}).audio
        text = getattr(segment, name)
    assert text.startswith("a")
    assert text.encode("utf-8")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.binary(max_size=100)
    | st.text(max_size=100).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.builds(
        make_timing_metadata,
        st.fixed_dictionaries({"segments": json_values, "call_start_time": json_values}),
    )
    | st.builds(
        make_timing_metadata,
        st.fixed_dictionaries(
            {"segments": st.fixed_dictionaries({"audio": st.lists(json_values, max_size=3)})}
        ),
    )
)
def test_any_bytes_raise_nothing_but_timing_metadata_error(text: bytes) -> None:
    try:
        session = parse_timing_metadata(text, MEMBER)
    except TimingMetadataError:
        return
    assert isinstance(session.call.call_id, str)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2199, 1, 1)))
def test_call_start_keeps_whole_microseconds(moment: Any) -> None:
    unix_ns = parse(call_start_time=moment.isoformat() + "Z").call_start_unix_ns
    assert unix_ns is not None
    assert unix_ns % 1_000_000_000 == moment.microsecond * 1_000
