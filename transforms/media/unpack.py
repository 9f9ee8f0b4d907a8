"""One archive -> one staged part per participant session and track type. Runs in a codec process.

The archive is read once, front to back. Dumps go to a local folder as they come (a tar often has the metadata that says
whose they are at its end), then each segment is ingested and its packets are staged in order.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.archive import Member, walk_archive, walk_folder
from transforms.media.errors import ArchiveError, RecordingError, TimingMetadataError, UnsupportedCodecError
from transforms.media.ingest import Bytes, IngestedSegment, ingest_segment
from transforms.media.model import (
    OUTPUT_TYPE_OF,
    ArchiveRef,
    CallKey,
    Failure,
    LimitSettings,
    OutputType,
    PacketCounts,
    PartIndex,
    RunIndex,
    SegmentTiming,
    SessionTiming,
    TrackKey,
    TrackType,
)
from transforms.media.packet_file import dump_index, write_run
from transforms.media.sdp import RtpMap, parse_sdp
from transforms.media.timing import SUFFIX, parse_timing_metadata

STAGE = "UnpackArchives"
_COPY_BYTES = 1 << 20
_MAX_SDP_BYTES = 1 << 16


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All members that matter, sorted by kind; dumps lie in a local folder."""

    sessions: tuple[SessionTiming, ...]
    dumps: dict[str, Path]
    """By member name without the suffix."""
    descriptions: dict[str, bytes]
    failures: tuple[Failure, ...]
    member_count: int


def unpack_archive(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    folder: Path,
    limits: LimitSettings,
    *,
    open_input: Callable[[str], BinaryIO],
    on_progress: Callable[[int], None],
) -> UnpackedArchive:
    """Stages every audio track of an archive in `folder`.

    Args:
      ref: the archive; its `uri` goes to `open_input`.
      folder_members: relative path and size of each file when the archive is an unpacked folder, else empty.
      folder: an empty local folder; holds what `UnpackedPart` names on return.
      limits: bounds on what the archive may cost.
      open_input: opens an input by name for reading.
      on_progress: told the samples of each staged track.

    Raises:
      ArchiveError: no archive, or nothing usable in it.
    """
    spool = folder / "dumps"
    spool.mkdir()
    contents = read_contents(ref, folder_members, open_input, spool, limits)
    failures = list(contents.failures)
    sessions = []
    used: set[str] = set()
    for number, (key, timings) in enumerate(_by_session(contents.sessions).items()):
        parts = _stage_session(key, timings, ref, contents, used, folder, number, limits, failures)
        on_progress(sum(part.media_samples for part in parts))
        starts = [t.call_start_unix_ns for t in timings if t.call_start_unix_ns is not None]
        sessions.append(
            UnpackedSession(
                call=timings[0].call,
                call_start_unix_ns=min(starts, default=None),
                participant_id=timings[0].participant_id,
                user_session_id=timings[0].user_session_id,
                parts=tuple(parts),
            )
        )
    for base in sorted(set(contents.dumps) - used):
        message = f"{base}.rtpdump: no timing metadata lists this dump, expected a segment with its base_filename"
        failures.append(_failure(ArchiveError(message, member=f"{base}.rtpdump"), ref))
    shutil.rmtree(spool)
    return UnpackedArchive(
        sessions=tuple(sessions),
        failures=tuple(failures),
        member_count=contents.member_count,
        bytes_read=sum(size for _, size in folder_members) or ref.size_bytes,
    )


def read_contents(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    spool: Path,
    limits: LimitSettings,
) -> Contents:
    """Reads an archive front to back: metadata and descriptions into memory, dumps into `spool`.

    Raises:
      ArchiveError: not an archive, unsafe, or without any timing metadata.
    """
    failures: list[Failure] = []
    sessions: list[SessionTiming] = []
    dumps: dict[str, Path] = {}
    descriptions: dict[str, bytes] = {}
    count, metadata_bytes, metadata_seen = 0, 0, False
    damage: ArchiveError | None = None
    try:
        for member in _members(ref, folder_members, open_input, limits):
            count += 1
            name = member.name
            base, _, suffix = name.rpartition(".")
            if name.lower().endswith(SUFFIX):
                metadata_seen = True
                try:
                    text = _read_bounded(member, limits.max_metadata_bytes - metadata_bytes)
                    metadata_bytes += len(text)
                    sessions.append(parse_timing_metadata(text, name))
                except (ArchiveError, TimingMetadataError) as error:
                    failures.append(_failure(error, ref))
            elif suffix.lower() == "rtpdump":
                path = spool / f"{len(dumps)}.rtpdump"
                with path.open("wb") as file:
                    shutil.copyfileobj(member.stream, file, _COPY_BYTES)
                if base in dumps:
                    message = f"{name}: a second member of this name, the first was taken"
                    failures.append(_failure(ArchiveError(message, member=name), ref))
                    path.unlink()
                else:
                    dumps[base] = path
            elif suffix.lower() == "sdp":
                descriptions.setdefault(base, member.stream.read(_MAX_SDP_BYTES))
    except ArchiveError as error:
        # What came whole before the damage is kept; an archive of which nothing came is no archive.
        if not sessions:
            raise
        damage = error
    if damage is not None:
        failures.append(_failure(damage, ref))
    if not sessions:
        if metadata_seen:
            # What says whose packets these are cannot be read: nothing in here is usable, and all of it is told.
            return Contents(sessions=(), dumps={}, descriptions={}, failures=tuple(failures), member_count=count)
        raise ArchiveError(f"no *{SUFFIX} among {count} members, expected one per participant session")
    return Contents(
        sessions=tuple(sessions),
        dumps=dumps,
        descriptions=descriptions,
        failures=tuple(failures),
        member_count=count,
    )


