"""Rows of `notices` as a run makes them: what is to be told of a call, pending for each target.

Told is of a file that was made and is not the one that the catalog had: another name or another
SHA-256 for the same track, or the same mix. Done again, a run makes the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transforms.elements import Failure, FileIds, PriorFile, Row, Status
from transforms.media.settings import PressSettings
from transforms.notices.events import Event, failed_event, ready_event
from transforms.notices.sender import NoticeState
from transforms.storage import uris
from transforms.targets import Notify, Target

Rows = Mapping[str, Sequence[Row]]
"""Rows of one call by table, stamped."""
_FROM_ROW = ("call_cid", "call_type", "call_id", "call_session_id")
FIGURES = ("status", "missing_ms", "sync_error_ms")
"""What is told of a file that its own row has not: of its track, or for a mix of its call."""
_MIX: FileIds = ("composite", None, None, None, 0)
_STAMP = ("run_id", "created_at", "settings_fingerprint")


def pending_rows(
    rows: Rows,
    prior_files: Iterable[PriorFile],
    failed_as: str,
    worst: Failure | None,
    notify: Notify,
) -> list[Row]:
    """Returns what is to be told of a call that was pressed, a row for each event and target.

    Args:
      rows: all that the call has from now on.
      prior_files: what the catalog had of it.
      failed_as: `recording_type` of the event that tells that none was made; empty where that is
        not to be told.
      worst: the failure to judge that by.
      notify: who is told.
    """
    before = {file.ids: file for file in prior_files}
    figures = figures_of(rows["tracks"], rows["calls"][0])
    found: list[Row] = []
    for recording in rows["recordings"]:
        ids = file_ids(recording)
        prior = before.get(ids)
        name, sha256 = recording["filename"], recording["sha256"]
        if prior is not None and (prior.filename, prior.sha256) == (name, sha256):
            continue
        event = ready_event(
            recording,
            figures.get(ids, {}),
            prior.sha256 if prior is not None else None,
            uris.url_of_recording(recording["uri"], notify.url_base),
        )
        found += rows_of(event, recording, notify.targets)
    if failed_as and not rows["recordings"]:
        call = rows["calls"][0]
        event = failed_event(call, failed_as, worst.error_type if worst else None)
        found += rows_of(event, call, notify.targets)
    return found


def file_ids(row: Row) -> FileIds:
    """Returns what a file is of; by a row of `tracks` the same of the track's own file."""
    return (
        row.get("recording_type") or "individual",
        row.get("participant_id"),
        row.get("user_session_id"),
        row.get("output_type"),
        row.get("part") or 0,
    )


def figures_of(tracks: Iterable[Row], call: Row | None) -> dict[FileIds, Row]:
    """Returns `status`, `missing_ms` and `sync_error_ms` as they are told of the files of a call:
    those of the file's track; of a mix those of the call, with the largest error of its tracks.

    Args:
      tracks: rows of the tracks.
      call: its row; None where it is not known.
    """
    found = {file_ids(row): {name: row.get(name) for name in FIGURES} for row in tracks}
    errors = [each["sync_error_ms"] for each in found.values()]
    of_call = {name: call.get(name) for name in FIGURES} if call is not None else {}
    largest = max((error for error in errors if error is not None), default=None)
    found[_MIX] = {**of_call, "sync_error_ms": largest}
    return found


def failed_recording_type(
    status: Status, settings: PressSettings, *, is_narrowed: bool, has_lost_mix: bool
) -> str:
    """Returns as what kind of recording it is told that a call has no file; empty where it is not
    told: nothing was sent, or the run was about a part of the call.

    Args:
      status: the call's.
      settings: what was to be made.
      is_narrowed: whether the run was about some tracks only.
      has_lost_mix: whether the mix could not be made; the call may be partial then.
    """
    if is_narrowed:
        return ""
    if settings.composite.enabled:
        return "composite" if status == Status.FAILED or has_lost_mix else ""
    return "individual" if status == Status.FAILED else ""


def rows_of(event: Event, row: Row, targets: Sequence[Target]) -> list[Row]:
    """Returns the rows of an event that nobody was told yet. Args: row: of `recordings` or `calls`,
    that it tells of.
    """
    own: dict[str, Any] = {name: row[name] for name in (*_FROM_ROW, *_STAMP)}
    own |= {name: row.get(name) for name in ("filename", "uri", "sha256")}
    return [
        {
            **own,
            "event_id": event.event_id,
            "target": target.name,
            "event_type": event.event_type,
            "state": NoticeState.PENDING,
            "attempts": 0,
            "updated_at": row["created_at"],
            "body": event.body,
        }
        for target in targets
    ]
