"""UnpackArchives: each archive -> one staged part per participant session and track type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.codec.pool import run_in_codec_process
from transforms.context import JobSettings, RunIdentity, key_hash
from transforms.elements import (
    ArchiveRef,
    ArchiveSummary,
    Failure,
    Stage,
    TrackPart,
    finding_to_failure,
    to_failure,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn
from transforms.filters import wants_failure
from transforms.media.errors import ArchiveError, RecordingError
from transforms.media.findings import Finding
from transforms.media.track.stage_track import StagedPart
from transforms.media.unpack_archive import UnpackedArchive, UnpackedSession, unpack_archive
from transforms.media.values import CallKey
from transforms.recovery import completed_work
from transforms.sources import archive_files
from transforms.storage import objects, work_folders
from transforms.storage.inputs import ARCHIVE_INPUTS

FAILURES = "failures"
ARCHIVES = "archives"


class UnpackArchives(beam.PTransform):
    """Input: `ArchiveRef`. Output: `TrackPart` (main), `Failure` (`failures`), `ArchiveSummary`
    (`archives`).

    Writes each part's packets and index into staging under names that come from the archive's URI,
    so a retried bundle writes the same objects again. Parallel over archives; memory grows with the
    longest segment (about 150 MB for 8 h), in a codec process.
    """

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> beam.pvalue.DoOutputsTuple:
        return (
            archives
            | "SpreadArchives" >> beam.Reshuffle()
            | "Unpack"
            >> beam.ParDo(_UnpackFn(self._job, self._run)).with_outputs(
                FAILURES, ARCHIVES, main="parts"
            )
        )


class _UnpackFn(ParallelRunFn):
    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        super().__init__(job, run)
        self._parts = Metrics.counter(UnpackArchives, "parts_staged")
        self._failures = Metrics.counter(UnpackArchives, "failures")
        self._bytes = Metrics.counter(UnpackArchives, "archive_bytes")

    def count(self, output: Any) -> None:
        if isinstance(output, TrackPart):
            self._parts.inc()
        elif output.tag == FAILURES:
            self._failures.inc()
        else:
            self._bytes.inc(output.value.bytes_read)

    def size(self, ref: ArchiveRef) -> int:
        return ref.size_bytes

    def work(self, ref: ArchiveRef) -> Iterator[Any]:
        filters, limits = self.job.filters, self.job.settings.limits
        try:
            archive = archive_files.archive_input(ref.uri, ref.size_bytes)
            with (
                progress.Portion("bytes_done", ref.size_bytes, ref.size_bytes) as portion,
                work_folders.work_folder(self.run.staging_uri) as folder,
            ):
                unpacked, cpu_ns = run_in_codec_process(
                    limits,
                    ARCHIVE_INPUTS,
                    portion.advance,
                    unpack_archive,
                    archive,
                    folder,
                    limits,
                )
                wanted = [
                    session for session in unpacked.sessions if self._wants(ref, session.key.call)
                ]
                parts = [part for session in wanted for part in self._stage(ref, session, folder)]
        except RecordingError as error:
            yield from self._failed(ref, error)
            return
        told = (_to_failure(finding, ref) for finding in unpacked.findings)
        failures = [failure for failure in told if self._is_about(ref, failure)]
        for call in set(ref.recalled_for) - {session.key.call for session in unpacked.sessions}:
            gone = ArchiveError(
                f"{ref.uri}: no longer holds call {call.cid}, session {call.call_session_id}"
            )
            failures.append(
                to_failure(
                    Stage.RECALL_ARCHIVES,
                    gone,
                    archive_uri=ref.uri,
                    archive_modified_unix_ns=ref.modified_unix_ns,
                    call=call,
                )
            )
        complete = len(wanted) == len(unpacked.sessions) and not filters.narrows_tracks
        yield from parts
        for failure in failures:
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        if ref.recalled_for:
            return
        progress.report("archives")
        progress.report("tracks_found", sum(1 for part in parts if part.packets_uri))
        progress.report("bytes_unpacked", ref.size_bytes)
        progress.report("samples_unpacked", sum(part.media_samples for part in parts))
        progress.report("failures", len(failures))
        first = failures[0] if failures else None
        summary = _summary(ref, unpacked, first, complete, cpu_ns)
        summary = replace(summary, track_count=sum(1 for part in parts if part.packets_uri))
        self._note(summary, failures)
        yield beam.pvalue.TaggedOutput(ARCHIVES, summary)

    def _note(self, summary: ArchiveSummary, failures: Iterable[Failure]) -> None:
        if summary.is_complete:
            own = tuple(failure for failure in failures if failure.call is None)
            completed_work.note_archive(self.job, self.run, summary, own)

    def _wants(self, ref: ArchiveRef, call: CallKey) -> bool:
        return call in ref.recalled_for if ref.recalled_for else self.job.filters.wants_call(call)

    def _is_about(self, ref: ArchiveRef, failure: Failure) -> bool:
        if failure.call is None:
            return not ref.recalled_for  # the archive's own run has told it
        return self._wants(ref, failure.call) and wants_failure(failure, self.job.filters)

    def _failed(self, ref: ArchiveRef, error: RecordingError) -> Iterator[Any]:
        """An archive of which nothing can be used: a failure of its own, or of every call it was
        recalled for.
        """
        where = {
            "archive_uri": ref.uri,
            "archive_modified_unix_ns": ref.modified_unix_ns,
            "attempt": ref.attempt,
        }
        progress.report("failures")
        for call in ref.recalled_for:
            yield beam.pvalue.TaggedOutput(
                FAILURES, to_failure(Stage.RECALL_ARCHIVES, error, call=call, **where)
            )
        if not ref.recalled_for:
            progress.report("archives")
            failure = to_failure(Stage.UNPACK_ARCHIVES, error, **where)
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
            complete = not self.job.filters.narrows_tracks and not self.job.filters.calls
            summary = _summary(ref, None, failure, complete, 0)
            self._note(summary, [failure])
            yield beam.pvalue.TaggedOutput(ARCHIVES, summary)

    def _stage(
        self, ref: ArchiveRef, session: UnpackedSession, folder: Path
    ) -> Iterable[TrackPart]:
        base = TrackPart(
            call=session.key.call,
            participant_id=session.key.participant_id,
            user_session_id=session.key.user_session_id,
            output_type=None,
            archive_uri=ref.uri,
            archive_modified_unix_ns=ref.modified_unix_ns,
            archive_fingerprint=ref.fingerprint,
            call_start_unix_ns=session.call_start_unix_ns,
        )
        if not session.parts:
            yield base
        for part in session.parts:
            yield self._stage_part(ref, base, part, folder)

    def _stage_part(
        self, ref: ArchiveRef, base: TrackPart, part: StagedPart, folder: Path
    ) -> TrackPart:
        prefix = key_hash(ref.uri)

        def stage(file: str) -> str:
            if not file:
                return ""
            # Not a folder per archive: of short ones that would be most of the work on a disk.
            uri = self.run.staged("packets", f"{prefix}-{file}")
            objects.move(uri, folder / file)
            return uri

        return replace(
            base,
            output_type=part.track.output_type,
            media_samples=part.media_samples,
            first_server_unix_ns=part.first_server_unix_ns,
            last_server_unix_ns=part.last_server_unix_ns,
            packets_uri=stage(part.packets_file),
            index_uri=stage(part.index_file),
        )


def _to_failure(finding: Finding, ref: ArchiveRef) -> Failure:
    return finding_to_failure(
        Stage.UNPACK_ARCHIVES,
        finding,
        archive_uri=ref.uri,
        archive_modified_unix_ns=ref.modified_unix_ns,
        attempt=ref.attempt,
    )


def _summary(
    ref: ArchiveRef,
    unpacked: UnpackedArchive | None,
    failure: Failure | None,
    complete: bool,
    cpu_ns: int,
) -> ArchiveSummary:
    sessions = unpacked.sessions if unpacked else ()
    return ArchiveSummary(
        ref=ref,
        is_complete=complete,
        member_count=unpacked.member_count if unpacked else None,
        track_count=0,
        calls=tuple(sorted({session.key.call for session in sessions})),
        first_failure=failure,
        could_read=unpacked is not None,
        bytes_read=unpacked.bytes_read if unpacked else 0,
        cpu_ns=cpu_ns,
    )
