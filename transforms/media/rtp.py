"""RTP and RTCP as received: fixed header, CSRC list, header extension, padding (RFC 3550 s5, RFC 8285), RED blocks
(RFC 2198) and sender reports (RFC 3550 s6.4.1). Works on whole windows of a dump; order, loss and time are left to others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.errors import RtpError
from transforms.media.rtpdump import RecordWindow

_FIXED_HEADER_BYTES = 12
_VERSION = 2
_RTCP_SENDER_REPORT = 200
# RFC 5761 s4: on a shared port these second bytes are RTCP (192-223), whatever the dump's plen says.
_RTCP_FIRST, _RTCP_LAST = 192, 223
_NTP_UNIX_SECONDS = 2_208_988_800
_MAX_COMPOUND_PACKETS = 64
"""Of one RTCP record: reports of up to 31 sources and what goes with them (RFC 3550 s6.1)."""
_MAX_RED_BLOCKS = 16
"""Of one packet. Senders put in one to three, libwebrtc at most nine; five bytes of a hostile packet would make an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpWindow:
    """The RTP packets of one window that parse, in arrival order; all arrays have shape (packets,)."""

    sequence_number: npt.NDArray[np.uint16]
    rtp_timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    arrival_offset_ms: npt.NDArray[np.int64]
    payload_offset: npt.NDArray[np.int64]
    """Position of the payload in the dump."""
    payload_bytes: npt.NDArray[np.int64]
    """0 for padding-only packets."""
    invalid_count: int
    """Packets left out: too short, cut off by the capture, not version 2, or lengths that overrun."""
    sender_reports: tuple[SenderReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderReport:
    """The pair that ties a sender's media clock to its wall clock (RFC 3550 s6.4.1)."""

    ssrc: int
    ntp_time: int
    """Seconds since 1900 as 32.32 fixed point."""
    rtp_timestamp: int
    arrival_offset_ms: int

    @property
    def sender_unix_ns(self) -> int:
        """The sender's wall clock; may be wrong by any amount."""
        return ((self.ntp_time >> 32) - _NTP_UNIX_SECONDS) * 1_000_000_000 + (
            (self.ntp_time & 0xFFFFFFFF) * 1_000_000_000 >> 32
        )


def parse_rtp_window(window: RecordWindow) -> RtpWindow:
    """Parses all packets of a window; damaged ones are counted and left out, never raised."""
    buffer, start, stop = window.buffer, window.start, window.stop
    captured = stop - start
    # Reading past a packet is harmless while inside the buffer; what was read there is masked out below.
    last = max(len(buffer) - 1, 0)

    def byte(position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return buffer[np.minimum(position, last)].astype(np.int64)

    second = byte(start + 1)
    is_rtcp = (window.packet_bytes == 0) | ((captured >= 2) & (second >= _RTCP_FIRST) & (second <= _RTCP_LAST))
    whole = ~is_rtcp & (captured >= _FIXED_HEADER_BYTES) & (window.packet_bytes <= captured)
    # A writer may pad a record: the packet ends where plen says.
    end = np.where(is_rtcp, stop, start + window.packet_bytes)
    first = byte(start)
    valid = whole & (first >> 6 == _VERSION) & (window.packet_bytes >= _FIXED_HEADER_BYTES)
    payload = start + _FIXED_HEADER_BYTES + 4 * (first & 0x0F)  # CSRC list
    extended = (first & 0x10) != 0
    # RFC 3550 s5.3.1: profile, length in words (16 bits each), words. The forms of RFC 8285 differ only inside.
    words = byte(payload + 2) << 8 | byte(payload + 3)
    valid &= ~extended | (payload + 4 <= end)
    payload = np.where(extended, payload + 4 + 4 * words, payload)
    padded = (first & 0x20) != 0
    padding = np.where(padded, byte(np.maximum(end - 1, 0)), 0)
    payload_bytes = end - payload - padding
    valid &= (payload_bytes >= 0) & ~(padded & (padding == 0))
    keep = np.flatnonzero(valid)
    at = start[keep]

    def field(first_byte: int, count: int) -> npt.NDArray[np.int64]:
        value = np.zeros(len(at), dtype=np.int64)
        for position in range(first_byte, first_byte + count):
            value = value << 8 | byte(at + position)
        return value

    reports: list[SenderReport] = []
    for record in np.flatnonzero(is_rtcp):
        packet = buffer[start[record] : stop[record]].tobytes()
        reports.extend(_sender_reports(packet, int(window.arrival_offset_ms[record])))
    return RtpWindow(
        sequence_number=field(2, 2).astype(np.uint16),
        rtp_timestamp=field(4, 4).astype(np.uint32),
        ssrc=field(8, 4).astype(np.uint32),
        payload_type=(second[keep] & 0x7F).astype(np.uint8),
        arrival_offset_ms=window.arrival_offset_ms[keep],
        payload_offset=payload[keep] + window.buffer_offset,
        payload_bytes=payload_bytes[keep],
        invalid_count=int((~is_rtcp & ~valid).sum()),
        sender_reports=tuple(reports),
    )


def _sender_reports(compound: bytes, arrival_offset_ms: int) -> list[SenderReport]:
    """Returns the sender reports of a compound RTCP packet; stops quietly at the first damaged one."""
    reports = []
    position = 0
    for _ in range(_MAX_COMPOUND_PACKETS):
        if position + 8 > len(compound):
            break
        first, kind, words = struct.unpack_from(">BBH", compound, position)
        size = 4 * (words + 1)
        if first >> 6 != _VERSION or position + size > len(compound):
            break
        if kind == _RTCP_SENDER_REPORT and size >= 28:
            ssrc, ntp_time, rtp_timestamp = struct.unpack_from(">IQI", compound, position + 4)
            reports.append(
                SenderReport(ssrc=ssrc, ntp_time=ntp_time, rtp_timestamp=rtp_timestamp, arrival_offset_ms=arrival_offset_ms)
            )
        position += size
    return reports


@dataclass(frozen=True, slots=True, kw_only=True)
class RedBlock:
    """One block of a RED payload (RFC 2198 s3)."""

    payload_type: int
    timestamp_offset: int
    """RTP ticks this block is older than the packet; 0 for the primary block."""
    start: int
    """Index of its first byte in the payload."""
    size_bytes: int


def parse_red_blocks(payload: bytes) -> tuple[RedBlock, ...]:
    """Returns the blocks of a RED payload, oldest first, the primary last.

    Raises:
      RtpError: the headers or a block overrun the payload, or there are more blocks than any sender makes.
    """
    headers: list[tuple[int, int, int]] = []
    position = 0
    while True:
        if position >= len(payload):
            raise RtpError(f"RED: headers overrun the payload of {len(payload)} bytes")
        first = payload[position]
        if not first & 0x80:
            position += 1
            break
        if position + 4 > len(payload):
            raise RtpError(f"RED: header at byte {position} overruns the payload of {len(payload)} bytes")
        if len(headers) == _MAX_RED_BLOCKS:
            raise RtpError(f"RED: more than {_MAX_RED_BLOCKS} redundant blocks")
        rest = int.from_bytes(payload[position + 1 : position + 4], "big")
        headers.append((first & 0x7F, rest >> 10, rest & 0x3FF))
        position += 4
    blocks = []
    for payload_type, offset, size in headers:
        if position + size > len(payload):
            raise RtpError(f"RED: block of {size} bytes at byte {position} overruns the payload of {len(payload)} bytes")
        blocks.append(RedBlock(payload_type=payload_type, timestamp_offset=offset, start=position, size_bytes=size))
        position += size
    primary = RedBlock(payload_type=first, timestamp_offset=0, start=position, size_bytes=len(payload) - position)
    return (*blocks, primary)
