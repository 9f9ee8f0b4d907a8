"""Reads rtpdump files (rtptools, Wireshark, pion): arrival times and where each packet lies. Packets are not looked into."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.errors import RtpdumpError

WINDOW_RECORDS = 65_536
_MAGIC = b"#!rtpplay1.0 "
_MAX_LINE_BYTES = 256
_HEADER_BYTES = 16
_RECORD_HEADER_BYTES = 8
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWindow:
    """Up to `WINDOW_RECORDS` consecutive records."""

    buffer: npt.NDArray[np.uint8]
    """Bytes that hold these records whole."""
    buffer_offset: int
    """Position of `buffer[0]` in the file."""
    start: npt.NDArray[np.int64]
    """First byte of each packet, as an index into `buffer`; shape (records,), as all below."""
    stop: npt.NDArray[np.int64]
    """Index after its last captured byte."""
    packet_bytes: npt.NDArray[np.int64]
    """Length as received, the record's `plen`: 0 marks RTCP, more than `stop - start` a packet cut short."""
    arrival_offset_ms: npt.NDArray[np.int64]
    """Receive time in ms since the dump's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtpdump:
    """An opened dump: its start time, and its records window by window."""

    start_unix_ns: int
    windows: Iterator[RecordWindow]


def read_rtpdump(stream: BinaryIO, member: str) -> Rtpdump:
    """Opens a dump for one pass over its records.

    A last record that is cut off is dropped, as its writer was. Any other record whose length cannot be is an error raised
    from `windows` after all records before it were given.

    Args:
      stream: read forward only.
      member: its name, for messages.

    Raises:
      RtpdumpError: no `#!rtpplay1.0` line, no header, or a record length below its own header.
    """
    head = stream.read(_MAX_LINE_BYTES + _HEADER_BYTES)
    if not head.startswith(_MAGIC):
        raise RtpdumpError(
            f"{member}: begins with {head[:16]!r}, expected {_MAGIC.decode()}<address>/<port>", member=member, byte_offset=0
        )
    line_end = head.find(b"\n", 0, _MAX_LINE_BYTES)
    if line_end < 0:
        raise RtpdumpError(f"{member}: no end of line in the first {_MAX_LINE_BYTES} bytes", member=member, byte_offset=0)
    body = line_end + 1
    if len(head) < body + _HEADER_BYTES:
        raise RtpdumpError(
            f"{member}: ends at byte {len(head)}, expected a header of {_HEADER_BYTES} bytes at byte {body}",
            member=member,
            byte_offset=len(head),
        )
    seconds, microseconds = struct.unpack_from(">II", head, body)
    return Rtpdump(
        start_unix_ns=seconds * 1_000_000_000 + microseconds * 1_000,
        windows=_windows(stream, head[body + _HEADER_BYTES :], body + _HEADER_BYTES, member),
    )


def _windows(stream: BinaryIO, pending: bytes, offset: int, member: str) -> Iterator[RecordWindow]:
    """Yields windows; `offset` is the file position of `pending[0]`."""
    number = 0
    unpack = struct.Struct(">H").unpack_from
    while True:
        # Read only when short of data: tiny records leave much of a chunk for the next window.
        chunk = stream.read(_READ_BYTES) if len(pending) < _READ_BYTES else b""
        data = pending + chunk
        starts: list[int] = []
        position, end, bad = 0, len(data), -1
        while position + _RECORD_HEADER_BYTES <= end and len(starts) < WINDOW_RECORDS:
            length = unpack(data, position)[0]
            if length < _RECORD_HEADER_BYTES:
                bad = length
                break
            if position + length > end:
                break
            starts.append(position)
            position += length
        if starts:
            yield _window(data, offset, np.array(starts, dtype=np.int64))
            number += len(starts)
        if bad >= 0:
            raise RtpdumpError(
                f"{member}: record {number} at byte {offset + position}: length {bad}, need at least {_RECORD_HEADER_BYTES}",
                member=member,
                byte_offset=offset + position,
            )
        if not chunk and not starts:
            return  # what is left is a last record cut off
        pending, offset = data[position:], offset + position


def _window(data: bytes, offset: int, records: npt.NDArray[np.int64]) -> RecordWindow:
    buffer = np.frombuffer(data, dtype=np.uint8)
    header = buffer[records[:, None] + np.arange(_RECORD_HEADER_BYTES)].astype(np.int64)
    return RecordWindow(
        buffer=buffer,
        buffer_offset=offset,
        start=records + _RECORD_HEADER_BYTES,
        stop=records + (header[:, 0] << 8 | header[:, 1]),
        packet_bytes=header[:, 2] << 8 | header[:, 3],
        arrival_offset_ms=header[:, 4] << 24 | header[:, 5] << 16 | header[:, 6] << 8 | header[:, 7],
    )
