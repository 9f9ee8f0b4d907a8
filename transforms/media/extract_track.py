"""Copies one track's packets into one file, as they were sent, and says what is in it.

A job: it runs in a codec process. The parts of a track come from any number of archives.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.clock.model import ClockMethod
from transforms.media.containers.matroska import OpusFile
from transforms.media.errors import TimelineError
from transforms.media.job import JobHost
from transforms.media.opus.packet import (
    GRID_SAMPLES,
    LOOK_AHEAD_SAMPLES,
    SHORTEST_FILE_SAMPLES,
    widest_bandwidth_hz,
)
from transforms.media.rtp.fates import Fate
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.lanes import LanePlan, LeftOut, Placed, plan_lanes
from transforms.media.track.overlaps import LeftOutReason
from transforms.media.track.pauses import leave_out_pauses, longest_pause_that_fits
from transforms.media.track.staged_packets import PartIndex, StagedDump, load_index
from transforms.media.track.timeline import (
    Hole,
    Piece,
    PlacedPackets,
    file_begin_unix_ns,
    place_packets,
)
from transforms.media.units import ns_to_samples, samples_to_ns
from transforms.media.values import Codec, Container, PartFiles, Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """A media file that was written."""

    size_bytes: int
    sha256: str
    duration_samples: int
    channels: int


class GapBefore(StrEnum):
    """Why there is nothing in a file before a segment of it."""

    NONE = "none"
    """It follows right behind the segment before, or is the first."""
    MUTED = "muted"
    """The vendor began another segment: a mute, an unpublished track, a new connection."""
    STALLED = "stalled"
    """The sender's media clock stood still."""
    LOST = "lost"
    """Packets were lost."""
    NOT_RECORDED = "not_recorded"
    """The next audio is in another part."""
    UNKNOWN = "unknown"
    """A new SSRC, or a jump of the time stamps, within one of the vendor's segments."""
    LEFT_OUT = "left_out"
    """A pause that the file leaves out, all but a second of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSegment:
    """A part of a file on one straight line between file time and server time."""

    part: int
    """Which of the track's parts it comes from, counted from 0."""
    base_filename: str
    track_id: str
    ssrc: int
    file_start_sample: int
    file_stop_sample: int
    server_start_unix_ns: int
    server_stop_unix_ns: int
    clock_method: ClockMethod
    clock_skew_ppm: float | None
    """None where it cannot be known and the nominal rate was taken."""
    sync_error_ns: int
    gap_before: GapBefore


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutPauses:
    """The pauses that a file leaves out."""

    longest_pause_samples: int
    """Longer ones are left out."""
    pause_count: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStats:
    """Figures of a track, and the file that was written of it."""

    file: MediaFile | None
    """None when no file was asked for."""
    channels: int
    codec: Codec
    """RED if any part has it."""
    audio_bandwidth_hz: int
    """The widest of the packets on the time line, copies from RED among them; 0 where all are
    encrypted.
    """
    counts: PacketCounts
    jitter_ms: float | None
    segment_count: int
    track_ids: tuple[str, ...]
    ssrcs: tuple[int, ...]
    segments: tuple[FileSegment, ...]
    duration_samples: int
    media_samples: int
    dtx_samples: int
    hole_samples: int
    """All that is no received packet: pauses, mutes, stalls, losses."""
    begin_unix_ns: int
    """Server time of the file's first sample."""
    pauses_left_out: LeftOutPauses | None
    """None where the file has all pauses."""
    lane: int = 0
    """Which of the track's files; 0 is the first."""
    beside: tuple[TrackStats, ...] = ()
    """Of the first file: what sounds at the same time and is in files of its own. Their `counts`
    and `segment_count` are 0, all is counted here.
    """
    placed: tuple[Placed, ...] = ()
    """Of the first file: the packets of all files by the dump they come from."""
    left_out: tuple[LeftOut, ...] = ()
    """Of the first file: the packets that are in none. With those placed they are all staged."""
    dumps: tuple[tuple[StagedDump, ...], ...] = ()
    """Of the first file: of each part, its segments, and what became of the records of their dumps.
    """


