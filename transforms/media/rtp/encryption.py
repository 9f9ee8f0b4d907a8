"""Tells payloads that were encrypted end to end, by their first and last bytes and their framing.

Whoever encrypts frames between encoder and packets (SFrame, WebRTC Encoded Transform) leaves RTP as
it is, and bytes that are no Opus behind it: in part they decode, to noise at full scale. The sound
is never asked. Four things tell, none of which an Opus encoder does, whatever its mode:

- an SFrame header (RFC 9605 s4.3): its counter goes on as the sequence numbers do;
- a trailer: that of Jitsi and LiveKit repeats the packet's time stamp in its initialisation vector,
  that of WebRTC's own example ends in 0xDEADBEEF; both leave the TOC byte in the clear;
- first bytes that are as good as drawn, with broken framing behind them;
- first bytes that state far more audio than the time that passed, by time stamps and by arrivals.

What cannot be told: a scheme that leaves the TOC byte in the clear and marks nothing else, as any
bytes behind a TOC of frame-count code 0 are a valid packet (RFC 6716 s3.2.2).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from transforms.media.buffers import rows_at
from transforms.media.opus.packet import GRID_SAMPLES, MAX_PACKET_SAMPLES, packet_samples
from transforms.media.rtp.streams import PacketRun, Stream, by_source
from transforms.media.units import SAMPLES_PER_MS, Bytes, Ints
from transforms.media.wraparound import unwrap_sequence

_Flags = npt.NDArray[np.bool_]
_HEAD = np.dtype([("first", "u1"), ("second", "u1")])
_WORD = np.dtype([("word", ">u8")])
_TRAILER = np.dtype(
    [("ssrc", ">u4"), ("timestamp", ">u4"), ("count", ">u4"), ("iv_bytes", "u1"), ("key", "u1")]
)
"""Behind the ciphertext: initialisation vector, its length, index of the key."""
_IV_BYTES = 12
_LEAST_TRAILED_BYTES = 1 + 16 + _TRAILER.itemsize  # TOC, authentication tag of AES-GCM, trailer
_EXAMPLE_END = 0xDEADBEEF
_LEAST_TAG_BYTES = 4  # RFC 9605 s4.5, table 2
_MOST_COUNTS = 4_096
"""Frames that a sender may encrypt with one counter between two packets of its audio: video too."""
_COUNTED_PACKETS, _LEAST_COUNTED = 32, 29
_TRAILED_PACKETS, _LEAST_TRAILED = 8, 7
_DRAWN_PACKETS, _LEAST_NEW, _LEAST_BROKEN = 64, 48, 16
"""Of bytes that are drawn 62 in 64 differ from the 8 before, and 32 in 64 begin no valid packet."""
_NEAR_PACKETS = 8
_LONG_PACKETS, _LEAST_LONG = 256, 192
_GAP_PACKETS = 32
_STEP_PACKETS = 1 << 14
_USUAL_SAMPLES = 960


class Evidence:
    """What the bytes of a dump's packets say of encryption, gathered while they are looked at."""

    def __init__(self, count: int) -> None:
        """Args: count: of the stream's packets."""
        self._is_counted, self._is_trailed, self._is_opus_type, self._is_broken = np.zeros(
            (4, count), dtype=bool
        )
        self._first_byte = np.zeros(count, dtype=np.uint8)
        self._stated_samples = np.zeros(count, dtype=np.int16)
        """How long a packet lasts by its first bytes, at most 120 ms."""

    def look_at_ends(self, stream: Stream, audio: Ints, dump: Bytes) -> None:
        """Looks at the first and last bytes of payloads as they were sent.

        Args:
          stream: before RED is taken off.
          audio: places of the packets that should be audio, in order of arrival.
          dump: the bytes that payloads are positions in.
        """
        at = audio[np.argsort(stream.ssrc[audio], kind="stable")]
        if len(at) < 2:
            return
        follows = np.diff(stream.ssrc[at].astype(np.int64)) == 0
        # What came twice says nothing new.
        step = np.diff(stream.sequence_number[at]).astype(np.int16).astype(np.int64)
        follows &= step != 0
        start, size = stream.payload_offset[at], stream.payload_bytes[at].astype(np.int64)
        self._is_counted[at[1:]] = follows & _counts_on(start, size, step, dump)
        timestamp = stream.rtp_timestamp[at]
        self._is_trailed[at[1:]] = follows & _has_trailers(start, size, timestamp, dump)

    def look_at_framing(self, stream: Stream, opus: Ints, is_whole: _Flags, dump: Bytes) -> None:
        """Looks at TOC bytes and framing.

        Args:
          stream: all packets.
          opus: places of those that should be Opus by their payload type.
          is_whole: of each packet of the stream, whether its framing is.
          dump: the bytes that payloads are positions in.
        """
        heads = rows_at(dump, stream.payload_offset[opus], _HEAD)
        self._is_opus_type[opus] = True
        self._is_broken[opus] = ~is_whole[opus]
        self._first_byte[opus] = heads["first"]
        self._stated_samples[opus] = np.minimum(
            packet_samples(heads["first"], heads["second"]), MAX_PACKET_SAMPLES
        )

    def find_encrypted(self, stream: Stream, is_audio_type: _Flags) -> _Flags:
        """Returns which packets are encrypted; those of one source that are, mostly lie together.

        Args:
          stream: all packets.
          is_audio_type: of each packet, whether it should be audio.
        """
        found = np.zeros(len(stream.ssrc), dtype=bool)
        if not len(found):
            return found
        for mine in by_source(stream.ssrc):
            mine = mine[is_audio_type[mine]]
            opus = mine[self._is_opus_type[mine]]
            found[mine] = _regions(self._is_counted[mine], _COUNTED_PACKETS, _LEAST_COUNTED)
            found[mine] |= _regions(self._is_trailed[mine], _TRAILED_PACKETS, _LEAST_TRAILED)
            found[opus] |= self._drawn(opus)
            for first in range(0, len(opus), _STEP_PACKETS):
                some = opus[first : first + _STEP_PACKETS + _LONG_PACKETS]
                found[some] |= self._too_long(stream, some)
            _fill_gaps(found, mine)
        return found

    def _drawn(self, opus: Ints) -> _Flags:
        """Returns where first bytes are as good as drawn, and framing is broken."""
        first_byte, is_broken = self._first_byte[opus], self._is_broken[opus]
        if int(is_broken.sum()) < _LEAST_BROKEN:
            return np.zeros(len(opus), dtype=bool)
        is_new = np.ones(len(opus), dtype=bool)
        for back in range(1, _NEAR_PACKETS + 1):
            is_new[back:] &= first_byte[back:] != first_byte[:-back]
        step = np.diff(first_byte)
        is_new[2:] &= step[1:] != step[:-1]  # bytes that count up are not drawn
        is_drawn = _windows_with(is_new, _DRAWN_PACKETS, _LEAST_NEW)
        is_drawn &= _windows_with(is_broken, _DRAWN_PACKETS, _LEAST_BROKEN)
        return _trimmed(_spread(is_drawn, _DRAWN_PACKETS, len(opus)), is_new | is_broken, 0)

    def _too_long(self, stream: Stream, opus: Ints) -> _Flags:
        """Returns where packets state half as much audio again as there was time, by both clocks.

        Most of them state it: a few that are damaged may state anything.

        Audio of one source never overlaps; a sender whose time stamps count at a wrong rate has its
        arrivals speak for it, packets that come in a burst their time stamps.
        """
        found = np.zeros(len(opus), dtype=bool)
        if len(opus) <= _LONG_PACKETS or not stream.has_arrivals:
            return found
        number = unwrap_sequence(stream.sequence_number[opus], 16)
        order = np.argsort(number, kind="stable")
        order = order[np.diff(number[order], prepend=number[order[0]] - 1) > 0]
        if len(order) <= _LONG_PACKETS:
            return found
        at = opus[order]
        samples = self._stated_samples[at]
        stated = np.concatenate([[0], np.cumsum(samples, dtype=np.int64)])
        stated = stated[_LONG_PACKETS:-1] - stated[: -_LONG_PACKETS - 1]
        timestamp = unwrap_sequence(stream.rtp_timestamp[at], 32)
        arrival = stream.arrival_offset_ms[at] * SAMPLES_PER_MS
        sent = timestamp[_LONG_PACKETS:] - timestamp[:-_LONG_PACKETS]
        came = arrival[_LONG_PACKETS:] - arrival[:-_LONG_PACKETS]
        overlaps = np.append(np.diff(timestamp) < samples[:-1], False)
        is_long = _windows_with(overlaps, _LONG_PACKETS, _LEAST_LONG)[:-1]
        is_long &= (sent > 0) & (came > 0) & (2 * stated > 3 * np.maximum(sent, came))
        found[order] = _trimmed(_spread(is_long, _LONG_PACKETS, len(order)), overlaps, 0)
        return found


