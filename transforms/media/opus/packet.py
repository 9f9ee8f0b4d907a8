"""Reads what an Opus packet says without being decoded (RFC 6716 s3): length, bandwidth, validity.

Also the packets of empty frames that fill a hole in a file.
"""

from __future__ import annotations

import numpy as np

from transforms.media.units import Bytes, Ints

LOOK_AHEAD_SAMPLES = 312
"""The encoder's look-ahead at 48 kHz, 6.5 ms: what a container calls pre-skip (RFC 7845 s4.2)."""
MAX_PACKET_SAMPLES = 5_760
"""RFC 6716 s3.4 R5: at most 120 ms per packet."""
SHORTEST_FILE_SAMPLES = 480
"""10 ms of packets, of which 3.5 ms are heard. What is shorter than its look-ahead decodes to
nothing: a file of it is filled up to this.
"""
GRID_SAMPLES = 120
"""2.5 ms, the shortest Opus frame: every packet and filler is a multiple of it."""
_MAX_FRAME_BYTES = 1_275  # RFC 6716 s3.4 R2
# RFC 6716 s3.1 table 2: 48 kHz samples per frame for each of the 32 configurations.
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_FIRST_CELT_CONFIG = 16
FRAME_SAMPLES_BY_CONFIG: tuple[int, ...] = _SILK * 3 + _HYBRID * 2 + _CELT * 4
_FRAME_SAMPLES = np.array(FRAME_SAMPLES_BY_CONFIG, dtype=np.int64)
# RFC 6716 s2 table 1, for each of the same configurations: SILK of narrow, medium and wide band;
# hybrid of super-wide and full band; CELT of narrow, wide, super-wide and full band.
_BANDWIDTH_HZ = np.repeat(
    np.array([4_000, 6_000, 8_000, 12_000, 20_000, 4_000, 8_000, 12_000, 20_000], dtype=np.int64),
    [len(_SILK)] * 3 + [len(_HYBRID)] * 2 + [len(_CELT)] * 4,
)
# First CELT configuration (2.5 ms) with the audio bandwidth of each configuration: NB, WB, SWB or
# FB. Medium band has no CELT mode, so it takes wide band (RFC 6716 s3.1).
_CELT_CONFIG = (
    (16,) * 4 + (20,) * 8 + (24,) * 2 + (28,) * 2 + (16,) * 4 + (20,) * 4 + (24,) * 4 + (28,) * 4
)


def packet_samples(toc_bytes: Bytes, second_bytes: Bytes) -> Ints:
    """Returns each packet's duration in 48 kHz samples.

    More than `MAX_PACKET_SAMPLES`, or 0, marks an invalid one.

    Args:
      toc_bytes: first byte of each packet, shape (packets,).
      second_bytes: second byte, used by frame-count code 3 only; anything where there is none.
    """
    frames = np.where((toc_bytes & 3) == 0, 1, 2)
    frames = np.where((toc_bytes & 3) == 3, second_bytes & 63, frames)
    samples: Ints = frames.astype(np.int64) * _FRAME_SAMPLES[toc_bytes >> 3]
    return samples


def widest_bandwidth_hz(toc_bytes: Bytes) -> int:
    """Returns the widest audio bandwidth that packets state.

    Args:
      toc_bytes: first byte of each packet, shape (packets,); one packet at least.
    """
    return int(_BANDWIDTH_HZ[toc_bytes >> 3].max())


def is_valid_packet(packet: bytes) -> bool:
    """Tells whether a packet's framing holds by RFC 6716 s3.4, R1 to R7.

    What is in the frames is not looked at.
    """
    if not packet:
        return False  # R1
    code, body = packet[0] & 3, len(packet) - 1
    if code == 0:
        return body <= _MAX_FRAME_BYTES
    if code == 1:
        return body % 2 == 0 and body // 2 <= _MAX_FRAME_BYTES  # R3
    if code == 2:
        first = _frame_length(packet, 1)
        if first is None:
            return False
        size, used = first
        return used + size <= body and body - used - size <= _MAX_FRAME_BYTES  # R4
    if body < 1:
        return False  # R6
    count = packet[1] & 63
    if count == 0 or count * frame_samples(packet) > MAX_PACKET_SAMPLES:
        return False  # R5
    position, padding = _skip_padding(packet)
    rest = len(packet) - position - padding
    if rest < 0:
        return False
    if not packet[1] & 0x80:  # CBR
        return rest % count == 0 and rest // count <= _MAX_FRAME_BYTES
    for _ in range(count - 1):
        length = _frame_length(packet, position)
        if length is None:
            return False
        size, used = length
        position += used
        rest -= used + size
        if rest < 0:
            return False
    return rest <= _MAX_FRAME_BYTES  # R7


