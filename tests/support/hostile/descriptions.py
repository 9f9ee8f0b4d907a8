"""Session descriptions and codecs that are missing, unknown, or no text."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.support.builders import OPUS_PAYLOAD_TYPE, RED_PAYLOAD_TYPE, make_sdp
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with
from tests.support.hostile.guest import dump_of, good_dump, guest, plain_packets
from tests.support.hostile.raw_gzip import MIB


def _with_sdp(call_id: str, sdp: bytes | None) -> bytes:
    return archive_with(call_id, guest(call_id, good_dump(), sdp))


def _with_fields(call_id: str, **fields: Any) -> bytes:
    """Returns an archive with a guest whose segment says other things of its good dump."""
    return archive_with(call_id, guest(call_id, good_dump(), **fields))


@hostile_case(r"\.sdp: not in the archive")
def sdp_missing(call_id: str) -> bytes:
    return _with_sdp(call_id, None)


@hostile_case("no a=rtpmap line")
def sdp_empty(call_id: str) -> bytes:
    return _with_sdp(call_id, b"")


@hostile_case("is not UTF-8")
def sdp_binary(call_id: str) -> bytes:
    return _with_sdp(call_id, Random(3).randbytes(900))


@hostile_case("no a=rtpmap line")
def sdp_without_rtpmap(call_id: str) -> bytes:
    return _with_sdp(call_id, b"v=0\r\nm=audio 5004 RTP/AVP 111\r\n")


@hostile_case(r"payload types \[111\] in the dump")
def sdp_other_payload_type(call_id: str) -> bytes:
    return _with_sdp(call_id, make_sdp([(96, "opus/48000/2")]))


@hostile_case("codec is pcmu/8000")
def sdp_pcmu(call_id: str) -> bytes:
    return _with_sdp(call_id, make_sdp([(OPUS_PAYLOAD_TYPE, "PCMU/8000")]))


@hostile_case("codec is vp8/90000")
def sdp_video(call_id: str) -> bytes:
    return _with_sdp(call_id, make_sdp([(OPUS_PAYLOAD_TYPE, "VP8/90000")]))


@hostile_case("past its limit")
def sdp_1mib_line(call_id: str) -> bytes:
    return _with_sdp(call_id, b"a=rtpmap:111 " + b" " * MIB)


@hostile_case("no a=rtpmap line")
def sdp_regex(call_id: str) -> bytes:
    """A line that a careless pattern would try to match in very many ways."""
    return _with_sdp(call_id, b"a=rtpmap:111 " + b"x" * 60_000)


@hostile_case("codec is audio/x-\\\\x1bevil")
def codec_unknown(call_id: str) -> bytes:
    return _with_fields(call_id, codec="audio/x-\x1bevil")


@hostile_case("codec is video/VP8")
def codec_video(call_id: str) -> bytes:
    return _with_fields(call_id, codec="video/VP8")


@hostile_case("track_type 'X")
def track_type_unknown(call_id: str) -> bytes:
    return _with_fields(call_id, track_type="X" * 9_000)


@hostile_case("no RTP or no Opus inside")
def red_broken(call_id: str) -> bytes:
    """RED payloads (RFC 2198) of a header and random bytes."""
    draw = Random(4)
    packets = plain_packets(
        200,
        payload_type=RED_PAYLOAD_TYPE,
        payload=lambda _: bytes([0x80 | OPUS_PAYLOAD_TYPE]) + draw.randbytes(90),
    )
    sdp = make_sdp([(RED_PAYLOAD_TYPE, "red/48000/2"), (OPUS_PAYLOAD_TYPE, "opus/48000/2")])
    return archive_with(call_id, guest(call_id, dump_of(packets), sdp, codec="audio/red"))
