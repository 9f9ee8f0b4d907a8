"""Files that a job reads by name, for code that knows no stores: which of them are plain files, and
how to open the others.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from transforms.media.errors import StorageError
from transforms.media.text import printable
from transforms.storage import objects
from transforms.storage.registry import store_of
from transforms.storage.uris import is_link, shown


class Inputs:
    """Opens files by name, wherever they are stored."""

    def __init__(self, open_object: Callable[[str], BinaryIO]) -> None:
        """Args: open_object: opens an object of any store for reading, seekable."""
        self._open_object = open_object

    def local_path(self, name: str) -> str | None:
        """Returns the path of a file on this machine's disks; None when it is in another store."""
        return store_of(name).local_path(name)

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading; seekable. Raises: StorageError, also from its reads."""
        return self._open_object(name)

    def opened_by(self, name: str, uri: str, size_bytes: int = 0) -> Inputs:
        """Returns the same inputs, of which one is opened by another URI: a link with its
        signature, or a copy.

        Args:
          name, uri: the input, and what opens it.
          size_bytes: what it was seen to have; 0 where nobody looked. Behind a link it must have as
            many: a server may give half of a file, and say that it is all.
        """
        return _RenamedInputs(self._open_object, name, uri, size_bytes)


class _RenamedInputs(Inputs):
    def __init__(
        self, open_object: Callable[[str], BinaryIO], name: str, uri: str, size_bytes: int
    ) -> None:
        super().__init__(open_object)
        self._name = name
        self._uri = uri
        self._size_bytes = size_bytes if is_link(uri) else 0

    def local_path(self, name: str) -> str | None:
        return super().local_path(self._uri if name == self._name else name)

    def open(self, name: str) -> BinaryIO:
        if name != self._name:
            return super().open(name)
        file = super().open(self._uri)
        if not self._size_bytes:
            return file
        size_bytes = file.seek(0, io.SEEK_END)
        if size_bytes != self._size_bytes:
            file.close()
            raise StorageError(
                f"{printable(shown(self._uri))}: {size_bytes} bytes, expected "
                f"{self._size_bytes} as when it was looked at"
            )
        file.seek(0)
        return file


ARCHIVE_INPUTS = Inputs(objects.open_input)
"""Archives: read from start to end, with a large buffer."""
STAGED_INPUTS = Inputs(objects.open_staged)
"""Staged tracks: read with a small buffer, since all tracks of a call are open at a time."""
