"""A read-only file over anything that can be read at a position: an object in a store, or a file
that another process reads. No numpy: whoever only lists archives does without.
"""

from __future__ import annotations

import io
from typing import Any

_WHOLE_BYTES = 16 << 20


class PositionedFile(io.RawIOBase):
    """Keeps a position over `read_at` and `find_end`, which subclasses give."""

    def __init__(self) -> None:
        self._position = 0

    def read_at(self, position: int, size: int) -> bytes:
        """Returns up to `size` bytes from `position`; none at the end."""
        raise NotImplementedError

    def find_end(self) -> int:
        """Returns the length of the whole."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self.find_end()
        self._position = max(0, offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        # Python's own asks for 8 kB at a time, each of which may be a request.
        pieces = []
        while piece := self.read_at(self._position, _WHOLE_BYTES):
            self._position += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
