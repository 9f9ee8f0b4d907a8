"""Reads bytes without copying all of them: rows from many places of a buffer, and mapped files."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from transforms.media.units import Bytes, Ints


def rows_at(buffer: Bytes, position: Ints, dtype: npt.DTypeLike) -> npt.NDArray[np.void]:
    """Returns the bytes at each position read as `dtype`, shape (positions,).

    Behind the end of the buffer they are zeros.

    Args:
      buffer: contiguous bytes.
      position: of the first byte of each row, not below 0; in any order, as often as one likes.
      dtype: fixed in size, its fields unaligned and big-endian as on the wire.
    """
    kind = np.dtype(dtype)
    size = kind.itemsize
    raw = np.dtype((np.void, size))  # copied as it is: by fields it would take ten times as long
    room = len(buffer) - size
    if not position.size:
        return np.zeros(0, dtype=kind)
    if int(position.max()) <= room:
        return _overlapping(buffer, raw)[position].view(kind)
    rows = np.zeros(len(position), dtype=raw)
    inside = position <= room
    if inside.any():
        rows[inside] = _overlapping(buffer, raw)[position[inside]]
    begin = max(0, room + 1)
    end = np.concatenate([buffer[begin:], np.zeros(size + 1, dtype=np.uint8)])
    rows[~inside] = _overlapping(end, raw)[np.minimum(position[~inside] - begin, len(end) - size)]
    return rows.view(kind)


def _overlapping(buffer: Bytes, raw: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Returns a row at every byte of the buffer; nothing is copied."""
    return np.ndarray((len(buffer) - raw.itemsize + 1,), dtype=raw, buffer=buffer, strides=(1,))


class MappedFile:
    """The bytes of a local file, read when they are looked at.

    The file must not be changed meanwhile; it may be deleted.
    """

    def __init__(self, path: Path) -> None:
        """Args: path: of a file that is not empty."""
        with path.open("rb") as file:
            # Not closed by hand: the mapping goes with the last array over it.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: Bytes = np.frombuffer(self._map, dtype=np.uint8)

    def let_go(self) -> None:
        """Gives back the pages that were read, as they count as memory of the process.

        They are read again when they are looked at.
        """
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)
