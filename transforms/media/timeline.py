"""A track's staged packets in the order they are heard, each at its sample, with the holes between them told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, NamedTuple

from transforms.media.clock import fit_clocks, ns_to_samples
from transforms.media.model import ClockPiece, PartIndex, RunIndex
from transforms.media.opus import GRID_SAMPLES, SAMPLE_RATE_HZ
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
    clock: ClockPiece
    media_stop_sample: int
    opens_run: bool

    def server_unix_ns(self, media_sample: int) -> int:
        """Returns the server time of a sample of the run's media time."""
        past = (media_sample - self.clock.media_start_sample) * self.clock.stretch
        return self.clock.server_start_unix_ns + round(past * 1_000_000_000 / SAMPLE_RATE_HZ)


class PlacedPacket(NamedTuple):
    """A packet on an individual file's time line."""

    piece: int
    media_sample: int
    """Where it begins in its run's media time."""
    start_sample: int
    """Where it begins in the file, the pre-skip not yet taken off."""
    duration_samples: int
    hole: Hole
    hole_samples: int
    """What lies between it and the packet before, in the file."""
    lost_before: int
    opus_packet: bytes


def plan_pieces(parts: Sequence[PartIndex]) -> tuple[Piece, ...]:
    """Returns all pieces of a track in order of server time, over all its archives, on the clock fitted to all of them.

    A run that is there twice (an archive under two names, or beside its unpacked folder) is taken once.
    """
    runs = [(part, run) for part, index in enumerate(parts) for run in index.runs]
    runs.sort(key=lambda r: (r[1].clock.first_server_unix_ns, r[1].base_filename, r[1].ssrc))
    once = {(run.ssrc, run.clock, run.packet_count, run.media_stop_sample): (part, run) for part, run in reversed(runs)}
    runs = list(reversed(once.values()))
    found = []
    for (part, run), clock_pieces in zip(runs, fit_clocks([run.clock for _, run in runs]), strict=True):
        edges = [*(piece.media_start_sample for piece in clock_pieces[1:]), run.media_stop_sample]
        for number, (clock, stop) in enumerate(zip(clock_pieces, edges, strict=True)):
            found.append(Piece(part=part, run=run, clock=clock, media_stop_sample=stop, opens_run=number == 0))
    return tuple(found)


def place_packets(
    pieces: Sequence[Piece], open_packets: Callable[[int], BinaryIO], begin_unix_ns: int | None = None
) -> Iterator[PlacedPacket]:
    """Yields a track's packets at their samples of an individual file, never overlapping.

    Packets keep their nominal durations. Each piece begins at its server time rounded to 2.5 ms, or right behind the packet
    before when that reaches further. Audio that an earlier run has given already (two archives, or two segments, of the same
    time) is left out.

    Args:
      pieces: as `plan_pieces` gives them.
      open_packets: opens the staged packets of a part, by its index.
      begin_unix_ns: server time of the file's first sample, not after the first packet; None for that of the first packet.
    """
    begin_unix_ns = file_begin_unix_ns(pieces, begin_unix_ns)
    cursor = 0
    position = 0
    handles: dict[int, BinaryIO] = {}
    try:
        while position < len(pieces):
            run, part = pieces[position].run, pieces[position].part
            stop = position + 1
            while stop < len(pieces) and not pieces[stop].opens_run:
                stop += 1
            if part not in handles:
                handles[part] = open_packets(part)
            current, opening = position - 1, True
            base = 0
            hole = Hole.BETWEEN_RUNS
            for media, duration, lost, packet in read_run(handles[part], run):
                hole = hole if opening else Hole.LOST if lost else Hole.DTX
                while current + 1 < stop and media >= pieces[current + 1].clock.media_start_sample:
                    current += 1
                    if current > position and not lost:
                        hole = Hole.STALLED
                    piece = pieces[current].clock
                    base = _round(ns_to_samples(piece.server_start_unix_ns - begin_unix_ns))
                ideal = base + _round(media - piece.media_start_sample)
                if opening and ideal + duration <= cursor:
                    continue  # heard already
                opening = False
                start = max(cursor, ideal)
                if start == cursor and hole != Hole.BETWEEN_RUNS:
                    hole = Hole.NONE
                yield PlacedPacket(current, media, start, duration, hole, start - cursor, lost, packet)
                cursor = start + duration
            position = stop
    finally:
        for handle in handles.values():
            handle.close()


def file_begin_unix_ns(pieces: Sequence[Piece], wanted_unix_ns: int | None) -> int:
    """Returns the server time of an individual file's first sample: as wanted, but never after its first packet."""
    first = pieces[0].clock.server_start_unix_ns if pieces else 0
    return first if wanted_unix_ns is None else min(wanted_unix_ns, first)


def _round(samples: int) -> int:
    return (samples + GRID_SAMPLES // 2) // GRID_SAMPLES * GRID_SAMPLES
