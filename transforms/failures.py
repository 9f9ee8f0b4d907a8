"""Turns what is wrong with a recording into `Failure`, the one shape of every dead letter, and failures into rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transforms.media.catalog import KEYS, Row, to_time
from transforms.media.errors import RecordingError
from transforms.media.values import Failure, Filters


def to_failure(stage: str, error: RecordingError, **where: Any) -> Failure:
    """Returns an error as a dead letter.

    Args:
      stage: the transform it was met in.
      error: what went wrong.
      where: fields of `Failure` that say for what archive, call or track.
    """
    return Failure(
        stage=stage,
        error_type=type(error).__name__,
        message=error.message,
        member=error.member,
        byte_offset=error.byte_offset,
        retryable=error.retryable,
        **where,
    )


def wants_failure(failure: Failure, filters: Filters) -> bool:
    """Whether a run's filters are about what a failure is about."""
    if failure.call is None:
        return True
    return (
        filters.wants_call(failure.call)
        and (not filters.participants or failure.participant_id in (None, *filters.participants))
        and (not filters.user_sessions or failure.user_session_id in (None, *filters.user_sessions))
        and (not filters.output_types or failure.output_type in (None, *filters.output_types))
    )


def worst_failure(failures: Iterable[Failure | None]) -> Failure | None:
    """Returns the failure to judge an archive by: one that another try may heal, else the first, None without any."""
    found = [failure for failure in failures if failure is not None]
    return next((failure for failure in found if failure.retryable), found[0] if found else None)


def failure_rows(failures: Iterable[Failure], now_unix_ns: int) -> list[Row]:
    """Returns failures as rows of the catalog, less the columns every row has: one row per key, its messages joined."""
    rows: dict[tuple[Any, ...], Row] = {}
    for failure in failures:
        row = _row(failure, now_unix_ns)
        first = rows.setdefault(failure_key(row), row)
        if first is not row and row["message"] not in first["message"]:
            first["message"] = f"{first['message']}; {row['message']}"
    return list(rows.values())


def failure_key(row: Row) -> tuple[Any, ...]:
    """Returns what makes a row of `failures` unique."""
    return tuple(row[column] for column in KEYS["failures"])


def _row(failure: Failure, now_unix_ns: int) -> Row:
    call = failure.call
    return {
        "stage": failure.stage,
        "archive_uri": failure.archive_uri,
        "member": failure.member,
        "call_cid": call.cid if call else None,
        "call_type": call.call_type if call else None,
        "call_id": call.call_id if call else None,
        "call_session_id": call.call_session_id if call else None,
        "participant_id": failure.participant_id,
        "user_session_id": failure.user_session_id,
        "output_type": failure.output_type,
        "error_type": failure.error_type,
        "message": failure.message,
        "byte_offset": failure.byte_offset,
        "attempt": failure.attempt,
        "retryable": failure.retryable,
        "failed_at": to_time(now_unix_ns),
    }
