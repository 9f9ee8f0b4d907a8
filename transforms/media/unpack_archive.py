"""One archive -> one staged part per participant session and track type. Runs in a codec process.

The archive is read once, front to back. Dumps go to a local folder as they come, under numbers and
never under their own names (a tar often has the metadata that says whose they are at its end), then
each segment is ingested and its packets are staged in order. What is wrong with a member, a session
or a segment is a failure of that; the rest is staged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from transforms.media.archive.read_members import Contents, Failures, no_memory, read_contents
from transforms.media.buffers import MappedFile
from transforms.media.errors import (
    ArchiveError,
    CodecProcessError,
    RecordingError,
    StorageError,
    TimelineError,
    TimingMetadataError,
    UnsupportedCodecError,
)
from transforms.media.job import JobHost
from transforms.media.rtp.ingest import IngestedSegment, ingest_segment
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.streams import PacketCounts
from transforms.media.rtp.timing_metadata import SegmentTiming, SessionTiming
from transforms.media.settings import LimitSettings
from transforms.media.text import one_line
from transforms.media.track.staged_packets import PartIndex, StagedRun, dump_index, write_packet_run
from transforms.media.units import samples_to_ns
from transforms.media.values import (
    OUTPUT_TYPE_OF,
    ArchiveRef,
    CallKey,
    Failure,
    OutputType,
    TrackKey,
    TrackType,
)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedPart:
    """A track's share of this archive, its two files in the local folder."""

    track: TrackKey
    packets_file: str
    """Empty, as `index_file`, when the track has segments but no packet was sent in them."""
    index_file: str
    media_samples: int
    first_server_unix_ns: int
    last_server_unix_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedSession:
    """A participant session the archive speaks of, with or without audio."""

    call: CallKey
    call_start_unix_ns: int | None
    participant_id: str
    user_session_id: str
    parts: tuple[UnpackedPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedArchive:
    """What an archive held; failures are of members, the rest is usable."""

    sessions: tuple[UnpackedSession, ...]
    failures: tuple[Failure, ...]
    member_count: int
    bytes_read: int


def unpack_archive(
    host: JobHost,
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    folder: Path,
    limits: LimitSettings,
) -> UnpackedArchive:
    """Stages every audio track of an archive in `folder`.

    Args:
      host: gives the archive; told how many of its bytes are dealt with, half of them while it is
        read, half while its segments are staged.
      ref: the archive; its `uri` is what the host opens it by.
      folder_members: relative path and size of each file when the archive is an unpacked folder,
        else empty.
      folder: a local folder; holds what `UnpackedPart` names on return. What an earlier try left in
        it is overwritten.
      limits: bounds on what the archive may cost.

    Raises:
      ArchiveError: no archive, or nothing in it that could be a recording.
      StorageError: the local disk is full.
    """
    deadline = time.monotonic() + limits.max_archive_seconds
    spool = folder / "dumps"
    shutil.rmtree(spool, ignore_errors=True)  # of a child that died over the same archive
    spool.mkdir()
    failures = Failures(ref)
    with _on_local_disk(folder):
        gauge = _Gauge(ref.size_bytes, host.tell_progress)
        contents = read_contents(
            ref, folder_members, host.open_input, spool, limits, failures, gauge.read
        )
        stager = _Stager(contents, folder, limits, failures, deadline, gauge)
        sessions = []
        for number, timings in enumerate(_by_session(contents.sessions)):
            parts = stager.stage_session(number, timings)
            sessions.append(
                UnpackedSession(
                    call=timings[0].call,
                    call_start_unix_ns=_call_start(timings, failures),
                    participant_id=timings[0].participant_id,
                    user_session_id=timings[0].user_session_id,
                    parts=tuple(parts),
                )
            )
        stager.tell_unlisted()
    shutil.rmtree(spool)
    return UnpackedArchive(
        sessions=tuple(sessions),
        failures=failures.all(),
        member_count=contents.member_count,
        bytes_read=sum(size for _, size in folder_members) or ref.size_bytes,
    )


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


def _by_session(timings: list[SessionTiming]) -> list[list[SessionTiming]]:
    """Groups metadata by participant session: one session's may be split over several members."""
    found: dict[tuple[CallKey, str, str], list[SessionTiming]] = {}
    for timing in timings:
        found.setdefault((timing.call, timing.participant_id, timing.user_session_id), []).append(
            timing
        )
    return list(found.values())


def _call_start(timings: list[SessionTiming], failures: Failures) -> int | None:
    """Returns when the call began by a session's metadata: the earliest where its members
    contradict each other.
    """
    stated = sorted(
        (timing for timing in timings if timing.call_start_unix_ns is not None),
        key=lambda t: t.call_start_unix_ns or 0,
    )
    if not stated:
        return None
    first, last = stated[0], stated[-1]
    apart = (last.call_start_unix_ns or 0) - (first.call_start_unix_ns or 0)
    if apart:
        message = (
            f"{last.member}: call_start_time is {apart / 1e9:.3f} s after the one in "
            f"{first.member}, expected the same in all "
            "metadata of a participant session; the earlier was taken"
        )
        failures.add(TimingMetadataError(message, member=last.member), session=last)
    return first.call_start_unix_ns


class _Gauge:
    """Tells how far an archive is. What it expands to is known only when it was read: half of its
    bytes stand for that.
    """

    def __init__(self, size_bytes: int, on_progress: Callable[[int], None]) -> None:
        self._half_bytes = size_bytes // 2
        self._on_progress = on_progress
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
            self._on_progress(archive_bytes)


def _write_runs(
    file: BinaryIO, segment: IngestedSegment, dump: MappedFile, timing: SegmentTiming
) -> Iterator[tuple[StagedRun, int]]:
    """Stages a segment's runs one after the other; yields what each is, and its samples."""
    for run in segment.packet_runs:
        offset = file.tell()
        write_packet_run(file, run.records, dump.bytes, run.source_offset, dump.let_go)
        last = run.records[-1]
        index = StagedRun(
            base_filename=timing.base_filename,
            track_id=timing.track_id,
            ssrc=run.ssrc,
            packet_count=len(run.records),
            packets_lost=int(run.records["lost_before"].sum()),
            media_stop_sample=int(last["media_sample"]) + int(last["duration_samples"]),
            file_offset_bytes=offset,
            clock=run.clock,
        )
        yield index, int(run.records["duration_samples"].sum())


class _Stager:
    """Stages the tracks of participant sessions; what fails is one segment."""

    def __init__(
        self,
        contents: Contents,
        folder: Path,
        limits: LimitSettings,
        failures: Failures,
        deadline: float,
        gauge: _Gauge,
    ) -> None:
        self._contents = contents
        self._folder = folder
        self._limits = limits
        self._failures = failures
        self._deadline = deadline
        self._gauge = gauge
        self._is_late = False
        self._used: set[str] = set()
        self._asked: set[str] = set()

    def stage_session(self, number: int, timings: list[SessionTiming]) -> list[UnpackedPart]:
        """Stages one session. Args: timings: all metadata of it."""
        first = timings[0]
        by_output: dict[OutputType, dict[str, tuple[SegmentTiming, str]]] = {}
        for timing in timings:
            for segment in timing.video:
                self._use(segment, timing)
            for segment in timing.audio:
                try:
                    output_type = OUTPUT_TYPE_OF[TrackType(segment.track_type)]
                except ValueError:
                    message = (
                        f"{timing.member}: segment {segment.base_filename} has track_type "
                        f"{segment.track_type[:100]!r}, "
                        f"expected {TrackType.AUDIO} or {TrackType.SCREEN_SHARE_AUDIO}"
                    )
                    self._failures.add(ArchiveError(message, member=timing.member), session=timing)
                    self._use(segment, timing)
                    continue
                by_output.setdefault(output_type, {}).setdefault(
                    segment.base_filename, (segment, timing.member)
                )
        parts = []
        for output_type in sorted(by_output):
            track = TrackKey(
                call=first.call,
                participant_id=first.participant_id,
                user_session_id=first.user_session_id,
                output_type=output_type,
            )
            segments = sorted(
                by_output[output_type].values(),
                key=lambda s: (s[0].first_rtp_unix_ms or 0, s[0].base_filename),
            )
            part = self._stage_track(track, segments, self._folder / f"{number}-{output_type}")
            if part is not None:
                parts.append(part)
        return parts

    def tell_unlisted(self) -> None:
        """Tells of what no metadata has asked for: dumps, and descriptions that are damaged."""
        for base in sorted(set(self._contents.descriptions) - self._asked):
            found = self._contents.descriptions[base]
            if isinstance(
                found, ArchiveError
            ):  # damage of the archive; what a description says matters to its segment only
                self._failures.add(found)
        for base in sorted(set(self._contents.dumps) - self._used):
            damage = self._contents.dumps[base].damage
            if damage is not None:
                self._failures.add(damage)
            elif not self._is_late:
                message = (
                    f"{base}.rtpdump: no timing metadata lists this dump, expected a segment with "
                    "its base_filename"
                )
                self._failures.add(ArchiveError(message, member=f"{base}.rtpdump"))

    def _use(self, segment: SegmentTiming, timing: SessionTiming) -> None:
        base = self._contents.dumps.find(segment.base_filename, timing.member)
        if base is not None:
            self._used.add(base)

    def _stage_track(
        self, track: TrackKey, segments: list[tuple[SegmentTiming, str]], stem: Path
    ) -> UnpackedPart | None:
        packets_path, index_path = stem.with_suffix(".packets"), stem.with_suffix(".json")
        runs: list[StagedRun] = []
        counts, channels, codec = PacketCounts(), 0, "audio/opus"
        media_samples: dict[int, int] = {}
        jitters: list[tuple[float, int]] = []
        failed = False

        def fail(error: RecordingError) -> None:
            nonlocal failed
            failed = True
            self._failures.add(error, track)

        with packets_path.open("wb") as packets:
            for timing, metadata_member in segments:
                try:
                    with self._ingested(timing, metadata_member, fail) as (segment, dump):
                        for run, samples in _write_runs(packets, segment, dump, timing):
                            runs.append(run)
                            media_samples[run.file_offset_bytes] = samples
                    segment = replace(
                        segment, packet_runs=()
                    )  # not to be held while the next one is read
                    counts += segment.counts
                    channels = max(channels, segment.channels)
                    codec = segment.codec if segment.codec == "audio/red" else codec
                    if segment.jitter_ms is not None:
                        jitters.append((segment.jitter_ms, segment.counts.received))
                except RecordingError as error:
                    fail(error)
                except MemoryError:
                    fail(no_memory(f"{timing.base_filename}.rtpdump"))
        runs = self._near_runs(runs, media_samples, fail)
        if not runs:
            packets_path.unlink()
            if failed:
                return None
            return UnpackedPart(
                track=track,
                packets_file="",
                index_file="",
                media_samples=0,
                first_server_unix_ns=0,
                last_server_unix_ns=0,
            )
        weight = sum(count for _, count in jitters)
        index = PartIndex(
            channels=channels,
            codec=codec,
            segment_count=len(segments),
            counts=counts,
            jitter_ms=sum(value * count for value, count in jitters) / weight if weight else None,
            packet_runs=tuple(runs),
        )
        index_path.write_bytes(dump_index(index))
        return UnpackedPart(
            track=track,
            packets_file=packets_path.name,
            index_file=index_path.name,
            media_samples=sum(media_samples[run.file_offset_bytes] for run in runs),
            first_server_unix_ns=min(run.clock.first_server_unix_ns for run in runs),
            last_server_unix_ns=max(run.clock.first_server_unix_ns for run in runs),
        )

    def _near_runs(
        self,
        runs: list[StagedRun],
        media_samples: dict[int, int],
        fail: Callable[[RecordingError], None],
    ) -> list[StagedRun]:
        """Leaves out what lies days from the rest of its track: its clock is wrong, and the file
        would be silence.
        """
        if not runs:
            return runs
        hours = self._limits.max_call_hours
        starts = sorted(
            (run.clock.first_server_unix_ns, media_samples[run.file_offset_bytes]) for run in runs
        )
        # The one in the middle by media, so that a stray packet does not speak for hours of audio.
        half, middle = sum(samples for _, samples in starts) / 2, starts[0][0]
        for start, samples in starts:
            middle = start
            half -= samples
            if half <= 0:
                break
        kept = []
        for run in runs:
            start = run.clock.first_server_unix_ns
            end = run.clock.base_unix_ns + samples_to_ns(run.media_stop_sample)
            end += min(delay for _, delay in run.clock.plateaus[-1].hull)
            if max(abs(start - middle), end - middle) <= hours * _HOUR_NS:
                kept.append(run)
                continue
            apart = max(abs(start - middle), end - middle) / _HOUR_NS
            message = (
                f"{run.base_filename}.rtpdump: {run.packet_count} packets lie {apart:.1f} h from "
                "the rest of their track, "
                f"expected at most {hours} h (limits.max_call_hours)"
            )
            fail(TimelineError(message, member=f"{run.base_filename}.rtpdump"))
        return kept

    @contextlib.contextmanager
    def _ingested(
        self, timing: SegmentTiming, metadata_member: str, fail: Callable[[RecordingError], None]
    ) -> Iterator[tuple[IngestedSegment, MappedFile]]:
        """Gives one segment and its dump, which is deleted afterwards."""
        dumps = self._contents.dumps
        member = f"{timing.base_filename}.rtpdump"
        base = dumps.find(timing.base_filename, metadata_member)
        if base is None:
            raise ArchiveError(
                f"{member}: not in the archive, listed by {metadata_member}", member=member
            )
        if base in self._used:
            raise ArchiveError(
                f"{member}: listed again by {metadata_member}, expected one session to have it",
                member=member,
            )
        if time.monotonic() > self._deadline:
            self._is_late = True
            raise CodecProcessError(
                f"{member}: not reached, unpacking took more than "
                f"{self._limits.max_archive_seconds} s "
                "(limits.max_archive_seconds)",
                member=member,
            )
        self._used.add(base)
        path, damage = dumps[base].path, dumps[base].damage
        if damage is not None:
            fail(damage)
        maps = self._rtp_maps(timing, metadata_member, fail)
        if os.path.getsize(path) == 0:
            raise ArchiveError(
                f"{member}: empty, expected an rtpdump", member=member, byte_offset=0
            )
        mapped = MappedFile(path)
        dump = mapped.bytes
        segment = ingest_segment(
            lambda: path.open("rb"), dump, member, maps, timing, self._limits, mapped.let_go
        )
        for warning in segment.warnings:
            fail(warning)
        yield segment, mapped
        path.unlink()
        self._gauge.staged(len(dump))

    def _rtp_maps(
        self, timing: SegmentTiming, metadata_member: str, fail: Callable[[RecordingError], None]
    ) -> dict[int, RtpMap]:
        """Returns what the segment's session description maps; nothing, and a failure, when it
        cannot be read.
        """
        descriptions = self._contents.descriptions
        known = timing.codec.lower() in ("audio/opus", "audio/red")
        if not known and timing.codec:
            raise UnsupportedCodecError(
                f"{timing.base_filename}: codec is {one_line(timing.codec[:100])}, expected "
                "audio/opus or audio/red",
                member=metadata_member,
            )
        base = descriptions.find(timing.base_filename, metadata_member)
        if base is None:
            member = f"{timing.base_filename}.sdp"
            fail(
                ArchiveError(
                    f"{member}: not in the archive, the codec was taken from {metadata_member}",
                    member=member,
                )
            )
            return {}
        self._asked.add(base)
        found = descriptions[base]
        if isinstance(found, RecordingError):
            fail(found)
            return {}
        return found
