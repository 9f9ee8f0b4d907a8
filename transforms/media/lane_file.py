"""Writes one lane of a track into one file: its Opus packets as they were sent, and what fills the
holes between; says what lies where in it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.clock.model import ClockMethod
from transforms.media.containers.matroska import OpusFile
from transforms.media.opus.packet import (
    GRID_SAMPLES,
    LOOK_AHEAD_SAMPLES,
    SHORTEST_FILE_SAMPLES,
    widest_bandwidth_hz,
)
from transforms.media.track.pauses import leave_out_pauses, longest_pause_that_fits
from transforms.media.track.timeline import (
    Hole,
    Piece,
    PlacedPackets,
    file_begin_unix_ns,
    place_packets,
)
from transforms.media.units import ns_to_samples, samples_to_ns
from transforms.media.values import Container, Tags


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


@dataclass(frozen=True, slots=True)
class LaneTarget:
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


@dataclass(frozen=True, slots=True)
class WrittenLane:
    """What was written of a lane."""

    layout: LaneLayout
    begin_unix_ns: int
    pauses_left_out: LeftOutPauses | None


def write_lane(
    pieces: Sequence[Piece],
    open_packets: Callable[[int], BinaryIO],
    target: LaneTarget,
    begin_unix_ns: int | None,
    allowed_samples: int | None,
) -> WrittenLane:
    """Writes one file, without long pauses where it would be longer than allowed."""
    first_unix_ns = file_begin_unix_ns(pieces, None)
    file_unix_ns = file_begin_unix_ns(pieces, begin_unix_ns)

    def placed() -> Iterator[PlacedPackets]:
        return place_packets(pieces, open_packets, file_unix_ns)

    layout = _copy(placed(), pieces, target, allowed_samples)
    if layout is not None:
        return WrittenLane(layout, file_unix_ns, None)
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
    return WrittenLane(layout, file_unix_ns, pauses)


def _copy(
    windows: Iterable[PlacedPackets],
    pieces: Sequence[Piece],
    target: LaneTarget,
    allowed_samples: int | None,
) -> LaneLayout | None:
    """Writes packets to a file, if one is named; returns where they came to lie.

    None, and half a file, once it would be longer than allowed.
    """
    layout = LaneLayout()
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


class LaneLayout:
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


def segments_of(pieces: Sequence[Piece], lines: Sequence[_Line]) -> tuple[FileSegment, ...]:
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
