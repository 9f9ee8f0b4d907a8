"""Timing metadata that contradicts other metadata of the archive, or is not there at all."""

from __future__ import annotations

from tests.support.builders import make_archive
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with, good_members
from tests.support.hostile.guest import SUFFIX, dump_of, metadata_of, plain_packets


@hostile_case("call_start_time is 3600.000 s after the one in")
def metadata_contradicts(call_id: str) -> bytes:
    late = metadata_of(call_id, call_start_time="2026-01-05T11:00:00Z")
    return archive_with(call_id, {f"y{SUFFIX}": metadata_of(call_id), f"z{SUFFIX}": late})


@hostile_case(None)
def metadata_of_another_call(call_id: str) -> bytes:
    return archive_with(call_id, {f"z{SUFFIX}": metadata_of("another-call")})


@hostile_case("no timing metadata lists")
def dump_without_metadata(call_id: str) -> bytes:
    return archive_with(call_id, {"stray.rtpdump": dump_of(plain_packets(9))})


@hostile_case("no \\*_timing_metadata", intact=())
def no_metadata(call_id: str) -> bytes:
    members = good_members(call_id)
    return make_archive({name: data for name, data in members.items() if not name.endswith(SUFFIX)})


@hostile_case("expected JSON", intact=())
def no_metadata_readable(call_id: str) -> bytes:
    members = good_members(call_id)
    return make_archive(
        {name: b"{" if name.endswith(SUFFIX) else data for name, data in members.items()}
    )
