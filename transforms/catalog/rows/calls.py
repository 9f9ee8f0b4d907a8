"""The rows of a call: what was extracted and heard of it, what failed, and what the catalog keeps
from before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transforms.catalog import partitions
from transforms.catalog.fragments import read_fragments
from transforms.catalog.names import composite_name
from transforms.catalog.rows.failures import failure_key, failure_rows
from transforms.catalog.rows.ids import call_ids
from transforms.catalog.rows.speech import speech_rows
from transforms.catalog.rows.tracks import track_failed_row
from transforms.catalog.schema import CALL_TABLES
from transforms.context import VERSION, RunContext
from transforms.elements import CallPlan, ExtractedTrack, Row, track_ids_of
from transforms.media.mix_call import MixedCall, MixStats, TrackSoundStats
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, SAMPLES_PER_MS, samples_to_ns
from transforms.media.values import Failure, Status, TrackKey
from transforms.media.wall_time import from_time, to_time

_CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
_WITH_AUDIO = (Status.OK, Status.PARTIAL)
Rows = dict[str, list[Row]]


def make_call_rows(
    plan: CallPlan,
    tracks: Sequence[ExtractedTrack],
    failures: Sequence[Failure],
    heard: MixedCall | None,
    uri: str,
    context: RunContext,
) -> Rows:
    """Returns all rows a call has from now on, also those of what this run did not make and must
    not take away.

    Args:
      plan: of the call.
      tracks: those that were extracted; their rows wait in staging.
      failures: all that is known to be missing.
      heard: what listening told, in the order of the tracks; None when it failed.
      uri: where the mix is, if one was made.
      context: of the run.

    Raises:
      StorageError: staged rows, or those of the catalog, cannot be read.
    """
    rows: Rows = {table: [] for table in CALL_TABLES}
    for number, track in enumerate(tracks):
        for table, staged in read_fragments(
            track.rows, ("recordings", "segments", "tracks")
        ).items():
            rows[table].extend(staged)
        if heard is not None:
            _tell_what_was_heard(rows["tracks"][-1], heard.tracks[number])
            rows["speech"].extend(
                speech_rows(track.track, heard.tracks[number].speech, plan.timeline_start_unix_ns)
            )
    mixed = heard.mix if heard else None
    if mixed is not None:
        rows["recordings"].append(_mix_row(plan, mixed, uri, tracks))
    rows["failures"] = failure_rows(failures, context.started_unix_ns)
    prior: Rows = {}
    if plan.has_prior and _leaves_something(plan, tracks, mixed):
        prior = _prior_rows(plan, context)
        _keep_what_was_not_made(rows, prior, plan)
    failed = {failed_track(failure) for failure in failures}
    for row in rows["tracks"]:
        if _track_tuple(row) in failed and row["status"] == Status.OK:
            row["status"] = Status.PARTIAL
    _add_tracks_without_audio(rows, plan, failures)
    told = prior.get("calls", [])
    rows["calls"] = (told if plan.is_narrowed else None) or [
        {
            **_call_row(plan, rows, failures),
            **_mix_levels(mixed, told if plan.has_prior_mix else []),
        }
    ]
    return rows


def _prior_rows(plan: CallPlan, context: RunContext) -> Rows:
    key = {plan.call.as_tuple()}
    return {
        table: partitions.read_rows(context.catalog_uri, table, plan.call_date, _CALL_COLUMNS, key)
        for table in CALL_TABLES
    }


def _mix_row(plan: CallPlan, mixed: MixStats, uri: str, tracks: Sequence[ExtractedTrack]) -> Row:
    length = mixed.file.duration_samples
    return {
        **call_ids(plan.call),
        "recording_type": "composite",
        "filename": mix_name(plan),
        "uri": uri,
        "container": "mp3",
        "codec": "mp3",
        "channels": mixed.file.channels,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "bitrate_bps": mixed.bitrate_bps,
        "size_bytes": mixed.file.size_bytes,
        "sha256": mixed.file.sha256,
        "start_time": to_time(mixed.start_unix_ns),
        "end_time": to_time(mixed.start_unix_ns + samples_to_ns(length)),
        "duration_ms": round(length / SAMPLES_PER_MS),
        "duration_samples": length,
        "offset_ms": round((mixed.start_unix_ns - plan.timeline_start_unix_ns) / NS_PER_MS),
        "archive_uris": sorted({archive for track in tracks for archive in track.archive_uris}),
        "callpress_version": VERSION,
    }


def _tell_what_was_heard(row: Row, heard: TrackSoundStats) -> None:
    """Fills the columns of a `tracks` row that only listening can tell."""
    repairs, speech = heard.repairs, heard.speech
    row.update(
        packets_recovered_fec=repairs.fec_packets,
        concealed_ms=round(repairs.concealed_samples / SAMPLES_PER_MS),
        silence_ms=max(
            0,
            row["silence_ms"]
            - round((repairs.concealed_samples + repairs.fec_samples) / SAMPLES_PER_MS),
        ),
        loudness_lufs=heard.loudness_lufs,
        peak_dbfs=heard.peak_dbfs,
        speech_ms=round(
            int((speech.file_stop_sample - speech.file_start_sample).sum()) / SAMPLES_PER_MS
        ),
    )


def _mix_levels(mixed: MixStats | None, prior_calls: Sequence[Row]) -> Row:
    """Returns the columns of a `calls` row that the mix tells: this run's, or that which was
    kept.
    """
    if mixed is not None:
        return {"loudness_lufs": mixed.loudness_lufs, "peak_dbfs": mixed.peak_dbfs}
    return {column: row[column] for row in prior_calls for column in ("loudness_lufs", "peak_dbfs")}


def _leaves_something(
    plan: CallPlan, tracks: Sequence[ExtractedTrack], mixed: MixStats | None
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
        or (plan.has_prior_mix and mixed is None)
    )


def _keep_what_was_not_made(rows: Rows, prior: Rows, plan: CallPlan) -> None:
    """Adds to a call's new rows those of outputs this run did not make: never does a rerun take
    audio away.
    """
    files = {_track_tuple(row) for row in rows["recordings"]}
    rows["recordings"] += [row for row in prior["recordings"] if _track_tuple(row) not in files]
    made = {_track_tuple(row) for row in rows["tracks"]}
    kept = [
        row
        for row in prior["tracks"]
        if _track_tuple(row) not in made and row["status"] in _WITH_AUDIO
    ]
    rows["tracks"] += kept
    kept_ids = {_track_tuple(row) for row in kept}
    for table in ("segments", "speech"):
        rows[table] += [row for row in prior[table] if _track_tuple(row) in kept_ids]
    if plan.is_narrowed:
        wanted = {track_ids_of(source.track) for source in plan.sources}
        told = {failure_key(row) for row in rows["failures"]}
        kept = [
            row
            for row in prior["failures"]
            if _track_tuple(row) not in wanted and failure_key(row) not in told
        ]
        rows["failures"] += kept
        silent = [row for row in prior["tracks"] if row["status"] not in _WITH_AUDIO]
        rows["tracks"] += [row for row in silent if _track_tuple(row) not in made]


def _add_tracks_without_audio(rows: Rows, plan: CallPlan, failures: Sequence[Failure]) -> None:
    """Adds the tracks of which nothing was made: they failed, or nothing was sent in them."""
    told = {_track_tuple(row) for row in rows["tracks"]}
    silent = [
        (key, Status.FAILED) for failure in failures if (key := _track_key(failure)) is not None
    ]
    silent += [(key, Status.EMPTY) for key in plan.empty_tracks if not plan.is_narrowed]
    for key, status in silent:
        if track_ids_of(key) not in told:
            told.add(track_ids_of(key))
            rows["tracks"].append(track_failed_row(key, status))


def _call_row(plan: CallPlan, rows: Rows, failures: Sequence[Failure]) -> Row:
    zero = plan.timeline_start_unix_ns
    heard = [row for row in rows["tracks"] if row["status"] in _WITH_AUDIO]
    # Individual files start to the microsecond, track rows to the ms.
    starts = [from_time(row["start_time"]) for row in rows["recordings"]]
    starts = starts or [zero + row["offset_ms"] * NS_PER_MS for row in heard]
    stops = [from_time(row["end_time"]) for row in rows["recordings"]]
    stops = stops or [zero + (row["offset_ms"] + row["duration_ms"]) * NS_PER_MS for row in heard]
    if heard:
        # A run about some tracks only leaves the rest of a call it is the first to see unmade.
        whole = (
            not failures
            and not plan.is_narrowed
            and all(row["status"] == Status.OK for row in heard)
        )
        status = Status.OK if whole else Status.PARTIAL
    else:
        status = Status.FAILED if failures else Status.EMPTY
    sessions = {(row["participant_id"], row["user_session_id"]) for row in rows["tracks"]} | set(
        plan.sessions
    )
    archives = {uri for row in heard for uri in row["archive_uris"] or []} | set(plan.archive_uris)
    return {
        **call_ids(plan.call),
        "timeline_start_time": to_time(zero),
        "start_time": to_time(min(starts)) if starts else None,
        "end_time": to_time(max(stops)) if stops else None,
        "duration_ms": round((max(stops) - min(starts)) / NS_PER_MS) if starts else 0,
        "participant_count": len({participant for participant, _ in sessions}),
        "session_count": len(sessions),
        "track_count": len(heard),
        "participant_ms": sum(row["duration_ms"] for row in heard),
        "archive_uris": sorted(archives),
        "status": status,
    }


def _track_tuple(row: Row) -> tuple[Any, Any, Any]:
    return (row.get("participant_id"), row.get("user_session_id"), row.get("output_type"))


def failed_track(failure: Failure) -> tuple[Any, Any, Any]:
    """Returns the ids of the track a failure is about, each None when it is about more."""
    return (failure.participant_id, failure.user_session_id, failure.output_type)


def _track_key(failure: Failure) -> TrackKey | None:
    if failure.call is None or failure.output_type is None:
        return None
    return TrackKey(
        call=failure.call,
        participant_id=failure.participant_id or "",
        user_session_id=failure.user_session_id or "",
        output_type=failure.output_type,
    )


def mix_name(plan: CallPlan) -> str:
    """Returns the file name of a call's mix."""
    return composite_name(plan.call, plan.timeline_start_unix_ns // NS_PER_MS)
