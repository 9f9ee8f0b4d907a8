"""ExtractTracks: each track, from all its parts -> one individual file and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import progress, storage
from transforms.codec_process import POOL
from transforms.failures import to_failure
from transforms.media.catalog import Row, to_time, utc_date
from transforms.media.errors import RecordingError
from transforms.media.extract_track import ExtractedTrackFacts, PartFiles, extract_track
from transforms.media.names import call_folder, individual_name
from transforms.media.units import SAMPLE_RATE_HZ, samples_to_ns
from transforms.media.values import TRACK_TYPE_OF, CallKey, Status, Tags, TrackKey
from transforms.parallel import ParallelFn
from transforms.plan_calls import TrackSource
from transforms.row_fragments import FragmentRef, write_fragment
from transforms.run_context import VERSION, RunContext, key_hash

STAGE = "ExtractTracks"
FAILURES = "failures"
_SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedTrack:
    """A track whose file is published; its rows wait in staging."""

    track: TrackKey
    rows: FragmentRef
    parts: tuple[PartFiles, ...]
    """What the mix decodes."""
    begin_unix_ns: int | None
    """As in its `TrackSource`."""
    archive_uris: tuple[str, ...]
    duration_samples: int
    bytes_written: int
    cpu_ns: int


class ExtractTracks(beam.PTransform):
    """Input: `TrackSource`. Output: `ExtractedTrack` (main), `Failure` (`failures`).

    Writes the individual file (if wanted) under a name that comes from ids, and the track's rows into staging: a retried
    bundle writes the same objects again. Parallel over tracks; memory is one window of packets, in a codec process.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, sources: beam.PCollection[TrackSource]) -> beam.pvalue.DoOutputsTuple:
        return (
            sources
            | "SpreadTracks" >> beam.Reshuffle()
            | "Extract" >> beam.ParDo(_ExtractFn(self._context)).with_outputs(FAILURES, main="tracks")
        )


