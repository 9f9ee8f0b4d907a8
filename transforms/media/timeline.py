"""A track's staged packets in the order they are heard, each at its sample, with the holes between them told apart.

One rule serves both outputs: a packet lies at its server time, rounded to a grid, or right behind the packet before when
that reaches further. Individual files use a grid of 2.5 ms, because only whole Opus frames can fill holes there; the mix
uses single samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from transforms.media.clock import ns_to_samples
from transforms.media.model import PartIndex, RunIndex
from transforms.media.packet_file import read_run


class Hole(IntEnum):
    """Why there may be nothing to decode right before a packet."""

    NONE = 0
    DTX = 1
    """Silence by design: numbers run on, the time stamp jumps (RFC 7587 s3.1.3)."""
    LOST = 2
    """Missing sequence numbers."""
    STALLED = 3
    """The sender's media clock stood still."""
    BETWEEN_RUNS = 4
    """Muted, unpublished, reconnected: another segment or a new origin of time stamps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of one run on one straight line of its clock."""

    part: int
    """Index of the part the run is in."""
    run: RunIndex
    media_start_sample: int
    media_stop_sample: int
    server_start_unix_ns: int
    opens_run: bool


class PlacedPacket(NamedTuple):
    """A packet on an output's time line."""

    piece: int
    start_sample: int
    duration_samples: int
    hole: Hole
    hole_samples: int
    lost_before: int
    opus_packet: bytes


def plan_pieces(parts: Sequence[PartIndex]) -> tuple[Piece, ...]:
    """Returns all pieces of a track in order of server time, over all its archives.

    A run that is there twice (an archive under two names, or beside its unpacked folder) is taken once.
    """
    runs = [(part, run) for part, index in enumerate(parts) for run in index.runs]
    runs.sort(key=lambda r: (r[1].pieces[0].server_start_unix_ns, r[1].base_filename, r[1].ssrc))
    once = {(run.ssrc, run.pieces, run.packet_count, run.media_stop_sample): (part, run) for part, run in reversed(runs)}
    runs = list(reversed(once.values()))
    found = []
    for part, run in runs:
        edges = [*(piece.media_start_sample for piece in run.pieces[1:]), run.media_stop_sample]
        for number, (piece, stop) in enumerate(zip(run.pieces, edges, strict=True)):
            found.append(
                Piece(
                    part=part,
                    run=run,
                    media_start_sample=piece.media_start_sample,
                    media_stop_sample=stop,
                    server_start_unix_ns=piece.server_start_unix_ns,
                    opens_run=number == 0,
                )
            )
    return tuple(found)


def place_packets(
    pieces: Sequence[Piece],
    open_packets: Callable[[int], BinaryIO],
    origin_unix_ns: int,
    grid_samples: int,
) -> Iterator[PlacedPacket]:
    """Yields a track's packets at their samples, never overlapping.

    Args:
      pieces: as `plan_pieces` gives them.
      open_packets: opens the staged packets of a part, by its index.
      origin_unix_ns: server time of sample 0; no piece begins before it.
      grid_samples: packets after a hole begin at a multiple of this.
    """
    cursor = 0
    position = 0
    handles: dict[int, BinaryIO] = {}
    try:
        while position < len(pieces):
            run = pieces[position].run
            part = pieces[position].part
            count = len(run.pieces)
            if part not in handles:
                handles[part] = open_packets(part)
            current = position - 1
            for media, duration, lost, packet in read_run(handles[part], run):
                hole = Hole.LOST if lost else Hole.DTX
                while current + 1 < position + count and media >= pieces[current + 1].media_start_sample:
                    current += 1
                    if not lost:
                        hole = Hole.BETWEEN_RUNS if current == position else Hole.STALLED
                    piece = pieces[current]
                    base = _round(ns_to_samples(piece.server_start_unix_ns - origin_unix_ns), grid_samples)
                ideal = base + _round(media - piece.media_start_sample, grid_samples)
                start = max(cursor, ideal)
                if start == cursor:
                    hole = hole if hole == Hole.BETWEEN_RUNS else Hole.NONE
                yield PlacedPacket(current, start, duration, hole, start - cursor, lost, packet)
                cursor = start + duration
            position += count
    finally:
        for handle in handles.values():
            handle.close()


def _round(samples: int, grid: int) -> int:
    return (samples + grid // 2) // grid * grid
