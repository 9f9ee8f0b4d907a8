"""ExtractTracks: each track, from all its parts -> one individual file and its rows; more than one
where sounds of it come at once.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog.fragments import write_fragment
from transforms.catalog.output_names import call_folder
from transforms.catalog.publish import publish_media
from transforms.catalog.rows.dumps import (
    dump_rows,
)
from transforms.catalog.rows.ids import track_ids
from transforms.catalog.rows.recordings import individual_row
from transforms.catalog.rows.segments import segment_rows
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.rows.tracks import track_row
from transforms.context import JobSettings, RunIdentity
from transforms.elements import (
    ExtractedTrack,
    FragmentRef,
    PutOffTrack,
    Row,
    TrackSource,
    key_hash,
    track_ids_of,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey, TrackKey
from transforms.pressing.extract import Extraction, extract, track_failure
from transforms.storage import uris

FAILURES = "failures"


class ExtractTracks(beam.PTransform):
    """Input: `TrackSource`. Output: `ExtractedTrack`, or `PutOffTrack` where the run was to start
    no more (main), `Failure` (`failures`).

    Writes the individual file (if wanted) under a name that comes from ids, and the track's rows
    into staging: a retried bundle writes the same objects again. Parallel over tracks; memory is
    one window of packets, in a codec process.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, sources: beam.PCollection[TrackSource]) -> beam.pvalue.DoOutputsTuple:
        return (
            sources
            # Beam's Reshuffle writes a time and a pane beside each element: 190 bytes.
            | "KeyByTrack" >> beam.Map(lambda source: (_key_of(source.track), source))
            | "SpreadTracks" >> beam.GroupByKey()
            | "TakeTracks" >> beam.FlatMapTuple(lambda _, sources: sources)
            | "Extract"
            >> beam.ParDo(_ExtractFn(self._job), self._run).with_outputs(FAILURES, main="tracks")
        )


def _key_of(track: TrackKey) -> int:
    """Returns a number that spreads tracks over workers."""
    return zlib.crc32("\n".join((*track.call.as_tuple(), *track_ids_of(track))).encode())


class _ExtractFn(ParallelRunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._tracks = Metrics.counter(ExtractTracks, "tracks_extracted")
        self._failures = Metrics.counter(ExtractTracks, "tracks_failed")
        self._samples = Metrics.counter(ExtractTracks, "media_samples")

    def count(self, output: Any) -> None:
        if isinstance(output, ExtractedTrack):
            self._tracks.inc()
            self._samples.inc(output.duration_samples)
        elif not isinstance(output, PutOffTrack):
            self._failures.inc()

    def size(self, source: TrackSource) -> int:
        return source.media_samples

    def work(self, source: TrackSource) -> Iterator[Any]:
        if not source.replaces_prior and self.job.bounds.is_over(self.run.started_unix_ns):
            progress.add("tracks")
            progress.add("samples_extracted", source.media_samples)
            yield PutOffTrack(track=source.track)
            return
        try:
            extraction = extract(
                source,
                self.job.settings,
                self.run.staging_uri,
                functools.partial(self._publish, source.track.call),
            )
            extracted = extraction.track(_stage_rows(extraction, self.job, self.run))
            failures = list(extraction.failures)
            if extracted.missing_ms:
                progress.add("missing_ms", extracted.missing_ms)
            yield extracted
        except RecordingError as error:
            failures = [track_failure(source, error)]
        for failure in failures:
            progress.add("failures")
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        progress.add("tracks")
        progress.add("samples_extracted", source.media_samples)

    def _publish(self, call: CallKey, name: str, made: Path) -> str:
        uri = uris.join(self.job.output_uri, "recordings", call_folder(call), name)
        return publish_media(self.job, self.run, uri, made)


def _stage_rows(extraction: Extraction, job: JobSettings, run: RunIdentity) -> FragmentRef:
    """Writes the track's rows into staging, where those of its call are made of them."""
    container = job.settings.individual.container
    source, lanes = extraction.source, extraction.lanes
    rows: dict[str, list[Row]] = {
        "recordings": [
            individual_row(source, lane, container, extraction.places[lane.lane])
            for lane in lanes
            if lane.file
        ],
        "segments": [row for lane in lanes for row in segment_rows(source, lane)],
        "tracks": [track_row(source, lane) for lane in lanes],
        "dumps": dump_rows(extraction.accounts),
    }
    staged = run.staged("rows", f"track-{key_hash(*track_ids(source.track).values())}.json")
    by_table = {table: stamped(found, job, run) for table, found in rows.items()}
    return write_fragment(staged, by_table)
