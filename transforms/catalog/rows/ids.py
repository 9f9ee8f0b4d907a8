"""The columns that name calls and tracks."""

from __future__ import annotations

from transforms.elements import Row
from transforms.media.values import CallKey, TrackKey


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
