"""UnpackArchives: each archive -> one staged part per participant session and track type."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.bounds import Bound
from transforms.catalog.gathering import Gathered
from transforms.codec.pool import run_in_codec_process
from transforms.context import JobSettings, RunIdentity, key_hash
from transforms.elements import (
    ArchiveRef,
    ArchiveSummary,
    Failure,
    PutOffArchive,
    Stage,
    TrackPart,
    finding_to_failure,
    to_failure,
    wants_failure,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.filters import Filters
from transforms.media.errors import ArchiveError, RecordingError, StorageError
from transforms.media.media_hours import TrackReach, share_archive
from transforms.media.rtp.dump_claims import Conventions
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import UnpackedArchive, UnpackedSession, unpack_archive
from transforms.media.values import CallKey
from transforms.recovery import completed_work
from transforms.sources import archive_files, raw_copies
from transforms.storage import objects, work_folders
from transforms.storage.inputs import ARCHIVE_INPUTS

logger = logging.getLogger(__name__)

FAILURES = "failures"
ARCHIVES = "archives"
PUT_OFF = "put_off"
_OTHER_TRACK_IDS = 20
"""Published tracks of a part, beside those a run is about, that it may be told of."""


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
            unpacked, parts, cpu_ns = _unpack(ref, self.job, self.run)
            failures = _failures_of(ref, unpacked, self.job.filters)
        except RecordingError as error:
            if ref.copy_uri and isinstance(error, StorageError):
                error = StorageError(f"{ref.uri}: its copy cannot be read: {error.message}")
            failures = _failures_of_unusable(ref, error)
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


def _unpack(
    ref: ArchiveRef, job: JobSettings, run: RunIdentity
) -> tuple[UnpackedArchive, list[TrackPart], int]:
    """Unpacks an archive and moves what is wanted of it into staging.

    Returns:
      what it held, its wanted parts, and the CPU time that took in ns.

    Raises:
      RecordingError: nothing of it can be used.
    """
    limits = job.settings.limits
    source = ref.source
    if ref.copy_uri:
        source = ref.copy_uri
        archive = archive_files.file_input(ref.uri, ref.size_bytes)
    else:
        archive = archive_files.archive_input(ref.uri, ref.size_bytes)
    inputs = ARCHIVE_INPUTS.opened_by(ref.uri, source, ref.size_bytes)
    with (
        progress.Portion("bytes_done", ref.size_bytes, ref.size_bytes) as portion,
        work_folders.work_folder(run.staging_uri) as folder,
    ):
        unpacked, cpu_ns = run_in_codec_process(
            limits, inputs, portion.advance, unpack_archive, archive, folder, limits
        )
        allowed_samples = _share_media(unpacked, limits)
        parts = [
            part
            for session in unpacked.sessions
            if _wants(ref, session.key.call, job.filters)
            for part in _stage_session(
                ref,
                session,
                unpacked.conventions,
                allowed_samples.get(session.key.call, 0),
                folder,
                job.filters,
                run,
            )
        ]
    return unpacked, parts, cpu_ns


def _share_media(unpacked: UnpackedArchive, limits: LimitSettings) -> dict[CallKey, int]:
    """Returns how much media the archive allows each of its calls with audio, in samples.

    All of them have their share, also those that this run is not about.
    """
    calls: dict[CallKey, list[TrackReach]] = {}
    for session in unpacked.sessions:
        for part in session.parts:
            if part.packets_file:
                reach = TrackReach(
                    media_samples=part.media_samples,
                    first_server_unix_ns=part.first_server_unix_ns,
                    stop_server_unix_ns=part.stop_server_unix_ns,
                )
                calls.setdefault(session.key.call, []).append(reach)
    keys = sorted(calls)
    shares = share_archive([calls[key] for key in keys], limits) if keys else ()
    return dict(zip(keys, shares, strict=True))


def _stage_session(
    ref: ArchiveRef,
    session: UnpackedSession,
    conventions: Conventions,
    allowed_samples: int,
    folder: Path,
    filters: Filters,
    run: RunIdentity,
) -> Iterator[TrackPart]:
    """Yields a session's parts, their files moved into staging; one without a track for a session
    in which nothing was sent.
    """
    base = TrackPart(
        call=session.key.call,
        participant_id=session.key.participant_id,
        user_session_id=session.key.user_session_id,
        output_type=None,
        archive_uri=ref.uri,
        archive_modified_unix_ns=ref.modified_unix_ns,
        archive_fingerprint=ref.fingerprint,
        call_start_unix_ns=session.call_start_unix_ns,
        conventions=conventions,
        allowed_samples=allowed_samples,
    )
    if not session.parts:
        yield base
    for part in session.parts:
        yield replace(
            base,
            output_type=part.track.output_type,
            media_samples=part.media_samples,
            first_server_unix_ns=part.first_server_unix_ns,
            last_server_unix_ns=part.last_server_unix_ns,
            stop_server_unix_ns=part.stop_server_unix_ns,
            watch=part.watch,
            track_ids=_told_track_ids(part.track_ids, filters),
            has_packets=bool(_stage_file(ref, part.packets_file, folder, run)),
            index_uri=_stage_file(ref, part.index_file, folder, run),
        )


def _told_track_ids(track_ids: tuple[str, ...], filters: Filters) -> tuple[str, ...]:
    """Returns of the published tracks in a part those that a run is about and a few others, for it
    to say what there is.
    """
    if not filters.track_ids:
        return ()
    wanted = frozenset(filters.track_ids)
    others = [each for each in track_ids if each not in wanted]
    return (*(each for each in track_ids if each in wanted), *others[:_OTHER_TRACK_IDS])


def _stage_file(ref: ArchiveRef, name: str, folder: Path, run: RunIdentity) -> str:
    """Moves a file into staging; returns its URI, empty for no file."""
    if not name:
        return ""
    # Not a folder per archive: of short ones that would be most of the work on a disk.
    uri = run.staged("packets", f"{key_hash(ref.uri)}-{name}")
    objects.move(uri, folder / name)
    return uri


def _wants(ref: ArchiveRef, call: CallKey, filters: Filters) -> bool:
    return call in ref.recalled_for if ref.recalled_for else filters.wants_call(call)


def _failures_of(ref: ArchiveRef, unpacked: UnpackedArchive, filters: Filters) -> list[Failure]:
    """Returns what is wrong with an archive, as far as the run is about it."""
    failures = []
    for finding in unpacked.findings:
        failure = finding_to_failure(
            Stage.UNPACK_ARCHIVES,
            finding,
            archive_uri=ref.uri,
            archive_modified_unix_ns=ref.modified_unix_ns,
            attempt=ref.attempt,
        )
        if failure.call is None:
            is_wanted = not ref.recalled_for  # else the archive's own run has told it
        else:
            is_wanted = _wants(ref, failure.call, filters) and wants_failure(failure, filters)
        if is_wanted:
            failures.append(failure)
    failures += _failures_of_cut(ref, unpacked, filters)
    if ref.not_copied:
        failures.append(
            to_failure(
                Stage.COPY_ARCHIVES,
                StorageError(ref.not_copied),
                archive_uri=ref.uri,
                archive_modified_unix_ns=ref.modified_unix_ns,
                attempt=ref.attempt,
            )
        )
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
    return failures


def _failures_of_cut(
    ref: ArchiveRef, unpacked: UnpackedArchive, filters: Filters
) -> Iterator[Failure]:
    """Yields a failure for each call of an archive that is cut off: nobody knows who else was in
    it.
    """
    if unpacked.cut_by is None:
        return
    error = ArchiveError(f"the call may lack what came behind: {unpacked.cut_by}")
    for call in sorted({session.key.call for session in unpacked.sessions}):
        if _wants(ref, call, filters):
            yield to_failure(
                Stage.UNPACK_ARCHIVES,
                error,
                archive_uri=ref.uri,
                archive_modified_unix_ns=ref.modified_unix_ns,
                attempt=ref.attempt,
                call=call,
            )


def _failures_of_unusable(ref: ArchiveRef, error: RecordingError) -> list[Failure]:
    """Returns the failure of an archive of which nothing can be used, or those of every call it was
    recalled for.
    """
    where = {
        "archive_uri": ref.uri,
        "archive_modified_unix_ns": ref.modified_unix_ns,
        "attempt": ref.attempt,
    }
    if not ref.recalled_for:
        return [to_failure(Stage.UNPACK_ARCHIVES, error, **where)]
    return [
        to_failure(Stage.RECALL_ARCHIVES, error, call=call, **where) for call in ref.recalled_for
    ]


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
        takes_all = all(_wants(ref, call, filters) for call in calls)
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
