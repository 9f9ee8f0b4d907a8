"""Parses RTP packets and RTCP sender reports as received, a window of a dump at a time.

Of RTP: the fixed header, CSRC list, header extension and padding (RFC 3550 s5, RFC 8285); of RTCP
the sender reports (RFC 3550 s6.4.1). Payloads, order, loss and time are left to others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.buffers import rows_at
from transforms.media.rtp.rtpdump import RecordWindow
from transforms.media.units import NS_PER_SECOND, Bytes, Ints

_FIXED_HEADER = np.dtype(
    [
        ("first", "u1"),
        ("second", "u1"),
        ("sequence_number", ">u2"),
        ("rtp_timestamp", ">u4"),
        ("ssrc", ">u4"),
    ]
)
_FIXED_HEADER_BYTES = _FIXED_HEADER.itemsize
_EXTENSION_HEADER = np.dtype([("profile", ">u2"), ("words", ">u2")])
_VERSION = 2
_RTCP_HEADER = struct.Struct(">BBH")
_RTCP_SENDER_REPORT = 200
_SENDER_INFO = struct.Struct(">IQI")
# RFC 5761 s4: on a shared port these second bytes are RTCP (192-223), whatever the dump's plen
# says.
_RTCP_FIRST, _RTCP_LAST = 192, 223
_NTP_UNIX_SECONDS = 2_208_988_800


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpWindow:
    """The RTP packets of one window that parse, in arrival order.

    All arrays have shape (packets,).
    """

    sequence_number: npt.NDArray[np.uint16]
    rtp_timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_type: Bytes
    arrival_offset_ms: Ints
    payload_offset: Ints
    """Position of the payload in the dump."""
    payload_bytes: Ints
    """0 for padding-only packets."""
    invalid_count: int
    """Packets left out: too short, cut off by the capture, not version 2, or of false lengths."""
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
        return ((self.ntp_time >> 32) - _NTP_UNIX_SECONDS) * NS_PER_SECOND + (
            (self.ntp_time & 0xFFFFFFFF) * NS_PER_SECOND >> 32
        )


def parse_rtp_window(window: RecordWindow) -> RtpWindow:
    """Parses all packets of a window; damaged ones are counted and left out, never raised."""
    buffer, start, stop = window.buffer, window.start, window.stop
    captured = stop - start
    # Reading past a packet is harmless; what was read there is masked out below.
    headers = rows_at(buffer, start, _FIXED_HEADER)
    first, second = headers["first"].copy(), headers["second"].copy()
    is_rtcp = (window.packet_bytes == 0) | (
        (captured >= 2) & (second >= _RTCP_FIRST) & (second <= _RTCP_LAST)
    )
    whole = ~is_rtcp & (captured >= _FIXED_HEADER_BYTES) & (window.packet_bytes <= captured)
    # A writer may pad a record: the packet ends where plen says.
    end = np.where(is_rtcp, stop, start + window.packet_bytes)
    valid = whole & (first >> 6 == _VERSION) & (window.packet_bytes >= _FIXED_HEADER_BYTES)
    payload = start + _FIXED_HEADER_BYTES + 4 * (first & 0x0F).astype(np.int64)  # CSRC list
    # RFC 3550 s5.3.1: profile, length in words (16 bits each), words. The forms of RFC 8285 differ
    # only inside.
    extended = np.flatnonzero(valid & ((first & 0x10) != 0))
    valid[extended] &= payload[extended] + 4 <= end[extended]
    payload[extended] += 4 + 4 * rows_at(buffer, payload[extended], _EXTENSION_HEADER)[
        "words"
    ].astype(np.int64)
    padded = np.flatnonzero(valid & ((first & 0x20) != 0))
    padding = buffer[end[padded] - 1].astype(np.int64)
    payload_bytes = end - payload
    payload_bytes[padded] -= padding
    valid[padded] &= padding != 0
    valid &= payload_bytes >= 0
    keep = np.flatnonzero(valid)
    kept = headers[keep]
    reports: list[SenderReport] = []
    rtcp = np.flatnonzero(is_rtcp)
    compounds = zip(
        start[rtcp].tolist(),
        stop[rtcp].tolist(),
        window.arrival_offset_ms[rtcp].tolist(),
        strict=True,
    )
    for position, its_end, arrival_offset_ms in compounds:
        reports += _sender_reports(buffer.data, position, its_end, arrival_offset_ms)
    return RtpWindow(
        sequence_number=kept["sequence_number"].astype(np.uint16),
        rtp_timestamp=kept["rtp_timestamp"].astype(np.uint32),
        ssrc=kept["ssrc"].astype(np.uint32),
        payload_type=second[keep] & np.uint8(0x7F),
        arrival_offset_ms=window.arrival_offset_ms[keep],
        payload_offset=payload[keep] + window.buffer_offset,
        payload_bytes=payload_bytes[keep],
        invalid_count=int((~is_rtcp & ~valid).sum()),
        sender_reports=tuple(reports),
    )


def _sender_reports(
    buffer: memoryview, position: int, end: int, arrival_offset_ms: int
) -> list[SenderReport]:
    """Returns the sender reports of the compound RTCP packet at `position`.

    Those behind the first damaged one are left out.
    """
    reports = []
    for _ in range(caps.MAX_COMPOUND_PACKETS):
        if position + 8 > end:
            break
        first, kind, words = _RTCP_HEADER.unpack_from(buffer, position)
        size = 4 * (words + 1)
        if first >> 6 != _VERSION or position + size > end:
            break
        if kind == _RTCP_SENDER_REPORT and size >= 28:
            ssrc, ntp_time, rtp_timestamp = _SENDER_INFO.unpack_from(buffer, position + 4)
            reports.append(
                SenderReport(
                    ssrc=ssrc,
                    ntp_time=ntp_time,
                    rtp_timestamp=rtp_timestamp,
                    arrival_offset_ms=arrival_offset_ms,
                )
            )
        position += size
    return reports
