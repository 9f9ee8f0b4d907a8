"""MixCalls: a call's plan, tracks and failures -> one MP3, and all the rows of the call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import catalog_store, finished, progress, storage
from transforms.codec_process import POOL
from transforms.extract_tracks import ExtractedTrack, track_failed_row, track_ids
from transforms.failures import failure_rows, to_failure, worst_failure
from transforms.media.catalog import CALL_TABLES, Row, from_time, to_time
from transforms.media.clock import samples_to_ns
from transforms.media.composite import HeardCallFacts, HeardTrack, HeardTrackFacts, MixFacts, hear_call
from transforms.media.errors import ArchiveError, RecordingError
from transforms.media.model import CallKey, Failure, OutputType, Status, Tags, TrackKey
from transforms.media.names import call_folder, composite_name
from transforms.media.opus import SAMPLE_RATE_HZ
from transforms.media.speech import SpeechFacts
from transforms.parallel import ParallelFn
from transforms.plan_calls import CallPlan, track_ids_of
from transforms.row_fragments import FragmentRef, read_fragment, write_fragment
from transforms.run_context import VERSION, RunContext, key_hash
from transforms.unpack_archives import RECALL_STAGE

STAGE = "MixCalls"
OUTCOMES = "outcomes"
_NS_PER_MS = 1_000_000
_SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
_CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
_MAX_NAMED_ARTISTS = 20
_WITH_AUDIO = (Status.OK, Status.PARTIAL)

Rows = dict[str, list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOutcome:
    """What became of an archive's share of one call."""

    archive_uri: str
    made_something: bool
    first_failure: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PressedCall:
    """A call whose media is published; its rows wait in staging."""

    call: CallKey
    rows: FragmentRef
    status: Status
    failures: tuple[Failure, ...]
    replaces_prior: bool
    """Whether the catalog had the call, and a note says that it is being replaced."""
    files_written: int
    media_samples: int
    bytes_written: int
    cpu_ns: int


STAGED_CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCall:
    """A call that is done but for its rows in the catalog, as noted for a later run (`transforms.finished`)."""

    pressed: PressedCall
    outcomes: tuple[ArchiveOutcome, ...]
    fingerprints: tuple[tuple[str, str], ...]
    """(URI, fingerprint) of the archives it was made from."""
    settings_fingerprint: str


