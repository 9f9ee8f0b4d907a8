"""Whole objects on disks and in object stores alike, by URI: what the rest of the program calls.

Each function asks the store of its URI (`registry`). What was read and written is compared with its
size, where the store tells one with its checksum. Errors that may pass are tried again (`retry`);
what stays becomes a `StorageError`, and a `StoreDownError` where a store has stopped answering.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from transforms.media.errors import ConfigError, RetainedFileError, StorageError
from transforms.media.positioned_file import PositionedFile
from transforms.media.text import printable
from transforms.storage import secrets, storage_options
from transforms.storage.globs import quote
from transforms.storage.registry import store_of
from transforms.storage.retry import retried
from transforms.storage.store import ListedObject, OpenObject, SwapRead
from transforms.storage.uris import join, scheme_of, shown

_STAGED_BUFFER_BYTES = 1 << 20


def find_credentials(uris: Iterable[str]) -> None:
    """Looks for the credentials that these places need; once, before any work.

    Raises:
      ConfigError: one needs some, and there are none, or a secret cannot be read that its account
        names.
    """
    for uri in uris:
        account = storage_options.current().account_of(uri)
        for reference in account.references if account else ():
            secrets.check(reference)
        store_of(uri).find_credentials(uri)


def is_on_this_machine(uri: str) -> bool:
    """Whether a place is on a disk of this machine, by its name; no store is asked for it."""
    return not scheme_of(uri)


def can_be_down(uri: str) -> bool:
    """Whether what fails now may go well later, without anybody's doing: the store may be down."""
    return store_of(uri).can_be_down


def was_refused(error: StorageError) -> bool:
    """Whether a store answered that it may not be done: by its rules, or for want of a
    permission.
    """
    from transforms.storage.errors import is_refusal

    return is_refusal(error.__cause__)


# --- reading --------------------------------------------------------------------------------------


class _Input(PositionedFile):
    """An object being read. A read that fails is tried again from where it stood, on a new
    connection.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._reader: OpenObject | None = None
        self._known: tuple[int, str] | None = None
        _size_of(uri, self._opened)  # raises now where there is no such object

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
                self._reader = store_of(self._uri).open(self._uri)
                found = (self._reader.size_bytes, self._reader.checksum)
                if self._known not in (None, found):
                    raise StorageError(
                        f"{printable(shown(self._uri))}: it was replaced while it was being read"
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
    """Opens an object for reading; seekable. Raises: StorageError, also from its reads, and where
    there are no credentials: a manifest names what it likes, and that ends no run.
    """
    try:
        return cast(BinaryIO, io.BufferedReader(_Input(uri), store_of(uri).read_buffer_bytes))
    except ConfigError as error:
        raise StorageError(f"{printable(shown(uri))}: {error}") from error


def open_staged(uri: str) -> BinaryIO:
    """As `open_input`, with a small buffer: all tracks of a call are open at a time. Raises:
    StorageError.
    """
    return cast(BinaryIO, io.BufferedReader(_Input(uri), _STAGED_BUFFER_BYTES))


def open_ranges(uri: str) -> PositionedFile:
    """Opens an object of which some ranges are wanted: each is one read of just these bytes.
    Raises: StorageError, also from its reads.
    """
    return _Input(uri)


@retried
def read_bytes(uri: str) -> bytes:
    """Returns a whole small object. Raises: StorageError."""
    return store_of(uri).read(uri)


@retried
def read_range(uri: str, position: int, size: int) -> bytes:
    """Returns so many bytes of an object that is never replaced, with one request. Raises:
    StorageError, also where it ends before.
    """
    return store_of(uri).read_range(uri, position, size)


@retried
def delete_many(folder: str, uris: list[str]) -> None:
    """Deletes objects that lie below a folder, many with a request; those gone already are no
    error. Raises: StorageError.
    """
    store_of(folder).delete_many(uris)


@retried
def match(pattern: str) -> list[ListedObject]:
    """Returns the objects a glob matches, sorted by name; none when nothing does. Raises:
    StorageError.
    """
    return _sorted(store_of(pattern).match(pattern))


@retried
def has_match(pattern: str, wanted: Callable[[ListedObject], bool] | None = None) -> bool:
    """Whether a glob matches anything at all, or anything that is wanted; cheap also where it
    matches much. Raises: StorageError.
    """
    store = store_of(pattern)
    return store.has_match(pattern) if wanted is None else any(map(wanted, store.match(pattern)))


@retried
def list_below(folder: str) -> list[ListedObject]:
    """Returns every object below a folder, sorted by name. Raises: StorageError."""
    return _sorted(store_of(folder).list_below(folder))


def _sorted(found: Iterable[ListedObject]) -> list[ListedObject]:
    return sorted(found, key=lambda listed: listed.path)


@retried
def change_token(uri: str) -> str:
    """Returns what differs whenever an object's content may: a checksum, or the time of the last
    change. Raises: StorageError.
    """
    return store_of(uri).change_token(uri)


def exists_literally(name: str) -> bool:
    """Whether a file or folder has just this name, wildcards taken as letters; False where that
    takes a request.
    """
    return store_of(name).exists_literally(name)


def is_folder(name: str) -> bool:
    """Whether a name is that of a folder, in a store that has folders."""
    return store_of(name).is_folder(name)


def resolve(uri: str) -> str:
    """Returns the one spelling that all names of a place have in common, for comparing."""
    return store_of(uri).resolve(uri)


@retried
def signed_link(uri: str, seconds: int) -> str:
    """Returns a link by which whoever has it can read an object for so long. It is not asked
    whether the object is there.

    Raises:
      ConfigError: its store has no such links, or the credentials cannot sign.
      StorageError: the credentials cannot be had now.
    """
    return store_of(uri).signed_link(uri, seconds)


# --- places to write to ---------------------------------------------------------------------------


def default_staging(output: str, name: str) -> str:
    """Returns where a run that writes to `output` stages by default: a folder of this machine."""
    return store_of(output).default_staging(output, name)


@retried
def prepare_folder(folder: str) -> None:
    """Makes a folder and finds out whether it can be written, where the store has folders. Raises:
    StorageError.
    """
    store_of(folder).prepare_folder(folder)


def check_reachable(uri: str) -> None:
    """Finds out whether the store of a place answers, if it can be down. Raises: StorageError."""
    if can_be_down(uri):
        has_match(join(quote(uri), "**"))


def delete_empty_folder(folder: str) -> bool:
    """Deletes a folder unless something is in it; returns whether it did."""
    return store_of(folder).delete_empty_folder(folder)


# --- writing --------------------------------------------------------------------------------------


@retried
def write_bytes(uri: str, data: bytes) -> None:
    """Writes a whole object; it is not visible before it is complete. Raises: StorageError."""
    store_of(uri).write(uri, data)


@retried
def write_staged(uri: str, data: bytes) -> None:
    """Writes a whole object that others hear of only afterwards, and that nobody needs after a
    power cut; on a disk this costs much less than `write_bytes`. Raises: StorageError.
    """
    store_of(uri).write_in_place(uri, data)


@retried
def publish(uri: str, source: Path) -> None:
    """Moves a finished local file to its final name; it is not visible before it is complete, nor
    short after a power cut.

    On a disk this is a rename, over file systems a copy beside it first; in an object store one
    upload. Raises: StorageError.
    """
    store_of(uri).publish(uri, source)


@retried
def move(uri: str, source: Path) -> None:
    """As `publish`, of what nobody needs after a power cut. Raises: StorageError."""
    store_of(uri).move(uri, source)


# --- deleting -------------------------------------------------------------------------------------


@retried
def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error. Raises: StorageError."""
    store_of(uri).delete(uri)


