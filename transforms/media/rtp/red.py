"""RED in a dump (RFC 2198): packets that carry copies of the packets before them.

The primary block of each becomes a plain packet; copies are put where packets were lost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.buffers import rows_at
from transforms.media.rtp.ingested_packet_run import PACKET_DTYPE
from transforms.media.rtp.streams import Stream
from transforms.media.units import Bytes, Ints

_HEADER = np.dtype([("word", ">u4")])
_MORE_BLOCKS = 1 << 31
_NEAR_NUMBERS = 64
BROKEN_BYTES = 1 << 20
"""The size of a broken payload: no Opus packet is this long."""
_COPY_COLUMNS = 5


def unwrap_red(
    stream: Stream,
    red: Ints,
    is_audio: npt.NDArray[np.bool_],
    is_opus_type: npt.NDArray[np.bool_],
    dump: Bytes,
) -> Ints:
    """Makes the primary block of RED packets their payload; returns the redundant blocks.

    These have shape (blocks, 5): RTP time stamp, position in the dump, size in bytes, which packet
    carried it, and room for their duration.

    Args:
      stream: changed in place; a payload with headers or blocks that overrun it, or with more
        blocks than any sender makes, gets a size of `BROKEN_BYTES`.
      red: the places in the stream of the packets to look at, rising.
      is_audio: of each packet of the stream; those whose primary block is empty or no Opus are
        taken out.
      is_opus_type: of each payload type, shape (128,).
      dump: the bytes that payloads are positions in.
    """
    start, size = stream.payload_offset[red], stream.payload_bytes[red].astype(np.int64)
    header_bytes, block_bytes, last_type = np.zeros((3, len(red)), dtype=np.int64)
    is_whole = np.zeros(len(red), dtype=bool)
    headers: list[tuple[Ints, Ints]] = []  # of each depth: which packets, and the header's 32 bits
    unread = np.flatnonzero(size <= caps.MAX_RED_BYTES)
    for _ in range(caps.MAX_RED_BLOCKS + 1):
        unread = unread[header_bytes[unread] < size[unread]]
        if not unread.size:
            break
        word = rows_at(dump, start[unread] + header_bytes[unread], _HEADER)["word"].astype(np.int64)
        is_last = word < _MORE_BLOCKS
        ended = unread[is_last]
        last_type[ended] = word[is_last] >> 24
        header_bytes[ended] += 1
        is_whole[ended] = True
        unread, word = unread[~is_last], word[~is_last]
        fits = header_bytes[unread] + 4 <= size[unread]
        unread, word = unread[fits], word[fits]
        header_bytes[unread] += 4
        block_bytes[unread] += word & 0x3FF
        headers.append((unread, word))
    is_whole &= header_bytes + block_bytes <= size
    copies = _copies(stream, red, headers, start + header_bytes, is_whole, is_opus_type)
    primary_bytes = size - header_bytes - block_bytes
    stream.payload_offset[red] = np.where(is_whole, start + header_bytes + block_bytes, start)
    stream.payload_bytes[red] = np.where(is_whole, primary_bytes, BROKEN_BYTES)
    is_audio[red[is_whole & ((primary_bytes == 0) | ~is_opus_type[last_type])]] = False
    return copies


def _copies(
    stream: Stream,
    red: Ints,
    headers: list[tuple[Ints, Ints]],
    at: Ints,
    is_whole: npt.NDArray[np.bool_],
    is_opus_type: npt.NDArray[np.bool_],
) -> Ints:
    """Returns the redundant blocks, by packet and oldest first.

    Args:
      stream: all packets.
      red: places of the RED packets.
      headers: of each depth, which of these have a block, and its header's 32 bits.
      at: where each packet's blocks begin; changed in place.
      is_whole: of each packet, whether its blocks fit into it.
      is_opus_type: of each payload type.
    """
    found = [np.zeros((0, _COPY_COLUMNS), dtype=np.int64)]
    for packets, word in headers:
        size = word & 0x3FF
        kept = np.flatnonzero(is_whole[packets] & (size > 0) & is_opus_type[word >> 24 & 0x7F])
        of = red[packets[kept]]
        timestamp = (
            stream.rtp_timestamp[of].astype(np.int64) - (word[kept] >> 10 & 0x3FFF)
        ) & 0xFFFF_FFFF
        found.append(
            np.stack([timestamp, at[packets[kept]], size[kept], of, np.zeros_like(of)], axis=1)
        )
        at[packets] += size
    copies: Ints = np.concatenate(found)
    return copies[np.argsort(copies[:, 3], kind="stable")]


def without_received(copies: Ints, stream: Stream, is_audio: npt.NDArray[np.bool_]) -> Ints:
    """Returns the copies of packets that are not among the last ones before their carrier.

    They are few where little is lost.
    """
    for back in range(1, caps.MAX_RED_BLOCKS + 1):
        carrier = copies[:, 3]
        before = np.maximum(carrier - back, 0)
        came = (
            is_audio[before]
            & (stream.rtp_timestamp[before] == copies[:, 0])
            & (stream.ssrc[before] == stream.ssrc[carrier])
        )
        # Of the same row of numbers: what came before they began anew is of another packet run.
        came &= stream.sequence_number[carrier] - stream.sequence_number[before] <= _NEAR_NUMBERS
        copies = copies[~came]
    return copies


def recover_red(
    records: npt.NDArray[np.void], offsets: Ints, indices: Ints, copies: Ints, origin: int
) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Puts redundant copies of lost packets in their place (RFC 2198 s4).

    Of packets sent before the first one that came, those are taken that run on into it: they begin
    before 0.

    Args:
      records: of `PACKET_DTYPE`, one packet run; its losses are changed in place.
      offsets: where in the dump each packet begins.
      indices: which packets of the stream they are.
      copies: redundant blocks of the same source that are Opus, their durations filled in.
      origin: the first RTP time stamp of the packet run.

    Returns:
      records and offsets with the copies, and how many there are.
    """
    # After a jump of the timestamps other packets' copies may seem to belong here.
    copies = copies[np.isin(copies[:, 3], indices)]
    half = 1 << 31
    # Near the packet run's own origin: it is far shorter than half the number space.
    wrapped = (copies[:, 0] - origin + half) % (1 << 32) - half
    media, unique = np.unique(wrapped, return_index=True)
    new = _before_first(media, copies[unique])
    where = [0] * len(new)
    place = np.searchsorted(records["media_sample"], media)
    is_gap = (place > 0) & (place < len(records))
    is_gap[is_gap] = records["lost_before"][place[is_gap]] > 0
    media, unique, place = media[is_gap], unique[is_gap], place[is_gap]
    before_gap = records["media_sample"][place - 1] + records["duration_samples"][place - 1]
    last_end = -1
    for sample, index, at, end in zip(
        media.tolist(), unique.tolist(), place.tolist(), before_gap.tolist(), strict=True
    ):
        _, start, size, _, duration = copies[index].tolist()
        before = max(end, last_end)
        lost = int(records["lost_before"][at])
        if lost and before <= sample and sample + duration <= int(records["media_sample"][at]):
            # Of the packets lost here one is back; those that fit before it stay lost before it,
            # the rest after.
            still_lost = min(lost - 1, (sample - before) // duration)
            records["lost_before"][at] = lost - 1 - still_lost
            new.append((sample, duration, still_lost, size, start))
            where.append(at)
            last_end = sample + duration
    if not new:
        return records, offsets, 0
    inserted = np.array([(*row[:4], True) for row in new], dtype=PACKET_DTYPE)
    starts = np.array([row[4] for row in new], dtype=np.int64)
    return np.insert(records, where, inserted), np.insert(offsets, where, starts), len(new)


def _before_first(media: Ints, copies: Ints) -> list[tuple[int, int, int, int, int]]:
    """Returns the copies that end where the first packet begins, and those before them without a
    hole: each as `PACKET_DTYPE` has it, then where in the dump.

    Args:
      media: where each copy begins, counted from the first packet, rising.
      copies: the redundant blocks, in the same order.
    """
    found: list[tuple[int, int, int, int, int]] = []
    begin = 0
    for at in range(int(np.searchsorted(media, 0)) - 1, -1, -1):
        _, start, size, _, duration = copies[at].tolist()
        if int(media[at]) + duration != begin:
            break
        begin = int(media[at])
        found.insert(0, (begin, duration, 0, size, start))
    return found
