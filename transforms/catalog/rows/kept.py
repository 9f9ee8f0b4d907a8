"""What the catalog keeps of a call that is pressed anew: rows of outputs this run did not make.

A rerun never takes audio away: a track or a mix that no archive gives any more keeps its file and
its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transforms.catalog import partitions
from transforms.catalog.rows.failures import failure_key
from transforms.catalog.rows.ids import CALL_COLUMNS, track_columns
from transforms.catalog.schema import CALL_TABLES
from transforms.elements import CallPlan, ExtractedTrack, Row, Status, track_ids_of
from transforms.media.mix_call import MixStats

Rows = dict[str, list[Row]]
"""Rows by table."""
WITH_AUDIO = (Status.OK, Status.PARTIAL)
"""How the tracks of which a file can be had are marked."""


def prior_rows(plan: CallPlan, catalog_uri: str) -> Rows:
    """Returns all rows the catalog has of a call. Raises: StorageError."""
    key = {plan.call.as_tuple()}
    return {
        table: partitions.read_rows(catalog_uri, table, plan.call_date, CALL_COLUMNS, key)
        for table in CALL_TABLES
    }


def leaves_something(
    plan: CallPlan, tracks: Sequence[ExtractedTrack], mix: MixStats | None
) -> bool:
    """Whether the catalog has something of this call that this run did not make and must not take
    away.
    """
    made = {track_ids_of(track.track) for track in tracks}
    files = {track_ids_of(track.track) for track in tracks if track.bytes_written}
    return (
        plan.is_narrowed
        or not made.issuperset(plan.prior_tracks)
        or not files.issuperset(plan.prior_files)
        or (plan.has_prior_mix and mix is None)
    )


def keep_what_was_not_made(rows: Rows, prior: Rows, plan: CallPlan) -> None:
    """Adds to a call's new rows those of outputs this run did not make: never does a rerun take
    audio away.
    """
    files = {track_columns(row) for row in rows["recordings"]}
    rows["recordings"] += [row for row in prior["recordings"] if track_columns(row) not in files]
    made = {track_columns(row) for row in rows["tracks"]}
    kept = [
        row
        for row in prior["tracks"]
        if track_columns(row) not in made and row["status"] in WITH_AUDIO
    ]
    rows["tracks"] += kept
    kept_ids = {track_columns(row) for row in kept}
    for table in ("segments", "speech"):
        rows[table] += [row for row in prior[table] if track_columns(row) in kept_ids]
    _keep_dumps(rows, prior, kept_ids)
    if plan.is_narrowed:
        wanted = {track_ids_of(source.track) for source in plan.sources}
        told = {failure_key(row) for row in rows["failures"]}
        kept = [
            row
            for row in prior["failures"]
            if track_columns(row) not in wanted and failure_key(row) not in told
        ]
        rows["failures"] += kept
        silent = [row for row in prior["tracks"] if row["status"] not in WITH_AUDIO]
        silent = [row for row in silent if track_columns(row) not in made]
        rows["tracks"] += silent
        _keep_dumps(rows, prior, {track_columns(row) for row in silent})


def _keep_dumps(rows: Rows, prior: Rows, tracks: set[tuple[Any, Any, Any]]) -> None:
    """Keeps what is known of the segments of these tracks, unless this run has read them again."""
    told = {(track_columns(row), row["archive_uri"], row["base_filename"]) for row in rows["dumps"]}
    rows["dumps"] += [
        row
        for row in prior["dumps"]
        if track_columns(row) in tracks
        and (track_columns(row), row["archive_uri"], row["base_filename"]) not in told
    ]
