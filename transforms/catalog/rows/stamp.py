"""The columns every row has: which run made it, when, and with which settings."""

from __future__ import annotations

from collections.abc import Iterable

from transforms.context import JobSettings, RunIdentity
from transforms.elements import Row
from transforms.media.wall_time import to_time


def stamped(rows: Iterable[Row], job: JobSettings, run: RunIdentity) -> list[Row]:
    """Returns rows with those columns; one that has them, kept from an earlier run, stays.

    All of a run's rows carry its start, so that reruns compare.
    """
    stamp = {
        "run_id": run.run_id,
        "created_at": to_time(run.started_unix_ns),
        "settings_fingerprint": job.settings_fingerprint,
    }
    return [row if "run_id" in row else {**row, **stamp} for row in rows]
