"""What a store is: the protocol that a disk, Cloud Storage and every later store fulfil, and the
values that go in and out of it.

A store makes one attempt at a time and raises the errors of its libraries. `objects` tries again,
and turns what stays into a `StorageError`; `registry` knows which store a URI belongs to.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.storage.uris import shown


class ShortTransferError(OSError):
    """Not all bytes arrived, or other bytes than were sent."""


class StoreBusyError(OSError):
    """The store gave no answer that counts, and may give one a little later."""

    def __init__(self, why: str, after_seconds: float = 0.0) -> None:
        """Args: after_seconds: how long the store asks to be left alone."""
        super().__init__(why)
        self.after_seconds = after_seconds


class SwapUnsupportedError(Exception):
    """The store cannot compare and swap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """What a listing tells of one object."""

    path: str
    """Its full URI, or path on a disk."""
    size_bytes: int
    modified_unix_s: float
    change_token: str = ""
    """As `Store.change_token` gives it, where the listing tells; else empty, and it has to be asked
    for.
    """
    special_mode: str = ""
    """Mode as `ls -l` spells it, of a pipe, a device or a folder; empty for what has content."""
    unreadable: str = ""
    """Why nothing is known of it but its name: a link that leads nowhere or is not followed, a
    folder (its path ends in `/`) that cannot be listed. Empty for what is there.
    """


class SwapRead(NamedTuple):
    """A small object as it was read, all at one moment; of one that is not there nothing."""

    data: bytes = b""
    token: str | None = None
    """For `compare_and_swap`; None when there is no object."""
    age_seconds: float = 0.0
    """How long ago it was written, by the store's own clock: that of a machine may be wrong by
    hours.
    """


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
        """Gives up the connection or file behind it."""


class Store(Protocol):
    """One kind of store. Reads and writes whole objects by URI; a glob is a URI with wildcards.

    What is written is not visible under its name before it is complete, but for `write_in_place`.
    Raises: OSError, ShortTransferError and the errors of the store's own library, all known to
    `errors`.
    """

    read_buffer_bytes: int
    """To be read at a time where an object is read from start to end."""
    can_be_down: bool
    """Whether the store as a whole can stop answering, and may answer again later."""

    def find_credentials(self, uri: str) -> None:
        """Looks for the credentials that a place needs, once, before any work. Raises:
        ConfigError: it needs some, and there are none.
        """

    # --- reading ---

    def open(self, uri: str) -> OpenObject:
        """Opens an object for reading."""

    def read(self, uri: str) -> bytes:
        """Returns a whole object."""

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of an object with one request. Raises: ShortTransferError: it ends
        before.
        """

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the objects a glob matches: `*` stays in its folder, `**` does not. Where it
        cannot be known whether something below matches, the folder or link in its place.
        """

    def has_match(self, pattern: str) -> bool:
        """Whether a glob matches anything at all; cheap also where it matches much."""

    def list_below(self, folder: str) -> Iterator[ListedObject]:
        """Yields every object below a folder; none when it is not there."""

    def change_token(self, uri: str) -> str:
        """Returns what differs whenever the object's content may: a checksum, or the time of the
        last change.
        """

    def exists_literally(self, name: str) -> bool:
        """Whether a file or folder has just this name, wildcards taken as letters; False where
        that takes a request.
        """

    def is_folder(self, name: str) -> bool:
        """Whether a name is that of a folder, in a store that has folders."""

    def resolve(self, uri: str) -> str:
        """Returns the one spelling that all names of a place have in common, for comparing."""

    def local_path(self, uri: str) -> str | None:
        """Returns the path of an object on this machine's disks; None in any other store."""

    def signed_link(self, uri: str, seconds: int) -> str:
        """Returns a link by which whoever has it can read an object for so long, whether or not it
        is there.

        Raises:
          ConfigError: the store has no such links, or the credentials of this process cannot sign.
        """

    # --- writing ---

    def prepare_folder(self, folder: str) -> None:
        """Makes a folder and tries to write in it, where the store has folders."""

    def write(self, uri: str, data: bytes) -> None:
        """Writes a whole object."""

    def write_in_place(self, uri: str, data: bytes) -> None:
        """Writes a whole object under its final name at once, the cheapest way: it may be seen half
        written, and be lost in a power cut.
        """

    def move(self, uri: str, source: Path) -> None:
        """Makes an object of a local file, which is gone afterwards. It may be lost in a power
        cut.
        """

    def publish(self, uri: str, source: Path) -> None:
        """As `move`; the object is whole also after a power cut."""

    def default_staging(self, output: str, name: str) -> str:
        """Returns where to stage a run that writes to `output`: a folder of this machine, from
        which a file gets into the store at the least cost.
        """

    # --- deleting ---

    def delete(self, uri: str) -> None:
        """Deletes an object; one that is gone already is no error."""

    def delete_many(self, uris: list[str]) -> None:
        """Deletes objects, many with a request; those gone already are no error."""

    def delete_below(self, folder: str) -> None:
        """Deletes a folder with all that is in it."""

    def delete_partials(self, folder: str) -> None:
        """Deletes what killed processes left of objects they were writing below a folder. Nobody
        may be writing there.
        """

    def delete_empty_folder(self, folder: str) -> bool:
        """Deletes a folder unless something is in it; returns whether it did."""

    # --- agreeing with other processes ---

    def read_for_swap(self, uri: str) -> SwapRead:
        """Returns an object's content with the token that stands for it in `compare_and_swap`.

        Raises:
          SwapUnsupportedError: the store has no such thing.
        """

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Writes an object if it is still the one that `expected` stands for.

        There is no conditional delete, since not every store has one.

        Args:
          uri: a small object.
          expected: the object's token; None when there is to be no object yet.
          data: its new content.

        Returns:
          The new token; None when the object is another one by now, and nothing was written.

        Raises:
          SwapUnsupportedError: the store has no such thing.
        """


def unsignable(uri: str) -> ConfigError:
    """Returns what is said where a store has no signed links."""
    return ConfigError(
        f"{printable(shown(uri))}: no link to it can be signed, expected a place in gs://, s3:// "
        "or azfs://"
    )


def exactly(data: bytes, position: int, size: int) -> bytes:
    """Returns bytes that came from a position. Raises: ShortTransferError: not so many."""
    if len(data) != size:
        raise ShortTransferError(f"{len(data)} bytes came from byte {position}, expected {size}")
    return data


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
