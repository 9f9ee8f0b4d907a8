"""The only code that knows URIs: opens, lists, stages and publishes whole objects, on disks and
object stores alike.

Disks are used directly, gs:// through `transforms.storage.gcs`, other stores through
`transforms.storage.beam`. What was read and written is compared with its size, where the store
tells one with its checksum. Trouble that may pass is retried with back-off; what stays becomes a
`StorageError`, and a `StoreDownError` where a store does not answer any more at all.

The stores' libraries take a second to import: they are not before there is a name, or trouble, that
needs them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from transforms.media.buffers import PositionedFile
from transforms.media.errors import StorageError
from transforms.media.text import printable
from transforms.storage import local
from transforms.storage.globs import quote
from transforms.storage.local import beside, in_folder
from transforms.storage.retry import (
    retried,
)
from transforms.storage.store import Listed, OpenFile, OpenObject
from transforms.storage.uris import is_local, join

_COPY_BYTES = 1 << 20
_CLOUD = "gs://"


class _Store(Protocol):
    """A module that reads and writes one kind of store. Its errors are those of its libraries."""

    READ_BYTES: int

    def open_object(self, uri: str) -> OpenObject: ...
    def match(self, pattern: str) -> Iterator[Listed]: ...
    def has_match(self, pattern: str) -> bool: ...
    def checksum(self, uri: str) -> str: ...
    def read(self, uri: str) -> bytes: ...
    def write(self, uri: str, data: bytes) -> None: ...
    def write_file(self, uri: str, source: Path) -> None: ...
    def delete(self, uri: str) -> None: ...
    def delete_all(self, uris: list[str]) -> None: ...


def _store(uri: str) -> _Store:
    if uri.startswith(_CLOUD):
        from transforms.storage import gcs

        return gcs
    from transforms.storage import beam

    return beam


def find_credentials(uris: Iterable[str]) -> None:
    """Looks for Google's credentials, once and before any work, when one of these names needs
    them.
    """
    if any(uri.startswith(_CLOUD) for uri in uris):
        from transforms.storage import credentials

        credentials.have_credentials()


# --- reading --------------------------------------------------------------------------------------


def _open_object(uri: str) -> OpenObject:
    return OpenFile(open(uri, "rb")) if is_local(uri) else _store(uri).open_object(uri)


class _Input(PositionedFile):
    """An object being read: a read that fails in passing is tried again where it stood, on a new
    connection.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._reader: OpenObject | None = None
        self._known: tuple[int, str] | None = None
        _size_of(uri, self._opened)  # an object that is not there is found out now

    def read_at(self, position: int, size: int) -> bytes:
        return _read_at(self._uri, self._opened, position, size)

    def find_end(self) -> int:
        return _size_of(self._uri, self._opened)

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(OSError):
                reader.close()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[OpenObject]:
        try:
            if self._reader is None:
                self._reader = _open_object(self._uri)
                found = (self._reader.size_bytes, self._reader.checksum)
                if self._known not in (None, found):
                    raise StorageError(
                        f"{printable(self._uri)}: it was replaced while it was being read"
                    )
                self._known = found
            yield self._reader
        except BaseException:
            self._drop()
            raise


_Opened = Callable[[], contextlib.AbstractContextManager[OpenObject]]


@retried
def _read_at(_uri: str, opened: _Opened, position: int, size: int) -> bytes:
    with opened() as reader:
        return reader.read_at(position, size)


@retried
def _size_of(_uri: str, opened: _Opened) -> int:
    with opened() as reader:
        return reader.size_bytes


def open_input(uri: str) -> BinaryIO:
    """Opens an object for reading; seekable. Raises: StorageError, also from its reads."""
    return cast(
        BinaryIO,
        io.BufferedReader(_Input(uri), _COPY_BYTES if is_local(uri) else _store(uri).READ_BYTES),
    )


def open_staged(uri: str) -> BinaryIO:
    """As `open_input`, with a small buffer: all tracks of a call are open at a time. Raises:
    StorageError.
    """
    return cast(BinaryIO, io.BufferedReader(_Input(uri), _COPY_BYTES))


