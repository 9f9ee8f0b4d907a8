"""The columns that name calls and tracks."""

from __future__ import annotations

from typing import Any

from transforms.elements import Row
from transforms.media.values import CallKey, TrackKey

CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
"""What names a call session in every table of one."""


def call_ids(call: CallKey) -> Row:
    """Returns the columns that name a call."""
    return {
        "call_cid": call.cid,
        "call_type": call.call_type,
        "call_id": call.call_id,
        "call_session_id": call.call_session_id,
    }


def track_ids(track: TrackKey) -> Row:
    """Returns the columns that name a track."""
    return {
        **call_ids(track.call),
        "participant_id": track.participant_id,
        "user_session_id": track.user_session_id,
        "output_type": track.output_type,
    }


def call_columns(row: Row) -> tuple[Any, ...]:
    """Returns what names a row's call session, as the row has it."""
    return tuple(row[name] for name in CALL_COLUMNS)


def track_columns(row: Row) -> tuple[Any, Any, Any]:
    """Returns what names a track within its call, as a row has it; each None where it has none."""
    return (row.get("participant_id"), row.get("user_session_id"), row.get("output_type"))
