"""Walks the members of an archive once, in order: tar, gzipped tar, zip or a folder, told apart by content.

Nothing is extracted: a member is a name and a stream. Links, devices and folders are not members; unsafe paths are errors.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from transforms.media.errors import ArchiveError
from transforms.media.model import LimitSettings, utf8_text

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_BLOCK_BYTES = 512
# What the standard library raises over damaged or hostile archives, zip directories above all. None of them is a
# `RecordingError`, so trouble of the storage underneath passes through.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # gzip and bz2
    ValueError,  # names that are no text, seeks before the start
    IndexError,
    KeyError,
    RuntimeError,  # encrypted, or compressed in a way that is not supported
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One regular file of an archive."""

    name: str
    size_bytes: int
    """As the archive states it; the stream is what counts."""
    stream: BinaryIO
    """Valid until the next member is asked for."""


def walk_archive(stream: BinaryIO, limits: LimitSettings) -> Iterator[Member]:
    """Yields the regular files of an archive, in the archive's order.

    Args:
      stream: the archive; a zip is read by seeking, everything else forward only.
      limits: bounds on members and expanded bytes.

    Raises:
      ArchiveError: neither tar, gzipped tar nor zip; damaged (after the members before the damage were given); an unsafe
        path; over a limit.
    """
    buffered = io.BufferedReader(cast("io.RawIOBase", stream), 1 << 20)
    try:
        head = buffered.peek(_TAR_BLOCK_BYTES)[:_TAR_BLOCK_BYTES]
        if not head:
            raise ArchiveError("the file is empty, expected tar, gzipped tar or zip")
        if head.startswith(_ZIP_MAGICS):
            yield from _checked(_zip_members(buffered), limits)
        elif head.startswith(_GZIP_MAGIC):
            unzipped = _Gunzipped(buffered)
            if not _is_tar(unzipped.peek(_TAR_BLOCK_BYTES)):
                raise ArchiveError("gzip data that does not hold a tar archive, expected .tar.gz")
            yield from _checked(_tar_members(cast("BinaryIO", unzipped)), limits)
        elif _is_tar(head):
            yield from _checked(_tar_members(buffered), limits)
        else:
            raise ArchiveError(f"begins with {head[:8]!r}, expected tar, gzipped tar or zip")
    except _DAMAGE as error:
        raise ArchiveError(f"damaged archive: {error or type(error).__name__}") from error


class _Gunzipped:
    """Decompressed bytes, to the last one before any damage: what came whole is given before the error is raised."""

    def __init__(self, compressed: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=compressed)
        self._ahead = b""
        self._error: Exception | None = None

    def peek(self, size: int) -> bytes:
        self._ahead = self.read(size)
        return self._ahead

    def read(self, size: int) -> bytes:
        parts, missing = [self._ahead[:size]], size - len(self._ahead[:size])
        self._ahead = self._ahead[size:]
        while missing > 0:
            if self._error is not None:
                if any(parts):
                    break
                raise self._error
            try:
                part = self._file.read1(missing)
            except _DAMAGE as error:
                self._error = error
                continue
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


class _MemberStream(io.RawIOBase):
    """A member's bytes; damage met in them is an `ArchiveError` that names the member."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self._name = name
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _damage_in(self._name):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _damage_in(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ArchiveError(f"{name}: damaged: {error or type(error).__name__}", member=name) from error


def walk_folder(
    members: Sequence[tuple[str, int]], open_member: Callable[[str], BinaryIO], limits: LimitSettings
) -> Iterator[Member]:
    """Yields the files of an unpacked folder as `walk_archive` does.

    Args:
      members: path relative to the folder, and size in bytes.
      open_member: opens one by its relative path.
      limits: as for `walk_archive`.
    """

    def files() -> Iterator[Member]:
        for name, size in members:
            with open_member(name) as stream:
                yield Member(name=name, size_bytes=size, stream=stream)

    yield from _checked(files(), limits)


def _is_tar(head: bytes) -> bool:
    if len(head) < _TAR_BLOCK_BYTES:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # missing from the stubs
        return True  # an archive without members begins with its end
    except tarfile.HeaderError:
        return False
    return True


def _tar_members(stream: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
        for info in archive:
            # Sparse members claim sizes that no byte of the archive pays for.
            if not info.isreg() or info.issparse():
                continue
            content = archive.extractfile(info)
            if content is not None:
                yield Member(name=info.name, size_bytes=info.size, stream=cast("BinaryIO", content))


def _zip_members(stream: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            with _damage_in(utf8_text(info.filename)):
                content = archive.open(info)
            with content:
                yield Member(name=info.filename, size_bytes=info.file_size, stream=cast("BinaryIO", content))


def _checked(members: Iterator[Member], limits: LimitSettings) -> Iterator[Member]:
    """Holds names, counts and sizes to the limits while a walk goes on."""
    total = 0
    for count, member in enumerate(members, 1):
        if count > limits.max_members:
            raise ArchiveError(f"more than {limits.max_members} members (limits.max_members)")
        parts = utf8_text(member.name).replace("\\", "/").split("/")
        if member.name.startswith(("/", "\\")) or ".." in parts or "\0" in member.name or ":" in parts[0]:
            raise ArchiveError(
                f"member {member.name[:200]!r} leaves the archive, expected a relative path inside it",
                member=utf8_text(member.name[:200]),
            )
        total += member.size_bytes
        if total > limits.max_archive_bytes:
            raise ArchiveError(
                f"{member.name}: expands past {limits.max_archive_bytes} bytes (limits.max_archive_bytes)",
                member=member.name,
            )
        if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
            continue  # resource forks that macOS adds to archives
        name = "/".join(part for part in parts if part not in ("", "."))
        stream = cast("BinaryIO", io.BufferedReader(_MemberStream(name, member.stream), 1 << 16))
        yield replace(member, name=name, stream=stream)