def load_parts(
    parts: Sequence[PartFiles], open_input: Callable[[str], BinaryIO]
) -> tuple[PartIndex, ...]:
    """Returns the indexes of a track's parts."""
    indexes = []
    for part in parts:
        with open_input(part.index) as file:
            indexes.append(load_index(file.read()))
    return tuple(indexes)


def extract_track(
    host: JobHost,
    parts: tuple[PartFiles, ...],
    output: Path | None,
    container: Container,
    tags: Tags,
    begin_unix_ns: int | None = None,
    allowed_samples: int | None = None,
    uid: int = 1,
) -> TrackStats:
    """Copies a track's Opus packets into one file, on one time line; what sounds at the same time
    goes into others.

    Args:
      host: gives the staged files; told the samples of each finished file.
      parts: the track's share of each archive.
      output: the local file to write; `lane_path` names those beside it. None measures only.
      container: its format.
      tags: title, artist, date and so on.
      begin_unix_ns: server time at which the file is to begin, when that is before its first
        packet; None for the packet's.
      uid: 64 bits that no other file has, not 0.
      allowed_samples: how long the file may be, the pre-skip included; None for as long as it is.
        A longer one leaves out long pauses.

    Raises:
      TimelineError: no packets at all.
    """
    indexes = load_parts(parts, host.open_input)

    def open_packets(part: int) -> BinaryIO:
        return host.open_input(parts[part].packets)

    plan = plan_lanes(indexes, open_packets)
    if not plan.lanes:
        raise TimelineError("no packets to place, expected at least one")
    channels = max(index.channels for index in indexes)
    # A part of which every packet is there twice adds nothing, and so counts nothing.
    used = [indexes[part] for part in sorted({placed.part for placed in plan.placed})]
    found = []
    packet_count = 0
    for lane, pieces in enumerate(plan.lanes):
        path = lane_path(output, lane) if output is not None else None
        target = _Target(path, container, channels, tags, (uid + lane) % (1 << 64) or 1)
        written = _write_lane(pieces, open_packets, target, begin_unix_ns, allowed_samples)
        layout = written.layout
        if allowed_samples is not None:  # what this file takes is not there for the next
            allowed_samples = max(0, allowed_samples - layout.file_samples)
        duration_samples = layout.file_samples - LOOK_AHEAD_SAMPLES
        host.tell_progress(duration_samples)
        packet_count += layout.packet_count
        found.append(
            TrackStats(
                file=describe_file(path, duration_samples, channels) if path is not None else None,
                channels=channels,
                codec=Codec.RED
                if any(index.codec == Codec.RED for index in indexes)
                else Codec.OPUS,
                audio_bandwidth_hz=layout.audio_bandwidth_hz,
                counts=sum((index.counts for index in used if not lane), PacketCounts()),
                jitter_ms=_mean_jitter_ms(used) if not lane else None,
                segment_count=sum(index.segment_count for index in used if not lane),
                track_ids=tuple(dict.fromkeys(piece.packet_run.track_id for piece in pieces)),
                ssrcs=tuple(dict.fromkeys(piece.packet_run.ssrc for piece in pieces)),
                segments=_segments(pieces, layout.lines),
                duration_samples=duration_samples,
                media_samples=layout.media_samples,
                dtx_samples=int(layout.hole_samples[Hole.DTX]),
                hole_samples=layout.end_sample - layout.media_samples,
                begin_unix_ns=written.begin_unix_ns,
                pauses_left_out=written.pauses_left_out,
                lane=lane,
            )
        )
    check_conservation(indexes, plan, packet_count)
    return replace(
        found[0],
        beside=tuple(found[1:]),
        placed=plan.placed,
        left_out=plan.left_out,
        dumps=_settled_dumps(indexes, plan.left_out),
    )


