"""Mallory, who joins the good call and brings what is wrong: metadata, a dump, packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.support.builders import (
    CALL_START_UNIX_MS,
    make_rtp_packet,
    make_rtpdump,
    make_sdp,
    make_timing_metadata,
)
from tests.support.hostile.good_call import Members, speech

MALLORY = "mallory"
SUFFIX = "_timing_metadata.json"


def segment_fields(base: str, **changes: Any) -> dict[str, Any]:
    """Returns a segment as it should stand in timing metadata, with some fields changed."""
    return {
        "base_filename": base,
        "codec": "audio/opus",
        "track_id": "t",
        "track_type": "TRACK_TYPE_AUDIO",
        "first_rtp_unix_timestamp": CALL_START_UNIX_MS,
        **changes,
    }


def metadata_of(call_id: str, *segments: Any, **changes: Any) -> bytes:
    """Returns Mallory's timing metadata with some fields changed."""
    fields = {
        "call_id": call_id,
        "call_session_id": f"session-{call_id}",
        "participant_id": MALLORY,
        "user_session_id": f"sess-{MALLORY}",
        "segments": {"audio": list(segments), "video": []},
    }
    return make_timing_metadata(fields, **changes)


def guest(
    call_id: str, dump: bytes | None, sdp: bytes | None = make_sdp(), **changes: Any
) -> Members:
    """Returns the members of one more participant, Mallory, with a dump of any content.

    Args:
      call_id: of the call that the guest joins.
      dump: None for no dump.
      sdp: None for no session description.
      changes: fields of the segment in the timing metadata.
    """
    members = {f"{MALLORY}_1.rtpdump": dump, f"{MALLORY}_1.sdp": sdp}
    found = {name: data for name, data in members.items() if data is not None}
    return {
        **found,
        f"{MALLORY}{SUFFIX}": metadata_of(call_id, segment_fields(f"{MALLORY}_1", **changes)),
    }


def dump_of(packets: Iterable[tuple[int, bytes, bool]]) -> bytes:
    """Returns a dump that begins with the call.

    Args:
      packets: (arrival in ms, packet, is_rtcp).
    """
    return make_rtpdump(CALL_START_UNIX_MS * 1_000, packets)


def plain_packets(
    count: int, **changes: Callable[[int], Any] | Any
) -> list[tuple[int, bytes, bool]]:
    """Returns packets as they should be, 20 ms each, with some fields changed.

    Args:
      count: how many.
      changes: arguments of `make_rtp_packet`, or `arrival_ms`; a value for all packets, or a
        function of the packet's number.
    """
    payloads = speech(700)
    found = []
    for number in range(count):
        fields: dict[str, Any] = {
            "payload": payloads[number % len(payloads)],
            "sequence_number": number,
            "rtp_timestamp": 960 * number,
            "arrival_ms": 20 * number + 20,
        }
        for name, value in changes.items():
            fields[name] = value(number) if callable(value) else value
        arrival = fields.pop("arrival_ms")
        found.append((arrival, make_rtp_packet(**fields), False))
    return found


def good_dump() -> bytes:
    """Returns a dump of one second with nothing wrong in it."""
    return dump_of(plain_packets(50))
