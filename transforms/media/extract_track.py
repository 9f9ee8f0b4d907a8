"""Copies one track's packets into one file, as they were sent, and says what is in it.

A job: it runs in a codec process. The parts of a track come from any number of archives.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.staged_packets import PartIndex, StagedDump, load_index
from transforms.media.track.timeline import (
    Hole,
    Piece,
    PlacedPackets,
    file_begin_unix_ns,
    place_packets,
    plan_pieces,
)
from transforms.media.units import samples_to_ns
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
    dumps: tuple[tuple[StagedDump, ...], ...]
    """Of each part, its segments, and what became of every record of their dumps."""


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
    uid: int = 1,
) -> TrackStats:
    """Copies a track's Opus packets into one file, on one time line.

    Args:
      host: gives the staged files; told the samples of the finished file.
      parts: the track's share of each archive.
      output: the local file to write; None measures only.
      container: its format.
      tags: title, artist, date and so on.
      begin_unix_ns: server time at which the file is to begin, when that is before its first
        packet; None for the packet's.
      uid: 64 bits that no other file has, not 0.

    Raises:
      TimelineError: no packets at all.
    """
    indexes = load_parts(parts, host.open_input)
    pieces = plan_pieces(indexes)
    if not pieces:
        raise TimelineError("no packets to place, expected at least one")
    channels = max(index.channels for index in indexes)
    layout = _Layout(len(pieces))
    with contextlib.ExitStack() as stack:
        file = (
            stack.enter_context(OpusFile(output, container, channels, tags, uid))
            if output
            else None
        )
        for window in place_packets(
            pieces, lambda part: host.open_input(parts[part].packets), begin_unix_ns
        ):
            layout.add(window, pieces[int(window.piece[0])].packet_run.is_encrypted)
            if file is not None:
                _write(file, window)
        file_samples = layout.end_sample
        if file_samples <= LOOK_AHEAD_SAMPLES:  # a packet or two that a decoder would drop whole
            file_samples = SHORTEST_FILE_SAMPLES
            if file is not None:
                file.fill(file_samples - layout.end_sample)
    duration_samples = file_samples - LOOK_AHEAD_SAMPLES
    host.tell_progress(duration_samples)
    # A part of which every packet run is there twice adds nothing, and so counts nothing.
    used = [indexes[part] for part in sorted({piece.part for piece in pieces})]
    return TrackStats(
        file=describe_file(output, duration_samples, channels) if output is not None else None,
        channels=channels,
        codec=Codec.RED if any(index.codec == Codec.RED for index in indexes) else Codec.OPUS,
        audio_bandwidth_hz=layout.audio_bandwidth_hz,
        counts=sum((index.counts for index in used), PacketCounts()),
        jitter_ms=_mean_jitter_ms(used),
        segment_count=sum(index.segment_count for index in used),
        track_ids=tuple(dict.fromkeys(piece.packet_run.track_id for piece in pieces)),
        ssrcs=tuple(dict.fromkeys(piece.packet_run.ssrc for piece in pieces)),
        segments=_segments(pieces, layout),
        duration_samples=duration_samples,
        media_samples=layout.media_samples,
        dtx_samples=int(layout.hole_samples[Hole.DTX]),
        hole_samples=layout.end_sample - layout.media_samples,
        begin_unix_ns=file_begin_unix_ns(pieces, begin_unix_ns),
        dumps=tuple(index.dumps for index in indexes),
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


class _Layout:
    """Where the pieces of a track came to lie in its file, as the packets pass by."""

    def __init__(self, piece_count: int) -> None:
        self.start_sample = [0] * piece_count
        """Of each piece, its first sample in the file."""
        self.stop_sample = [0] * piece_count
        self.media_start_sample = [0] * piece_count
        """Of each piece, the media time of its first packet."""
        self.pushed_samples = [0] * piece_count
        """Of each piece, how far the file lies from its straight line at most."""
        self.opened_by = [Hole.NONE] * piece_count
        """Of each piece, what comes before its first packet."""
        self.hole_samples = np.zeros(len(Hole), dtype=np.int64)
        """By kind of hole."""
        self.media_samples = 0
        self.audio_bandwidth_hz = 0
        self.end_sample = 0
        self._piece = -1

    def add(self, window: PlacedPackets, is_encrypted: bool) -> None:
        """Takes the next packets. Args: is_encrypted: whether they are, all of them."""
        for piece, first, stop in _by_piece(window):
            start_sample, media_sample = window.start_sample[first], window.media_sample[first]
            if piece != self._piece:
                for skipped in range(self._piece + 1, piece):
                    self.start_sample[skipped] = self.stop_sample[skipped] = int(start_sample)
                self._piece = piece
                self.start_sample[piece] = int(start_sample)
                self.media_start_sample[piece] = int(media_sample)
                self.opened_by[piece] = Hole(int(window.hole[first]))
            # How far the file has drifted from media time within the piece, which the straight
            # line of a segment does not say.
            drift_samples = (
                window.start_sample[first:stop]
                - window.media_sample[first:stop]
                - (self.start_sample[piece] - self.media_start_sample[piece])
            )
            self.pushed_samples[piece] = max(
                self.pushed_samples[piece], int(np.abs(drift_samples).max())
            )
            self.end_sample = int(window.start_sample[stop - 1] + window.duration_samples[stop - 1])
            self.stop_sample[piece] = self.end_sample
        self.hole_samples += np.bincount(
            window.hole, weights=window.hole_samples, minlength=len(Hole)
        ).astype(np.int64)
        self.media_samples += int(window.duration_samples.sum())
        if not is_encrypted:
            self.audio_bandwidth_hz = max(
                self.audio_bandwidth_hz, widest_bandwidth_hz(window.payload[window.payload_start])
            )


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


def _by_piece(window: PlacedPackets) -> Iterator[tuple[int, int, int]]:
    """Yields each piece of a window with the packets on it, as (piece, first, stop)."""
    first_of = np.flatnonzero(np.diff(window.piece, prepend=-1)).tolist()
    yield from zip(
        window.piece[first_of].tolist(), first_of, [*first_of[1:], len(window)], strict=True
    )


def _segments(pieces: Sequence[Piece], layout: _Layout) -> tuple[FileSegment, ...]:
    """Returns the pieces on which anything lies, as segments of the file."""
    found = []
    before: Piece | None = None
    end_sample = 0
    for number, piece in enumerate(pieces):
        start_sample, stop_sample = layout.start_sample[number], layout.stop_sample[number]
        if start_sample == stop_sample:
            continue  # a step inside one packet, or a packet run that was there already
        hole_samples = start_sample - end_sample
        server_start_unix_ns = piece.server_unix_ns(layout.media_start_sample[number])
        length_ns = samples_to_ns(stop_sample - start_sample)
        pushed_ns = samples_to_ns(layout.pushed_samples[number])
        found.append(
            FileSegment(
                part=piece.part,
                base_filename=piece.packet_run.base_filename,
                track_id=piece.packet_run.track_id,
                ssrc=piece.packet_run.ssrc,
                file_start_sample=start_sample,
                file_stop_sample=stop_sample,
                server_start_unix_ns=server_start_unix_ns,
                server_stop_unix_ns=server_start_unix_ns
                + round(length_ns * piece.clock.clock_rate_ratio),
                clock_method=piece.packet_run.clock.method,
                clock_skew_ppm=piece.clock.skew_ppm if piece.clock.is_fitted else None,
                sync_error_ns=piece.clock.sync_error_ns + pushed_ns,
                gap_before=_gap_before(piece, before, hole_samples, layout.opened_by[number]),
            )
        )
        before, end_sample = piece, stop_sample
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
