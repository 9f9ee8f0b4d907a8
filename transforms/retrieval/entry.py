"""How programs and people are told of a recording: the vendor's entry of a list with an object
`callpress` beside it, a line of CSV, and what opens it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transforms.elements import Row
from transforms.media.text import printable
from transforms.media.wall_time import from_time, spell_time
from transforms.storage import objects, uris

CSV_COLUMNS = (
    "call_cid",
    "call_session_id",
    "recording_type",
    "output_type",
    "participant_id",
    "user_session_id",
    "start_time",
    "end_time",
    "duration_ms",
    "offset_ms",
    "status",
    "missing_ms",
    "sync_error_ms",
    "size_bytes",
    "sha256",
    "filename",
    "uri",
    "url",
)
"""`start_time` and `end_time` by RFC 3339; all others as in the tables."""
_FORMULA = ("=", "+", "-", "@")
Opens = Callable[[str], str]
"""Returns the URL that opens a recording, by its URI. Raises: ConfigError, StorageError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """What is to open recordings."""

    base: str = ""
    """Stands for the root of the output; empty for the files' own URIs."""
    signed_seconds: int | None = None
    """For how long signed links are good; None to sign none."""

    def open(self, uri: str) -> str:
        """Returns what opens a recording.

        Raises:
          ConfigError: its store has no signed links, or the credentials cannot sign.
          StorageError: the credentials cannot be had now.
        """
        if self.signed_seconds is not None:
            return objects.signed_link(uri, self.signed_seconds)
        return uris.url_of_recording(uri, self.base)


def vendor_entry(row: Row, url: str) -> dict[str, Any]:
    """Returns a recording in the vendor's shape (`CallRecording`), times in ns since 1970, and
    beside it what only we know.
    """
    return {
        "filename": row["filename"],
        "url": url,
        "start_time": from_time(row["start_time"]),
        "end_time": from_time(row["end_time"]),
        "session_id": row["call_session_id"],
        "recording_type": row["recording_type"],
        "callpress": {
            "call_cid": row["call_cid"],
            "uri": row["uri"],
            "sha256": row["sha256"],
            "size_bytes": row["size_bytes"],
            "output_type": row["output_type"],
            "participant_id": row["participant_id"],
            "user_session_id": row["user_session_id"],
            "part": row["part"],
            "offset_ms": row["offset_ms"],
            "duration_ms": row["duration_ms"],
            "status": row["status"],
            "missing_ms": row["missing_ms"],
            "sync_error_ms": _finite(row["sync_error_ms"]),
            "run_id": row["run_id"],
        },
    }


def csv_cells(row: Row, url: str) -> list[str]:
    """Returns a recording as cells of CSV, by `CSV_COLUMNS`: what is not known is empty. What a
    spreadsheet would take for a formula has an apostrophe before it, as ids are anybody's choice.
    """
    times = {name: spell_time(from_time(row[name])) for name in ("start_time", "end_time")}
    found = {**row, **times, "url": url, "sync_error_ms": _finite(row["sync_error_ms"])}
    return [_cell(found[name]) for name in CSV_COLUMNS]


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _finite(number: float | None) -> float | None:
    """Returns a number that JSON can spell."""
    return number if number is not None and math.isfinite(number) else None