_FATE_OF = {
    LeftOutReason.EQUAL_DUPLICATE: Fate.ELSEWHERE,
    LeftOutReason.HAND_OVER: Fate.ELSEWHERE,
    LeftOutReason.SHORT_OVERLAP: Fate.TOO_LATE,
    LeftOutReason.TOO_MANY_AT_ONCE: Fate.OUTSIDE_LIMITS,
}


def _settled_dumps(
    indexes: Sequence[PartIndex], left_out: Sequence[LeftOut]
) -> tuple[tuple[StagedDump, ...], ...]:
    """Returns, of each part, what became of its dumps' records in the end."""
    of_dump: dict[tuple[int, str], list[LeftOut]] = {}
    for each in left_out:
        of_dump.setdefault((each.part, each.base_filename), []).append(each)
    return tuple(
        tuple(_settled(dump, of_dump.get((part, dump.base_filename), ())) for dump in index.dumps)
        for part, index in enumerate(indexes)
    )


def _settled(dump: StagedDump, left_out: Sequence[LeftOut]) -> StagedDump:
    fates, told = dict(dump.fates), dump.told
    for each in left_out:
        count = each.packet_count - each.copy_count
        if count:
            fate = _FATE_OF[each.reason]
            fates[Fate.PLACED] -= count
            fates[fate] = fates.get(fate, 0) + count
        if each.reason == LeftOutReason.TOO_MANY_AT_ONCE:
            told = (*told, Fate.OUTSIDE_LIMITS)
    return replace(dump, fates=fates, told=told)


@dataclass(frozen=True, slots=True)
class _Written:
    """What was written of a lane."""

    layout: _Layout
    begin_unix_ns: int
    pauses_left_out: LeftOutPauses | None


def _write_lane(
    pieces: Sequence[Piece],
    open_packets: Callable[[int], BinaryIO],
    target: _Target,
    begin_unix_ns: int | None,
    allowed_samples: int | None,
) -> _Written:
    """Writes one file, without long pauses where it would be longer than allowed."""
    first_unix_ns = file_begin_unix_ns(pieces, None)
    file_unix_ns = file_begin_unix_ns(pieces, begin_unix_ns)

    def placed() -> Iterator[PlacedPackets]:
        return place_packets(pieces, open_packets, file_unix_ns)

    layout = _copy(placed(), pieces, target, allowed_samples)
    if layout is not None:
        return _Written(layout, file_unix_ns, None)
    assert allowed_samples is not None
    longest_samples = longest_pause_that_fits(placed(), allowed_samples)
    lead_samples = ns_to_samples(first_unix_ns - file_unix_ns)
    if lead_samples > longest_samples:
        file_unix_ns = first_unix_ns
    else:
        lead_samples = 0
    layout = _copy(leave_out_pauses(placed(), longest_samples), pieces, target, None)
    assert layout is not None
    pauses = LeftOutPauses(
        longest_pause_samples=longest_samples,
        pause_count=layout.pauses_left_out + bool(lead_samples),
        samples=layout.left_out_samples + lead_samples,
    )
    return _Written(layout, file_unix_ns, pauses)


def lane_path(output: Path, lane: int) -> Path:
    """Returns the local file that a lane of a track is written to."""
    return output.with_name(f"{output.stem}_part{lane}{output.suffix}") if lane else output


def check_conservation(indexes: Sequence[PartIndex], plan: LanePlan, written_packets: int) -> None:
    """Checks that each staged packet is in one file, or left out for a reason.

    Raises:
      ValueError: a packet is in none, or in two.
    """
    staged: Counter[tuple[int, str]] = Counter()
    for part, index in enumerate(indexes):
        for packet_run in index.packet_runs:
            staged[part, packet_run.base_filename] += packet_run.packet_count
    told: Counter[tuple[int, str]] = Counter()
    accounts: list[Placed | LeftOut] = [*plan.placed, *plan.left_out]
    for each in accounts:
        told[each.part, each.base_filename] += each.packet_count
    placed = sum(each.packet_count for each in plan.placed)
    if staged != told or placed != written_packets:
        raise ValueError(
            f"packets staged {dict(staged)}, placed or left out {dict(told)}, "
            f"to be placed {placed}, placed {written_packets}"
        )


