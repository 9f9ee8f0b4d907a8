"""ExtractTracks: each track, from all its parts -> one individual file and its rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog.fragments import write_fragment
from transforms.catalog.names import call_folder, individual_name
from transforms.catalog.rows.ids import track_ids
from transforms.catalog.rows.segments import segment_row
from transforms.catalog.rows.tracks import track_row
from transforms.codec.pool import run_in_codec_process
from transforms.context import VERSION, RunContext, key_hash
from transforms.elements import ExtractedTrack, Row, TrackSource, to_failure
from transforms.engine import progress
from transforms.engine.parallel import ParallelFn
from transforms.media.errors import RecordingError
from transforms.media.extract_track import PartFiles, TrackStats, extract_track
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, SAMPLES_PER_MS, samples_to_ns
from transforms.media.values import TRACK_TYPE_OF, Tags
from transforms.media.wall_time import to_time, utc_date
from transforms.storage import objects, uris, work_folders
from transforms.storage.inputs import STAGED_INPUTS

STAGE = "ExtractTracks"
FAILURES = "failures"


class ExtractTracks(beam.PTransform):
    """Input: `TrackSource`. Output: `ExtractedTrack` (main), `Failure` (`failures`).

    Writes the individual file (if wanted) under a name that comes from ids, and the track's rows
    into staging: a retried bundle writes the same objects again. Parallel over tracks; memory is
    one window of packets, in a codec process.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, sources: beam.PCollection[TrackSource]) -> beam.pvalue.DoOutputsTuple:
        return (
            sources
            | "SpreadTracks" >> beam.Reshuffle()
            | "Extract"
            >> beam.ParDo(_ExtractFn(self._context)).with_outputs(FAILURES, main="tracks")
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
        parts = tuple(
            PartFiles(packets=part.packets_uri, index=part.index_uri) for part in source.parts
        )
        name = individual_name(
            track, source.timeline_start_unix_ns // NS_PER_MS, individual.container
        )
        uri = uris.join(context.output_uri, "recordings", call_folder(track.call), name)
        with work_folders.work_folder(context.staging_uri) as folder:
            output = folder / "track" if wants_file else None
            facts, cpu_ns = run_in_codec_process(
                limits,
                STAGED_INPUTS,
                lambda samples: progress.report("media_samples", samples),
                extract_track,
                parts,
                output,
                individual.container,
                _tags(source),
                source.begin_unix_ns,
            )
            if output is not None:
                objects.publish(uri, output)
        rows: dict[str, list[Row]] = {
            "recordings": [self._recording_row(source, facts, name, uri)] if facts.file else [],
            "segments": [
                segment_row(source, facts, number) for number in range(len(facts.segments))
            ],
            "tracks": [track_row(source, facts)],
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

    def _recording_row(self, source: TrackSource, facts: TrackStats, name: str, uri: str) -> Row:
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
            "bitrate_bps": facts.file.size_bytes * 8 * SAMPLE_RATE_HZ // length
            if length > 0
            else 0,
            "size_bytes": facts.file.size_bytes,
            "sha256": facts.file.sha256,
            "start_time": to_time(facts.begin_unix_ns),
            "end_time": to_time(facts.begin_unix_ns + samples_to_ns(length)),
            "duration_ms": round(length / SAMPLES_PER_MS),
            "duration_samples": length,
            "offset_ms": round((facts.begin_unix_ns - source.timeline_start_unix_ns) / NS_PER_MS),
            "archive_uris": list(facts.archive_uris),
            "callpress_version": VERSION,
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