def _skip_padding(packet: bytes) -> tuple[int, int]:
    """Returns where the frame lengths of a code 3 packet begin, and how much padding ends it.

    The padding is more than the packet where its length is cut off (RFC 6716 s3.2.5).
    """
    position, padding = 2, 0
    if packet[1] & 0x40:
        while True:
            if position >= len(packet):
                return position, len(packet)
            step = packet[position]
            position += 1
            padding += 254 if step == 255 else step
            if step != 255:
                break
    return position, padding


def _frame_length(packet: bytes, position: int) -> tuple[int, int] | None:
    """Returns a frame length (RFC 6716 s3.2.1) and the bytes it took; None when it is cut off."""
    if position >= len(packet):
        return None
    first = packet[position]
    if first < 252:
        return first, 1
    if position + 1 >= len(packet):
        return None
    return packet[position + 1] * 4 + first, 2


def frame_samples(packet: bytes) -> int:
    """Returns how long each of a packet's frames lasts, in 48 kHz samples."""
    return FRAME_SAMPLES_BY_CONFIG[packet[0] >> 3]


def has_silk(packet: bytes) -> bool:
    """Tells whether a packet has a SILK layer, alone or below CELT (RFC 6716 s3.1 table 2)."""
    return packet[0] >> 3 < _FIRST_CELT_CONFIG


def carries_fec(packet: bytes) -> bool:
    """Tells whether a packet carries a copy of the audio before it (in-band FEC, RFC 6716 s2.1.7).

    The flag stands behind the voice activity flags of the first frame's SILK layer, one of each per
    20 ms and channel (RFC 6716 s4.2.3); they are the first symbols of the range coder and even
    chances, and so are plain bits. CELT frames carry none.

    Args:
      packet: with valid framing.
    """
    first = _first_frame_byte(packet)
    if first is None or not has_silk(packet):
        return False
    frames = max(1, frame_samples(packet) // 960)
    middle = first >> (7 - frames) & 1
    side = first >> (6 - 2 * frames) & 1 if packet[0] & 0x04 else 0
    return bool(middle or side)


def _first_frame_byte(packet: bytes) -> int | None:
    """Returns the first byte of a valid packet's first frame; None when that frame is empty."""
    code, position, end = packet[0] & 3, 1, len(packet)
    size = None  # the first frame's, where it is stated; else it has its share of what is there
    if code == 2:
        size, used = _frame_length(packet, position) or (0, 0)
        position += used
    elif code == 3:
        position, padding = _skip_padding(packet)
        end -= padding
        for frame in range((packet[1] & 63) - 1 if packet[1] & 0x80 else 0):
            length, used = _frame_length(packet, position) or (0, 0)
            size = length if frame == 0 else size
            position += used
    return packet[position] if size != 0 and position < end else None


def filler_packets(toc_byte: int, samples: int) -> list[tuple[bytes, int]]:
    """Returns packets of empty frames that last `samples`, with their durations in samples.

    They are as few as there can be. An empty frame asks a decoder for concealment, which is how a
    container states "nothing here" without shortening the audio (RFC 7845 s4.1). All are CELT
    frames of the bandwidth and channels of the packet before: libopus conceals by what it decoded
    last, whatever an empty frame says; FFmpeg's own decoder knows no concealment, is silent on an
    empty CELT frame, but reads an empty SILK or hybrid one as sound (a click near full scale was
    seen).

    Args:
      toc_byte: TOC of the last packet before the hole.
      samples: length of the hole, a multiple of `GRID_SAMPLES`.
    """
    if samples % GRID_SAMPLES:
        raise ValueError(f"a hole of {samples} samples is not a multiple of {GRID_SAMPLES}")
    fillers: list[tuple[bytes, int]] = []
    for step in (3, 2, 1, 0):
        size = _CELT[step]
        config = _CELT_CONFIG[toc_byte >> 3] + step
        count, samples = divmod(samples, size)
        toc = config << 3 | toc_byte & 0x04
        most = MAX_PACKET_SAMPLES // size
        if count >= most:
            fillers += [(bytes([toc | 3, most]), most * size)] * (count // most)
            count %= most
        if count:
            fillers.append((bytes([toc]) if count == 1 else bytes([toc | 3, count]), count * size))
    return fillers
