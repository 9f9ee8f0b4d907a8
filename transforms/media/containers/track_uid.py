"""Gives the one track of a Matroska file a UID of its own.

FFmpeg's muxer numbers tracks from 1 where the same packets are to give the same bytes, and draws
lots elsewhere; it takes no number from outside. So the number is set afterwards, in its place: it
has 8 bytes whatever it is. Elements are those of RFC 9559, their spelling is that of RFC 8794.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SEGMENT = 0x18538067
_TRACKS = 0x1654AE6B
_TAGS = 0x1254C367
_CRC_32 = 0xBF
_TRACK_ENTRY = 0xAE
_TRACK_UID = 0x73C5
_TAG = 0x7373
_TARGETS = 0x63C0
_TAG_TRACK_UID = 0x63C5
_PARENTS = frozenset({_TRACK_ENTRY, _TAG, _TARGETS})
_UID_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of a file."""

    id: int
    start: int
    """Of what is in it."""
    stop: int


def set_track_uid(path: Path, uid: int) -> None:
    """Sets the UID of the only track, and where tags name it, in a file that FFmpeg wrote.

    Args:
      path: the finished file; its size does not change.
      uid: 64 bits, not 0.

    Raises:
      ValueError: the UID is out of range, or the file has no track with a UID of 8 bytes.
    """
    if not 0 < uid < 1 << 64:
        raise ValueError(f"track UID {uid}, expected 1 to 2**64 - 1")
    done = 0
    with path.open("r+b") as file:
        size = file.seek(0, io.SEEK_END)
        for segment in _elements(file, 0, size):
            if segment.id != _SEGMENT:
                continue
            for element in _elements(file, segment.start, segment.stop):
                if element.id in (_TRACKS, _TAGS):
                    done += _set_within(file, element, uid)
    if not done:
        raise ValueError(f"{path}: no track with a UID of {_UID_BYTES} bytes")


def _set_within(file: BinaryIO, parent: _Element, uid: int) -> int:
    """Sets the UID in a top-level element, and what checks its bytes; returns how often it was
    there.
    """
    file.seek(parent.start)
    data = bytearray(file.read(parent.stop - parent.start))
    places = list(_uid_places(io.BytesIO(data), 0, len(data)))
    for place in places:
        data[place : place + _UID_BYTES] = uid.to_bytes(_UID_BYTES, "big")
    first = next(_elements(io.BytesIO(data), 0, len(data)), None)
    if first is not None and first.id == _CRC_32:  # RFC 8794 s11.3.1: of all that comes behind it
        data[first.start : first.stop] = zlib.crc32(data[first.stop :]).to_bytes(4, "little")
    file.seek(parent.start)
    file.write(data)
    return len(places)


def _uid_places(data: BinaryIO, start: int, stop: int) -> Iterator[int]:
    for element in _elements(data, start, stop):
        if element.id in _PARENTS:
            yield from _uid_places(data, element.start, element.stop)
        elif (
            element.id in (_TRACK_UID, _TAG_TRACK_UID)
            and element.stop - element.start == _UID_BYTES
        ):
            yield element.start


def _elements(file: BinaryIO, start: int, stop: int) -> Iterator[_Element]:
    """Yields the elements that lie side by side from one place to another."""
    while start < stop:
        file.seek(start)
        head = file.read(12)
        id_bytes = 9 - head[0].bit_length()
        size_bytes = 9 - head[id_bytes].bit_length()
        size = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big")
        size -= 1 << 7 * size_bytes
        begins = start + id_bytes + size_bytes
        # All bits set: of unknown size, to the end of what it is in (RFC 8794 s6.2).
        ends = stop if size == (1 << 7 * size_bytes) - 1 else begins + size
        yield _Element(int.from_bytes(head[:id_bytes], "big"), begins, ends)
        start = ends
