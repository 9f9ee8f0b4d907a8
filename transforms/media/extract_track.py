"""One track's parts -> one individual file and what the catalog says of it. Runs in a codec
process.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.clock.model import ClockMethod
from transforms.media.containers.matroska import OpusFile
from transforms.media.errors import TimelineError
from transforms.media.job import JobHost
from transforms.media.opus.packet import GRID_SAMPLES, LOOK_AHEAD_SAMPLES
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.staged_packets import PartIndex, load_index
from transforms.media.track.timeline import (
    Hole,
    Piece,
    PlacedPackets,
    file_begin_unix_ns,
    place_packets,
    plan_pieces,
)
from transforms.media.units import samples_to_ns
from transforms.media.values import Container, PartFiles, Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """A finished media file."""

    size_bytes: int
    sha256: str
    duration_samples: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSegment:
    """One row of `segments`: a stretch on one straight line between file time and server time."""

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
    gap_before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStats:
    """What a track turned out to be."""

    file: MediaFile | None
    """None when no file was asked for."""
    channels: int
    codec: str
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


def load_parts(
    parts: Sequence[PartFiles], open_input: Callable[[str], BinaryIO]
) -> tuple[PartIndex, ...]:
    """Reads the indexes of a track's parts."""
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

    Raises:
      TimelineError: no packets at all.
    """
    indexes = load_parts(parts, host.open_input)
    pieces = plan_pieces(indexes)
    if not pieces:
        raise TimelineError("no packets to place, expected at least one")
    channels = max(index.channels for index in indexes)
    starts, stops = [0] * len(pieces), [0] * len(pieces)
    media_starts = [0] * len(pieces)
    pushed = [0] * len(pieces)
    holes = np.zeros(len(Hole), dtype=np.int64)
    opened_by = [Hole.NONE] * len(pieces)
    media = end = 0
    seen = -1
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(OpusFile(output, container, channels, tags)) if output else None
        for window in place_packets(
            pieces, lambda part: host.open_input(parts[part].packets), begin_unix_ns
        ):
            for piece, first, stop in _by_piece(window):
                if piece != seen:
                    for skipped in range(seen + 1, piece):
                        starts[skipped] = stops[skipped] = int(window.start_sample[first])
                    seen = piece
                    starts[seen], media_starts[seen] = (
                        int(window.start_sample[first]),
                        int(window.media_sample[first]),
                    )
                    opened_by[seen] = Hole(int(window.hole[first]))
                # How far the file has drifted from media time within the piece: what a row's
                # straight line does not say.
                off = (
                    window.start_sample[first:stop]
                    - window.media_sample[first:stop]
                    - (starts[seen] - media_starts[seen])
                )
                pushed[seen] = max(pushed[seen], int(np.abs(off).max()))
                stops[seen] = end = int(
                    window.start_sample[stop - 1] + window.duration_samples[stop - 1]
                )
            holes += np.bincount(
                window.hole, weights=window.hole_samples, minlength=len(Hole)
            ).astype(np.int64)
            media += int(window.duration_samples.sum())
            if file is not None:
                _write(file, window)
    total = end - LOOK_AHEAD_SAMPLES
    host.tell_progress(total)
    facts = None
    if output is not None:
        with output.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        facts = MediaFile(
            size_bytes=output.stat().st_size,
            sha256=digest,
            duration_samples=total,
            channels=channels,
        )
    # A part of which every run is there twice adds nothing, and so counts nothing.
    used = [indexes[part] for part in sorted({piece.part for piece in pieces})]
    counts = sum((index.counts for index in used), PacketCounts())
    weight = sum(index.counts.received for index in used if index.jitter_ms is not None)
    jitter = sum(
        index.jitter_ms * index.counts.received for index in used if index.jitter_ms is not None
    )
    return TrackStats(
        file=facts,
        channels=channels,
        codec=next((index.codec for index in indexes if index.codec != "audio/opus"), "audio/opus"),
        counts=counts,
        jitter_ms=jitter / weight if weight else None,
        segment_count=sum(index.segment_count for index in used),
        track_ids=tuple(dict.fromkeys(piece.packet_run.track_id for piece in pieces)),
        ssrcs=tuple(dict.fromkeys(piece.packet_run.ssrc for piece in pieces)),
        segments=_segments(pieces, starts, stops, media_starts, pushed, opened_by),
        duration_samples=total,
        media_samples=media,
        dtx_samples=int(holes[Hole.DTX]),
        hole_samples=end - media,
        begin_unix_ns=file_begin_unix_ns(pieces, begin_unix_ns),
    )


def _write(file: OpusFile, window: PlacedPackets) -> None:
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


def _segments(
    pieces: Sequence[Piece],
    starts: Sequence[int],
    stops: Sequence[int],
    media_starts: Sequence[int],
    pushed: Sequence[int],
    opened_by: Sequence[Hole],
) -> tuple[FileSegment, ...]:
    found = []
    before: Piece | None = None
    end = 0
    for number, piece in enumerate(pieces):
        length = stops[number] - starts[number]
        if (
            not length
        ):  # a step inside one packet, or a run that was heard already: nothing lies on it
            continue
        hole = starts[number] - end
        if before is None or hole < GRID_SAMPLES:
            gap = "none"
        elif opened_by[number] == Hole.LOST:
            gap = "lost"
        elif not piece.opens_packet_run:
            gap = "stalled"
        elif before.part != piece.part:
            gap = "not_recorded"
        elif before.packet_run.base_filename == piece.packet_run.base_filename:
            gap = "unknown"  # a new SSRC or a jump of the time stamps within one segment
        else:
            gap = "muted"
        server_start = piece.server_unix_ns(media_starts[number])
        found.append(
            FileSegment(
                part=piece.part,
                base_filename=piece.packet_run.base_filename,
                track_id=piece.packet_run.track_id,
                ssrc=piece.packet_run.ssrc,
                file_start_sample=starts[number],
                file_stop_sample=stops[number],
                server_start_unix_ns=server_start,
                server_stop_unix_ns=server_start
                + round(samples_to_ns(length) * piece.clock.clock_rate_ratio),
                clock_method=piece.packet_run.clock.method,
                clock_skew_ppm=piece.clock.skew_ppm if piece.clock.is_fitted else None,
                sync_error_ns=piece.clock.sync_error_ns + samples_to_ns(pushed[number]),
                gap_before=gap,
            )
        )
        before, end = piece, stops[number]
    return tuple(found)
