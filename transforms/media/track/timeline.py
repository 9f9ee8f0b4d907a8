"""Lays a track's staged packets on one time line: each at its sample, with the holes between named.

The line is that of an individual file, in samples at 48 kHz. Clocks say where packets lie in server
time; nominal durations keep them in one piece. So a file follows the server's time from piece to
piece, and is never cut within one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import BinaryIO, NamedTuple

import numpy as np

from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import ClockPiece
from transforms.media.opus.packet import GRID_SAMPLES
from transforms.media.track.shares import Bools, Share, read_share
from transforms.media.track.staged_packets import PacketWindow, PartIndex, StagedPacketRun
from transforms.media.units import (
    NS_PER_MS,
    NS_PER_SECOND,
    SAMPLE_RATE_HZ,
    Bytes,
    Ints,
    ns_to_samples,
)

_SAME_LINE_NS = NS_PER_MS // 10


class Hole(IntEnum):
    """Why there may be nothing to decode right before a packet."""

    NONE = 0
    DTX = 1
    """Silence by design: numbers run on, the time stamp jumps (RFC 7587 s3.1.3)."""
    LOST = 2
    """Missing sequence numbers."""
    STALLED = 3
    """The sender's media clock stood still."""
    BETWEEN_PACKET_RUNS = 4
    """Muted, unpublished, reconnected: another segment or a new origin of time stamps. Also behind
    packets of the same packet run that are not placed here.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a packet run on one straight line of its clock."""

    part: int
    """Index of the part the packet run is in."""
    packet_run: StagedPacketRun
    clock: ClockPiece
    media_stop_sample: int
    opens_packet_run: bool
    share: Share | None = None
    """What of the packet run is placed; None for all."""

    def server_unix_ns(self, media_sample: int) -> int:
        """Returns the server time of a sample of the packet run's media time."""
        past_samples = (media_sample - self.clock.media_start_sample) * self.clock.clock_rate_ratio
        return self.clock.server_start_unix_ns + round(
            past_samples * NS_PER_SECOND / SAMPLE_RATE_HZ
        )

    def goes_on_from(self, before: Piece) -> bool:
        """Whether the time line runs on from the piece before in the packet run, at its rate."""
        apart_ns = self.clock.server_start_unix_ns - before.server_unix_ns(
            self.clock.media_start_sample
        )
        return self.clock.skew_ppm == before.clock.skew_ppm and abs(apart_ns) < _SAME_LINE_NS


class PlacedPacket(NamedTuple):
    """A packet on an individual file's time line."""

    piece: int
    media_sample: int
    """Where it begins in the media time of its packet run."""
    start_sample: int
    """Where it begins in the file, the pre-skip not yet taken off."""
    duration_samples: int
    hole: Hole
    hole_samples: int
    """What lies between it and the packet before, in the file."""
    opus_packet: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPackets:
    """Consecutive packets of one packet run on an individual file's time line.

    `PlacedPacket` by columns, of shape (packets,) each.
    """

    piece: Ints
    media_sample: Ints
    start_sample: Ints
    duration_samples: Ints
    hole: Ints
    hole_samples: Ints
    left_out_samples: Ints
    """What the file leaves out of the pause before each (`pauses.py`)."""
    payload: Bytes
    """Holds the Opus packets."""
    payload_start: Ints
    """Index of each packet's first byte in `payload`."""
    payload_bytes: Ints

    def __len__(self) -> int:
        return len(self.piece)

    def __getitem__(self, index: int) -> PlacedPacket:
        start = int(self.payload_start[index])
        return PlacedPacket(
            int(self.piece[index]),
            int(self.media_sample[index]),
            int(self.start_sample[index]),
            int(self.duration_samples[index]),
            Hole(int(self.hole[index])),
            int(self.hole_samples[index]),
            self.payload[start : start + int(self.payload_bytes[index])].tobytes(),
        )


def plan_pieces(parts: Sequence[PartIndex]) -> tuple[Piece, ...]:
    """Returns all pieces of a track in order of server time, on the clock fitted to all its parts.

    A packet run that is there twice by its numbers (an archive under two names, or beside its
    unpacked folder) counts once for the clock.
    """
    packet_runs = [
        (part, packet_run) for part, index in enumerate(parts) for packet_run in index.packet_runs
    ]
    packet_runs.sort(key=lambda r: (r[1].clock.first_server_unix_ns, r[1].base_filename, r[1].ssrc))
    clocks = {_numbers(packet_run): packet_run.clock for _, packet_run in packet_runs}
    fitted = dict(zip(clocks, fit_clocks(list(clocks.values())), strict=True))
    found = []
    for part, packet_run in packet_runs:
        clock_pieces = fitted[_numbers(packet_run)]
        edges = [
            *(piece.media_start_sample for piece in clock_pieces[1:]),
            packet_run.media_stop_sample,
        ]
        for number, (clock, stop) in enumerate(zip(clock_pieces, edges, strict=True)):
            found.append(
                Piece(
                    part=part,
                    packet_run=packet_run,
                    clock=replace(
                        clock, sync_error_ns=clock.sync_error_ns + packet_run.server_doubt_ns
                    ),
                    media_stop_sample=stop,
                    opens_packet_run=number == 0,
                )
            )
    return tuple(found)


def _numbers(packet_run: StagedPacketRun) -> tuple[object, ...]:
    """Returns what two recordings of the same packets have in common, as far as numbers tell."""
    return (
        packet_run.ssrc,
        packet_run.clock,
        packet_run.packet_count,
        packet_run.media_stop_sample,
    )


