"""Placed packets -> PCM, with repairs of what was lost and short fades at every edge of silence.

Loss is filled with the copy in the next packet (in-band FEC), else by concealment for 100 ms, then
by silence. Silence by design (DTX) stays digital silence.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.media.opus.libopus import OpusDecoder
from transforms.media.opus.packet import (
    GRID_SAMPLES,
    LOOK_AHEAD_SAMPLES,
    carries_fec,
    frame_samples,
    has_silk,
)
from transforms.media.track.timeline import Hole, PlacedPacket, PlacedPackets
from transforms.media.units import SAMPLE_RATE_HZ, Pcm

CONCEALED_SAMPLES = 4_800
"""Loss is concealed for at most 100 ms, then it is silence."""
FADE_SAMPLES = 240
"""5 ms: long enough not to click, short enough not to swallow an onset."""
_DTX_TAIL_SAMPLES = 960
_DecoderWindow = tuple[PlacedPackets, int, int]
"""Packets of a window that follow each other and are decoded in one go: (window, first, stop)."""


class Chunk(NamedTuple):
    """Decoded audio on the media time of its packet run, the codec's look-ahead taken off."""

    piece: int
    media_sample: int
    file_sample: int
    """Where the same audio lies in the individual file."""
    pcm: Pcm


@dataclass(slots=True)
class Repairs:
    """What was done about lost packets while a track was decoded."""

    fec_packets: int = 0
    """Packets decoded from the copy in the next one."""
    fec_samples: int = 0
    concealed_samples: int = 0
    """What the decoder made up instead of packets that stayed lost."""


def decode_track(
    windows: Iterable[PlacedPackets], channels: int, repairs: Repairs
) -> Iterator[Chunk]:
    """Yields a track's audio in order, in blocks of about a second; the rest is digital silence.

    Positions have the codec's look-ahead taken off, as a container's pre-skip does: after each
    start of the decoder the first 312 samples are dropped.

    Args:
      windows: the track's packets in order.
      channels: 1 or 2.
      repairs: counts on.
    """
    held: list[Chunk] = []
    samples = 0
    for chunk in _decode_windows(windows, channels, repairs):
        if held and not (_follows(held[-1], chunk) and samples < SAMPLE_RATE_HZ):
            yield _joined(held)
            held, samples = [], 0
        held.append(chunk)
        samples += len(chunk.pcm)
    if held:
        yield _joined(held)


def _follows(before: Chunk, chunk: Chunk) -> bool:
    """Whether a chunk goes on where the one before ends, in the file and on one clock."""
    return (
        chunk.file_sample == before.file_sample + len(before.pcm)
        and chunk.media_sample == before.media_sample + len(before.pcm)
        and chunk.piece == before.piece
    )


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    return (
        chunks[0]
        if len(chunks) == 1
        else chunks[0]._replace(pcm=np.concatenate([chunk.pcm for chunk in chunks]))
    )


def _decode_windows(
    windows: Iterable[PlacedPackets], channels: int, repairs: Repairs
) -> Iterator[Chunk]:
    decoder = OpusDecoder(channels)
    before: PlacedPacket | None = None
    skip = 0
    fade_in = False
    decoder_windows = (
        (window, first, stop) for window in windows for first, stop in _cut_decoder_windows(window)
    )
    for (window, first, stop), after in _with_next(decoder_windows):
        hole, hole_samples = int(window.hole[first]), int(window.hole_samples[first])
        if hole == Hole.BETWEEN_PACKET_RUNS:
            if before is not None:
                # A packet run's first 312 samples are dropped: even where it follows at once, the
                # old one has that long to fade.
                filled, skip = _skipped(
                    _tail(decoder, before, hole_samples + LOOK_AHEAD_SAMPLES), skip
                )
                yield from filled
            decoder.reset()
            skip, fade_in = LOOK_AHEAD_SAMPLES, True
        elif hole != Hole.NONE:
            fade_in = True
            if before is not None:
                if hole == Hole.LOST:
                    chunks, fade_in = _fill_loss(decoder, before, window[first], repairs)
                else:
                    chunks = _tail(decoder, before, hole_samples)
                filled, skip = _skipped(chunks, skip)
                yield from filled
        chunks, skip = _skipped(_decode_window(decoder, window, first, stop, repairs), skip)
        if chunks and fade_in:
            _fade(chunks[0].pcm, is_in=True)
            fade_in = False
        next_hole = int(after[0].hole[after[1]]) if after else Hole.NONE
        # A packet between two pauses only keeps the noise fresh (DTX): its own end is faded,
        # nothing is made up behind it.
        is_refresh = hole == next_hole == Hole.DTX and stop - first == 1
        if is_refresh and chunks:
            _fade(chunks[-1].pcm, is_in=False)
        before = None if is_refresh or next_hole == Hole.NONE else window[stop - 1]
        yield from chunks


def _with_next(
    decoder_windows: Iterable[_DecoderWindow],
) -> Iterator[tuple[_DecoderWindow, _DecoderWindow | None]]:
    source = iter(decoder_windows)
    current = next(source, None)
    while current is not None:
        following = next(source, None)
        yield current, following
        current = following


def _fade(pcm: Pcm, *, is_in: bool) -> None:
    """Makes audio begin or end softly, in place."""
    fade = min(FADE_SAMPLES, len(pcm))
    if is_in:
        pcm[:fade] *= ramp(fade)[:, None]
    else:
        pcm[len(pcm) - fade :] *= ramp(fade)[::-1, None]


