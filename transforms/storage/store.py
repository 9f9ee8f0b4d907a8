"""What all stores share: what a listing tells, and an object open for reading."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class ShortTransferError(OSError):
    """Not all bytes came, or other ones than were sent."""


class Listed(Protocol):
    """What a listing tells of an object; Beam's `FileMetadata` is one."""

    @property
    def path(self) -> str: ...
    @property
    def size_in_bytes(self) -> int: ...
    @property
    def last_updated_in_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object of Cloud Storage as listed."""

    path: str
    size_in_bytes: int
    last_updated_in_seconds: float
    checksum: str
    """CRC32C as Cloud Storage spells it."""


class OpenObject(Protocol):
    """An object open for reading."""

    size_bytes: int
    checksum: str
    """Empty where the store tells none."""

    def read_at(self, position: int, size: int) -> bytes:
        """Returns `size` bytes from `position`, fewer only at the end. Raises:
        ShortTransferError.
        """

    def close(self) -> None:
        """Lets go of it."""


class OpenFile:
    """An object that is open as a file."""

    checksum = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read_at(self, position: int, size: int) -> bytes:
        """Returns `size` bytes from `position`, fewer only at the end. Raises:
        ShortTransferError.
        """
        if self._file.tell() != position:
            self._file.seek(position)
        data = self._file.read(size)
        wanted = min(size, self.size_bytes - position)
        while len(data) < wanted:  # some file systems give what they have
            more = self._file.read(wanted - len(data))
            if not more:
                raise ShortTransferError(
                    f"{len(data)} bytes came from byte {position}, expected {wanted}"
                )
            data += more
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