def place_packets(
    pieces: Sequence[Piece],
    open_packets: Callable[[int], BinaryIO],
    begin_unix_ns: int | None = None,
) -> Iterator[PlacedPackets]:
    """Yields a track's packets at their samples of an individual file; memory holds one window.

    They never overlap, and all are placed. Packets keep their nominal durations. Each piece begins
    at its server time rounded to 2.5 ms, or right behind the packet before when that reaches
    further.

    Args:
      pieces: of one lane, as `plan_lanes` gives them: no two sounds at once.
      open_packets: opens the staged packets of a part, by its index.
      begin_unix_ns: server time of the file's first sample, not after the first packet; None for
        that of the first packet.
    """
    begin_unix_ns = file_begin_unix_ns(pieces, begin_unix_ns)
    cursor = 0
    position = 0
    handles: dict[int, BinaryIO] = {}
    try:
        while position < len(pieces):
            packet_run, part = pieces[position].packet_run, pieces[position].part
            stop = position + 1
            while stop < len(pieces) and not pieces[stop].opens_packet_run:
                stop += 1
            if part not in handles:
                handles[part] = open_packets(part)
            line = _PacketRunLine(pieces[position:stop], position, begin_unix_ns)
            share = pieces[position].share
            for window, begins in read_share(handles[part], packet_run, share, open_packets):
                placed = line.place(window, begins, cursor)
                if len(placed):
                    cursor = int(placed.start_sample[-1] + placed.duration_samples[-1])
                    yield placed
            position = stop
    finally:
        for handle in handles.values():
            handle.close()


class _PacketRunLine:
    """Lays the packets of one packet run on the file's time line, window by window."""

    def __init__(self, pieces: Sequence[Piece], first_piece: int, begin_unix_ns: int) -> None:
        """Begins before the first packet.

        Args:
          pieces: of the packet run.
          first_piece: number of the first of them among all of the track.
          begin_unix_ns: server time of the file's first sample.
        """
        self._first = first_piece
        self._media_starts = np.array(
            [piece.clock.media_start_sample for piece in pieces], dtype=np.int64
        )
        past_ns = [piece.clock.server_start_unix_ns - begin_unix_ns for piece in pieces]
        self._bases = _on_grid(np.array([ns_to_samples(ns) for ns in past_ns], dtype=np.int64))
        for number in range(1, len(pieces)):
            # Where only what is known of it changes, the file goes on unbroken.
            if pieces[number].goes_on_from(pieces[number - 1]):
                media_samples = self._media_starts[number] - self._media_starts[number - 1]
                self._bases[number] = self._bases[number - 1] + _on_grid(media_samples)
        self._piece = 0
        """That of the packet before, counted within the packet run."""
        self._is_open = False
        """Whether a packet was placed already."""

    def place(self, window: PacketWindow, begins: Bools, cursor: int) -> PlacedPackets:
        """Returns a window's packets, each at its place.

        Args:
          window: the next one.
          begins: which of its packets follow on one that is not placed here; shape (packets,).
          cursor: where the file ends so far.
        """
        records = window.records
        media = records["media_sample"].astype(np.int64)
        duration = records["duration_samples"].astype(np.int64)
        size = records["packet_bytes"].astype(np.int64)
        piece = np.searchsorted(self._media_starts, media, side="right") - 1
        piece = np.maximum.accumulate(np.maximum(piece, self._piece))
        ideal = self._bases[piece] + _on_grid(media - self._media_starts[piece])
        # Each begins where it should, or where the one before ends: start = max(ideal, start before
        # + duration before).
        before = np.cumsum(duration) - duration
        start = before + np.maximum(np.maximum.accumulate(ideal - before), cursor)
        hole_samples = start - np.concatenate([[cursor], (start + duration)[:-1]])[: len(start)]
        stepped = np.diff(piece, prepend=self._piece) > 0
        lost = records["lost_before"] > 0
        hole = np.where(lost, Hole.LOST, np.where(stepped, Hole.STALLED, Hole.DTX))
        hole[hole_samples == 0] = Hole.NONE
        hole[begins] = Hole.BETWEEN_PACKET_RUNS
        if len(piece):
            if not self._is_open:
                hole[0] = Hole.BETWEEN_PACKET_RUNS
            self._is_open, self._piece = True, int(piece[-1])
        return PlacedPackets(
            piece=piece + self._first,
            media_sample=media,
            start_sample=start,
            duration_samples=duration,
            hole=hole,
            hole_samples=hole_samples,
            left_out_samples=np.zeros_like(hole_samples),
            payload=window.payload,
            payload_start=np.cumsum(size) - size,
            payload_bytes=size,
        )


def file_begin_unix_ns(pieces: Sequence[Piece], wanted_unix_ns: int | None) -> int:
    """Returns the server time of an individual file's first sample.

    It is as wanted, but never after the first packet.
    """
    first = 0
    if pieces:
        share = pieces[0].share
        first = (
            pieces[0].clock.server_start_unix_ns
            if share is None
            else pieces[0].server_unix_ns(share.first_media_sample)
        )
    return first if wanted_unix_ns is None else min(wanted_unix_ns, first)


def _on_grid(samples: Ints) -> Ints:
    return (samples + GRID_SAMPLES // 2) // GRID_SAMPLES * GRID_SAMPLES