def describe_file(path: Path, duration_samples: int, channels: int) -> MediaFile:
    """Returns a written file with its size and digest."""
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return MediaFile(
        size_bytes=path.stat().st_size,
        sha256=digest,
        duration_samples=duration_samples,
        channels=channels,
    )


def _mean_jitter_ms(indexes: Sequence[PartIndex]) -> float | None:
    """Returns the mean jitter over the packets of all parts; None where none has any."""
    known = [index for index in indexes if index.jitter_ms is not None]
    weight = sum(index.counts.received for index in known)
    total = sum((index.jitter_ms or 0.0) * index.counts.received for index in known)
    return total / weight if weight else None


@dataclass(frozen=True, slots=True)
class _Target:
    """The file to write; nothing is written where `path` is None."""

    path: Path | None
    container: Container
    channels: int
    tags: Tags
    uid: int

    def open(self) -> OpusFile | None:
        if self.path is None:
            return None
        return OpusFile(self.path, self.container, self.channels, self.tags, self.uid)


def _copy(
    windows: Iterable[PlacedPackets],
    pieces: Sequence[Piece],
    target: _Target,
    allowed_samples: int | None,
) -> _Layout | None:
    """Writes packets to a file, if one is named; returns where they came to lie.

    None, and half a file, once it would be longer than allowed.
    """
    layout = _Layout()
    with contextlib.ExitStack() as stack:
        opened = target.open()
        file = None if opened is None else stack.enter_context(opened)
        for window in windows:
            layout.add(window, pieces[int(window.piece[0])].packet_run.is_encrypted)
            if allowed_samples is not None and layout.end_sample > allowed_samples:
                return None
            if file is not None:
                _write(file, window)
        if file is not None and layout.file_samples > layout.end_sample:
            file.fill(layout.file_samples - layout.end_sample)
    return layout


@dataclass(slots=True)
class _Line:
    """Packets of a piece that lie in the file as in media time, but for small pushes."""

    piece: int
    start_sample: int
    """Its first sample in the file."""
    media_start_sample: int
    """The media time of its first packet."""
    hole: Hole
    """What comes before its first packet."""
    left_out_samples: int
    """What the file leaves out before it."""
    stop_sample: int = 0
    pushed_samples: int = 0
    """How far the file lies from its straight line at most."""


