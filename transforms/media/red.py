"""RED in a dump (RFC 2198): the primary blocks taken out, redundant copies put where packets were lost."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from transforms.media.errors import (
    RtpError,
)
from transforms.media.opus import is_valid_packet, packet_samples
from transforms.media.packet_file import PACKET_DTYPE
from transforms.media.rtp import parse_red_blocks
from transforms.media.stretches import Bytes, Ints, Stream

_RED_MAX_BYTES = 4 * 1_275
_RED_MAX_BLOCKS = 3_000_000
"""Redundant blocks of a dump that are kept: 96 MB; two for each packet of 8 h."""


def unwrap_red(
    stream: Stream, red: npt.NDArray[np.bool_], is_audio: npt.NDArray[np.bool_], opus_types: list[int], dump: Bytes
) -> dict[int, Ints]:
    """Makes RED packets plain: their payload becomes the primary block. Returns the redundant blocks by SSRC.

    The blocks have shape (blocks, 4): RTP timestamp, position in the dump, size in bytes, which packet carried it.
    """
    found: dict[int, array[int]] = {}
    count = 0
    for index in np.flatnonzero(red):
        start, size = int(stream.payload_offset[index]), int(stream.payload_bytes[index])
        try:
            if size > _RED_MAX_BYTES:
                raise RtpError(f"RED: payload of {size} bytes, expected at most {_RED_MAX_BYTES}")
            *older, primary = parse_red_blocks(dump[start : start + size].tobytes())
        except RtpError:
            stream.payload_bytes[index] = 1 << 20  # no Opus packet is this long: counted as invalid with the others
            continue
        stream.payload_offset[index] = start + primary.start
        stream.payload_bytes[index] = primary.size_bytes
        if not primary.size_bytes or (opus_types and primary.payload_type not in opus_types):
            is_audio[index] = False
        blocks = found.setdefault(int(stream.ssrc[index]), array("q"))
        for block in older:
            if block.size_bytes and (not opus_types or block.payload_type in opus_types) and count < _RED_MAX_BLOCKS:
                count += 1
                timestamp = (int(stream.rtp_timestamp[index]) - block.timestamp_offset) % (1 << 32)
                blocks.extend((timestamp, start + block.start, block.size_bytes, int(index)))
    return {ssrc: np.frombuffer(blocks, dtype=np.int64).reshape(-1, 4) for ssrc, blocks in found.items()}


def recover_red(
    records: npt.NDArray[np.void], offsets: Ints, indices: Ints, blocks: Ints, origin: int, dump: Bytes
) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Puts redundant copies of lost packets in their place (RFC 2198 s4); returns the arrays and how many were put."""
    if not len(blocks) or not records["lost_before"].any():
        return records, offsets, 0
    # After a jump of the timestamps other packets' copies may seem to belong here.
    blocks = blocks[np.isin(blocks[:, 3], indices)]
    half = 1 << 31
    # Near the run's own origin: a run is far shorter than half the number space.
    wrapped = (blocks[:, 0] - origin + half) % (1 << 32) - half
    media, unique = np.unique(wrapped, return_index=True)
    place = np.searchsorted(records["media_sample"], media)
    ends = (records["media_sample"] + records["duration_samples"]).tolist()
    records = records.copy()
    new: list[tuple[int, int, int, int, int]] = []  # as PACKET_DTYPE, then where in the dump
    where: list[int] = []
    last_end = -1
    for sample, index, at in zip(media.tolist(), unique.tolist(), place.tolist(), strict=True):
        if at == 0 or at >= len(records) or not records["lost_before"][at]:
            continue
        start, size = int(blocks[index, 1]), int(blocks[index, 2])
        packet = dump[start : start + size].tobytes()
        toc = np.frombuffer(packet[:1], dtype=np.uint8)
        second = np.frombuffer(packet[1:2] or b"\0", dtype=np.uint8)
        duration = int(packet_samples(toc, second)[0])
        before = max(ends[at - 1], last_end)
        if before <= sample and sample + duration <= int(records["media_sample"][at]) and is_valid_packet(packet):
            # Of the packets lost here one is back; those that fit before it stay lost before it, the rest after.
            still_lost = min(int(records["lost_before"][at]) - 1, (sample - before) // duration)
            records["lost_before"][at] -= 1 + still_lost
            new.append((sample, duration, still_lost, size, start))
            where.append(at)
            last_end = sample + duration
    if not new:
        return records, offsets, 0
    inserted = np.array([row[:4] for row in new], dtype=PACKET_DTYPE)
    starts = np.array([row[4] for row in new], dtype=np.int64)
    return np.insert(records, where, inserted), np.insert(offsets, where, starts), len(new)
