"""Rows of `failures`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transforms.catalog.schema import KEYS
from transforms.elements import Failure, Row
from transforms.media.wall_time import to_time


def failure_rows(failures: Iterable[Failure], now_unix_ns: int) -> list[Row]:
    """Returns failures as rows of the catalog, less the columns every row has: one row per key, its
    messages joined.
    """
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
