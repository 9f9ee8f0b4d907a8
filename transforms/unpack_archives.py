"""UnpackArchives: each archive -> one staged part per participant session and track type."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.bounds import Bound
from transforms.catalog.gathering import Gathered
from transforms.context import JobSettings
from transforms.elements import (
    ArchiveRef,
    ArchiveSummary,
    Failure,
    PutOffArchive,
    TrackPart,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.filters import Filters
from transforms.media.errors import RecordingError, StorageError
from transforms.media.unpack_archive import UnpackedArchive
from transforms.media.values import CallKey
from transforms.pressing.unpack import failures_of, failures_of_unusable, unpack, wants
from transforms.recovery import completed_work
from transforms.sources import raw_copies

logger = logging.getLogger(__name__)

FAILURES = "failures"
ARCHIVES = "archives"
PUT_OFF = "put_off"


class UnpackArchives(beam.PTransform):
    """Input: `ArchiveRef`. Output: `TrackPart` (main), `Failure` (`failures`), `ArchiveSummary`
    (`archives`), `PutOffArchive` (`put_off`): what was not begun before the run was to start no
    more. Archives of earlier runs are always read: their calls are judged when they are planned.

    Writes each part's packets and index into staging under names that come from the archive's URI,
    so a retried bundle writes the same objects again. Parallel over archives; memory grows with the
    longest segment (about 150 MB for 8 h), in a codec process.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> beam.pvalue.DoOutputsTuple:
        return (
            archives
            | "SpreadArchives" >> beam.Reshuffle()
            | "Unpack"
            >> beam.ParDo(_UnpackFn(self._job), self._run).with_outputs(
                FAILURES, ARCHIVES, PUT_OFF, main="parts"
            )
        )


class _UnpackFn(ParallelRunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._parts = Metrics.counter(UnpackArchives, "parts_staged")
        self._failures = Metrics.counter(UnpackArchives, "failures")
        self._archives = Metrics.counter(UnpackArchives, "archives_unpacked")
        self._bytes = Metrics.counter(UnpackArchives, "archive_bytes")

    def count(self, output: Any) -> None:
        if isinstance(output, TrackPart):
            self._parts.inc()
        elif output.tag == FAILURES:
            self._failures.inc()
        elif output.tag == ARCHIVES:
            self._archives.inc()
            self._bytes.inc(output.value.bytes_read)

    def size(self, ref: ArchiveRef) -> int:
        return ref.size_bytes

    def work(self, ref: ArchiveRef) -> Iterator[Any]:
        if not ref.recalled_for and self.job.bounds.is_over(self.run.started_unix_ns):
            progress.add("archives")
            progress.add("bytes_done", ref.size_bytes)
            yield beam.pvalue.TaggedOutput(
                PUT_OFF, PutOffArchive(ref=ref.without_link(), by=Bound.STOP_AFTER)
            )
            return
        unpacked: UnpackedArchive | None = None
        parts: list[TrackPart] = []
        cpu_ns = 0
        if ref.copy_uri and raw_copies.is_gone(ref.copy_uri, ref.size_bytes):
            logger.warning("%s: its copy %s is gone or cut short", ref.uri, ref.copy_uri)
            ref = replace(ref, copy_uri="")
        try:
            unpacked, parts, cpu_ns = unpack(
                ref, self.job.settings.limits, self.job.filters, self.run.staging_uri
            )
            failures = failures_of(ref, unpacked, self.job.filters)
        except RecordingError as error:
            if ref.copy_uri and isinstance(error, StorageError):
                error = StorageError(f"{ref.uri}: its copy cannot be read: {error.message}")
            failures = failures_of_unusable(ref, error)
            progress.add("failures")
        yield from parts
        for failure in failures:
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        ref = ref.without_link()  # what follows may outlive the run
        if ref.recalled_for:  # it is another run's archive, which has told of it
            return
        progress.add("archives")
        summary = _summarise(ref, unpacked, parts, failures, self.job.filters, cpu_ns)
        if unpacked is not None:
            progress.add("tracks_found", summary.track_count)
            progress.add("bytes_unpacked", ref.size_bytes)
            progress.add("samples_unpacked", sum(part.media_samples for part in parts))
            progress.add("failures", len(failures))
        if summary.is_complete:
            own = tuple(failure for failure in failures if failure.call is None)
            yield _Note(completed_work.note_of_archive(self.job, self.run, summary, own))
        yield beam.pvalue.TaggedOutput(ARCHIVES, summary)

    def start_bundle(self) -> None:
        super().start_bundle()
        self._gathered = Gathered()

    def give(self, outputs: list[Any]) -> Iterable[Any]:
        for output in outputs:
            if isinstance(output, _Note):
                self._gathered.add((), output.content)
        if self._gathered.is_due:
            self.give_rest()
        return [output for output in outputs if not isinstance(output, _Note)]

    def give_rest(self) -> Iterable[Any]:
        if self._gathered.is_empty:
            return ()
        try:
            self._gathered.write(self.run.staging_uri)
        except StorageError as error:  # it costs no more than the work it would have saved
            logger.warning("%s", error.message)
        return ()

    def patience_seconds(self) -> float | None:
        return self._gathered.seconds_left


@dataclass(frozen=True, slots=True)
class _Note:
    """That an archive is done: to be staged with those of others."""

    content: Mapping[str, bytes]


def _summarise(
    ref: ArchiveRef,
    unpacked: UnpackedArchive | None,
    parts: list[TrackPart],
    failures: list[Failure],
    filters: Filters,
    cpu_ns: int,
) -> ArchiveSummary:
    """Returns what unpacking came to. Args: unpacked: None for an archive that is unusable."""
    if unpacked is None:
        calls: tuple[CallKey, ...] = ()
        # What it holds nobody knows: it may be what was asked for, and is not what was left out.
        takes_all = not filters.calls
    else:
        calls = tuple(sorted({session.key.call for session in unpacked.sessions}))
        takes_all = all(wants(ref, call, filters) for call in calls)
    return ArchiveSummary(
        ref=ref,
        is_complete=takes_all and not filters.narrows_tracks,
        member_count=unpacked.member_count if unpacked else None,
        track_count=sum(1 for part in parts if part.packets_uri),
        calls=calls,
        convention=str(unpacked.conventions) if unpacked else "",
        # What another archive may bring comes last: whether one does, the call tells; as it tells
        # whether what is wrong is with the published tracks that a run is about.
        first_failure=min(
            (f for f in failures if f.call is None or not filters.track_ids),
            key=lambda f: f.lacks_segment is not None,
            default=None,
        ),
        could_read=unpacked is not None,
        bytes_read=unpacked.bytes_read if unpacked else 0,
        cpu_ns=cpu_ns,
    )