def sent_samples(stream: Stream, encrypted: Ints) -> Ints:
    """Returns how long encrypted packets last: up to the next, which is what time stamps tell.

    Where the next is lost or far, it is as long as most. On the grid of 2.5 ms.

    Args:
      stream: all packets.
      encrypted: their places.
    """
    samples = np.zeros(len(encrypted), dtype=np.int64)
    for mine in by_source(stream.ssrc[encrypted]):
        at = encrypted[mine]
        number = unwrap_sequence(stream.sequence_number[at], 16)
        order = np.argsort(number, kind="stable")
        timestamp = unwrap_sequence(stream.rtp_timestamp[at[order]], 32)
        step = np.append(np.diff(timestamp), 0)
        is_next = np.append(np.diff(number[order]) == 1, False)
        is_next &= (step >= GRID_SAMPLES) & (step <= MAX_PACKET_SAMPLES)
        usual = int(np.median(step[is_next])) if is_next.any() else _USUAL_SAMPLES
        samples[mine[order]] = np.where(is_next, step, usual) // GRID_SAMPLES * GRID_SAMPLES
    return samples


def split_where_encrypted(packet_runs: list[PacketRun], is_encrypted: _Flags) -> list[PacketRun]:
    """Returns packet runs of which each is encrypted as a whole, or not at all."""
    if not is_encrypted.any():
        return packet_runs
    parts = []
    for packet_run in packet_runs:
        changes = np.flatnonzero(np.diff(is_encrypted[packet_run.indices])) + 1
        parts += packet_run.cut([0, *changes.tolist(), len(packet_run.indices)])
    return parts


