"""One archive -> one staged part per participant session and track type. Runs in a codec process.

The archive is read once, front to back. Dumps go to a local folder as they come, under numbers and never under their own names
(a tar often has the metadata that says whose they are at its end), then each segment is ingested and its packets are staged in
order. What is wrong with a member, a session or a segment is a failure of that; the rest is staged.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import numpy as np

from transforms.media.archive import Member, walk_archive, walk_folder
from transforms.media.clock import samples_to_ns
from transforms.media.errors import (
    ArchiveError,
    CodecProcessError,
    RecordingError,
    StorageError,
    TimelineError,
    TimingMetadataError,
    UnsupportedCodecError,
    printable,
)
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
_TOLD_EACH = 200
"""Failures of one type that are told one by one; a hostile archive has a hundred thousand."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HOUR_NS = 3_600_000_000_000

T = TypeVar("T")


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


class Failures:
    """What is wrong with an archive, each thing told once, and of a flood of one kind the first."""

    def __init__(self, ref: ArchiveRef) -> None:
        self._ref = ref
        self._found: dict[Failure, None] = {}
        self._counts: Counter[str] = Counter()

    def add(self, error: RecordingError, track: TrackKey | None = None, session: SessionTiming | None = None) -> None:
        """Adds a failure. Args: track, session: whose it is, where that is known."""
        kind = type(error).__name__
        failure = Failure(
            stage=STAGE,
            error_type=kind,
            message=error.message,
            archive_uri=self._ref.uri,
            archive_modified_unix_ns=self._ref.modified_unix_ns,
            member=error.member,
            byte_offset=error.byte_offset,
            attempt=self._ref.attempt,
            retryable=error.retryable,
        )
        if track is not None:
            failure = replace(
                failure,
                call=track.call,
                participant_id=track.participant_id,
                user_session_id=track.user_session_id,
                output_type=track.output_type,
            )
        elif session is not None:
            failure = replace(
                failure,
                call=session.call,
                participant_id=session.participant_id,
                user_session_id=session.user_session_id,
            )
        if failure in self._found:
            return
        self._counts[kind] += 1
        if self._counts[kind] <= _TOLD_EACH:
            self._found[failure] = None

    def all(self) -> tuple[Failure, ...]:
        """Returns the failures, and one more for each kind of which there were too many."""
        more = []
        for kind, count in self._counts.items():
            if count > _TOLD_EACH:
                first = next(failure for failure in self._found if failure.error_type == kind)
                message = f"{count - _TOLD_EACH} more of this kind in the archive, not told one by one"
                more.append(
                    replace(
                        first,
                        message=message,
                        member=None,
                        byte_offset=None,
                        call=None,
                        participant_id=None,
                        user_session_id=None,
                        output_type=None,
                    )
                )
        return (*self._found, *more)


class Named(Generic[T]):
    """Members of one kind by their path without the suffix, found by what metadata calls them."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._by_last: dict[str, str | None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, base: str) -> bool:
        return base in self._items

    def __getitem__(self, base: str) -> T:
        return self._items[base]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def add(self, base: str, item: T) -> None:
        """Adds one; a path is there once."""
        self._items[base] = item
        last = base.rpartition("/")[2]
        self._by_last[last] = None if last in self._by_last else base

    def find(self, base_filename: str, metadata_member: str) -> str | None:
        """Finds a segment's member: beside its metadata, at the path it spells, or anywhere if the name is there once."""
        folder = metadata_member.rpartition("/")[0]
        beside = f"{folder}/{base_filename}" if folder else base_filename
        for name in (beside, base_filename):
            if name in self._items:
                return name
        return self._by_last.get(base_filename)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A packet dump in the local folder."""

    path: Path
    damage: RecordingError | None
    """Why it is shorter than it was; None when it came whole."""


@dataclass(slots=True)
class Contents:
    """All members that matter, sorted by kind; dumps lie in a local folder."""

    sessions: list[SessionTiming] = field(default_factory=list)
    dumps: Named[Dump] = field(default_factory=Named)
    descriptions: Named[dict[int, RtpMap] | RecordingError] = field(default_factory=Named)
    member_count: int = 0
    metadata_count: int = 0
    metadata_bytes: int = 0
    segment_count: int = 0
    session_keys: set[tuple[CallKey, str, str]] = field(default_factory=set)


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
      ArchiveError: no archive, or nothing in it that could be a recording.
      StorageError: the local disk is full.
    """
    deadline = time.monotonic() + limits.max_archive_seconds
    spool = folder / "dumps"
    spool.mkdir()
    failures = Failures(ref)
    with _on_local_disk(folder):
        contents = read_contents(ref, folder_members, open_input, spool, limits, failures)
        stager = _Stager(contents, folder, limits, failures, ref.uri, deadline)
        sessions = []
        for number, timings in enumerate(_by_session(contents.sessions)):
            parts = stager.stage_session(number, timings)
            on_progress(sum(part.media_samples for part in parts))
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
        raise StorageError(f"{folder.parent}: {error.strerror}, expected room for the expanded archive") from error


