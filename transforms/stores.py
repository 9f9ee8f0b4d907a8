"""What all kinds of stores share: what a listing tells, how a glob is read, an object open for reading. No store's library."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

# A set has at least one character: the `]` of `[]a]` and `[!]a]` is in it.
_TOKEN = re.compile(r"(?P<any>\*\*)|(?P<some>\*)|(?P<one>\?)|\[(?P<set>!?+\]?+[^\]]*+)\]|(?P<plain>.)", re.DOTALL)
_PLAIN_PREFIX = re.compile(r"[^\[*?]*")


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
class ListedFile:
    """A file of a disk as listed."""

    path: str
    size_in_bytes: int
    last_updated_in_seconds: float


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
        """Returns `size` bytes from `position`, fewer only at the end. Raises: ShortTransferError."""

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
        """Returns `size` bytes from `position`, fewer only at the end. Raises: ShortTransferError."""
        if self._file.tell() != position:
            self._file.seek(position)
        data = self._file.read(size)
        wanted = min(size, self.size_bytes - position)
        while len(data) < wanted:  # some file systems give what they have
            more = self._file.read(wanted - len(data))
            if not more:
                raise ShortTransferError(f"{len(data)} bytes came from byte {position}, expected {wanted}")
            data += more
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Returns what a glob means, to be matched in full: by Beam's rules `*` stays in its folder, `**` does not.

    Raises:
      OSError: a set such as `[z-a]`, that nothing can be in.
    """
    spelled = []
    for token in _TOKEN.finditer(pattern):
        if token["set"] is not None:
            inside = token["set"].replace("\\", r"\\").replace("[", r"\[")
            inside = "^" + inside[1:] if inside[0] == "!" else "\\" + inside if inside[0] == "^" else inside
            spelled.append(f"[{inside}]")
        else:
            spelled.append({"any": ".*", "some": r"[^/\\]*", "one": "."}.get(token.lastgroup or "", re.escape(token[0])))
    try:
        return re.compile("".join(spelled), re.DOTALL)
    except re.error as error:
        raise OSError(errno.EINVAL, f"no pattern: {error.msg}", pattern) from None


def quote(text: str) -> str:
    """Spells a literal path so that a glob matches nothing but it."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def plain_prefix(pattern: str) -> str:
    """Returns a pattern up to its first wildcard."""
    found = _PLAIN_PREFIX.match(pattern)
    return found[0] if found else ""


def match_files(pattern: str) -> Iterator[Listed]:
    """Yields the files of this machine's disks that a glob matches; a folder only where it is spelled out."""
    prefix = plain_prefix(pattern)
    if prefix == pattern:
        yield from _look_at(pattern)
        return
    wanted = compile_glob(pattern)
    # `?` and sets match a slash, too.
    deepest = None if "**" in pattern else pattern.count("/") + pattern.count("?") + pattern.count("[")
    for folder, below, names in os.walk(os.path.dirname(prefix)):
        for name in names:
            path = os.path.join(folder, name)
            if wanted.fullmatch(path):
                yield from _look_at(path)
        if deepest is not None and os.path.join(folder, "").count("/") >= deepest:
            below.clear()


def _look_at(path: str) -> Iterator[Listed]:
    with contextlib.suppress(OSError, ValueError):  # it may have gone a moment ago
        found = os.stat(path)
        yield ListedFile(path=path, size_in_bytes=found.st_size, last_updated_in_seconds=found.st_mtime)
