"""Reads a zip that has lost its directory, as a broken upload leaves it.

Each member has a header of its own before it (APPNOTE 4.3.7); these are searched for.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

_SIGNATURE = b"PK\x03\x04"
_HEADER = struct.Struct("<4sHHHHHIIIHH")
_ZIP64_EXTRA = 1
_UNKNOWN = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED_FLAG, _DESCRIPTOR_FLAG, _UTF8_FLAG = 0x1, 0x8, 0x800
_SEARCH_BYTES = 1 << 20
_READ_BYTES = 1 << 16


class DamageError(Exception):
    """A member's bytes are not what its header says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedMember:
    """A member as the header before it tells."""

    name: str
    size_bytes: int
    found_instead: str | None
    """What it is instead of a file that can be read."""
    read: Callable[[int], bytes]
    """Gives up to so many bytes, none at the end; raises `DamageError`."""


def scan_zip(stream: BinaryIO) -> Iterator[ScannedMember]:
    """Yields the members of a zip by their own headers, those that are cut off too."""
    end = stream.seek(0, io.SEEK_END)
    position = 0
    while True:
        found = _find(stream, position)
        if found is None:
            return
        stream.seek(found)
        raw = stream.read(_HEADER.size)
        if len(raw) < _HEADER.size:
            return
        _, version, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = (
            _HEADER.unpack(raw)
        )
        tail = stream.read(name_bytes + extra_bytes)
        position = found + len(_SIGNATURE)
        if version & 0xFF > 63 or not name_bytes or len(tail) < name_bytes + extra_bytes:
            continue  # bytes of something else that look like a header
        packed, size = _sizes(tail[name_bytes:], packed, size)
        has_sizes = not flags & _DESCRIPTOR_FLAG or bool(packed)
        found_instead = None
        if flags & _ENCRYPTED_FLAG:
            found_instead = "an encrypted member"
        elif method not in (_STORED, _DEFLATED) or (method == _STORED and not has_sizes):
            found_instead = f"a member of method {method} in a zip without a directory"
        start = found + _HEADER.size + len(tail)
        content = _Content(
            stream,
            start,
            packed if has_sizes else None,
            method,
            None if flags & _DESCRIPTOR_FLAG else crc,
        )
        name = tail[:name_bytes].decode("utf-8" if flags & _UTF8_FLAG else "cp437", "replace")
        if not name.endswith("/"):
            yield ScannedMember(
                name=name,
                size_bytes=size if has_sizes else 0,
                found_instead=found_instead,
                read=content.read,
            )
        # A size that lies must not hide what comes behind.
        position = (
            start + packed
            if has_sizes and start + packed <= end
            else content.position
            if content.is_whole
            else start
        )


def _find(stream: BinaryIO, position: int) -> int | None:
    """Returns where the next header begins."""
    stream.seek(position)
    kept = b""
    while True:
        data = stream.read(_SEARCH_BYTES)
        place = (kept + data).find(_SIGNATURE)
        if place >= 0:
            return position - len(kept) + place
        if not data:
            return None
        position += len(data)
        kept = (kept + data)[-(len(_SIGNATURE) - 1) :]


def _sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Returns the sizes, from the zip64 field where they are too large for the header (APPNOTE
    4.5.3).
    """
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if (
            kind == _ZIP64_EXTRA
            and length >= 16
            and position + 20 <= len(extra)
            and _UNKNOWN in (packed, size)
        ):
            size, packed = struct.unpack_from("<QQ", extra, position + 4)
        position += 4 + length
    return packed, size


class _Content:
    """One member's bytes. Each read finds its own place: the stream is used by others in
    between.
    """

    def __init__(
        self, stream: BinaryIO, position: int, packed: int | None, method: int, crc: int | None
    ) -> None:
        self._stream = stream
        self.position = position
        self._left = packed
        self._inflater = zlib.decompressobj(-15) if method == _DEFLATED else None
        self._input = b""
        self._crc = crc
        self._found_crc = 0
        self._has_ended = False
        self._is_inflated = False
        self.is_whole = False
        """Whether it was read to its own end."""

    def read(self, size: int) -> bytes:
        data = b""
        while not data and not self._has_ended:
            data = self._step(size)
        self._found_crc = zlib.crc32(data, self._found_crc)
        return data

    def _step(self, size: int) -> bytes:
        if self._inflater is None:
            data = self._take(size)
            if not data:
                self._end(is_whole=self._left == 0)
            return data
        if self._is_inflated:
            self._end(is_whole=True)
            return b""
        if not self._input:
            self._input = self._take(_READ_BYTES)
        is_last = not self._input
        try:
            data = self._inflater.decompress(self._input, size)
        except zlib.error as error:
            self._has_ended = True
            raise DamageError(str(error)) from None
        self._input = self._inflater.unconsumed_tail
        if self._inflater.eof:
            self._is_inflated = True
            self.position -= len(self._inflater.unused_data)
        elif is_last and not data:
            self._end(is_whole=False)
        return data

    def _take(self, size: int) -> bytes:
        self._stream.seek(self.position)
        data = self._stream.read(size if self._left is None else min(size, self._left))
        self.position += len(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    def _end(self, *, is_whole: bool) -> None:
        self._has_ended = True
        self.is_whole = is_whole
        if not is_whole:
            raise DamageError(f"ends at byte {self.position} of the zip, in the middle of it")
        if self._crc is not None and self._found_crc != self._crc:
            raise DamageError("its checksum is wrong")
