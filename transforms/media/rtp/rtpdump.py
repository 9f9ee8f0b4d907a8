"""Reads rtpdump files (rtptools, Wireshark, pion): arrival times, and where each packet lies.

Packets are not looked into.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.buffers import rows_at
from transforms.media.errors import RtpdumpError
from transforms.media.units import NS_PER_SECOND, Bytes, Ints

WINDOW_RECORDS = 65_536
_MAGIC = b"#!rtpplay1.0 "
_MAX_LINE_BYTES = 256
_HEADER_BYTES = 16
_RECORD_HEADER = np.dtype(
    [("length", ">u2"), ("packet_bytes", ">u2"), ("arrival_offset_ms", ">u4")]
)
_RECORD_HEADER_BYTES = _RECORD_HEADER.itemsize
_READ_BYTES = 1 << 20
_MAX_RECORD_BYTES = 1 << 16
_CHAIN_RECORDS = 4
"""So many in a row are no accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWindow:
    """Up to `WINDOW_RECORDS` consecutive records."""

    buffer: Bytes
    """Bytes that hold these records whole."""
    buffer_offset: int
    """Position of `buffer[0]` in the file."""
    start: Ints
    """First byte of each packet, as an index into `buffer`; shape (records,), as all below."""
    stop: Ints
    """Index after its last captured byte."""
    packet_bytes: Ints
    """Length as received, the record's `plen`: 0 marks RTCP, more than `stop - start` a packet cut
    short.
    """
    arrival_offset_ms: Ints
    """Receive time in ms since the dump's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rtpdump:
    """An opened dump: its start time, and its records window by window."""

    start_unix_ns: int
    windows: Iterator[RecordWindow]
    findings: list[RtpdumpError]
    """Places where bytes were passed over for want of a record; grows while windows are read."""


def read_rtpdump(stream: BinaryIO, member: str) -> Rtpdump:
    """Opens a dump for one pass over its records.

    A last record that is cut off is dropped, as its writer was. Behind any other whose length
    cannot be, the next row of records is looked for; where there is none, that is an error raised
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
            f"{member}: begins with {head[:16]!r}, expected {_MAGIC.decode()}<address>/<port>",
            member=member,
            byte_offset=0,
        )
    line_end = head.find(b"\n", 0, _MAX_LINE_BYTES)
    if line_end < 0:
        raise RtpdumpError(
            f"{member}: no end of line in the first {_MAX_LINE_BYTES} bytes",
            member=member,
            byte_offset=0,
        )
    body = line_end + 1
    if len(head) < body + _HEADER_BYTES:
        raise RtpdumpError(
            f"{member}: ends at byte {len(head)}, expected a header of {_HEADER_BYTES} bytes at "
            f"byte {body}",
            member=member,
            byte_offset=len(head),
        )
    seconds, microseconds = struct.unpack_from(">II", head, body)
    findings: list[RtpdumpError] = []
    return Rtpdump(
        start_unix_ns=seconds * NS_PER_SECOND + microseconds * 1_000,
        windows=_windows(
            stream, head[body + _HEADER_BYTES :], body + _HEADER_BYTES, member, findings
        ),
        findings=findings,
    )


def _windows(
    stream: BinaryIO, pending: bytes, offset: int, member: str, findings: list[RtpdumpError]
) -> Iterator[RecordWindow]:
    """Yields windows; `offset` is the file position of `pending[0]`."""
    number = 0
    lost_at: int | None = (
        None  # where a record was that cannot be, while the next one is looked for
    )
    unpack = struct.Struct(">H").unpack_from
    while True:
        # Read only when short of data: tiny records leave much of a chunk for the next window.
        chunk = stream.read(_READ_BYTES) if len(pending) < _READ_BYTES else b""
        data = pending + chunk
        is_end = len(pending) < _READ_BYTES and len(chunk) < _READ_BYTES
        if lost_at is not None:
            found = _next_record(data, is_end)
            if found is None:
                if is_end:
                    raise _misframed(member, number, lost_at, "nothing up to the end does")
                skip = max(1, len(data) - _MAX_RECORD_BYTES * _CHAIN_RECORDS)
                pending, offset = data[skip:], offset + skip
                continue
            if len(findings) < caps.MAX_DAMAGED_PLACES:
                passed = offset + found - lost_at
                findings.append(
                    _misframed(member, number, lost_at, f"{passed} bytes were passed over")
                )
            pending, offset, lost_at = data[found:], offset + found, None
            continue
        starts: list[int] = []
        position, bad = 0, -1
        last = len(data) - _RECORD_HEADER_BYTES
        begin = starts.append
        for _ in range(
            WINDOW_RECORDS
        ):  # all that is done packet by packet: each record says where the next one is
            if position > last:
                break
            (length,) = unpack(data, position)
            if length < _RECORD_HEADER_BYTES:
                bad = length
                break
            begin(position)
            position += length
        if position > len(data):
            position = starts.pop()  # not all of it is here
        good = 0
        if starts:
            buffer, records = np.frombuffer(data, dtype=np.uint8), np.array(starts, dtype=np.int64)
            headers = rows_at(buffer, records, _RECORD_HEADER)
            good = _well_framed(buffer, records, headers)
            if good:
                yield _window(buffer, offset, records[:good], headers[:good])
                number += good
        if good < len(starts):
            lost_at, position = offset + starts[good], starts[good] + 1
        elif bad >= 0:
            found = _next_record(data[position + 1 :], is_end)
            if found is None and is_end:
                message = (
                    f"record {number} at byte {offset + position}: length {bad}, need at least "
                    f"{_RECORD_HEADER_BYTES}"
                )
                raise RtpdumpError(
                    f"{member}: {message}", member=member, byte_offset=offset + position
                )
            lost_at, position = offset + position, position + 1
        elif is_end and not starts:
            left = data[position:]
            # What is left is a last record cut off, unless its length is what is wrong.
            if (
                len(left) < _RECORD_HEADER_BYTES
                or _is_usual(left)
                or _next_record(left[1:], is_end) is None
            ):
                return
            lost_at, position = offset + position, position + 1
        pending, offset = data[position:], offset + position