def _cut_decoder_windows(window: PlacedPackets) -> Iterator[tuple[int, int]]:
    """Yields packets that follow each other on one piece, as (first, stop).

    None are much longer than a second.
    """
    ends = window.start_sample + window.duration_samples
    media_ends = window.media_sample + window.duration_samples
    is_break = (window.hole != Hole.NONE) | (np.diff(window.piece, prepend=-1) != 0)
    is_break[1:] |= window.media_sample[1:] != media_ends[:-1]
    breaks = [*np.flatnonzero(is_break).tolist(), len(window)]
    for first, stop in zip([0, *breaks], breaks, strict=False):
        while first < stop:
            second = (
                int(np.searchsorted(ends[first:stop], window.start_sample[first] + SAMPLE_RATE_HZ))
                + 1
            )
            yield first, min(first + second, stop)
            first = min(first + second, stop)


def _decode_window(
    decoder: OpusDecoder, window: PlacedPackets, first: int, stop: int, repairs: Repairs
) -> list[Chunk]:
    """Returns the audio of packets that follow each other.

    What libopus refuses is concealed, as a lost packet is.
    """
    chunks = []
    while first < stop:
        some = slice(first, stop)
        pcm, decoded = decoder.decode_all(
            window.payload,
            window.payload_start[some],
            window.payload_bytes[some],
            window.duration_samples[some],
        )
        if decoded:
            media_sample, start_sample = (
                int(window.media_sample[first]),
                int(window.start_sample[first]),
            )
            past = -LOOK_AHEAD_SAMPLES
            chunks.append(
                Chunk(int(window.piece[first]), media_sample + past, start_sample + past, pcm)
            )
            first += decoded
        if first < stop:
            refused = window[first]
            repairs.concealed_samples += refused.duration_samples
            made_up = decoder.decode(None, refused.duration_samples)
            if made_up is not None:
                chunks.append(_chunk(refused, -LOOK_AHEAD_SAMPLES, made_up))
            first += 1
    return chunks


def _skipped(chunks: Sequence[Chunk], skip: int) -> tuple[list[Chunk], int]:
    """Returns chunks without the first `skip` samples, and how many of those are still to come."""
    kept = []
    for chunk in chunks:
        cut = min(skip, len(chunk.pcm))
        skip -= cut
        if cut < len(chunk.pcm):
            kept.append(
                Chunk(
                    chunk.piece, chunk.media_sample + cut, chunk.file_sample + cut, chunk.pcm[cut:]
                )
            )
    return kept, skip


def _chunk(packet: PlacedPacket, past: int, pcm: Pcm) -> Chunk:
    """Returns audio that begins `past` samples after a packet."""
    return Chunk(packet.piece, packet.media_sample + past, packet.start_sample + past, pcm)


def _fill_loss(
    decoder: OpusDecoder, before: PlacedPacket, packet: PlacedPacket, repairs: Repairs
) -> tuple[list[Chunk], bool]:
    """Returns what can be had of a loss, and whether silence comes before the next packet."""
    chunks = []
    hole = packet.hole_samples
    by_fec = _fec_samples(before, packet, hole)
    concealed = min(hole - by_fec, CONCEALED_SAMPLES)
    silent = hole - by_fec - concealed
    past, left = before.duration_samples - LOOK_AHEAD_SAMPLES, concealed
    while left > 0:
        step = min(left, before.duration_samples)
        pcm = decoder.decode(None, step)
        if pcm is None:
            break
        left -= step
        if silent and left == 0:
            _fade(pcm, is_in=False)
        chunks.append(_chunk(before, past, pcm))
        repairs.concealed_samples += step
        past += step
    pcm = decoder.decode(packet.opus_packet, by_fec, fec=True) if by_fec else None
    if pcm is None:
        return chunks, silent > 0
    if silent:
        _fade(pcm, is_in=True)
    repairs.fec_packets += 1
    repairs.fec_samples += by_fec
    chunks.append(_chunk(packet, -by_fec - LOOK_AHEAD_SAMPLES, pcm))
    return chunks, False


def _fec_samples(before: PlacedPacket, packet: PlacedPacket, hole: int) -> int:
    """Returns how much of a hole's end the packet behind it carries: one of its frames, or nothing.

    libopus takes no copy after a packet without a SILK layer, nor part of one, and conceals
    instead.
    """
    samples = frame_samples(packet.opus_packet)
    return (
        samples
        if hole >= samples and has_silk(before.opus_packet) and carries_fec(packet.opus_packet)
        else 0
    )


def _tail(decoder: OpusDecoder, before: PlacedPacket, hole: int) -> list[Chunk]:
    """Returns one concealed packet that fades out: the soft end before silence by design."""
    samples = min(hole, before.duration_samples, _DTX_TAIL_SAMPLES)
    pcm = decoder.decode(None, -(-samples // GRID_SAMPLES) * GRID_SAMPLES)
    if pcm is None:
        return []
    return [
        _chunk(
            before,
            before.duration_samples - LOOK_AHEAD_SAMPLES,
            pcm[:samples] * ramp(samples)[::-1, None],
        )
    ]


@functools.lru_cache(maxsize=32)
def ramp(samples: int) -> npt.NDArray[np.float32]:
    """Returns a raised-cosine ramp from 0 to 1 of that many samples."""
    phase = (np.arange(samples, dtype=np.float64) + 0.5) / samples
    return (0.5 - 0.5 * np.cos(np.pi * phase)).astype(np.float32)
