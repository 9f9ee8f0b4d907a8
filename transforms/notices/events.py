"""Events in the vendor's shape: `call.recording_ready` for a file, `call.recording_failed` for a
call of which none was made; and in each one object `callpress` with what we know beside.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from transforms.elements import Row
from transforms.media.wall_time import from_time

READY = "call.recording_ready"
FAILED = "call.recording_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is told of a file or a call, whoever is told."""

    event_id: str
    event_type: str
    body: str = field(repr=False)


def event_id_of(call_session_id: str, filename: str, sha256: str) -> str:
    """Returns the id of what is told of a file: the same for the same bytes under the same name."""
    text = json.dumps([call_session_id, filename, sha256], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def ready_event(recording: Row, told: Row, replaces: str | None, url: str) -> Event:
    """Returns the event of a file.

    Args:
      recording: its row, stamped.
      told: `status`, `missing_ms` and `sync_error_ms` of its track, or of the call for a mix.
      replaces: SHA-256 of the file that it replaces; None for the first.
      url: what opens it.
    """
    entry = {
        "filename": recording["filename"],
        "url": url,
        "start_time": from_time(recording["start_time"]),
        "end_time": from_time(recording["end_time"]),
        "session_id": recording["call_session_id"],
        "recording_type": recording["recording_type"],
    }
    beside = {
        "uri": recording["uri"],
        "sha256": recording["sha256"],
        "size_bytes": recording["size_bytes"],
        "output_type": recording.get("output_type"),
        "participant_id": recording.get("participant_id"),
        "user_session_id": recording.get("user_session_id"),
        "offset_ms": recording["offset_ms"],
        "duration_ms": recording["duration_ms"],
        "status": told.get("status"),
        "missing_ms": told.get("missing_ms"),
        "sync_error_ms": told.get("sync_error_ms"),
        "replaces": replaces,
    }
    body = {
        **_head(READY, recording, recording["recording_type"]),
        "call_recording": entry,
        "callpress": beside,
    }
    event_id = event_id_of(recording["call_session_id"], recording["filename"], recording["sha256"])
    return Event(event_id=event_id, event_type=READY, body=_spelled(body))


def _head(event_type: str, row: Row, recording_type: str) -> dict[str, Any]:
    return {
        "type": event_type,
        "created_at": from_time(row["created_at"]),
        "call_cid": row["call_cid"],
        "egress_id": row["run_id"],
        "recording_type": recording_type,
    }


def _spelled(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
