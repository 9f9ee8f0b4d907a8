"""Rows of `archives`."""

from __future__ import annotations

from transforms.context import VERSION
from transforms.elements import (
    ArchiveOutcome,
    ArchiveRef,
    ArchiveSummary,
    Failure,
    Row,
    Status,
    worst_failure,
)
from transforms.media.wall_time import to_time


def archive_row(
    summary: ArchiveSummary,
    outcomes: list[ArchiveOutcome],
    failures: list[Failure],
    now_unix_ns: int,
) -> Row:
    """Returns an archive's row: `failed` when nothing was made of it, `partial` when something is
    missing.
    """
    of_archive = summary.first_failure
    if of_archive is not None and of_archive.lacks_segment is not None and outcomes:
        of_archive = None  # another archive may have brought it: its call tells
    first = worst_failure([of_archive, *failures, *(outcome.first_failure for outcome in outcomes)])
    made = any(outcome.made_something for outcome in outcomes)
    if first is None:
        status = Status.OK if summary.track_count or made else Status.EMPTY
    else:
        status = Status.PARTIAL if made else Status.FAILED
    return {
        "archive_uri": summary.ref.uri,
        "size_bytes": summary.ref.size_bytes,
        "fingerprint": summary.ref.fingerprint,
        "modified_time": to_time(summary.ref.modified_unix_ns),
        "member_count": summary.member_count,
        "track_count": summary.track_count,
        "call_session_ids": sorted({call.call_session_id for call in summary.calls}),
        "status": status,
        "attempts": summary.ref.attempt,
        "error_type": first.error_type if first else None,
        "error_message": first.message if first else None,
        "metadata_convention": summary.convention or None,
        "copy_uri": summary.ref.copy_uri or None,
        "processed_at": to_time(now_unix_ns),
        "callpress_version": VERSION,
    }


def waiting_row(ref: ArchiveRef) -> Row:
    """Returns the row of an archive that is left to the next run."""
    return {
        "archive_uri": ref.uri,
        "size_bytes": ref.size_bytes,
        "fingerprint": ref.fingerprint,
        "modified_time": to_time(ref.modified_unix_ns),
        "status": Status.WAITING,
        "attempts": 0,
        "copy_uri": ref.copy_uri or None,
        "callpress_version": VERSION,
    }