class MixCalls(beam.PTransform):
    """Input: `CallPlan`, `ExtractedTrack`, `Failure` with a call. Output: `PressedCall` (main), `ArchiveOutcome` (`outcomes`).

    Groups by the call session. Listens to every track (levels, speech, repairs), writes the MP3 (if wanted) under a name that
    comes from ids, and the call's rows into staging: a retried bundle writes the same objects again. Parallel over calls;
    memory is a block of a second and a window of packets per track, in a codec process.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(
        self,
        inputs: tuple[beam.PCollection[CallPlan], beam.PCollection[ExtractedTrack], beam.PCollection[Failure]],
    ) -> beam.pvalue.DoOutputsTuple:
        plans, tracks, failures = inputs
        return (
            {
                "plans": plans | "KeyPlansByCall" >> beam.Map(lambda plan: (plan.call.as_tuple(), plan)),
                "tracks": tracks | "KeyTracksByCall" >> beam.Map(lambda track: (track.track.call.as_tuple(), track)),
                "failures": failures
                | "KeepThoseOfCalls" >> beam.Filter(lambda failure: failure.call is not None)
                | "KeyFailuresByCall" >> beam.Map(lambda failure: (failure.call.as_tuple(), failure)),
            }
            | "GroupByCall" >> beam.CoGroupByKey()
            | "Mix" >> beam.ParDo(_MixFn(self._context)).with_outputs(OUTCOMES, main="calls")
        )


class _MixFn(ParallelFn):
    def __init__(self, context: RunContext) -> None:
        super().__init__(context.threads)
        self._context = context
        self._calls = Metrics.counter(MixCalls, "calls_pressed")
        self._samples = Metrics.counter(MixCalls, "media_samples")

    def count(self, output: Any) -> None:
        if isinstance(output, PressedCall):
            self._calls.inc()
            self._samples.inc(output.media_samples)

    def work(self, group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]]) -> Iterator[Any]:
        found = group[1]
        plan: CallPlan | None = next(iter(found["plans"]), None)
        if plan is None:  # an earlier archive of a call that nothing of this run turned out to be about
            return
        tracks = sorted(found["tracks"], key=lambda extracted: extracted.track)
        failures = sorted(found["failures"], key=lambda f: (f.stage, f.archive_uri or "", f.member or "", f.message))
        left_out = _left_out(plan, tracks)
        failures += [failure for failure in left_out if _failed_track(failure) not in set(map(_failed_track, failures))]
        heard, cpu_ns = None, 0
        uri = storage.join(self._context.output_uri, "recordings", call_folder(plan.call), _mix_name(plan))
        # A mix of everybody is never replaced by one of fewer voices.
        loses_voices = bool(left_out) and plan.has_prior_mix
        if tracks:
            try:
                heard, cpu_ns, lost_mix = self._hear(plan, tracks, uri, makes_mix=plan.makes_mix and not loses_voices)
            except RecordingError as error:
                lost_mix = error
            if lost_mix is not None:
                progress.report("failures")
                failures.append(to_failure(STAGE, lost_mix, call=plan.call))
        mixed = heard.mix if heard else None
        rows = self._rows(plan, tracks, failures, heard, uri)
        stamped = {
            table: [row if "run_id" in row else self._context.stamp(row) for row in found_rows]
            for table, found_rows in rows.items()
        }
        staged = self._context.staged("rows", f"call-{key_hash(*plan.call.as_tuple())}.parquet")
        pressed = PressedCall(
            call=plan.call,
            rows=write_fragment(staged, plan.call_date, stamped, (plan.call.as_tuple(),)),
            status=Status(rows["calls"][0]["status"]),
            failures=tuple(failures),
            replaces_prior=plan.has_prior,
            files_written=sum(1 for track in tracks if track.bytes_written) + (mixed is not None),
            media_samples=(mixed.file.duration_samples if mixed else 0)
            + sum(track.duration_samples for track in tracks if track.bytes_written),
            bytes_written=(mixed.file.size_bytes if mixed else 0) + sum(track.bytes_written for track in tracks),
            cpu_ns=cpu_ns + sum(track.cpu_ns for track in tracks),
        )
        outcomes = tuple(_outcome(archive, tracks, failures) for archive in plan.archive_uris)
        record = FinishedCall(
            pressed=pressed,
            outcomes=outcomes,
            fingerprints=plan.archive_fingerprints,
            settings_fingerprint=self._context.settings_fingerprint,
        )
        finished.leave(self._context, STAGED_CALL, plan.call.as_tuple(), record)
        progress.report("calls")
        yield pressed
        for outcome in outcomes:
            yield beam.pvalue.TaggedOutput(OUTCOMES, outcome)

    def _hear(
        self, plan: CallPlan, tracks: Sequence[ExtractedTrack], uri: str, *, makes_mix: bool
    ) -> tuple[HeardCallFacts, int, RecordingError | None]:
        """Listens to the tracks and publishes their mix, if there is to be one.

        Returns:
          what was heard, the CPU time in ns, and why the mix was lost on the way to its place.
        """
        context, settings = self._context, self._context.settings
        heard = tuple(
            HeardTrack(
                parts=track.parts,
                begin_unix_ns=track.begin_unix_ns,
                is_mixed=settings.composite.screenshare_audio or track.track.output_type != OutputType.SCREENSHARE_AUDIO_ONLY,
            )
            for track in tracks
        )
        with storage.work_folder(context.staging_uri) as folder, POOL.lend(settings.limits.codec_memory_bytes) as codec:
            output = folder / "mix" if makes_mix and settings.composite.enabled else None
            facts: HeardCallFacts
            facts, cpu_ns = codec.run(
                hear_call,
                (heard, output, settings.mp3, settings.composite, _tags(plan, tracks)),
                open_remote=storage.open_input,
                on_progress=lambda samples: progress.report("media_samples", samples),
                timeout_seconds=settings.limits.codec_seconds,
            )
            try:
                if facts.mix is not None:
                    storage.publish(uri, folder / "mix")
            except RecordingError as error:
                return replace(facts, mix=None), cpu_ns, error
        return facts, cpu_ns, None

    def _rows(
        self,
        plan: CallPlan,
        tracks: Sequence[ExtractedTrack],
        failures: Sequence[Failure],
        heard: HeardCallFacts | None,
        uri: str,
    ) -> Rows:
        """Returns all rows the call has from now on."""
        rows: Rows = {table: [] for table in CALL_TABLES}
        for number, track in enumerate(tracks):
            for table in ("recordings", "segments", "tracks"):
                rows[table].extend(read_fragment(track.rows.uri, table))
            if heard is not None:
                _tell_what_was_heard(rows["tracks"][-1], heard.tracks[number])
                rows["speech"].extend(_speech_rows(track.track, heard.tracks[number].speech, plan.timeline_start_unix_ns))
        mixed = heard.mix if heard else None
        if mixed is not None:
            rows["recordings"].append(self._mix_row(plan, mixed, uri, tracks))
        rows["failures"] = failure_rows(failures, self._context.started_unix_ns)
        prior: Rows = {}
        if plan.has_prior and _leaves_something(plan, tracks, mixed):
            prior = self._prior_rows(plan)
            _keep_what_was_not_made(rows, prior, plan)
        failed = {_failed_track(failure) for failure in failures}
        for row in rows["tracks"]:
            if _track_tuple(row) in failed and row["status"] == Status.OK:
                row["status"] = Status.PARTIAL
        _add_tracks_without_audio(rows, plan, failures)
        told = prior.get("calls", [])
        rows["calls"] = (told if plan.is_narrowed else None) or [
            {**_call_row(plan, rows, failures), **_mix_levels(mixed, told if plan.has_prior_mix else [])}
        ]
        return rows

    def _prior_rows(self, plan: CallPlan) -> Rows:
        key = {plan.call.as_tuple()}
        return {
            table: catalog_store.read_rows(self._context.catalog_uri, table, plan.call_date, _CALL_COLUMNS, key)
            for table in CALL_TABLES
        }

    def _mix_row(self, plan: CallPlan, mixed: MixFacts, uri: str, tracks: Sequence[ExtractedTrack]) -> Row:
        length = mixed.file.duration_samples
        return {
            **_call_ids(plan.call),
            "recording_type": "composite",
            "filename": _mix_name(plan),
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
            "duration_ms": round(length / _SAMPLES_PER_MS),
            "duration_samples": length,
            "offset_ms": round((mixed.start_unix_ns - plan.timeline_start_unix_ns) / _NS_PER_MS),
            "archive_uris": sorted({archive for track in tracks for archive in track.archive_uris}),
            "callpress_version": VERSION,
        }


def _tell_what_was_heard(row: Row, heard: HeardTrackFacts) -> None:
    """Fills the columns of a `tracks` row that only listening can tell."""
    repairs, speech = heard.repairs, heard.speech
    row.update(
        packets_recovered_fec=repairs.fec_packets,
        concealed_ms=round(repairs.concealed_samples / _SAMPLES_PER_MS),
        silence_ms=max(0, row["silence_ms"] - round((repairs.concealed_samples + repairs.fec_samples) / _SAMPLES_PER_MS)),
        loudness_lufs=heard.loudness_lufs,
        peak_dbfs=heard.peak_dbfs,
        speech_ms=round(int((speech.file_stop_sample - speech.file_start_sample).sum()) / _SAMPLES_PER_MS),
    )


def _speech_rows(track: TrackKey, speech: SpeechFacts, zero_unix_ns: int) -> list[Row]:
    ids = track_ids(track)
    return [
        {
            **ids,
            "start_ms": round((server_start - zero_unix_ns) / _NS_PER_MS),
            "end_ms": round((server_stop - zero_unix_ns) / _NS_PER_MS),
            "file_start_ms": round(file_start / _SAMPLES_PER_MS),
            "file_end_ms": round(file_stop / _SAMPLES_PER_MS),
            "level_dbfs": level,
        }
        for server_start, server_stop, file_start, file_stop, level in zip(
            speech.server_start_unix_ns.tolist(),
            speech.server_stop_unix_ns.tolist(),
            speech.file_start_sample.tolist(),
            speech.file_stop_sample.tolist(),
            speech.level_dbfs.tolist(),
            strict=True,
        )
    ]


def _mix_levels(mixed: MixFacts | None, prior_calls: Sequence[Row]) -> Row:
    """Returns the columns of a `calls` row that the mix tells: this run's, or that which was kept."""
    if mixed is not None:
        return {"loudness_lufs": mixed.loudness_lufs, "peak_dbfs": mixed.peak_dbfs}
    return {column: row[column] for row in prior_calls for column in ("loudness_lufs", "peak_dbfs")}


