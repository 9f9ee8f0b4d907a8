"""Timing metadata that is no JSON, of other types, or without end."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with
from tests.support.hostile.guest import SUFFIX, metadata_of, segment_fields


def _with_metadata(call_id: str, text: bytes) -> bytes:
    return archive_with(call_id, {f"z{SUFFIX}": text})


def _with_segments(call_id: str, *segments: Any) -> bytes:
    return _with_metadata(call_id, metadata_of(call_id, *segments))


@hostile_case("expected JSON")
def json_empty(call_id: str) -> bytes:
    return _with_metadata(call_id, b"")


@hostile_case("a list at the top")
def json_array(call_id: str) -> bytes:
    return _with_metadata(call_id, b"[]")


@hostile_case("missing or null at the top")
def json_null(call_id: str) -> bytes:
    return _with_metadata(call_id, b"null")


@hostile_case("text at the top")
def json_text(call_id: str) -> bytes:
    return _with_metadata(call_id, b'"text"')


@hostile_case("expected JSON")
def json_cut(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"call_type": "default", ')


@hostile_case("expected JSON")
def json_two(call_id: str) -> bytes:
    return _with_metadata(call_id, b"{} {}")


@hostile_case("unreadable JSON")
def json_nested_200000(call_id: str) -> bytes:
    return _with_metadata(call_id, b"[" * 200_000)


@hostile_case("unreadable JSON")
def json_nested_objects(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"a":' * 200_000)


@hostile_case("unreadable JSON")
def json_long_number(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"a": ' + b"9" * 100_000 + b"}")


@hostile_case("is not UTF-8|UTF-16")
def json_binary(call_id: str) -> bytes:
    return _with_metadata(call_id, Random(2).randbytes(3_000))


@hostile_case("is not UTF-8")
def json_not_utf8(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"call_type": "\xff"}')


@hostile_case("call_id is missing or null")
def json_no_fields(call_id: str) -> bytes:
    return _with_metadata(call_id, b"{}")


@hostile_case("expected JSON")
def json_trailing_comma(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"call_type": "default",}')


@hostile_case("expected JSON")
def json_single_quotes(call_id: str) -> bytes:
    return _with_metadata(call_id, b"{'call_type': 'default'}")


@hostile_case("is UTF-16")
def json_utf16(call_id: str) -> bytes:
    return _with_metadata(call_id, metadata_of(call_id).decode().encode("utf-16"))


@hostile_case(None)
def json_bom(call_id: str) -> bytes:
    return _with_metadata(call_id, b"\xef\xbb\xbf" + metadata_of(call_id))


@hostile_case(None)
def json_keys_twice(call_id: str) -> bytes:
    return _with_metadata(call_id, b'{"participant_id": "alice", ' + metadata_of(call_id)[1:])


@hostile_case("participant_id is a list")
def json_wrong_types(call_id: str) -> bytes:
    return _with_metadata(call_id, metadata_of(call_id, participant_id=[]))


@hostile_case("segments is a list")
def json_segments_list(call_id: str) -> bytes:
    return _with_metadata(call_id, metadata_of(call_id, segments=[1, 2]))


@hostile_case("it was left out")
def json_segments_of_all_kinds(call_id: str) -> bytes:
    segments: tuple[Any, ...] = (None, 5, [], "x", {}, {"base_filename": 5}, {"base_filename": ""})
    return _with_segments(call_id, *segments)


@hostile_case("not in the archive")
def json_nan(call_id: str) -> bytes:
    segment = segment_fields("x", first_rtp_unix_timestamp=float("nan"), x=float("inf"))
    return _with_segments(call_id, segment)


@hostile_case("not in the archive")
def json_1e400(call_id: str) -> bytes:
    return _with_segments(call_id, {**segment_fields("x"), "last_rtp_rtp_timestamp": 10**400})


@hostile_case("more of this kind")
def json_100000_segments(call_id: str) -> bytes:
    return _with_segments(call_id, *({"base_filename": str(n)} for n in range(60_000)))


@hostile_case(r"limits\.max_members")
def json_more_segments_than_members(call_id: str) -> bytes:
    return _with_segments(call_id, *({"base_filename": str(n)} for n in range(100_001)))
