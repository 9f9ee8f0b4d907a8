"""An archive -> one staged part per participant session and track type, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from transforms.codec.pool import run_in_codec_process
from transforms.elements import (
    ArchiveRef,
    Failure,
    Stage,
    TrackPart,
    finding_to_failure,
    key_hash,
    to_failure,
    wants_failure,
)
from transforms.engine import progress
from transforms.filters import Filters
from transforms.media.errors import ArchiveError, RecordingError, StorageError
from transforms.media.media_hours import TrackReach, share_archive
from transforms.media.rtp.dump_claims import Conventions
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import UnpackedArchive, UnpackedSession, unpack_archive
from transforms.media.values import CallKey
from transforms.sources import archive_files
from transforms.storage import objects, uris, work_folders
from transforms.storage.inputs import ARCHIVE_INPUTS

_OTHER_TRACK_IDS = 20
"""Published tracks of a part, beside those a run is about, that it may be told of."""


def unpack(
    ref: ArchiveRef, limits: LimitSettings, filters: Filters, staging_uri: str
) -> tuple[UnpackedArchive, list[TrackPart], int]:
    """Unpacks an archive and moves what is wanted of it into staging.

    Args:
      ref: the archive.
      limits: bounds on what it may cost.
      filters: which of it is wanted.
      staging_uri: the folder for packets and files being made.

    Returns:
      what it held, its wanted parts, and the CPU time that took in ns.

    Raises:
      RecordingError: nothing of it can be used.
    """
    source = ref.source
    if ref.copy_uri:
        source = ref.copy_uri
        archive = archive_files.file_input(ref.uri, ref.size_bytes)
    else:
        archive = archive_files.archive_input(ref.uri, ref.size_bytes)
    inputs = ARCHIVE_INPUTS.opened_by(ref.uri, source, ref.size_bytes)
    with (
        progress.Portion("bytes_done", ref.size_bytes, ref.size_bytes) as portion,
        work_folders.work_folder(staging_uri) as folder,
    ):
        unpacked, cpu_ns = run_in_codec_process(
            limits, inputs, portion.advance, unpack_archive, archive, folder, limits
        )
        allowed_samples = _share_media(unpacked, limits)
        parts = [
            part
            for session in unpacked.sessions
            if wants(ref, session.key.call, filters)
            for part in _stage_session(
                ref,
                session,
                unpacked.conventions,
                allowed_samples.get(session.key.call, 0),
                folder,
                filters,
                staging_uri,
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
    staging_uri: str,
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
            has_packets=bool(_stage_file(ref, part.packets_file, folder, staging_uri)),
            index_uri=_stage_file(ref, part.index_file, folder, staging_uri),
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


def _stage_file(ref: ArchiveRef, name: str, folder: Path, staging_uri: str) -> str:
    """Moves a file into staging; returns its URI, empty for no file."""
    if not name:
        return ""
    # Not a folder per archive: of short ones that would be most of the work on a disk.
    uri = uris.join(staging_uri, "packets", f"{key_hash(ref.uri)}-{name}")
    objects.move(uri, folder / name)
    return uri


def wants(ref: ArchiveRef, call: CallKey, filters: Filters) -> bool:
    """Whether a run wants a call of an archive, by what it is read for."""
    return call in ref.recalled_for if ref.recalled_for else filters.wants_call(call)


def failures_of(ref: ArchiveRef, unpacked: UnpackedArchive, filters: Filters) -> list[Failure]:
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
            is_wanted = wants(ref, failure.call, filters) and wants_failure(failure, filters)
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
        if wants(ref, call, filters):
            yield to_failure(
                Stage.UNPACK_ARCHIVES,
                error,
                archive_uri=ref.uri,
                archive_modified_unix_ns=ref.modified_unix_ns,
                attempt=ref.attempt,
                call=call,
            )


def failures_of_unusable(ref: ArchiveRef, error: RecordingError) -> list[Failure]:
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