@retried
def read_bytes(uri: str) -> bytes:
    """Returns a whole small object. Raises: StorageError."""
    if not is_local(uri):
        return _store(uri).read(uri)
    with open(uri, "rb") as file:
        return file.read()


@retried
def match(pattern: str) -> list[Listed]:
    """Returns the objects a glob matches, sorted by name; none when nothing does. Raises:
    StorageError.
    """
    found = local.match_files(pattern) if is_local(pattern) else _store(pattern).match(pattern)
    return sorted(found, key=lambda listed: listed.path)


@retried
def has_match(pattern: str) -> bool:
    """Whether a glob matches anything at all; cheap also where it matches much. Raises:
    StorageError.
    """
    if is_local(pattern):
        return next(local.match_files(pattern), None) is not None
    return _store(pattern).has_match(pattern)


@retried
def checksum(uri: str) -> str:
    """Returns what an object store tells an object's content by. Raises: StorageError."""
    return _store(uri).checksum(uri)


def check_bucket(uri: str) -> None:
    """Finds out whether an object store can be reached at all. Raises: StorageError."""
    has_match(join(quote(uri), "**"))


def list_below(prefix: str) -> list[Listed]:
    """Returns every object below a folder. Raises: StorageError."""
    if is_local(prefix) and not os.path.isdir(prefix):
        return []
    return match(join(quote(prefix), "**"))


# --- writing --------------------------------------------------------------------------------------


@retried
def write_bytes(uri: str, data: bytes) -> None:
    """Writes a whole object; it is not visible before it is complete. Raises: StorageError."""
    if is_local(uri):
        with beside(uri, len(data)) as partial:
            partial.write_bytes(data)
    else:
        _store(uri).write(uri, data)


@retried
def write_staged(uri: str, data: bytes) -> None:
    """As `write_bytes`, of what is named to others only when it is there, and what nobody needs
    after a power cut.

    On a disk that spares a second name and a wait for the disk, which cost more than the small
    objects themselves.
    """
    if is_local(uri):
        with in_folder(uri, lambda: open(uri, "wb")) as file:
            file.write(data)
    else:
        _store(uri).write(uri, data)


def publish(uri: str, source: Path) -> None:
    """Moves a finished local file to its final name; it is not visible before it is complete, nor
    short after a power cut.

    On a disk a rename, over file systems a copy beside it first; on an object store one upload.
    Raises: StorageError.
    """
    if is_local(uri):
        _sync(uri, source)
    move(uri, source)


@retried
def _sync(_uri: str, source: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())


@retried
def move(uri: str, source: Path) -> None:
    """As `publish`, of what nobody needs after a power cut. Raises: StorageError."""
    if is_local(uri):
        try:
            in_folder(uri, lambda: os.replace(source, uri))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with beside(uri, source.stat().st_size) as partial:
                shutil.copyfile(source, partial)
            source.unlink()
        return
    _store(uri).write_file(uri, source)
    source.unlink()


@retried
def delete_partials(folder: str) -> None:
    """Deletes what a process that was killed while it wrote left below a folder of a disk; nobody
    else may be writing there.
    """
    for path in Path(folder).rglob(".*.partial") if is_local(folder) else ():
        path.unlink(missing_ok=True)


@retried
def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error. Raises: StorageError."""
    if is_local(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
    else:
        _store(uri).delete(uri)


def delete_recording(output_uri: str, uri: str) -> bool:
    """Deletes a media file that no row names any more; returns whether it is one of ours. Nothing
    else is ever deleted.

    Raises: StorageError.
    """
    is_ours = uri.startswith(join(output_uri, "recordings") + "/")
    if is_ours:
        delete(uri)
    return is_ours


@retried
def delete_below(prefix: str) -> None:
    """Deletes a folder with all that is in it. Raises: StorageError."""
    if is_local(prefix):
        shutil.rmtree(prefix, ignore_errors=True)
        return
    store = _store(prefix)
    store.delete_all([found.path for found in store.match(join(quote(prefix), "**"))])