def _counts_on(start: Ints, size: Ints, step: Ints, dump: Bytes) -> _Flags:
    """Returns of each packet but the first whether its SFrame counter goes on from the one before.

    It does so by as much as the sequence number, or, where a sender counts frames of its video
    along, by more.

    Args:
      start, size: of the payloads.
      step: from each sequence number to the next.
      dump: the bytes that payloads are positions in.
    """
    # RFC 9605 s4.3: X, K (3 bits), Y, C (3 bits); a set X or Y says that as many bytes as K + 1 or
    # C + 1 hold the key's id or the counter, else K or C is it.
    head = rows_at(dump, start, _HEAD)["first"].astype(np.int64)
    key_bytes = np.where(head & 0x80, (head >> 4 & 7) + 1, 0)
    counter_bytes = np.where(head & 0x08, (head & 7) + 1, 0)
    word = rows_at(dump, start + 1 + key_bytes, _WORD)["word"].astype(np.uint64)
    # A shift by all 64 bits is none at all: the counter is in the header's byte then.
    shift = (8 * (8 - np.maximum(counter_bytes, 1))).astype(np.uint64)
    counter = np.where(counter_bytes > 0, word >> shift, (head & 7).astype(np.uint64))
    is_whole = size >= 1 + key_bytes + counter_bytes + _LEAST_TAG_BYTES
    rise = np.diff(counter).astype(np.int64)
    is_exact = rise == step
    is_rising = (rise > 0) & (rise <= _MOST_COUNTS * step) & (counter_bytes[1:] >= 2)
    same_key = (head[1:] & 0xF0) == (head[:-1] & 0xF0)
    found: _Flags = is_whole[1:] & is_whole[:-1] & same_key & (is_exact | is_rising)
    return found


def _has_trailers(
    start: Ints, size: Ints, timestamp: npt.NDArray[np.uint32], dump: Bytes
) -> _Flags:
    """Returns of each packet but the first whether it ends as encrypted frames do."""
    ends = rows_at(dump, np.maximum(start + size - _TRAILER.itemsize, 0), _TRAILER)
    is_room = size >= _LEAST_TRAILED_BYTES
    has_iv = is_room & (ends["iv_bytes"] == _IV_BYTES)
    offset = ends["timestamp"].astype(np.uint32) - timestamp
    goes_along = (np.diff(offset) == 0) & (np.diff(timestamp) != 0)
    last = (ends["count"].astype(np.int64) & 0xFFFF) << 16
    last |= ends["iv_bytes"].astype(np.int64) << 8 | ends["key"]
    is_example = is_room & (last == _EXAMPLE_END)
    found: _Flags = has_iv[1:] & has_iv[:-1] & goes_along | is_example[1:] & is_example[:-1]
    return found


def _windows_with(flags: _Flags, length: int, least: int) -> _Flags:
    """Returns of each window of that many packets, by its first, whether enough are flagged."""
    total = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(total[length:] - total[:-length] >= least)


def _spread(windows: _Flags, length: int, count: int) -> _Flags:
    """Returns which packets lie in any of some windows. Args: windows: by their first packet."""
    edges = np.zeros(count + 1, dtype=np.int64)
    firsts = np.flatnonzero(windows)
    np.add.at(edges, firsts, 1)
    np.add.at(edges, np.minimum(firsts + length, count), -1)
    return np.asarray(np.cumsum(edges[:-1]) > 0)


def _regions(pairs: _Flags, length: int, least: int) -> _Flags:
    """Returns which packets lie where most go on from the one before."""
    if int(pairs.sum()) < least:
        return np.zeros(len(pairs), dtype=bool)
    found = _spread(_windows_with(pairs, length, least), length, len(pairs))
    return _trimmed(found, pairs, 1)


def _trimmed(regions: _Flags, signs: _Flags, before: int) -> _Flags:
    """Returns regions from their first sign, or as many packets before it, to their last."""
    found = np.zeros_like(regions)
    for first, stop in _flagged(regions):
        inside = np.flatnonzero(signs[first:stop])
        if inside.size:
            found[max(0, first + int(inside[0]) - before) : first + int(inside[-1]) + 1] = True
    return found


def _fill_gaps(found: _Flags, mine: Ints) -> None:
    """Flags the few packets of one source that lie between flagged ones, or at either end."""
    flags = found[mine]
    if not flags.any():
        return
    for first, stop in _flagged(~flags):
        if stop - first < _GAP_PACKETS:
            found[mine[first:stop]] = True


def _flagged(flags: _Flags) -> list[tuple[int, int]]:
    """Returns the rows of flagged packets, as (first, stop)."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    return list(pairwise(edges))[::2]
