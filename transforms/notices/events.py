"""Events in the vendor's shape: `call.recording_ready` for a file, `call.recording_failed` for a
call of which none was made; and in each one object `callpress` with what we know beside.

No event is longer than `MOST_BYTES`. As a rule they have 900. Ids may have thousands of characters:
where an event would be too long they are cut, with `…` at their end, and `callpress.cut` names the
fields. The row in `notices` has what they were.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from transforms.elements import Row
from transforms.media.wall_time import from_time

READY = "call.recording_ready"
FAILED = "call.recording_failed"
MOST_BYTES = 4_096
"""In UTF-8."""
_CUT_TO = (1_000, 500, 250, 120, 60, 30)
"""Characters that are left of text that is too long: the first that will do."""
_CUT_MARK = "…"
_TEXTS = (
    ("", "call_cid"),
    ("call_recording", "session_id"),
    ("callpress", "session_id"),
    ("callpress", "participant_id"),
    ("callpress", "user_session_id"),
)
"""The object within an event, and the field: what others have chosen, of any length."""
_PLACES: tuple[tuple[str, str, Any], ...] = (
    ("call_recording", "url", ""),
    ("callpress", "uri", None),
)
"""The same of what names the file, which is of use whole or not at all, and what stands instead."""


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
      told: `status`, `missing_ms` and `sync_error_ms` of its track, or of the call for a mix
        (`rows.figures_of`).
      replaces: SHA-256 of the file that it replaces; None for the first.
      url: what opens it.
    """
    body = {
        **_head(READY, recording, recording["recording_type"]),
        "call_recording": call_recording(recording, url),
        "callpress": {**told_beside(recording, told), "replaces": replaces},
    }
    event_id = event_id_of(recording["call_session_id"], recording["filename"], recording["sha256"])
    return Event(event_id=event_id, event_type=READY, body=_spelled(body))


def call_recording(recording: Row, url: str) -> dict[str, Any]:
    """Returns a file as the vendor has it in events and lists (`CallRecording`), times in ns since
    1970. Args: recording: its row. url: what opens it.
    """
    return {
        "filename": recording["filename"],
        "url": url,
        "start_time": from_time(recording["start_time"]),
        "end_time": from_time(recording["end_time"]),
        "session_id": recording["call_session_id"],
        "recording_type": recording["recording_type"],
    }


def told_beside(recording: Row, told: Row) -> dict[str, Any]:
    """Returns what only we tell of a file, in events and lists. Args: as of `ready_event`."""
    return {
        "uri": recording["uri"],
        "sha256": recording["sha256"],
        "size_bytes": recording["size_bytes"],
        "output_type": recording.get("output_type"),
        "participant_id": recording.get("participant_id"),
        "user_session_id": recording.get("user_session_id"),
        "offset_ms": recording["offset_ms"],
        "duration_ms": recording["duration_ms"],
        **_figures(told),
    }


def failed_event(call: Row, recording_type: str, error_type: str | None) -> Event:
    """Returns the event of a call of which no file was made.

    Args:
      call: its row, stamped.
      recording_type: what was to be made: `composite` where that is wanted.
      error_type: of the failure to judge it by; None where none is known.
    """
    beside = {
        "session_id": call["call_session_id"],
        "status": call.get("status"),
        "missing_ms": call.get("missing_ms"),
        "error_type": error_type,
    }
    body = {**_head(FAILED, call, recording_type), "callpress": beside}
    event_id = event_id_of(call["call_session_id"], call["call_cid"], "failed")
    return Event(event_id=event_id, event_type=FAILED, body=_spelled(body))


def _head(event_type: str, row: Row, recording_type: str) -> dict[str, Any]:
    return {
        "type": event_type,
        "created_at": from_time(row["created_at"]),
        "call_cid": row["call_cid"],
        "egress_id": row["run_id"],
        "recording_type": recording_type,
    }


def _figures(told: Row) -> dict[str, Any]:
    """Returns what is told of a file beside its own row. JSON has no numbers that are none."""
    error_ms = told.get("sync_error_ms")
    return {
        "status": told.get("status"),
        "missing_ms": told.get("missing_ms"),
        "sync_error_ms": error_ms if error_ms is not None and math.isfinite(error_ms) else None,
    }


# --- as it is sent --------------------------------------------------------------------------------


def _spelled(body: dict[str, Any]) -> str:
    """Returns an event as JSON of at most `MOST_BYTES`."""
    text = _json(body)
    for most in _CUT_TO:
        if _fits(text):
            return text
        text = _json(_cut(body, most))
    for count in range(1, len(_PLACES) + 1):
        if _fits(text):
            break
        text = _json(_cut(body, _CUT_TO[-1], count))
    return text


def _cut(body: dict[str, Any], most: int, places: int = 0) -> dict[str, Any]:
    """Returns an event with no more than some characters of each text in it. Args: places: how many
    of `_PLACES` are taken out.
    """
    found = {
        name: dict(value) if isinstance(value, dict) else value for name, value in body.items()
    }
    cut = []
    for within, name in _TEXTS:
        holder = found.get(within) if within else found
        value = holder.get(name) if holder else None
        if holder and isinstance(value, str) and len(value) > most:
            holder[name] = value[: most - 1] + _CUT_MARK
            cut.append(name)
    for within, name, instead in _PLACES[:places]:
        if within in found and name in found[within]:
            found[within][name] = instead
            cut.append(name)
    found["callpress"]["cut"] = sorted(set(cut))
    return found


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _fits(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) <= MOST_BYTES
