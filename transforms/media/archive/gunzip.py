"""Decompresses gzip up to the last byte before any damage, and says what the damage is.

Gzip members that follow each other are one stream (RFC 1952 s2.2).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

_READ_BYTES = 1 << 16
_STEP_BYTES = 1 << 18
_MAGIC = b"\x1f\x8b"
_WITH_HEADER = 31  # zlib's number for: gzip, with its header and checksum


class Gunzip(io.RawIOBase):
    """The decompressed bytes. They end at damage without an error; `damage` says what it is."""

    def __init__(self, compressed: BinaryIO, on_bytes: Callable[[int, int], None]) -> None:
        """Args: on_bytes: is told of each step: bytes it gave, compressed bytes read so far. May
        raise to end the reading.
        """
        self._compressed = compressed
        self._on_bytes = on_bytes
        self._inflater = zlib.decompressobj(_WITH_HEADER)
        self._input = b""
        self._read_bytes = 0
        self._has_ended = False
        self.damage: str | None = None
        """What ended the bytes before their time, and where; None while all is well."""
        self.foreign_at: int | None = None
        """Where behind the gzip data something else than zeros begins; None without."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inflate(min(len(buffer), _STEP_BYTES))
        buffer[: len(data)] = data
        return len(data)

    def _inflate(self, size: int) -> bytes:
        while self.damage is None and not self._has_ended:
            if self._inflater.eof and not self._begins_again():
                self._has_ended = True
                break
            is_last = not self._input and not self._fill()
            before = self._inflater.copy()
            try:
                data = self._inflater.decompress(self._input, size)
            except zlib.error as error:
                # It takes all that this step gave with it: what came before the damage is looked
                # for.
                data = _before_damage(before, self._input, size)
                self.damage = f"damaged gzip data before byte {self._read_bytes}: {error}"
            else:
                self._input = (
                    self._inflater.unused_data
                    if self._inflater.eof
                    else self._inflater.unconsumed_tail
                )
            if data:
                self._on_bytes(len(data), self._read_bytes - len(self._input))
                return data
            if is_last and not self._inflater.eof:
                self.damage = (
                    self.damage or f"ends at byte {self._read_bytes} in the middle of gzip data"
                )
        return b""

    def _fill(self) -> bool:
        data = self._compressed.read(_READ_BYTES)
        self._read_bytes += len(data)
        self._input += data
        return bool(data)

    def _begins_again(self) -> bool:
        """Whether another gzip member follows, after zeros perhaps (RFC 1952 s2.2; tapes and some
        stores pad).
        """
        while True:
            self._input = self._input.lstrip(b"\0")
            if len(self._input) >= len(_MAGIC) or not self._fill():
                break
        if not self._input:
            return False
        if not self._input.startswith(_MAGIC):
            self.foreign_at = self._read_bytes - len(self._input)
            return False
        self._inflater = zlib.decompressobj(_WITH_HEADER)
        return True


def _before_damage(inflater: zlib._Decompress, data: bytes, size: int) -> bytes:
    """Returns the longest output that ends before the damage."""
    good = b""
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        try:
            good = inflater.copy().decompress(data, middle)
            low = middle
        except zlib.error:
            high = middle
    return good