def read_contents(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    spool: Path,
    limits: LimitSettings,
    failures: Failures,
) -> Contents:
    """Reads an archive front to back: metadata and descriptions into memory, dumps into `spool`.

    Raises:
      ArchiveError: not an archive, or nothing in it that could be a recording.
    """
    contents = Contents()
    is_cut = False
    try:
        for member in _members(ref, folder_members, open_input, limits):
            contents.member_count += bool(member.name)
            _take_member(member, contents, spool, limits, failures)
    except (ArchiveError, CodecProcessError) as error:
        # What came whole before the damage is kept; an archive of which nothing came is no archive.
        if not contents.metadata_count and not contents.dumps:
            raise
        failures.add(error)
        is_cut = True
    is_cut = is_cut or any(contents.dumps[base].damage is not None for base in contents.dumps)
    if not contents.metadata_count and not is_cut:
        nothing = ArchiveError(f"no *{SUFFIX} among {contents.member_count} members, expected one per participant session")
        if not failures.all() and not contents.dumps:
            raise nothing
        failures.add(nothing)
    return contents


def _take_member(member: Member, contents: Contents, spool: Path, limits: LimitSettings, failures: Failures) -> None:
    """Keeps what a member holds; what is wrong with it is told and costs no other."""
    name = member.name
    base, _, suffix = name.rpartition(".")
    is_metadata = name.lower().endswith(SUFFIX)
    suffix = suffix.lower()
    if member.problem is not None:
        contents.metadata_count += is_metadata
        if member.is_suspect or is_metadata or suffix in ("rtpdump", "sdp"):
            failures.add(member.problem)
        return
    try:
        if is_metadata:
            contents.metadata_count += 1
            _take_metadata(member, contents, limits, failures)
        elif suffix == "rtpdump" and base not in contents.dumps:
            path = spool / f"{contents.member_count}.rtpdump"
            contents.dumps.add(base, Dump(path=path, damage=_spool(member, path)))
        elif suffix == "sdp" and base not in contents.descriptions:
            contents.descriptions.add(base, _read_description(member, contents, limits))
        elif suffix in ("rtpdump", "sdp"):
            raise ArchiveError(f"{name}: a second member of this name, the first was taken", member=name)
    except (ArchiveError, TimingMetadataError) as error:
        failures.add(error)
    except MemoryError:
        failures.add(_no_memory(name))


def _no_memory(member: str) -> CodecProcessError:
    """What one member costs too much of is its own failure: the memory it took is free again, its neighbours are read."""
    return CodecProcessError(f"{member}: needs more memory than it may take (limits.codec_memory_bytes)", member=member)


def _take_metadata(member: Member, contents: Contents, limits: LimitSettings, failures: Failures) -> None:
    text = _read_metadata(member, contents, limits)
    session = parse_timing_metadata(text, member.name)
    for problem in session.problems:
        failures.add(problem, session=session)
    key = (session.call, session.participant_id, session.user_session_id)
    segment_count = contents.segment_count + len(session.audio) + len(session.video)
    if key not in contents.session_keys and len(contents.session_keys) >= limits.max_sessions:
        raise ArchiveError(f"more than {limits.max_sessions} participant sessions (limits.max_sessions)")
    if segment_count > limits.max_members:
        raise ArchiveError(
            f"{member.name}: more than {limits.max_members} segments in the archive's metadata (limits.max_members)",
            member=member.name,
        )
    contents.segment_count = segment_count
    contents.session_keys.add(key)
    contents.sessions.append(session)


def _spool(member: Member, path: Path) -> RecordingError | None:
    """Copies a dump to the local folder; returns what cut it short. Packets before that are whole."""
    with path.open("wb") as file:
        try:
            shutil.copyfileobj(member.stream, file, _COPY_BYTES)
        except (ArchiveError, CodecProcessError) as error:
            return error
    return None


def _read_description(member: Member, contents: Contents, limits: LimitSettings) -> dict[int, RtpMap] | RecordingError:
    """Returns what a session description maps, or why it cannot be read: it is told when a segment asks for it."""
    try:
        return parse_sdp(_read_metadata(member, contents, limits, _MAX_SDP_BYTES), member.name)
    except RecordingError as error:
        return error


