"""ExtractTracks: each track, from all its parts -> one individual file and its rows; more than one
where sounds of it come at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog.fragments import write_fragment
from transforms.catalog.output_names import call_folder, individual_name
from transforms.catalog.publish import publish_media
from transforms.catalog.rows.dumps import (
    DumpAccount,
    accounts_of,
    dump_rows,
    missing_failures,
    settle_between_archives,
)
from transforms.catalog.rows.ids import track_ids
from transforms.catalog.rows.recordings import individual_row
from transforms.catalog.rows.segments import segment_rows
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.rows.tracks import track_row
from transforms.codec.pool import run_in_codec_process
from transforms.context import JobSettings, RunIdentity, key_hash
from transforms.elements import (
    ExtractedTrack,
    Failure,
    FragmentRef,
    PutOffTrack,
    Row,
    Stage,
    TrackSource,
    to_failure,
    track_ids_of,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.media.errors import RecordingError, TimelineError
from transforms.media.extract_track import TrackStats, extract_track, lane_path
from transforms.media.lane_file import LeftOutPauses
from transforms.media.track.lanes import MOST_LANES, LeftOut
from transforms.media.track.overlaps import LeftOutReason
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ
from transforms.media.values import TRACK_TYPE_OF, FileTime, Tags, TrackKey
from transforms.media.wall_time import utc_date
from transforms.storage import uris, work_folders
from transforms.storage.inputs import STAGED_INPUTS

FAILURES = "failures"
_HOUR_SAMPLES = 3_600 * SAMPLE_RATE_HZ


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
            extracted, failures = _extract(source, self.job, self.run)
            if extracted.missing_ms:
                progress.add("missing_ms", extracted.missing_ms)
            yield extracted
        except RecordingError as error:
            failures = [_failure(source, error)]
        for failure in failures:
            progress.add("failures")
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        progress.add("tracks")
        progress.add("samples_extracted", source.media_samples)


def _failure(source: TrackSource, error: RecordingError, **where: Any) -> Failure:
    return to_failure(
        Stage.EXTRACT_TRACKS,
        error,
        call=source.track.call,
        participant_id=source.track.participant_id,
        user_session_id=source.track.user_session_id,
        output_type=source.track.output_type,
        **where,
    )


def _too_many_at_once(source: TrackSource, left_out: LeftOut) -> Failure:
    """Returns what is said of packets for which there was no file left."""
    member = f"{left_out.base_filename}.rtpdump"
    error = TimelineError(
        f"{member}: {left_out.packet_count} packets, {left_out.media_samples / SAMPLE_RATE_HZ:.1f} "
        f"s, were left out: {MOST_LANES} other sounds of the track lie at their time, expected "
        f"fewer",
        member=member,
    )
    part = source.parts[left_out.part]
    return _failure(
        source,
        error,
        archive_uri=part.archive_uri,
        archive_modified_unix_ns=part.archive_modified_unix_ns,
    )


def _leaves_out_pauses(source: TrackSource, lane: TrackStats, pauses: LeftOutPauses) -> Failure:
    """Returns what is said of a file that would have been too long."""
    whole_samples = lane.duration_samples + pauses.samples
    which = f", part {lane.lane}," if lane.lane else ""
    error = TimelineError(
        f"{source.track.participant_id}: the file of {TRACK_TYPE_OF[source.track.output_type]}"
        f"{which} leaves out {pauses.pause_count} pauses of more than "
        f"{pauses.longest_pause_samples / SAMPLE_RATE_HZ:g} s: with them it would be "
        f"{whole_samples / _HOUR_SAMPLES:.2f} h long, expected at most "
        f"{(source.allowed_samples or 0) / _HOUR_SAMPLES:.2f} h (limits.max_media_hours, "
        "max_media_ratio); the table segments has the call time of what is there"
    )
    return _failure(source, error)


def _extract(
    source: TrackSource, job: JobSettings, run: RunIdentity
) -> tuple[ExtractedTrack, list[Failure]]:
    """Makes a track's files (if they are wanted) and its rows.

    Returns:
      the track, and what is missing of it, or left out of its files.

    Raises:
      RecordingError: nothing can be made of it.
    """
    track, individual = source.track, job.settings.individual
    parts = tuple(part.files for part in source.parts)
    with work_folders.work_folder(run.staging_uri) as folder:
        wants_file = individual.enabled and track.output_type in individual.output_types
        output = folder / "track" if wants_file else None
        stats, cpu_ns = run_in_codec_process(
            job.settings.limits,
            STAGED_INPUTS,
            lambda samples: progress.add("media_samples", samples),
            extract_track,
            parts,
            output,
            individual.container,
            _tags(source),
            source.begin_unix_ns,
            source.allowed_samples if wants_file else None,
            _uid(track),
        )
        lanes = (stats, *stats.beside)
        places: dict[int, str] = {}
        if output is not None:
            for lane in lanes:
                made = lane_path(output, lane.lane)
                places[lane.lane] = publish_media(job, run, _place_of(source, lane, job), made)
    accounts = settle_between_archives(
        [
            *(
                DumpAccount(track=track, part=part, dump=dump)
                for part, dumps in zip(source.parts, stats.dumps, strict=True)
                for dump in dumps
            ),
            *accounts_of(source.bare_parts),
        ]
    )
    sizes = [lane.file.size_bytes for lane in lanes if lane.file]
    extracted = ExtractedTrack(
        track=track,
        rows=_stage_rows(source, lanes, places, accounts, job, run),
        file_times=tuple(_file_time(lane) for lane in lanes),
        archive_uris=source.archive_uris,
        duration_samples=sum(lane.duration_samples for lane in lanes),
        missing_ms=sum(account.shortfall.missing_ms for account in accounts),
        file_count=len(sizes),
        bytes_written=sum(sizes),
        cpu_ns=cpu_ns,
        media_uris=tuple(places[lane.lane] for lane in lanes if lane.file),
    )
    return extracted, [
        *missing_failures(Stage.EXTRACT_TRACKS, accounts, job.settings),
        *(
            _too_many_at_once(source, each)
            for each in stats.left_out
            if each.reason == LeftOutReason.TOO_MANY_AT_ONCE
        ),
        *(
            _leaves_out_pauses(source, lane, lane.pauses_left_out)
            for lane in lanes
            if lane.pauses_left_out is not None
        ),
    ]


def _file_time(lane: TrackStats) -> FileTime:
    pauses = lane.pauses_left_out
    return FileTime(
        begin_unix_ns=lane.begin_unix_ns,
        longest_pause_samples=None if pauses is None else pauses.longest_pause_samples,
    )


def _place_of(source: TrackSource, lane: TrackStats, job: JobSettings) -> str:
    """Returns the URI of one of a track's files, where it can be replaced."""
    filename = individual_name(
        source.track,
        source.timeline_start_unix_ns // NS_PER_MS,
        job.settings.individual.container,
        lane.lane,
    )
    folder = call_folder(source.track.call)
    return uris.join(job.output_uri, "recordings", folder, filename)


def _stage_rows(
    source: TrackSource,
    lanes: Sequence[TrackStats],
    places: Mapping[int, str],
    accounts: Sequence[DumpAccount],
    job: JobSettings,
    run: RunIdentity,
) -> FragmentRef:
    """Writes the track's rows into staging, where those of its call are made of them."""
    container = job.settings.individual.container
    rows: dict[str, list[Row]] = {
        "recordings": [
            individual_row(source, lane, container, places[lane.lane])
            for lane in lanes
            if lane.file
        ],
        "segments": [row for lane in lanes for row in segment_rows(source, lane)],
        "tracks": [track_row(source, lane) for lane in lanes],
        "dumps": dump_rows(accounts),
    }
    staged = run.staged("rows", f"track-{key_hash(*track_ids(source.track).values())}.json")
    by_table = {table: stamped(found, job, run) for table, found in rows.items()}
    return write_fragment(staged, by_table)


def _uid(track: TrackKey) -> int:
    """Returns 64 bits of a track's key, never 0: in every run the same."""
    return int(key_hash(*track_ids(track).values())[:16], 16) or 1


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