class _Layout:
    """Where the pieces of a track came to lie in its file, as the packets pass by."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self.hole_samples = np.zeros(len(Hole), dtype=np.int64)
        """By kind of hole."""
        self.packet_count = 0
        self.media_samples = 0
        self.audio_bandwidth_hz = 0
        self.end_sample = 0
        self.pauses_left_out = 0
        self.left_out_samples = 0

    def add(self, window: PlacedPackets, is_encrypted: bool) -> None:
        """Takes the next packets. Args: is_encrypted: whether they are, all of them."""
        for piece, first, stop in _by_line(window):
            left_out_samples = int(window.left_out_samples[first])
            if not self.lines or self.lines[-1].piece != piece or left_out_samples:
                self.lines.append(
                    _Line(
                        piece=piece,
                        start_sample=int(window.start_sample[first]),
                        media_start_sample=int(window.media_sample[first]),
                        hole=Hole(int(window.hole[first])),
                        left_out_samples=left_out_samples,
                    )
                )
            line = self.lines[-1]
            # How far the file has drifted from media time within the piece, which the straight
            # line of a segment does not say.
            drift_samples = (
                window.start_sample[first:stop]
                - window.media_sample[first:stop]
                - (line.start_sample - line.media_start_sample)
            )
            line.pushed_samples = max(line.pushed_samples, int(np.abs(drift_samples).max()))
            self.end_sample = int(window.start_sample[stop - 1] + window.duration_samples[stop - 1])
            line.stop_sample = self.end_sample
        self.hole_samples += np.bincount(
            window.hole, weights=window.hole_samples, minlength=len(Hole)
        ).astype(np.int64)
        self.packet_count += len(window)
        self.media_samples += int(window.duration_samples.sum())
        if not is_encrypted:
            self.audio_bandwidth_hz = max(
                self.audio_bandwidth_hz, widest_bandwidth_hz(window.payload[window.payload_start])
            )
        self.pauses_left_out += int(np.count_nonzero(window.left_out_samples))
        self.left_out_samples += int(window.left_out_samples.sum())

    @property
    def file_samples(self) -> int:
        """The length of the file: a packet or two alone, which a decoder would drop whole, are
        filled up.
        """
        is_heard = self.end_sample > LOOK_AHEAD_SAMPLES
        return self.end_sample if is_heard else SHORTEST_FILE_SAMPLES


def _write(file: OpusFile, window: PlacedPackets) -> None:
    """Appends packets to a file, and what fills the holes before them."""
    payload = window.payload.tobytes()
    columns = (
        window.hole_samples,
        window.payload_start,
        window.payload_bytes,
        window.duration_samples,
    )
    for hole, start, size, duration in zip(*(column.tolist() for column in columns), strict=True):
        if hole:
            file.fill(hole)
        file.write(payload[start : start + size], duration)


def _by_line(window: PlacedPackets) -> Iterator[tuple[int, int, int]]:
    """Yields the packets of a window on one piece with no pause left out, as (piece, first,
    stop).
    """
    is_first = (np.diff(window.piece, prepend=-1) != 0) | (window.left_out_samples > 0)
    first_of = np.flatnonzero(is_first).tolist()
    yield from zip(
        window.piece[first_of].tolist(), first_of, [*first_of[1:], len(window)], strict=True
    )


def _segments(pieces: Sequence[Piece], lines: Sequence[_Line]) -> tuple[FileSegment, ...]:
    """Returns the lines on which a track lies as segments of its file."""
    found = []
    before: Piece | None = None
    end_sample = 0
    for line in lines:
        piece = pieces[line.piece]
        hole_samples = line.start_sample - end_sample
        server_start_unix_ns = piece.server_unix_ns(line.media_start_sample)
        length_ns = samples_to_ns(line.stop_sample - line.start_sample)
        pushed_ns = samples_to_ns(line.pushed_samples)
        found.append(
            FileSegment(
                part=piece.part,
                base_filename=piece.packet_run.base_filename,
                track_id=piece.packet_run.track_id,
                ssrc=piece.packet_run.ssrc,
                file_start_sample=line.start_sample,
                file_stop_sample=line.stop_sample,
                server_start_unix_ns=server_start_unix_ns,
                server_stop_unix_ns=server_start_unix_ns
                + round(length_ns * piece.clock.clock_rate_ratio),
                clock_method=piece.packet_run.clock.method,
                clock_skew_ppm=piece.clock.skew_ppm if piece.clock.is_fitted else None,
                sync_error_ns=piece.clock.sync_error_ns + pushed_ns,
                gap_before=GapBefore.LEFT_OUT
                if line.left_out_samples
                else _gap_before(piece, before, hole_samples, line.hole),
            )
        )
        before, end_sample = piece, line.stop_sample
    return tuple(found)


def _gap_before(piece: Piece, before: Piece | None, hole_samples: int, hole: Hole) -> GapBefore:
    """Returns why there is nothing between two pieces.

    Args:
      piece: the later one.
      before: the earlier one; None where there is none.
      hole_samples: what lies between them.
      hole: of the later one's first packet.
    """
    if before is None or hole_samples < GRID_SAMPLES:
        return GapBefore.NONE
    if hole == Hole.LOST:
        return GapBefore.LOST
    if not piece.opens_packet_run:
        return GapBefore.STALLED
    if before.part != piece.part:
        return GapBefore.NOT_RECORDED
    if before.packet_run.base_filename == piece.packet_run.base_filename:
        return GapBefore.UNKNOWN
    return GapBefore.MUTED