def _read_metadata(member: Member, contents: Contents, limits: LimitSettings, limit_bytes: int | None = None) -> bytes:
    """Returns a small member's bytes, counted. Raises: ArchiveError."""
    most, name = (limits.max_metadata_member_bytes, "max_metadata_member_bytes") if limit_bytes is None else (limit_bytes, "")
    left = limits.max_metadata_bytes - contents.metadata_bytes
    if left < most:
        most, name = left, "max_metadata_bytes"
    text = member.stream.read(most + 1)
    if len(text) <= most:
        text += member.stream.read(1)  # damage right behind it
    contents.metadata_bytes += min(len(text), most)
    if len(text) > most:
        what = f"{most} bytes left for metadata" if name == "max_metadata_bytes" else f"expected at most {most} bytes"
        limit = f" (limits.{name})" if name else ""
        raise ArchiveError(f"{member.name}: metadata past its limit, {what}{limit}", member=member.name)
    return text


def _members(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    limits: LimitSettings,
) -> Iterator[Member]:
    if ref.uri.endswith("/"):
        yield from walk_folder(
            folder_members, lambda name: open_input(ref.uri + name), limits, lambda name: _why_no_file(ref.uri, name)
        )
    else:
        with open_input(ref.uri) as stream:
            yield from walk_archive(stream, limits)


def _why_no_file(folder: str, name: str) -> str | None:
    """Returns what lies in a folder on a disk instead of a file of its own: whoever unpacked an archive made its links, too."""
    path = folder + name
    if not os.path.lexists(path):  # on an object store, where there is neither; or gone
        return None
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        return "a link out of its folder"
    return None if os.path.isfile(path) else "no regular file"


def _by_session(timings: list[SessionTiming]) -> list[list[SessionTiming]]:
    """Groups metadata by participant session: one session's may be split over several members."""
    found: dict[tuple[CallKey, str, str], list[SessionTiming]] = {}
    for timing in timings:
        found.setdefault((timing.call, timing.participant_id, timing.user_session_id), []).append(timing)
    return list(found.values())


def _call_start(timings: list[SessionTiming], failures: Failures) -> int | None:
    """Returns when the call began by a session's metadata: the earliest where its members contradict each other."""
    stated = sorted(
        (timing for timing in timings if timing.call_start_unix_ns is not None), key=lambda t: t.call_start_unix_ns or 0
    )
    if not stated:
        return None
    first, last = stated[0], stated[-1]
    apart = (last.call_start_unix_ns or 0) - (first.call_start_unix_ns or 0)
    if apart:
        message = (
            f"{last.member}: call_start_time is {apart / 1e9:.3f} s after the one in {first.member}, expected the same in all "
            "metadata of a participant session; the earlier was taken"
        )
        failures.add(TimingMetadataError(message, member=last.member), session=last)
    return first.call_start_unix_ns


