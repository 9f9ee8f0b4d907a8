"""One archive -> one staged part per participant session and track type. Runs in a codec process.

The archive is read once, front to back. Dumps go to a local folder as they come (a tar often has
the metadata that says whose they are at its end), then each segment is ingested and its packets are
staged in order. What is wrong with a member, a session or a segment is a finding; the rest is
staged.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transforms.media.archive.claims import Claims
from transforms.media.archive.read_members import (
    ArchiveInput,
    ArchiveMembers,
    check_has_metadata,
    read_members,
)
from transforms.media.errors import StorageError
from transforms.media.findings import Finding, Findings
from transforms.media.job import JobHost
from transforms.media.rtp.dump_claims import Conventions, find_conventions
from transforms.media.rtp.ingested_packet_run import IngestedPacketRun
from transforms.media.rtp.participant_sessions import (
    ListedSegment,
    call_start_unix_ns,
    group_by_session,
    segments_by_output,
)
from transforms.media.rtp.timing_metadata import SessionTiming
from transforms.media.settings import LimitSettings
from transforms.media.track.stage_track import StagedPart, stage_track
from transforms.media.units import Ints
from transforms.media.values import SessionKey, TrackKey

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedSession:
    """A participant session the archive speaks of, with or without audio."""

    key: SessionKey
    call_start_unix_ns: int | None
    parts: tuple[StagedPart, ...]
    """One for each track that has segments, with packets or without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedArchive:
    """What an archive held. Findings are about members of it; the rest is usable."""

    sessions: tuple[UnpackedSession, ...]
    findings: tuple[Finding, ...]
    cut_by: str | None
    """What ended the archive before its time; None when it was read to its end."""
    conventions: Conventions
    """In what its metadata and its dumps differ alike."""
    member_count: int
    bytes_read: int


class UnpackObserver(Protocol):
    """Whoever wants to see more of an archive than is staged. Nothing it does changes that."""

    def see_members(self, members: ArchiveMembers) -> None:
        """The archive was read: these are its members."""

    def see_packet_run(self, packet_run: IngestedPacketRun, arrival_unix_ns: Ints) -> None:
        """As `PacketRunObserver`; those of a track come before it does."""

    def see_track(self, part: StagedPart) -> None:
        """A track was staged; its files may be taken away."""


def unpack_archive(
    host: JobHost,
    archive: ArchiveInput,
    folder: Path,
    limits: LimitSettings,
    observer: UnpackObserver | None = None,
) -> UnpackedArchive:
    """Stages every audio track of an archive in a local folder.

    Args:
      host: gives the archive; told how many of its bytes are dealt with, half of them while it is
        read, half while its segments are staged.
      archive: what to read.
      folder: a local folder; holds what `StagedPart` names on return. What an earlier try left in
        it is overwritten.
      limits: bounds on what the archive may cost.
      observer: is shown what the archive holds while it is there; None where nobody looks.

    Raises:
      ArchiveError: no archive, or nothing in it that could be a recording.
      StorageError: the local disk is full.
    """
    deadline = time.monotonic() + limits.max_archive_seconds
    dump_folder = folder / "dumps"
    shutil.rmtree(dump_folder, ignore_errors=True)  # of a child that died over the same archive
    dump_folder.mkdir()
    findings = Findings()
    with _on_local_disk(folder):
        gauge = _Gauge(archive.size_bytes, host.tell_progress)
        members = read_members(archive, host.open_input, dump_folder, limits, findings, gauge.read)
        if observer is not None:
            observer.see_members(members)
        check_has_metadata(members, findings)
        claims = Claims(members, limits, deadline)
        by_session = group_by_session(members.sessions)
        tracks = {
            key: _tracks(key, timings, claims, findings) for key, timings in by_session.items()
        }
        claims.match_by_time(
            [
                (track, segment)
                for its_tracks in tracks.values()
                for track, segments in its_tracks
                for segment in segments
            ],
            findings,
        )
        sessions = []
        for number, (key, timings) in enumerate(by_session.items()):
            stem = folder / str(number)
            parts = []
            for track, segments in tracks[key]:
                part = stage_track(
                    track,
                    segments,
                    claims,
                    stem.with_name(f"{stem.name}-{track.output_type}"),
                    limits,
                    findings,
                    gauge.staged,
                    None if observer is None else observer.see_packet_run,
                )
                parts.append(part)
                if observer is not None:
                    observer.see_track(part)
            start = call_start_unix_ns(timings, findings)
            sessions.append(UnpackedSession(key=key, call_start_unix_ns=start, parts=tuple(parts)))
        claims.tell_unclaimed(findings)
    shutil.rmtree(dump_folder)
    return UnpackedArchive(
        sessions=tuple(sessions),
        findings=findings.all(),
        cut_by=members.cut_by,
        conventions=find_conventions(
            end for session in sessions for part in session.parts for end in part.ends
        ),
        member_count=members.member_count,
        bytes_read=sum(size for _, size in archive.folder_members or ()) or archive.size_bytes,
    )


def _tracks(
    key: SessionKey, timings: Sequence[SessionTiming], claims: Claims, findings: Findings
) -> list[tuple[TrackKey, list[ListedSegment]]]:
    """Returns the tracks of one participant session and their segments, in order of time.

    Dumps of its other segments count as asked for.
    """
    by_output, others = segments_by_output(timings, findings)
    for segment in others:
        claims.pass_over(segment)
    return [(key.track(output_type), segments) for output_type, segments in by_output.items()]


@contextlib.contextmanager
def _on_local_disk(folder: Path) -> Iterator[None]:
    """A full disk is no fault of the archive and no bug: it is told as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise StorageError(
            f"{folder.parent}: {error.strerror}, expected room for the expanded archive"
        ) from error


class _Gauge:
    """Tells how far an archive is. What it expands to is known only when it was read: half of its
    bytes stand for that.
    """

    def __init__(self, size_bytes: int, tell_progress: Callable[[int], None]) -> None:
        self._half_bytes = size_bytes // 2
        self._tell_progress = tell_progress
        self._read_bytes = 0
        self._staged_bytes = 0

    def read(self, dump_bytes: int) -> None:
        """Some of a dump was read."""
        before = min(self._half_bytes, self._read_bytes // 2)
        self._read_bytes += dump_bytes
        self._tell(min(self._half_bytes, self._read_bytes // 2) - before)

    def staged(self, dump_bytes: int) -> None:
        """A whole dump was staged."""
        before = self._half_bytes * self._staged_bytes // max(1, self._read_bytes)
        self._staged_bytes += dump_bytes
        self._tell(self._half_bytes * self._staged_bytes // max(1, self._read_bytes) - before)

    def _tell(self, archive_bytes: int) -> None:
        if archive_bytes:
            self._tell_progress(archive_bytes)