def _members(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    limits: LimitSettings,
) -> Iterator[Member]:
    if ref.uri.endswith("/"):
        yield from walk_folder(folder_members, lambda name: open_input(ref.uri + name), limits)
    else:
        with open_input(ref.uri) as stream:
            yield from walk_archive(stream, limits)


def _read_bounded(member: Member, limit_bytes: int) -> bytes:
    text = member.stream.read(limit_bytes + 1)
    if len(text) > limit_bytes:
        raise ArchiveError(
            f"{member.name}: metadata past its limit, {limit_bytes} bytes left (limits.max_metadata_bytes)", member=member.name
        )
    return text


SessionKey = tuple[CallKey, str, str]


def _by_session(timings: tuple[SessionTiming, ...]) -> dict[SessionKey, list[SessionTiming]]:
    """Groups metadata by participant session: one session's may be split over several members."""
    found: dict[SessionKey, list[SessionTiming]] = {}
    for timing in timings:
        found.setdefault((timing.call, timing.participant_id, timing.user_session_id), []).append(timing)
    return found


def _stage_session(
    key: SessionKey,
    timings: list[SessionTiming],
    ref: ArchiveRef,
    contents: Contents,
    used: set[str],
    folder: Path,
    number: int,
    limits: LimitSettings,
    failures: list[Failure],
) -> list[UnpackedPart]:
    """Stages the tracks of one participant session; what fails is one segment."""
    call, participant_id, user_session_id = key
    by_output: dict[OutputType, dict[str, tuple[SegmentTiming, str]]] = {}
    for timing in timings:
        for segment in timing.video:
            used.add(_find_base(segment.base_filename, timing.member, contents.dumps) or "")
        for segment in timing.audio:
            try:
                output_type = OUTPUT_TYPE_OF[TrackType(segment.track_type)]
            except ValueError:
                message = (
                    f"{timing.member}: segment {segment.base_filename} has track_type {segment.track_type!r}, "
                    f"expected {TrackType.AUDIO} or {TrackType.SCREEN_SHARE_AUDIO}"
                )
                failures.append(
                    replace(
                        _failure(ArchiveError(message, member=timing.member), ref),
                        call=call,
                        participant_id=participant_id,
                        user_session_id=user_session_id,
                    )
                )
                used.add(_find_base(segment.base_filename, timing.member, contents.dumps) or "")
                continue
            by_output.setdefault(output_type, {}).setdefault(segment.base_filename, (segment, timing.member))
    parts = []
    for output_type in sorted(by_output):
        track = TrackKey(call=call, participant_id=participant_id, user_session_id=user_session_id, output_type=output_type)
        segments = sorted(by_output[output_type].values(), key=lambda s: (s[0].first_rtp_unix_ms or 0, s[0].base_filename))
        part = _stage_track(track, segments, ref, contents, used, folder / f"{number}-{output_type}", limits, failures)
        if part is not None:
            parts.append(part)
    return parts