def _outcome(archive_uri: str, tracks: Sequence[ExtractedTrack], failures: Sequence[Failure]) -> ArchiveOutcome:
    # What an earlier archive lacks is missing from the call, and so for every archive of it something is.
    own = [f for f in failures if f.archive_uri in (None, archive_uri) or f.stage == RECALL_STAGE]
    return ArchiveOutcome(
        archive_uri=archive_uri,
        made_something=any(archive_uri in track.archive_uris for track in tracks),
        first_failure=worst_failure(own),
    )


def _left_out(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> list[Failure]:
    """Returns a failure for each track that the catalog has and this run, although about the whole call, did not make."""
    if not plan.is_whole:
        return []
    made = {track_ids_of(track.track) for track in tracks}
    return [
        to_failure(
            STAGE,
            ArchiveError("what was made of this track before was kept: no archive of the call gives it any more"),
            call=plan.call,
            participant_id=ids[0],
            user_session_id=ids[1],
            output_type=OutputType(ids[2]),
        )
        for ids in plan.prior_tracks
        if ids not in made
    ]


def _leaves_something(plan: CallPlan, tracks: Sequence[ExtractedTrack], mixed: MixFacts | None) -> bool:
    """Whether the catalog has something of this call that this run did not make and must not take away."""
    made = {track_ids_of(track.track) for track in tracks}
    files = {track_ids_of(track.track) for track in tracks if track.bytes_written}
    return (
        plan.is_narrowed
        or not made.issuperset(plan.prior_tracks)
        or not files.issuperset(plan.prior_files)
        or (plan.has_prior_mix and mixed is None)
    )


def _keep_what_was_not_made(rows: Rows, prior: Rows, plan: CallPlan) -> None:
    """Adds to a call's new rows those of outputs this run did not make: never does a rerun take audio away."""
    files = {_track_tuple(row) for row in rows["recordings"]}
    rows["recordings"] += [row for row in prior["recordings"] if _track_tuple(row) not in files]
    made = {_track_tuple(row) for row in rows["tracks"]}
    kept = [row for row in prior["tracks"] if _track_tuple(row) not in made and row["status"] in _WITH_AUDIO]
    rows["tracks"] += kept
    kept_ids = {_track_tuple(row) for row in kept}
    for table in ("segments", "speech"):
        rows[table] += [row for row in prior[table] if _track_tuple(row) in kept_ids]
    if plan.is_narrowed:
        wanted = {track_ids_of(source.track) for source in plan.sources}
        rows["failures"] += [row for row in prior["failures"] if _track_tuple(row) not in wanted]
        silent = [row for row in prior["tracks"] if row["status"] not in _WITH_AUDIO]
        rows["tracks"] += [row for row in silent if _track_tuple(row) not in made]


def _add_tracks_without_audio(rows: Rows, plan: CallPlan, failures: Sequence[Failure]) -> None:
    """Adds the tracks of which nothing was made: they failed, or nothing was sent in them."""
    told = {_track_tuple(row) for row in rows["tracks"]}
    silent = [(key, Status.FAILED) for failure in failures if (key := _track_key(failure)) is not None]
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
    starts = starts or [zero + row["offset_ms"] * _NS_PER_MS for row in heard]
    stops = [from_time(row["end_time"]) for row in rows["recordings"]]
    stops = stops or [zero + (row["offset_ms"] + row["duration_ms"]) * _NS_PER_MS for row in heard]
    if heard:
        # A run about some tracks only leaves the rest of a call it is the first to see unmade.
        whole = not failures and not plan.is_narrowed and all(row["status"] == Status.OK for row in heard)
        status = Status.OK if whole else Status.PARTIAL
    else:
        status = Status.FAILED if failures else Status.EMPTY
    sessions = {(row["participant_id"], row["user_session_id"]) for row in rows["tracks"]} | set(plan.sessions)
    archives = {uri for row in heard for uri in row["archive_uris"] or []} | set(plan.archive_uris)
    return {
        **_call_ids(plan.call),
        "timeline_start_time": to_time(zero),
        "start_time": to_time(min(starts)) if starts else None,
        "end_time": to_time(max(stops)) if stops else None,
        "duration_ms": round((max(stops) - min(starts)) / _NS_PER_MS) if starts else 0,
        "participant_count": len({participant for participant, _ in sessions}),
        "session_count": len(sessions),
        "track_count": len(heard),
        "participant_ms": sum(row["duration_ms"] for row in heard),
        "archive_uris": sorted(archives),
        "status": status,
    }


def _call_ids(call: CallKey) -> Row:
    return {
        "call_cid": call.cid,
        "call_type": call.call_type,
        "call_id": call.call_id,
        "call_session_id": call.call_session_id,
    }


def _track_tuple(row: Row) -> tuple[Any, Any, Any]:
    return (row.get("participant_id"), row.get("user_session_id"), row.get("output_type"))


def _failed_track(failure: Failure) -> tuple[Any, Any, Any]:
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


def _mix_name(plan: CallPlan) -> str:
    return composite_name(plan.call, plan.timeline_start_unix_ns // _NS_PER_MS)


def _tags(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> Tags:
    date = to_time(plan.timeline_start_unix_ns).strftime("%Y-%m-%d")
    names = list(dict.fromkeys(track.track.participant_id for track in tracks))
    more = f" and {len(names) - _MAX_NAMED_ARTISTS} more" if len(names) > _MAX_NAMED_ARTISTS else ""
    return {
        "title": f"{plan.call.cid} {date}",
        "artist": ", ".join(names[:_MAX_NAMED_ARTISTS]) + more,
        "album": plan.call.cid,
        "date": date,
        "CALL_SESSION_ID": plan.call.call_session_id,
    }