def _misframed(member: str, number: int, at: int, what: str) -> RtpdumpError:
    message = (
        f"{member}: record {number} at byte {at}: its length does not lead to another record; "
        f"{what}"
    )
    return RtpdumpError(message, member=member, byte_offset=at)


def _is_usual(record: bytes) -> bool:
    """Whether a record's two lengths agree, as all writers have them that cut no packet short."""
    length, packet_bytes = struct.unpack_from(">HH", record)
    return packet_bytes in (0, length - _RECORD_HEADER_BYTES)


def _well_framed(buffer: Bytes, records: Ints, headers: npt.NDArray[np.void]) -> int:
    """Returns how many records come before the first whose length leads astray.

    One flipped bit there would silently cost the rest of a dump: whatever follows is read as
    records, too. A record whose two lengths do not agree is believed when records follow that look
    like some.
    """
    last = len(buffer) - 1

    def word(position: Ints) -> Ints:
        return (
            buffer[np.minimum(position, last)].astype(np.int64) << 8
            | buffer[np.minimum(position + 1, last)]
        )

    length, packet_bytes = (
        headers["length"].astype(np.int64),
        headers["packet_bytes"].astype(np.int64),
    )
    usual = (packet_bytes == length - _RECORD_HEADER_BYTES) | (packet_bytes == 0)
    odd = np.flatnonzero(~usual)
    if not odd.size:
        return len(records)
    holds_rtp = (buffer[np.minimum(records + _RECORD_HEADER_BYTES, last)] >> 6 == 2) | (
        length == _RECORD_HEADER_BYTES
    )
    # Records that a capture cut short, or that a writer padded, come in rows.
    cut_short = packet_bytes > length - _RECORD_HEADER_BYTES
    astray = np.zeros(len(odd), dtype=bool)
    for behind in range(1, _CHAIN_RECORDS):
        following = np.minimum(odd + behind, len(records) - 1)
        fits = holds_rtp[following] & (usual[following] | (cut_short[following] == cut_short[odd]))
        astray |= ~fits & (odd + behind < len(records))
    # Where the other length leads to a record, that one is right.
    other = records[odd] + _RECORD_HEADER_BYTES + packet_bytes[odd]
    is_record = (word(other) == word(other + 2) + _RECORD_HEADER_BYTES) & (
        word(other + 8) >> 14 == 2
    )
    astray |= ~cut_short[odd] & is_record & (other + _RECORD_HEADER_BYTES < last)
    return int(odd[astray.argmax()]) if astray.any() else len(records)


def _next_record(data: bytes, is_end: bool) -> int | None:
    """Returns where a row of records begins that holds RTP or RTCP; None if none is in sight."""
    size = 1 << 13
    while True:
        found = _next_record_within(data[: size + _MAX_RECORD_BYTES * _CHAIN_RECORDS], size, is_end)
        if found is not None or size >= len(data):
            return found
        size *= 8


def _next_record_within(data: bytes, size: int, is_end: bool) -> int | None:
    count = len(data) - _RECORD_HEADER_BYTES - 1
    if count <= 0:
        return None
    at = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    length = at[:count] << 8 | at[1 : count + 1]
    packet_bytes = at[2 : count + 2] << 8 | at[3 : count + 3]
    version, second = at[8 : count + 8] >> 6, at[9 : count + 9]
    is_rtp = (length >= _RECORD_HEADER_BYTES + 12) & (packet_bytes == length - _RECORD_HEADER_BYTES)
    is_rtcp = (
        (length >= _RECORD_HEADER_BYTES + 8)
        & (packet_bytes == 0)
        & (second >= 192)
        & (second <= 223)
    )
    # One more for the end of the file, which a row may run into.
    fits = np.zeros(len(data) + 2, dtype=bool)
    fits[:count] = (version == 2) & (is_rtp | is_rtcp)
    fits[len(data)] = is_end
    lengths = np.zeros(len(data) + 2, dtype=np.int64)
    lengths[:count] = length
    candidates = np.flatnonzero(fits[: min(size, count)])
    place = candidates
    for _ in range(_CHAIN_RECORDS - 1):
        place = np.minimum(place + lengths[place], len(data) + 1)
        keep = fits[place]
        candidates, place = candidates[keep], place[keep]
    return int(candidates[0]) if candidates.size else None


def _window(
    buffer: Bytes,
    offset: int,
    records: Ints,
    headers: npt.NDArray[np.void],
) -> RecordWindow:
    return RecordWindow(
        buffer=buffer,
        buffer_offset=offset,
        start=records + _RECORD_HEADER_BYTES,
        stop=records + headers["length"],
        packet_bytes=headers["packet_bytes"].astype(np.int64),
        arrival_offset_ms=headers["arrival_offset_ms"].astype(np.int64),
    )
