"""Files that a job reads by name, for code that knows no stores: which of them are plain files, and
how to open the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from transforms.storage import objects
from transforms.storage.registry import store_of


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

    def opened_by(self, name: str, uri: str) -> Inputs:
        """Returns the same inputs, of which one is opened by another URI: a link with its
        signature, or a copy.
        """
        return _RenamedInputs(self._open_object, {name: uri})


class _RenamedInputs(Inputs):
    def __init__(self, open_object: Callable[[str], BinaryIO], uris: Mapping[str, str]) -> None:
        super().__init__(open_object)
        self._uris = uris

    def local_path(self, name: str) -> str | None:
        return super().local_path(self._uris.get(name, name))

    def open(self, name: str) -> BinaryIO:
        return super().open(self._uris.get(name, name))


ARCHIVE_INPUTS = Inputs(objects.open_input)
"""Archives: read from start to end, with a large buffer."""
STAGED_INPUTS = Inputs(objects.open_staged)
"""Staged tracks: read with a small buffer, since all tracks of a call are open at a time."""
