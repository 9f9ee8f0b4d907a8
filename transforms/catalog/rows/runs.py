"""Rows of `runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from transforms.catalog.rows.dumps import SUMS
from transforms.context import VERSION, JobSettings, RunIdentity
from transforms.elements import Row, Status
from transforms.media.units import NS_PER_MS, SAMPLES_PER_MS
from transforms.media.wall_time import to_time

_COUNTS = (
    "archives_listed",
    "archives_skipped",
    "archives_ok",
    "archives_partial",
    "archives_failed",
    "archives_waiting",
    "calls_pressed",
    *SUMS,
    "bytes_read",
    "bytes_written",
)


def run_row(
    tally: Mapping[str, int],
    status: Status,
    finished_unix_ns: int,
    job: JobSettings,
    run: RunIdentity,
) -> Row:
    """Returns the row of a run. Args: tally: counts by name, those that are missing being 0."""
    row: Row = {
        "started_at": to_time(run.started_unix_ns),
        "finished_at": to_time(finished_unix_ns),
        "status": status,
        "callpress_version": VERSION,
        "settings_json": json.dumps(asdict(job.settings), sort_keys=True),
        **{name: tally.get(name, 0) for name in _COUNTS},
        "media_ms": tally.get("media_samples", 0) // SAMPLES_PER_MS,
        "cpu_ms": tally.get("cpu_ns", 0) // NS_PER_MS,
    }
    # An archive in which nobody sent anything went as well as one can.
    row["archives_ok"] += tally.get("archives_empty", 0)
    return row
