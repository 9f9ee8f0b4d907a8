"""MixCalls: a call's plan, tracks and failures -> one MP3, and all the rows of the call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import catalog_store, progress, storage
from transforms.codec_process import POOL
from transforms.extract_tracks import ExtractedTrack, track_failed_row
from transforms.failures import failure_rows, to_failure
from transforms.media.catalog import CALL_TABLES, Row, from_time, to_time
from transforms.media.clock import samples_to_ns
from transforms.media.composite import MixedCallFacts, mix_call
from transforms.media.errors import RecordingError
from transforms.media.model import CallKey, Failure, Status, Tags, TrackKey
from transforms.media.names import call_folder, composite_name
from transforms.media.opus import SAMPLE_RATE_HZ
from transforms.parallel import ParallelFn
from transforms.plan_calls import CallPlan
from transforms.row_fragments import FragmentRef, read_fragment, write_fragment
from transforms.run_context import VERSION, RunContext, key_hash

STAGE = "MixCalls"
OUTCOMES = "outcomes"
_NS_PER_MS = 1_000_000
_SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
_CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
_MAX_NAMED_ARTISTS = 20

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
    media_samples: int
    bytes_written: int
    cpu_ns: int


class MixCalls(beam.PTransform):
    """Input: `CallPlan`, `ExtractedTrack`, `Failure` with a call. Output: `PressedCall` (main), `ArchiveOutcome` (`outcomes`).

    Groups by the call session. Writes the MP3 (if wanted) under a name that comes from ids, and the call's rows into
    staging: a retried bundle writes the same objects again. Parallel over calls; memory is a block of a second and a window
    of packets per track, in a codec process.
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
        mixed, uri, cpu_ns = None, "", 0
        if self._context.settings.composite.enabled and plan.makes_mix and tracks:
            try:
                mixed, uri, cpu_ns = self._mix(plan, tracks)
            except RecordingError as error:
                progress.report("failures")
                failures.append(to_failure(STAGE, error, call=plan.call))
        rows = self._rows(plan, tracks, failures, mixed, uri)
        status = Status(rows["calls"][0]["status"]) if rows["calls"] else Status.OK
        stamped = {
            table: [row if "run_id" in row else self._context.stamp(row) for row in found_rows]
            for table, found_rows in rows.items()
        }
        staged = self._context.staged("rows", f"call-{key_hash(*plan.call.as_tuple())}.parquet")
        yield PressedCall(
            call=plan.call,
            rows=write_fragment(staged, plan.call_date, stamped, (plan.call.as_tuple(),)),
            status=status,
            failures=tuple(failures),
            media_samples=(mixed.file.duration_samples if mixed else 0)
            + sum(track.duration_samples for track in tracks if track.bytes_written),
            bytes_written=(mixed.file.size_bytes if mixed else 0) + sum(track.bytes_written for track in tracks),
            cpu_ns=cpu_ns + sum(track.cpu_ns for track in tracks),
        )
        progress.report("calls")
        for archive in plan.archive_uris:
            own = [f for f in failures if f.archive_uri in (None, archive)]
            yield beam.pvalue.TaggedOutput(
                OUTCOMES,
                ArchiveOutcome(
                    archive_uri=archive,
                    made_something=any(archive in track.archive_uris for track in tracks),
                    first_failure=own[0] if own else None,
                ),
            )

    def _mix(self, plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> tuple[MixedCallFacts, str, int]:
        context, limits = self._context, self._context.settings.limits
        uri = storage.join(context.output_uri, "recordings", call_folder(plan.call), _mix_name(plan))
        with storage.work_folder(context.staging_uri) as folder, POOL.lend(limits.codec_memory_bytes) as codec:
            facts: MixedCallFacts
            facts, cpu_ns = codec.run(
                mix_call,
                (tuple(track.parts for track in tracks), folder / "mix", context.settings.mp3, _tags(plan, tracks)),
                open_remote=storage.open_input,
                on_progress=lambda samples: progress.report("media_samples", samples),
                timeout_seconds=limits.codec_seconds,
            )
            storage.publish(uri, folder / "mix")
        return facts, uri, cpu_ns

    def _rows(
        self,
        plan: CallPlan,
        tracks: Sequence[ExtractedTrack],
        failures: Sequence[Failure],
        mixed: MixedCallFacts | None,
        uri: str,
    ) -> Rows:
        """Returns all rows the call has from now on."""
        rows: Rows = {table: [] for table in CALL_TABLES}
        for track in tracks:
            for table in ("recordings", "segments", "tracks"):
                rows[table].extend(read_fragment(track.rows.uri, table))
        damaged = {_failed_track(f) for f in failures}
        for row in rows["tracks"]:
            if _track_tuple(row) in damaged:
                row["status"] = Status.PARTIAL
        made = {_track_tuple(row) for row in rows["tracks"]}
        for failure in failures:
            track_key = _track_key(failure)
            if track_key is not None and (ids := _failed_track(failure)) not in made and self._may_tell(plan):
                made.add(ids)
                rows["tracks"].append(track_failed_row(track_key, Status.FAILED))
        for empty in plan.empty_tracks if plan.is_whole else ():
            if (empty.participant_id, empty.user_session_id, str(empty.output_type)) not in made:
                rows["tracks"].append(track_failed_row(empty, Status.EMPTY))
        if mixed is not None:
            rows["recordings"].append(self._mix_row(plan, mixed, uri, tracks))
        rows["failures"] = failure_rows(failures, self._context.started_unix_ns)
        prior: Rows = {}
        if plan.has_prior and self._leaves_something(plan, tracks, failures, mixed):
            prior = self._prior_rows(plan)
            _keep_what_was_not_made(rows, prior, plan, self._context)
        if self._context.filters.narrows_tracks:
            rows["calls"] = prior.get("calls", [])
        else:
            rows["calls"] = [_call_row(plan, rows, failures)]
        return rows

    def _may_tell(self, plan: CallPlan) -> bool:
        return plan.is_whole or not plan.has_prior

    def _leaves_something(
        self,
        plan: CallPlan,
        tracks: Sequence[ExtractedTrack],
        failures: Sequence[Failure],
        mixed: MixedCallFacts | None,
    ) -> bool:
        """Whether the catalog may have an output of this call that this run did not make and must not take away."""
        settings = self._context.settings
        every_output = settings.individual.enabled and len(settings.individual.output_types) == 2 and settings.composite.enabled
        return not plan.is_whole or bool(failures) or not every_output or (mixed is None and bool(tracks))

    def _prior_rows(self, plan: CallPlan) -> Rows:
        key = {plan.call.as_tuple()}
        return {
            table: catalog_store.read_rows(self._context.catalog_uri, table, plan.call_date, _CALL_COLUMNS, key)
            for table in CALL_TABLES
        }

    def _mix_row(self, plan: CallPlan, mixed: MixedCallFacts, uri: str, tracks: Sequence[ExtractedTrack]) -> Row:
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


def _keep_what_was_not_made(rows: Rows, prior: Rows, plan: CallPlan, context: RunContext) -> None:
    """Adds to a call's rows those of outputs this run did not make: never does a rerun take audio away."""
    made_tracks = {_track_tuple(row) for row in rows["tracks"] if row["status"] in (Status.OK, Status.PARTIAL)}
    made_files = {_track_tuple(row) for row in rows["recordings"]}
    kept_files = [row for row in prior["recordings"] if _track_tuple(row) not in made_files]
    rows["recordings"] += kept_files
    kept = [row for row in prior["tracks"] if _track_tuple(row) not in made_tracks]
    replaced = {_track_tuple(row) for row in kept if row["status"] in (Status.OK, Status.PARTIAL)}
    rows["tracks"] = [row for row in rows["tracks"] if _track_tuple(row) not in replaced]
    told = {_track_tuple(row) for row in rows["tracks"]}
    failed = {_track_tuple(row) for row in rows["failures"]}
    for row in kept:
        if _track_tuple(row) in told:
            continue
        # A file that was to be made anew and could not be is not all that was sent.
        rows["tracks"].append({**row, "status": Status.PARTIAL} if _track_tuple(row) in failed else row)
    kept_tracks = {_track_tuple(row) for row in rows["tracks"]} - made_tracks
    for table in ("segments", "speech"):
        rows[table] += [row for row in prior[table] if _track_tuple(row) in kept_tracks]
    if context.filters.narrows_tracks:
        wanted = {(t.track.participant_id, t.track.user_session_id, str(t.track.output_type)) for t in plan.sources}
        rows["failures"] = [row for row in rows["failures"] if _track_tuple(row) in wanted] + [
            row for row in prior["failures"] if _track_tuple(row) not in wanted
        ]


def _call_row(plan: CallPlan, rows: Rows, failures: Sequence[Failure]) -> Row:
    zero = plan.timeline_start_unix_ns
    heard = [row for row in rows["tracks"] if row["status"] in (Status.OK, Status.PARTIAL)]
    # Individual files start to the microsecond, track rows to the ms.
    starts = [from_time(row["start_time"]) for row in rows["recordings"]]
    starts = starts or [zero + row["offset_ms"] * _NS_PER_MS for row in heard]
    stops = [from_time(row["end_time"]) for row in rows["recordings"]]
    stops = stops or [zero + (row["offset_ms"] + row["duration_ms"]) * _NS_PER_MS for row in heard]
    if heard:
        status = Status.PARTIAL if failures or any(row["status"] == Status.PARTIAL for row in heard) else Status.OK
    else:
        status = Status.FAILED if failures else Status.EMPTY
    archives = {uri for row in heard for uri in row["archive_uris"] or []} | set(plan.archive_uris)
    return {
        **_call_ids(plan.call),
        "timeline_start_time": to_time(zero),
        "start_time": to_time(min(starts)) if starts else None,
        "end_time": to_time(max(stops)) if stops else None,
        "duration_ms": round((max(stops) - min(starts)) / _NS_PER_MS) if starts else 0,
        "participant_count": len({participant for participant, _ in plan.sessions}),
        "session_count": len(plan.sessions),
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
