"""Segments at times that are no times, or far from their call."""

from __future__ import annotations

from typing import Any

from tests.support.builders import CALL_START_UNIX_MS, make_rtpdump, make_sdp
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with
from tests.support.hostile.guest import (
    MALLORY,
    SUFFIX,
    dump_of,
    guest,
    metadata_of,
    plain_packets,
    segment_fields,
)

_DAY_MS = 86_400_000


def _with_times(call_id: str, **times: Any) -> bytes:
    return archive_with(call_id, guest(call_id, dump_of(plain_packets(50)), **times))


@hostile_case(None)
def time_1970(call_id: str) -> bytes:
    return _with_times(call_id, first_rtp_unix_timestamp=0, last_rtp_unix_timestamp=1)


@hostile_case(None)
def time_far(call_id: str) -> bytes:
    return _with_times(call_id, first_rtp_unix_timestamp=10**400)


@hostile_case(None)
def time_year_1(call_id: str) -> bytes:
    return _with_times(call_id, first_rtp_unix_timestamp=-62_135_596_800_000)


@hostile_case(None)
def time_text(call_id: str) -> bytes:
    return _with_times(call_id, first_rtp_unix_timestamp="2026-01-05T10:00:00Z")


@hostile_case(None)
def time_reversed(call_id: str) -> bytes:
    return _with_times(call_id, last_rtp_unix_timestamp=CALL_START_UNIX_MS - _DAY_MS)


@hostile_case("expected within 1 s")
def time_other_day(call_id: str) -> bytes:
    return _with_times(call_id, first_rtp_unix_timestamp=CALL_START_UNIX_MS + 30 * _DAY_MS)


@hostile_case(None)
def time_floats(call_id: str) -> bytes:
    return _with_times(
        call_id,
        first_rtp_unix_timestamp=float(CALL_START_UNIX_MS),
        first_rtp_rtp_timestamp=0.0,
    )


@hostile_case(r"720\.0 h from the rest of their track")
def time_30_days_apart(call_id: str) -> bytes:
    late_ms = CALL_START_UNIX_MS + 30 * _DAY_MS
    members = guest(call_id, dump_of(plain_packets(50)))
    members[f"{MALLORY}_2.rtpdump"] = make_rtpdump(late_ms * 1_000, plain_packets(20))
    members[f"{MALLORY}_2.sdp"] = make_sdp()
    members[f"{MALLORY}{SUFFIX}"] = metadata_of(
        call_id,
        segment_fields(f"{MALLORY}_1"),
        segment_fields(f"{MALLORY}_2", first_rtp_unix_timestamp=late_ms),
    )
    return archive_with(call_id, members)