def delete_recording(output_uri: str, uri: str) -> bool:
    """Deletes a media file that no row names any more; returns whether it is one of ours. Nothing
    else is ever deleted.

    Raises:
      RetainedFileError: its store does not let it be deleted, now or ever.
      StorageError: it cannot be deleted for another reason.
    """
    is_ours = uri.startswith(join(output_uri, "recordings") + "/")
    if is_ours:
        try:
            delete(uri)
        except StorageError as error:
            if not was_refused(error):
                raise
            raise RetainedFileError(
                f"{error.message}; no row names it any more, and it stays until somebody deletes "
                "it who may, once its retention has ended"
            ) from error
    return is_ours


@retried
def delete_below(folder: str) -> None:
    """Deletes a folder with all that is in it. Raises: StorageError."""
    store_of(folder).delete_below(folder)


@retried
def delete_partials(folder: str) -> None:
    """Deletes what a process that was killed while it wrote left below a folder; nobody else may be
    writing there. Raises: StorageError.
    """
    store_of(folder).delete_partials(folder)


# --- agreeing with other processes ----------------------------------------------------------------


@retried
def read_for_swap(uri: str) -> SwapRead:
    """Returns a small object's content with the token for `compare_and_swap`, and its age.

    Raises:
      StorageError: it cannot be read.
      SwapUnsupportedError: its store cannot compare and swap.
    """
    return store_of(uri).read_for_swap(uri)


@retried
def compare_and_swap(uri: str, expected: str | None, data: bytes) -> str | None:
    """Writes a small object if it is still the one that a token stands for.

    Args:
      uri: the object.
      expected: its token; None when there is to be no object yet.
      data: its new content. No two processes may write the same: what is there already counts as
        written by us.

    Returns:
      The new token; None when the object is another one by now, and nothing was written.

    Raises:
      StorageError: it cannot be read or written.
      SwapUnsupportedError: its store cannot compare and swap.
    """
    store = store_of(uri)
    found = store.read_for_swap(uri)
    if found.data == data:
        return found.token  # written by a try before this one, of which the answer was lost
    if found.token != expected:
        return None
    return store.compare_and_swap(uri, expected, data)
