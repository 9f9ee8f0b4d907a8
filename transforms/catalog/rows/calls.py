"""All rows of a call: what was extracted and measured of it, what failed, and what the catalog
keeps from before.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.catalog.fragments import read_fragments
from transforms.catalog.rows.dumps import DumpAccount, add_sums, dump_rows, sums_of
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.ids import call_ids, track_columns
from transforms.catalog.rows.kept import (
    WITH_AUDIO,
    Rows,
    keep_what_was_not_made,
    leaves_something,
    prior_rows,
)
from transforms.catalog.rows.recordings import mix_row
from transforms.catalog.rows.speech import speech_rows
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.rows.tracks import add_sound, track_failed_row
from transforms.catalog.schema import CALL_TABLES
from transforms.context import VERSION, JobSettings, RunIdentity
from transforms.elements import (
    CallPlan,
    ExtractedTrack,
    Failure,
    Row,
    Status,
    failed_track,
    track_ids_of,
)
from transforms.media.mix_call import MixedCall, MixStats
from transforms.media.units import NS_PER_MS
from transforms.media.values import TrackKey
from transforms.media.wall_time import from_time, to_time


def make_call_rows(
    plan: CallPlan,
    tracks: Sequence[ExtractedTrack],
    silent: Sequence[DumpAccount],
    failures: Sequence[Failure],
    mixed: MixedCall | None,
    uri: str,
    job: JobSettings,
    run: RunIdentity,
) -> Rows:
    """Returns all rows a call has from now on, also those of what this run did not make and must
    not take away.

    Args:
      plan: of the call.
      tracks: those that were extracted; their rows wait in staging.
      silent: the segments of those that were not.
      failures: all that is known to be missing.
      mixed: what decoding and mixing told, in the order of the tracks; None when it failed.
      uri: where the mix is, if one was made.
      job, run: for whom.

    Raises:
      StorageError: staged rows, or those of the catalog, cannot be read.
    """
    rows = _rows_of_tracks(plan, tracks, mixed)
    rows["dumps"] += dump_rows(silent)
    mix = mixed.mix if mixed else None
    if mix is not None:
        rows["recordings"].append(mix_row(plan, mix, uri, tracks))
    rows["failures"] = failure_rows(failures, run.started_unix_ns)
    prior: Rows = {}
    if plan.has_prior and leaves_something(plan, tracks, mix):
        prior = prior_rows(plan, job.catalog_uri)
        keep_what_was_not_made(rows, prior, plan)
    failed = {failed_track(failure) for failure in failures}
    for row in rows["tracks"]:
        if track_columns(row) in failed and row["status"] == Status.OK:
            row["status"] = Status.PARTIAL
    _add_tracks_without_audio(rows, plan, failures)
    add_sums(rows)
    told = prior.get("calls", [])
    rows["calls"] = (told if plan.is_narrowed else None) or [
        {
            **_call_row(plan, rows, failures),
            **_mix_levels(mix, told if plan.has_prior_mix else []),
        }
    ]
    return {table: stamped(found, job, run) for table, found in rows.items()}


def _rows_of_tracks(
    plan: CallPlan, tracks: Sequence[ExtractedTrack], mixed: MixedCall | None
) -> Rows:
    """Returns the rows of the tracks as staged, and with them what their sound tells."""
    rows: Rows = {table: [] for table in CALL_TABLES}
    for number, track in enumerate(tracks):
        staged = read_fragments(track.rows, ("recordings", "segments", "tracks", "dumps"))
        for table, found in staged.items():
            rows[table].extend(found)
        if mixed is not None:
            first = mixed.tracks[number]
            sounds = [first, *first.beside]
            for part, (row, sound) in enumerate(zip(staged["tracks"], sounds, strict=True)):
                add_sound(row, sound)
                rows["speech"] += speech_rows(
                    track.track, part, sound.speech, plan.timeline_start_unix_ns
                )
    return rows


def _mix_levels(mix: MixStats | None, prior_calls: Sequence[Row]) -> Row:
    """Returns the columns of a `calls` row that the mix tells: this run's, or that which was
    kept.
    """
    if mix is not None:
        return {"loudness_lufs": mix.loudness_lufs, "peak_dbfs": mix.peak_dbfs}
    return {column: row[column] for row in prior_calls for column in ("loudness_lufs", "peak_dbfs")}


def _add_tracks_without_audio(rows: Rows, plan: CallPlan, failures: Sequence[Failure]) -> None:
    """Adds the tracks of which nothing was made: they failed, or nothing was sent in them."""
    told = {track_columns(row) for row in rows["tracks"]}
    silent = [
        (key, Status.FAILED) for failure in failures if (key := _track_key(failure)) is not None
    ]
    silent += [
        (part.track, Status.EMPTY)
        for part in plan.silent_parts
        if part.track is not None and not plan.is_narrowed
    ]
    for key, status in silent:
        if track_ids_of(key) not in told:
            told.add(track_ids_of(key))
            rows["tracks"].append(track_failed_row(key, status))


def _call_row(plan: CallPlan, rows: Rows, failures: Sequence[Failure]) -> Row:
    zero = plan.timeline_start_unix_ns
    with_audio = [row for row in rows["tracks"] if row["status"] in WITH_AUDIO]
    # Individual files start to the microsecond, track rows to the ms.
    starts = [from_time(row["start_time"]) for row in rows["recordings"]]
    starts = starts or [zero + row["offset_ms"] * NS_PER_MS for row in with_audio]
    stops = [from_time(row["end_time"]) for row in rows["recordings"]]
    stops = stops or [
        zero + (row["offset_ms"] + row["duration_ms"]) * NS_PER_MS for row in with_audio
    ]
    if with_audio:
        # A run about some tracks only leaves the rest of a call it is the first to see unmade.
        whole = (
            not failures
            and not plan.is_narrowed
            and all(row["status"] == Status.OK for row in with_audio)
        )
        status = Status.OK if whole else Status.PARTIAL
    elif plan.is_narrowed and not failures:
        status = Status.PARTIAL  # nothing was sent by those it is about: of others it knows nothing
    else:
        status = Status.FAILED if failures else Status.EMPTY
    sessions = {(row["participant_id"], row["user_session_id"]) for row in rows["tracks"]} | set(
        plan.sessions
    )
    archives = {uri for row in with_audio for uri in row["archive_uris"] or []} | set(
        plan.archive_uris
    )
    return {
        **call_ids(plan.call),
        "timeline_start_time": to_time(zero),
        "start_time": to_time(min(starts)) if starts else None,
        "end_time": to_time(max(stops)) if stops else None,
        "duration_ms": round((max(stops) - min(starts)) / NS_PER_MS) if starts else 0,
        "participant_count": len({participant for participant, _ in sessions}),
        "session_count": len(sessions),
        "participants_with_audio": len({row["participant_id"] for row in with_audio}),
        "track_count": len({track_columns(row) for row in with_audio}),
        **sums_of(rows["tracks"]),
        "participant_ms": sum(row["duration_ms"] for row in with_audio),
        "archive_uris": sorted(archives),
        "server_clock_steps": plan.server_clock_steps,
        "status": status,
        "callpress_version": VERSION,
    }


def _track_key(failure: Failure) -> TrackKey | None:
    if failure.call is None or failure.output_type is None:
        return None
    return TrackKey(
        call=failure.call,
        participant_id=failure.participant_id or "",
        user_session_id=failure.user_session_id or "",
        output_type=failure.output_type,
    )
