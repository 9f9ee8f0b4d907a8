"""What stores of objects have in common: no folders, no files of this machine, one upload per
object.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from transforms.storage.globs import quote
from transforms.storage.store import ListedObject, Store, unsignable
from transforms.storage.uris import join


class ObjectStore(Store, Protocol):
    """A store elsewhere, without folders: the part of `Store` that such stores share."""

    can_be_down: bool = True

    def find_credentials(self, uri: str) -> None:
        """Looks for no credentials: the store's library finds its own."""
        return  # a body, or the checker takes it for one that each store must write

    def write_file(self, uri: str, source: Path) -> None:
        """Writes an object from a local file in one upload. Raises: ShortTransferError."""

    def list_below(self, folder: str) -> Iterator[ListedObject]:
        """Yields every object whose name begins with that of a folder."""
        return self.match(join(quote(folder), "**"))

    def exists_literally(self, name: str) -> bool:
        """Returns False: it would take a request."""
        return False

    def is_folder(self, name: str) -> bool:
        """Returns False: there are no folders."""
        return False

    def resolve(self, uri: str) -> str:
        """Returns the URI itself: there are no links, and letters count as they are."""
        return uri

    def local_path(self, uri: str) -> str | None:
        """Returns None: no object is a file of this machine."""
        return None

    def signed_link(self, uri: str, seconds: int) -> str:
        """Raises: ConfigError: there are none, unless the store says otherwise."""
        raise unsignable(uri)

    def prepare_folder(self, folder: str) -> None:
        """Makes nothing: there are no folders."""
        return

    def write_in_place(self, uri: str, data: bytes) -> None:
        """Writes as `write` does: nothing is cheaper."""
        self.write(uri, data)

    def move(self, uri: str, source: Path) -> None:
        """Uploads a local file and deletes it."""
        self.write_file(uri, source)
        source.unlink()

    def publish(self, uri: str, source: Path) -> None:
        """Moves as `move` does: what a store has confirmed is safe."""
        self.move(uri, source)

    def default_staging(self, output: str, name: str) -> str:
        """Returns a folder among this machine's temporary files."""
        return os.path.join(tempfile.gettempdir(), name)

    def delete_below(self, folder: str) -> None:
        """Deletes every object below a folder."""
        self.delete_many([listed.path for listed in self.list_below(folder)])

    def delete_partials(self, folder: str) -> None:
        """Deletes nothing: an upload that broke off left nothing."""
        return

    def delete_empty_folder(self, folder: str) -> bool:
        """Returns False: there are no folders."""
        return False
