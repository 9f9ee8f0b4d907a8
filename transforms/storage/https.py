"""What lies behind links, `https://` and signed ones: read only, each named by its own link.

An object is looked at by a GET of its first byte (a signed link is signed for GET, and no HEAD),
and read by one GET whose answer is read on from where the last read stopped. A connection that
breaks off is made anew from there, and a server without ranges is read from the start again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from transforms.media.errors import StorageError
from transforms.media.text import printable
from transforms.storage.globs import unquote
from transforms.storage.link_requests import Answer, get, read_some
from transforms.storage.object_store import ObjectStore
from transforms.storage.store import (
    ListedObject,
    OpenObject,
    StoreBusyError,
    SwapRead,
    SwapUnsupportedError,
    exactly,
)
from transforms.storage.uris import shown, without_signature

_PIECE_BYTES = 256 << 10
_PIECE_SECONDS = 60
"""In this time a piece has to come: 4 kB/s."""
_WORTH_BYTES = 64 << 10
"""A connection that gave as much before it broke off is followed by the next at once. One that gave
less is an error, after which the store is left alone for a while.
"""
_SKIP_BYTES = 1 << 20
"""A jump ahead that costs less than a new connection."""
_TAIL_BYTES = 256 << 10
"""Read at once when a reader jumps into it: at the end of a zip stands what is in it, and readers
look for that from the end.
"""
_MOST_READ_BYTES = 64 << 20
"""Of an object that is read whole, into memory."""
_MAX_RESTARTS = 6
"""How often an object is read from its start again where the server knows no ranges."""


class _Stream:
    """The answer to one request, read from start to end."""

    def __init__(self, uri: str, answer: Answer) -> None:
        self._uri = uri
        self.position = self._start = answer.start
        self._beginning = answer.beginning
        self._stop = answer.stop
        self._body = answer.body

    @property
    def size_bytes(self) -> int:
        """What has come."""
        return self.position - self._start

    @property
    def is_at_end(self) -> bool:
        return self.position >= self._stop

    def read(self, most: int) -> bytes:
        """Returns up to so many bytes, at least one. Raises: StoreBusyError: it broke off."""
        if self._beginning:
            data, self._beginning = self._beginning[:most], self._beginning[most:]
        else:
            try:
                data = read_some(self._uri, self._body, min(most, self._stop - self.position))
            except StoreBusyError as error:
                raise self._broken(str(error)) from None
        if not data:
            raise self._broken("the connection broke off")
        self.position += len(data)
        return data

    def _broken(self, why: str) -> StoreBusyError:
        return StoreBusyError(f"{why}, at byte {self.position} of {self._stop}")

    def close(self) -> None:
        """Gives up the connection; where all was read, the next request has it already."""
        self._body.close()


class _OpenLink:
    """An object behind a link: one replaced while it is read is an error and never a mixture."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        answer = get(uri, 0)
        self.size_bytes = answer.size_bytes
        self.checksum = answer.tag
        self._restarts = 0
        self._stream: _Stream | None = _Stream(uri, answer)
        self._gives_parts = answer.is_part
        self._tail_start = max(0, self.size_bytes - _TAIL_BYTES)
        self._tail = b""

    def read_at(self, position: int, size: int) -> bytes:
        """Returns `size` bytes from `position`, fewer only at the end. Raises: StoreBusyError: a
        connection gave too little to go on with another. StorageError.
        """
        data = bytearray()
        stop = min(position + size, self.size_bytes)
        if self._tail_start <= position < stop and self._gives_parts and self._is_jump(position):
            if not self._tail:
                self._read_tail()
            if self._tail:
                return self._tail[position - self._tail_start : stop - self._tail_start]
        try:
            while (at := position + len(data)) < stop:
                self._read_on(data, at, min(_PIECE_BYTES, stop - at))
        except BaseException:
            self.close()
            raise
        return bytes(data)

    def _read_on(self, data: bytearray, position: int, size: int) -> None:
        """Adds up to so many bytes to what has come, none where a connection broke off that was
        worth making another.
        """
        stream = self._stream_at(position)
        stop, until = len(data) + size, time.monotonic() + _PIECE_SECONDS
        try:
            while len(data) < stop and not stream.is_at_end:
                data += stream.read(stop - len(data))
                _check_pace(until, len(data))
        except StoreBusyError:
            self.close()
            if stream.size_bytes < _WORTH_BYTES:
                raise

    def _read_tail(self) -> None:
        """Reads the end of the object, beside what is being read of it."""
        answer = get(self._uri, self._tail_start, self.size_bytes)
        stream = _Stream(self._uri, answer)
        data, until = bytearray(), time.monotonic() + _PIECE_SECONDS
        try:
            self._check_same(answer)
            wanted = (self._tail_start, self.size_bytes)
            self._gives_parts = (answer.start, answer.stop) == wanted
            while self._gives_parts and not stream.is_at_end:
                data += stream.read(_PIECE_BYTES)
                _check_pace(until, len(data))
        finally:
            stream.close()
        self._tail = bytes(data)

    def _is_jump(self, position: int) -> bool:
        """Whether reading at a position takes a new connection."""
        stream = self._stream
        return (
            stream is None or stream.is_at_end or not 0 <= position - stream.position <= _SKIP_BYTES
        )

    def _stream_at(self, position: int) -> _Stream:
        """Returns a stream of which `position` comes next."""
        if self._stream is None or self._is_jump(position):
            self.close()
            answer = get(self._uri, position)
            self._stream = _Stream(self._uri, answer)
            self._check_same(answer)
            if answer.start < position:
                self._count_restart()
        stream, until, passed = self._stream, time.monotonic() + _PIECE_SECONDS, 0
        while stream.position < position:
            passed += len(stream.read(min(_PIECE_BYTES, position - stream.position)))
            if passed >= _PIECE_BYTES:
                until, passed = time.monotonic() + _PIECE_SECONDS, 0
            _check_pace(until, passed)
        return stream

    def _check_same(self, answer: Answer) -> None:
        """Checks that an answer is of the object that was opened. Raises: StorageError."""
        if (answer.size_bytes, answer.tag) != (self.size_bytes, self.checksum):
            raise StorageError(
                f"{printable(shown(self._uri))}: it was replaced while it was being read"
            )

    def _count_restart(self) -> None:
        self._restarts += 1
        if self._restarts > _MAX_RESTARTS:
            raise StorageError(
                f"{printable(shown(self._uri))}: its server gives no part of it (no ranges), and "
                f"it was read from its start {_MAX_RESTARTS} times; copy it first, and press the "
                "copy"
            )

    def close(self) -> None:
        """Gives up the connection."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _check_pace(until: float, size_bytes: int) -> None:
    """Raises: StoreBusyError: so few bytes came until now."""
    if time.monotonic() > until:
        raise StoreBusyError(f"only {size_bytes} bytes came within {_PIECE_SECONDS:g} s")


class HttpsStore(ObjectStore):
    """Links. A link is never a pattern, and there is nothing below one."""

    read_buffer_bytes = 1 << 20
    can_be_down = False
    """It is many hosts: that one of them is down must not end a run that reads others."""

    # --- reading ----------------------------------------------------------------------------------

    def open(self, uri: str) -> OpenObject:
        """Opens an object for reading, with the request that reads it from its start."""
        return _OpenLink(uri)

    def read(self, uri: str) -> bytes:
        """Returns a whole object. Raises: StorageError: also where it is not small."""
        reader = _OpenLink(uri)
        try:
            if reader.size_bytes > _MOST_READ_BYTES:
                raise StorageError(
                    f"{printable(shown(uri))}: {reader.size_bytes} bytes, expected at most "
                    f"{_MOST_READ_BYTES}"
                )
            return reader.read_at(0, reader.size_bytes)
        finally:
            reader.close()

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of an object. Raises: ShortTransferError."""
        answer = get(uri, position, position + size)
        if answer.start != position:
            answer.body.close()
            raise StorageError(f"{printable(shown(uri))}: its server gives no part of it")
        stream = _Stream(uri, answer)
        data = bytearray()
        try:
            while len(data) < size and not stream.is_at_end:
                data += stream.read(size - len(data))
        finally:
            stream.close()
        return exactly(bytes(data), position, size)

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the one object of a link, by the name that it is known by: no signature is in it.

        Raises:
          StorageError: it is not there, or what was asked for are all objects below a place.
        """
        if pattern.endswith("/**"):
            _cannot_list(pattern)
        uri = unquote(pattern)
        answer = _look(uri)
        yield ListedObject(
            path=without_signature(uri),
            size_bytes=answer.size_bytes,
            modified_unix_s=answer.modified_unix_s,
            change_token=answer.tag,
        )

    def has_match(self, pattern: str) -> bool:
        """Whether a link leads to an object. Raises: StorageError: it does not."""
        return next(self.match(pattern), None) is not None

    def list_below(self, folder: str) -> Iterator[ListedObject]:
        """Raises: StorageError: a server does not tell."""
        _cannot_list(folder)

    def change_token(self, uri: str) -> str:
        """Returns what stands for an object's entity tag, modification and size."""
        return _look(uri).tag

    def exists_literally(self, name: str) -> bool:
        """Returns True: nothing in a link is a wildcard."""
        return True

    def resolve(self, uri: str) -> str:
        """Returns what an object is known by, whoever signed the link."""
        return without_signature(uri)

    # --- writing, deleting, agreeing: not at all --------------------------------------------------

    def prepare_folder(self, folder: str) -> None:
        """Raises: StorageError."""
        _cannot_write(folder)

    def write(self, uri: str, data: bytes) -> None:
        """Raises: StorageError."""
        _cannot_write(uri)

    def write_file(self, uri: str, source: Path) -> None:
        """Raises: StorageError."""
        _cannot_write(uri)

    def delete(self, uri: str) -> None:
        """Raises: StorageError."""
        _cannot_write(uri)

    def delete_many(self, uris: list[str]) -> None:
        """Raises: StorageError."""
        for uri in uris:
            _cannot_write(uri)

    def delete_below(self, folder: str) -> None:
        """Raises: StorageError."""
        _cannot_write(folder)

    def delete_partials(self, folder: str) -> None:
        """Raises: StorageError."""
        _cannot_write(folder)

    def delete_empty_folder(self, folder: str) -> bool:
        """Raises: StorageError."""
        _cannot_write(folder)

    def read_for_swap(self, uri: str) -> SwapRead:
        """Raises: SwapUnsupportedError."""
        raise SwapUnsupportedError(shown(uri))

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Raises: SwapUnsupportedError."""
        raise SwapUnsupportedError(shown(uri))


def _look(uri: str) -> Answer:
    """Returns what an answer of one byte says of an object."""
    answer = get(uri, 0, 1)
    stream = _Stream(uri, answer)
    if not stream.is_at_end:
        stream.read(1)
    stream.close()
    return answer


def _cannot_write(uri: str) -> NoReturn:
    raise StorageError(f"{printable(shown(uri))}: https:// is read only")


def _cannot_list(uri: str) -> NoReturn:
    place = printable(shown(uri.removesuffix("/**")))
    raise StorageError(
        f"{place}: https:// is read only and tells no list; expected the link of an archive each"
    )