class _Stager:
    """Stages the tracks of participant sessions; what fails is one segment."""

    def __init__(
        self, contents: Contents, folder: Path, limits: LimitSettings, failures: Failures, archive_uri: str, deadline: float
    ) -> None:
        self._contents = contents
        self._folder = folder
        self._limits = limits
        self._failures = failures
        self._archive_uri = archive_uri
        self._deadline = deadline
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
                        f"{timing.member}: segment {segment.base_filename} has track_type {segment.track_type[:100]!r}, "
                        f"expected {TrackType.AUDIO} or {TrackType.SCREEN_SHARE_AUDIO}"
                    )
                    self._failures.add(ArchiveError(message, member=timing.member), session=timing)
                    self._use(segment, timing)
                    continue
                by_output.setdefault(output_type, {}).setdefault(segment.base_filename, (segment, timing.member))
        parts = []
        for output_type in sorted(by_output):
            track = TrackKey(
                call=first.call,
                participant_id=first.participant_id,
                user_session_id=first.user_session_id,
                output_type=output_type,
            )
            segments = sorted(by_output[output_type].values(), key=lambda s: (s[0].first_rtp_unix_ms or 0, s[0].base_filename))
            part = self._stage_track(track, segments, self._folder / f"{number}-{output_type}")
            if part is not None:
                parts.append(part)
        return parts

    def tell_unlisted(self) -> None:
        """Tells of what no metadata has asked for: dumps, and descriptions that are damaged."""
        for base in sorted(set(self._contents.descriptions) - self._asked):
            found = self._contents.descriptions[base]
            if isinstance(found, ArchiveError):  # damage of the archive; what a description says matters to its segment only
                self._failures.add(found)
        for base in sorted(set(self._contents.dumps) - self._used):
            damage = self._contents.dumps[base].damage
            if damage is not None:
                self._failures.add(damage)
            elif not self._is_late:
                message = f"{base}.rtpdump: no timing metadata lists this dump, expected a segment with its base_filename"
                self._failures.add(ArchiveError(message, member=f"{base}.rtpdump"))

    def _use(self, segment: SegmentTiming, timing: SessionTiming) -> None:
        base = self._contents.dumps.find(segment.base_filename, timing.member)
        if base is not None:
            self._used.add(base)

    def _stage_track(self, track: TrackKey, segments: list[tuple[SegmentTiming, str]], stem: Path) -> UnpackedPart | None:
        packets_path, index_path = stem.with_suffix(".packets"), stem.with_suffix(".json")
        runs: list[RunIndex] = []
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
                            media_samples[offset] = int(run.records["duration_samples"].sum())
                    counts += segment.counts
                    channels = max(channels, segment.channels)
                    codec = segment.codec if segment.codec == "audio/red" else codec
                    if segment.jitter_ms is not None:
                        jitters.append((segment.jitter_ms, segment.counts.received))
                except RecordingError as error:
                    fail(error)
                except MemoryError:
                    fail(_no_memory(f"{timing.base_filename}.rtpdump"))
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
            archive_uri=self._archive_uri,
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
            media_samples=sum(media_samples[run.file_offset_bytes] for run in runs),
            first_server_unix_ns=min(run.clock.first_server_unix_ns for run in runs),
            last_server_unix_ns=max(run.clock.first_server_unix_ns for run in runs),
        )

    def _near_runs(
        self, runs: list[RunIndex], media_samples: dict[int, int], fail: Callable[[RecordingError], None]
    ) -> list[RunIndex]:
        """Leaves out what lies days from the rest of its track: its clock is wrong, and the file would be silence."""
        if not runs:
            return runs
        hours = self._limits.max_call_hours
        starts = sorted((run.clock.first_server_unix_ns, media_samples[run.file_offset_bytes]) for run in runs)
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
                f"{run.base_filename}.rtpdump: {run.packet_count} packets lie {apart:.1f} h from the rest of their track, "
                f"expected at most {hours} h (limits.max_call_hours)"
            )
            fail(TimelineError(message, member=f"{run.base_filename}.rtpdump"))
        return kept

    @contextlib.contextmanager
    def _ingested(
        self, timing: SegmentTiming, metadata_member: str, fail: Callable[[RecordingError], None]
    ) -> Iterator[tuple[IngestedSegment, Bytes]]:
        """Gives one segment and the mapped bytes of its dump, which is deleted afterwards."""
        dumps = self._contents.dumps
        member = f"{timing.base_filename}.rtpdump"
        base = dumps.find(timing.base_filename, metadata_member)
        if base is None:
            raise ArchiveError(f"{member}: not in the archive, listed by {metadata_member}", member=member)
        if base in self._used:
            raise ArchiveError(f"{member}: listed again by {metadata_member}, expected one session to have it", member=member)
        if time.monotonic() > self._deadline:
            self._is_late = True
            raise CodecProcessError(
                f"{member}: not reached, unpacking took more than {self._limits.max_archive_seconds} s "
                "(limits.max_archive_seconds)",
                member=member,
            )
        self._used.add(base)
        path, damage = dumps[base].path, dumps[base].damage
        if damage is not None:
            fail(damage)
        maps = self._rtp_maps(timing, metadata_member, fail)
        if os.path.getsize(path) == 0:
            raise ArchiveError(f"{member}: empty, expected an rtpdump", member=member, byte_offset=0)
        with path.open("rb") as file:
            # Not closed by hand: the mapping goes with the last array over it.
            dump = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        segment = ingest_segment(lambda: path.open("rb"), dump, member, maps, timing, self._limits)
        for warning in segment.warnings:
            fail(warning)
        yield segment, dump
        path.unlink()

    def _rtp_maps(
        self, timing: SegmentTiming, metadata_member: str, fail: Callable[[RecordingError], None]
    ) -> dict[int, RtpMap]:
        """Returns what the segment's session description maps; nothing, and a failure, when it cannot be read."""
        descriptions = self._contents.descriptions
        known = timing.codec.lower() in ("audio/opus", "audio/red")
        if not known and timing.codec:
            raise UnsupportedCodecError(
                f"{timing.base_filename}: codec is {printable(timing.codec[:100])}, expected audio/opus or audio/red",
                member=metadata_member,
            )
        base = descriptions.find(timing.base_filename, metadata_member)
        if base is None:
            member = f"{timing.base_filename}.sdp"
            fail(ArchiveError(f"{member}: not in the archive, the codec was taken from {metadata_member}", member=member))
            return {}
        self._asked.add(base)
        found = descriptions[base]
        if isinstance(found, RecordingError):
            fail(found)
            return {}
        return found