def _stage_track(
    track: TrackKey,
    segments: list[tuple[SegmentTiming, str]],
    ref: ArchiveRef,
    contents: Contents,
    used: set[str],
    stem: Path,
    limits: LimitSettings,
    failures: list[Failure],
) -> UnpackedPart | None:
    packets_path, index_path = stem.with_suffix(".packets"), stem.with_suffix(".json")
    runs: list[RunIndex] = []
    counts, channels, codec, media_samples = PacketCounts(), 0, "audio/opus", 0
    jitters: list[tuple[float, int]] = []
    failed = False

    def fail(error: RecordingError) -> None:
        nonlocal failed
        failed = True
        failures.append(
            replace(
                _failure(error, ref),
                call=track.call,
                participant_id=track.participant_id,
                user_session_id=track.user_session_id,
                output_type=track.output_type,
            )
        )

    with packets_path.open("wb") as packets:
        for timing, metadata_member in segments:
            try:
                with _ingested(timing, metadata_member, contents, used, limits, fail) as (segment, dump):
                    for run in segment.runs:
                        offset = packets.tell()
                        write_run(packets, run.records, dump, run.source_offset)
                        last = run.records[-1]
                        runs.append(
                            RunIndex(
                                base_filename=timing.base_filename,
                                track_id=timing.track_id,
                                ssrc=run.ssrc,
                                packet_count=len(run.records),
                                packets_lost=int(run.records["lost_before"].sum()),
                                media_stop_sample=int(last["media_sample"]) + int(last["duration_samples"]),
                                file_offset_bytes=offset,
                                clock=run.clock,
                            )
                        )
                        media_samples += int(run.records["duration_samples"].sum())
                counts += segment.counts
                channels = max(channels, segment.channels)
                codec = segment.codec if segment.codec == "audio/red" else codec
                if segment.jitter_ms is not None:
                    jitters.append((segment.jitter_ms, segment.counts.received))
            except RecordingError as error:
                fail(error)
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
        archive_uri=ref.uri,
        channels=channels,
        codec=codec,
        segment_count=len(segments),
        counts=counts,
        jitter_ms=sum(value * count for value, count in jitters) / weight if weight else None,
        runs=tuple(runs),
    )
    index_path.write_bytes(dump_index(index))
    return UnpackedPart(
        track=track,
        packets_file=packets_path.name,
        index_file=index_path.name,
        media_samples=media_samples,
        first_server_unix_ns=min(run.clock.first_server_unix_ns for run in runs),
        last_server_unix_ns=max(run.clock.first_server_unix_ns for run in runs),
    )


@contextlib.contextmanager
def _ingested(
    timing: SegmentTiming,
    metadata_member: str,
    contents: Contents,
    used: set[str],
    limits: LimitSettings,
    fail: Callable[[RecordingError], None],
) -> Iterator[tuple[IngestedSegment, Bytes]]:
    """Gives one segment and the mapped bytes of its dump, which is deleted afterwards."""
    member = f"{timing.base_filename}.rtpdump"
    base = _find_base(timing.base_filename, metadata_member, contents.dumps)
    if base is None:
        raise ArchiveError(f"{member}: not in the archive, listed by {metadata_member}", member=member)
    if base in used:
        raise ArchiveError(f"{member}: listed again by {metadata_member}, expected one session to have it", member=member)
    used.add(base)
    path = contents.dumps[base]
    maps = _rtp_maps(timing, metadata_member, contents, fail)
    if os.path.getsize(path) == 0:
        raise ArchiveError(f"{member}: empty, expected an rtpdump", member=member, byte_offset=0)
    with path.open("rb") as file:
        # Not closed by hand: the mapping goes with the last array over it.
        dump = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    segment = ingest_segment(lambda: path.open("rb"), dump, member, maps, timing, limits)
    for warning in segment.warnings:
        fail(warning)
    yield segment, dump
    path.unlink()


def _rtp_maps(
    timing: SegmentTiming, metadata_member: str, contents: Contents, fail: Callable[[RecordingError], None]
) -> dict[int, RtpMap]:
    """Returns what the segment's session description maps; nothing, and a failure, when it cannot be read."""
    member = f"{timing.base_filename}.sdp"
    base = _find_base(timing.base_filename, metadata_member, contents.descriptions)
    known = timing.codec.lower() in ("audio/opus", "audio/red")
    if not known and timing.codec:
        raise UnsupportedCodecError(
            f"{timing.base_filename}: codec is {timing.codec}, expected audio/opus or audio/red", member=metadata_member
        )
    try:
        if base is None:
            raise ArchiveError(f"{member}: not in the archive, the codec was taken from {metadata_member}", member=member)
        return parse_sdp(contents.descriptions[base], member)
    except RecordingError as error:
        fail(error)
        return {}


def _find_base(
    base_filename: str, metadata_member: str, members: dict[str, object] | dict[str, Path] | dict[str, bytes]
) -> str | None:
    """Finds a segment's member: beside its metadata, at the path it spells, or anywhere if the name is there once."""
    folder = metadata_member.rpartition("/")[0]
    beside = f"{folder}/{base_filename}" if folder else base_filename
    for name in (beside, base_filename):
        if name in members:
            return name
    elsewhere = [name for name in members if name.rpartition("/")[2] == base_filename]
    return elsewhere[0] if len(elsewhere) == 1 else None


def _failure(error: RecordingError, ref: ArchiveRef) -> Failure:
    return Failure(
        stage=STAGE,
        error_type=type(error).__name__,
        message=error.message,
        archive_uri=ref.uri,
        archive_modified_unix_ns=ref.modified_unix_ns,
        member=error.member,
        byte_offset=error.byte_offset,
        attempt=ref.attempt,
        retryable=error.retryable,
    )