class _ExtractFn(ParallelFn):
    def __init__(self, context: RunContext) -> None:
        super().__init__(context.threads)
        self._context = context
        self._tracks = Metrics.counter(ExtractTracks, "tracks_extracted")
        self._failures = Metrics.counter(ExtractTracks, "tracks_failed")
        self._samples = Metrics.counter(ExtractTracks, "media_samples")

    def count(self, output: Any) -> None:
        if isinstance(output, ExtractedTrack):
            self._tracks.inc()
            self._samples.inc(output.duration_samples)
        else:
            self._failures.inc()

    def size(self, source: TrackSource) -> int:
        return source.media_samples

    def work(self, source: TrackSource) -> Iterator[Any]:
        try:
            yield self._extract(source)
        except RecordingError as error:
            progress.report("failures")
            failure = to_failure(
                STAGE,
                error,
                call=source.track.call,
                participant_id=source.track.participant_id,
                user_session_id=source.track.user_session_id,
                output_type=source.track.output_type,
            )
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        progress.report("tracks")
        progress.report("samples_extracted", source.media_samples)

    def _extract(self, source: TrackSource) -> ExtractedTrack:
        context, track = self._context, source.track
        individual, limits = context.settings.individual, context.settings.limits
        wants_file = individual.enabled and track.output_type in individual.output_types
        parts = tuple(PartFiles(packets=part.packets_uri, index=part.index_uri) for part in source.parts)
        name = individual_name(track, source.timeline_start_unix_ns // _NS_PER_MS, individual.container)
        uri = storage.join(context.output_uri, "recordings", call_folder(track.call), name)
        with storage.work_folder(context.staging_uri) as folder, POOL.lend(limits.codec_memory_bytes) as codec:
            output = folder / "track" if wants_file else None
            facts: ExtractedTrackFacts
            facts, cpu_ns = codec.run(
                extract_track,
                (parts, output, individual.container, _tags(source), source.begin_unix_ns),
                open_remote=storage.open_staged,
                on_progress=lambda samples: progress.report("media_samples", samples),
                timeout_seconds=limits.codec_seconds,
            )
            if output is not None:
                storage.publish(uri, output)
        rows: dict[str, list[Row]] = {
            "recordings": [self._recording_row(source, facts, name, uri)] if facts.file else [],
            "segments": [_segment_row(source, facts, number) for number in range(len(facts.segments))],
            "tracks": [_track_row(source, facts)],
        }
        stamped = {table: [context.stamp(row) for row in found] for table, found in rows.items()}
        staged = context.staged("rows", f"track-{key_hash(*track_ids(track).values())}.json")
        return ExtractedTrack(
            track=track,
            rows=write_fragment(staged, utc_date(source.timeline_start_unix_ns), stamped, ()),
            parts=parts,
            begin_unix_ns=source.begin_unix_ns,
            archive_uris=tuple(sorted({part.archive_uri for part in source.parts})),
            duration_samples=facts.duration_samples,
            bytes_written=facts.file.size_bytes if facts.file else 0,
            cpu_ns=cpu_ns,
        )

    def _recording_row(self, source: TrackSource, facts: ExtractedTrackFacts, name: str, uri: str) -> Row:
        assert facts.file is not None
        length = facts.file.duration_samples
        return {
            **track_ids(source.track),
            "recording_type": "individual",
            "track_type": TRACK_TYPE_OF[source.track.output_type],
            "filename": name,
            "uri": uri,
            "container": self._context.settings.individual.container,
            "codec": "opus",
            "channels": facts.file.channels,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "bitrate_bps": facts.file.size_bytes * 8 * SAMPLE_RATE_HZ // length if length > 0 else 0,
            "size_bytes": facts.file.size_bytes,
            "sha256": facts.file.sha256,
            "start_time": to_time(facts.begin_unix_ns),
            "end_time": to_time(facts.begin_unix_ns + samples_to_ns(length)),
            "duration_ms": round(length / _SAMPLES_PER_MS),
            "duration_samples": length,
            "offset_ms": round((facts.begin_unix_ns - source.timeline_start_unix_ns) / _NS_PER_MS),
            "archive_uris": list(facts.archive_uris),
            "callpress_version": VERSION,
        }


def call_ids(call: CallKey) -> Row:
    """Returns the columns that name a call."""
    return {
        "call_cid": call.cid,
        "call_type": call.call_type,
        "call_id": call.call_id,
        "call_session_id": call.call_session_id,
    }


def track_ids(track: TrackKey) -> Row:
    """Returns the columns that name a track."""
    return {
        **call_ids(track.call),
        "participant_id": track.participant_id,
        "user_session_id": track.user_session_id,
        "output_type": track.output_type,
    }


def track_failed_row(track: TrackKey, status: Status) -> Row:
    """Returns the row of a track of which nothing was made: it failed, or nothing was sent."""
    counts = ("segment_count", "packets_expected", "packets_received", "media_ms", "duration_ms")
    return {
        **track_ids(track),
        "track_type": TRACK_TYPE_OF[track.output_type],
        "status": status,
        **(dict.fromkeys(counts, 0) if status == Status.EMPTY else {}),
    }


def _track_row(source: TrackSource, facts: ExtractedTrackFacts) -> Row:
    counts = facts.counts
    methods = sorted({segment.clock_method for segment in facts.segments})
    longest = max(facts.segments, key=lambda segment: segment.file_stop_sample - segment.file_start_sample)
    return {
        **track_ids(source.track),
        "track_type": TRACK_TYPE_OF[source.track.output_type],
        "status": Status.OK,
        "channels": facts.channels,
        "archive_uris": list(facts.archive_uris),
        "track_ids": list(facts.track_ids),
        "segment_count": facts.segment_count,
        "ssrcs": list(facts.ssrcs),
        "codec": facts.codec,
        "packets_expected": counts.expected,
        "packets_received": counts.received,
        "packets_lost": counts.lost,
        "packets_duplicate": counts.duplicate,
        "packets_reordered": counts.reordered,
        "packets_invalid": counts.invalid,
        "packets_recovered_red": counts.recovered_red,
        "silence_ms": round(facts.hole_samples / _SAMPLES_PER_MS),
        "dtx_ms": round(facts.dtx_samples / _SAMPLES_PER_MS),
        "media_ms": round(facts.media_samples / _SAMPLES_PER_MS),
        "duration_ms": round(facts.duration_samples / _SAMPLES_PER_MS),
        "offset_ms": round((facts.begin_unix_ns - source.timeline_start_unix_ns) / _NS_PER_MS),
        "clock_method": methods[0] if len(methods) == 1 else "mixed",
        "clock_skew_ppm": longest.clock_skew_ppm,
        "sync_error_ms": max(segment.sync_error_ns for segment in facts.segments) / _NS_PER_MS,
        "jitter_ms": facts.jitter_ms,
    }


def _segment_row(source: TrackSource, facts: ExtractedTrackFacts, number: int) -> Row:
    segment = facts.segments[number]
    zero = source.timeline_start_unix_ns
    return {
        **track_ids(source.track),
        "track_id": segment.track_id,
        "archive_uri": segment.archive_uri,
        "base_filename": segment.base_filename,
        "ssrc": segment.ssrc,
        "file_start_ms": round(segment.file_start_sample / _SAMPLES_PER_MS),
        "file_end_ms": round(segment.file_stop_sample / _SAMPLES_PER_MS),
        "call_start_ms": round((segment.server_start_unix_ns - zero) / _NS_PER_MS),
        "call_end_ms": round((segment.server_stop_unix_ns - zero) / _NS_PER_MS),
        "clock_method": segment.clock_method,
        "clock_skew_ppm": segment.clock_skew_ppm,
        "sync_error_ms": segment.sync_error_ns / _NS_PER_MS,
        "gap_before": segment.gap_before,
    }


def _tags(source: TrackSource) -> Tags:
    call = source.track.call
    date = utc_date(source.timeline_start_unix_ns)
    return {
        "title": f"{call.cid} {date} {source.track.participant_id}",
        "artist": source.track.participant_id,
        "album": call.cid,
        "date": date,
        "CALL_SESSION_ID": call.call_session_id,
        "USER_SESSION_ID": source.track.user_session_id,
        "TRACK_TYPE": TRACK_TYPE_OF[source.track.output_type],
    }
