"""How programs and people are told of a recording: the vendor's entry of a list with an object
`callpress` beside it, a line of CSV, and what opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transforms.elements import Row
from transforms.media.text import printable
from transforms.media.wall_time import from_time, spell_time
from transforms.notices.events import call_recording, told_beside
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
    """Returns a recording in the vendor's shape, and beside it what only we know. Args: row: of
    `find`. url: what opens it.
    """
    beside = {
        "call_cid": row["call_cid"],
        **told_beside(row, row),
        "part": row["part"],
        "run_id": row["run_id"],
    }
    return {**call_recording(row, url), "callpress": beside}


def csv_cells(row: Row, url: str) -> list[str]:
    """Returns a recording as cells of CSV, by `CSV_COLUMNS`: what is not known is empty. What a
    spreadsheet would take for a formula has an apostrophe before it, as ids are anybody's choice.
    """
    times = {name: spell_time(from_time(row[name])) for name in ("start_time", "end_time")}
    found = {**row, **told_beside(row, row), **times, "url": url}
    return [_cell(found[name]) for name in CSV_COLUMNS]


def _cell(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
