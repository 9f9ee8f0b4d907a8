"""Session descriptions: the payload types they map, and what is no description."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import make_sdp
from transforms.media.errors import SdpError
from transforms.media.rtp.sdp import RtpMap, parse_sdp


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_rtpmap_is_read(line_end: str) -> None:
    text = make_sdp(
        [(63, "red/48000/2"), (111, "opus/48000/2"), (0, "PCMU/8000")], line_end=line_end
    )
    assert parse_sdp(text, "a.sdp") == {
        63: RtpMap(payload_type=63, encoding="red", clock_rate_hz=48_000, channels=2),
        111: RtpMap(payload_type=111, encoding="opus", clock_rate_hz=48_000, channels=2),
        0: RtpMap(payload_type=0, encoding="pcmu", clock_rate_hz=8_000, channels=1),
    }


@pytest.mark.parametrize(
    ("line", "encoding"),
    [
        ("a=rtpmap:96 VP8/90000", "vp8"),
        ("A=RTPMAP:96 OPUS/48000/2", "opus"),
        ("  a=rtpmap: 96  opus/48000/2  ", "opus"),
        ("a=rtpmap:96 opus/48000/2;stereo=1", "opus"),
        ("a=rtpmap:96 opus/48000/2 ; stereo=1; a/b=2", "opus"),
        ("a=rtpmap:96 opus;stereo=1/48000/2", "opus"),
        ("a=rtpmap:96 opus/48000;x", "opus"),
        ("a=rtpmap:96 audio/opus;stereo=1/48000/2", "opus"),
        ("a=rtpmap:96 audio/48000", "audio"),
    ],
    ids=[
        "video",
        "upper_case",
        "spaces",
        "parameter",
        "parameters",
        "parameter_inside",
        "parameter_behind_the_rate",
        "media_type",
        "encoding_audio",
    ],
)
def test_spelling_of_rtpmap_does_not_matter(line: str, encoding: str) -> None:
    assert parse_sdp(line.encode(), "a.sdp")[96].encoding == encoding


def test_digits_of_other_scripts_are_none_and_names_have_an_end() -> None:
    text = (
        "a=rtpmap:111 opus/48000/2\na=rtpmap:\u0661\u0661\u0662 opus/48000\n"
        + f"a=rtpmap:96 {'x' * 65}/90000\n"
    )
    assert list(parse_sdp(text.encode(), "a.sdp")) == [111]


def test_later_line_of_a_payload_type_counts() -> None:
    text = b"a=rtpmap:111 opus/48000/2\na=rtpmap:111 red/48000/2\n"
    assert parse_sdp(text, "a.sdp")[111].encoding == "red"


@pytest.mark.parametrize(
    "line",
    [
        "a=rtpmap:128 opus/48000/2",
        "a=rtpmap:111 opus",
        "a=rtpmap:111 opus/48k",
        "a=rtpmap:x opus/48000",
        "a=rtpmap:111",
        "m=audio 5004 RTP/AVP 111",
        "xa=rtpmap:111 opus/48000/2",
        "",
    ],
    ids=[
        "type_over_127",
        "no_rate",
        "rate_no_number",
        "type_no_number",
        "nothing",
        "media_only",
        "other_attribute",
        "empty",
    ],
)
def test_description_without_usable_rtpmap_raises_sdp_error(line: str) -> None:
    with pytest.raises(
        SdpError, match=r"b/a\.sdp: no a=rtpmap line, expected one such as a=rtpmap:111"
    ) as caught:
        parse_sdp(f"v=0\n{line}\n".encode(), "b/a.sdp")
    assert caught.value.member == "b/a.sdp"


def test_binary_description_raises_sdp_error_with_its_place() -> None:
    with pytest.raises(
        SdpError, match=r"a\.sdp: byte 4 is not UTF-8, expected a session description"
    ) as caught:
        parse_sdp(b"v=0\n\xff", "a.sdp")
    assert caught.value.byte_offset == 4


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.binary(max_size=40).map(b"a=rtpmap:1".__add__)
)
def test_any_bytes_raise_nothing_but_sdp_error(text: bytes) -> None:
    try:
        maps = parse_sdp(text, "a.sdp")
    except SdpError:
        return
    assert all(
        number == found.payload_type and 0 <= number <= 127 for number, found in maps.items()
    )


@given(
    st.dictionaries(
        st.integers(0, 127),
        st.sampled_from(["opus/48000/2", "red/48000/2", "VP8/90000"]),
        min_size=1,
    )
)
def test_parsing_inverts_building(maps: dict[int, str]) -> None:
    found = parse_sdp(make_sdp(list(maps.items())), "a.sdp")
    assert {number: rtp_map.encoding for number, rtp_map in found.items()} == {
        number: encoding.split("/")[0].lower() for number, encoding in maps.items()
    }
