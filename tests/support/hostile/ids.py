"""Participants' ids that make no file names, or the same one; what they sent is good."""

from __future__ import annotations

from tests.support.builders import make_sdp
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import Members, archive_with
from tests.support.hostile.guest import (
    MALLORY,
    SUFFIX,
    dump_of,
    guest,
    metadata_of,
    plain_packets,
    segment_fields,
)

SLASH_ID = "../../a/b"
CONTROL_ID = "\x1b[2J\x07\r\n"
LONG_ID = "x" * 400


def _with_id(call_id: str, participant_id: str) -> bytes:
    metadata = metadata_of(
        call_id,
        segment_fields(f"{MALLORY}_1"),
        participant_id=participant_id,
        user_session_id=participant_id,
    )
    return archive_with(
        call_id, {**guest(call_id, dump_of(plain_packets(10))), f"{MALLORY}{SUFFIX}": metadata}
    )


def _with_twins(call_id: str, *participant_ids: str) -> bytes:
    """Returns an archive of participants whose ids look alike, in sessions of the same name."""
    members: Members = {}
    for number, participant_id in enumerate(participant_ids):
        base = f"twin_{number}"
        members[f"{base}.rtpdump"] = dump_of(plain_packets(10))
        members[f"{base}.sdp"] = make_sdp()
        members[f"{base}{SUFFIX}"] = metadata_of(
            call_id,
            segment_fields(base),
            participant_id=participant_id,
            user_session_id="same",
        )
    return archive_with(call_id, members)


@hostile_case(None)
def id_slash(call_id: str) -> bytes:
    return _with_id(call_id, SLASH_ID)


@hostile_case(None)
def id_dots(call_id: str) -> bytes:
    return _with_id(call_id, "..")


@hostile_case(None)
def id_emoji(call_id: str) -> bytes:
    return _with_id(call_id, "👩‍🚀 Zoë")


@hostile_case(None)
def id_bidi(call_id: str) -> bytes:
    return _with_id(call_id, "\u202egnp.evil\u2066")


@hostile_case(None)
def id_nul(call_id: str) -> bytes:
    return _with_id(call_id, "a\0b")


@hostile_case(None)
def id_control(call_id: str) -> bytes:
    return _with_id(call_id, CONTROL_ID)


@hostile_case(None)
def id_long(call_id: str) -> bytes:
    return _with_id(call_id, LONG_ID)


@hostile_case(None)
def id_empty(call_id: str) -> bytes:
    return _with_id(call_id, "")


@hostile_case(None)
def id_surrogate(call_id: str) -> bytes:
    return _with_id(call_id, "\ud800x")


@hostile_case(None)
def id_percent(call_id: str) -> bytes:
    return _with_id(call_id, "%2e%2e%2f~2f")


@hostile_case(None)
def id_reserved(call_id: str) -> bytes:
    """The name of a device on Windows."""
    return _with_id(call_id, "CON")


@hostile_case(None)
def id_spaces(call_id: str) -> bytes:
    return _with_id(call_id, "  a  ")


@hostile_case("participant_id has 9000 characters")
def id_endless(call_id: str) -> bytes:
    return archive_with(call_id, {f"z{SUFFIX}": metadata_of(call_id, participant_id="x" * 9_000)})


@hostile_case(None)
def ids_by_case(call_id: str) -> bytes:
    return _with_twins(call_id, "Zoe", "zoe", "ZOE")


@hostile_case(None)
def ids_by_normalisation(call_id: str) -> bytes:
    return _with_twins(call_id, "Zo\u00eb", "Zoe\u0308")


@hostile_case(None)
def ids_by_cut(call_id: str) -> bytes:
    """Ids that are the same where a file name would be cut off."""
    return _with_twins(call_id, "x" * 399 + "a", "x" * 399 + "b")
