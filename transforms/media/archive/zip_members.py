"""Yields the members of a zip: by its directory or, where that is damaged, by their own headers."""

from __future__ import annotations

import contextlib
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, cast

from transforms.media import caps
from transforms.media.archive.member import (
    Member,
    Meter,
    file_read,
    make_member,
)
from transforms.media.archive.zip_scan import DamageError, ScannedMember, scan_zip
from transforms.media.errors import ArchiveError

_LOCAL_HEADER_BYTES = 30
_ENCRYPTED_FLAGS = 0x2041  # encrypted, strongly encrypted, directory encrypted (APPNOTE 4.4.4)
# What the standard library raises over damaged or hostile zips. None of them is a `RecordingError`,
# so trouble of the storage underneath passes through.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,  # bz2
    ValueError,  # names that are no text, seeks before the start
    IndexError,
    KeyError,
    RuntimeError,  # encrypted, or compressed in a way that is not supported
)


def zip_members(stream: BinaryIO, meter: Meter) -> Iterator[Member]:
    """Yields the members of a zip in the order of its directory.

    Args:
      stream: the zip, seekable.
      meter: counts entries and bytes, and ends the walk at a limit.

    Raises:
      ArchiveError: the directory is damaged (after all members that were found without it were
        given), or a limit is passed.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    meter.compressed_bytes = size
    directory_bytes = max(
        caps.MIN_ZIP_DIRECTORY_BYTES, meter.limits.max_members * caps.ZIP_DIRECTORY_BYTES_PER_MEMBER
    )
    try:
        archive = zipfile.ZipFile(cast("BinaryIO", _BoundedReads(stream, directory_bytes)))
        infos = archive.infolist()
        if any(info.header_offset < 0 for info in infos):
            raise zipfile.BadZipFile("the directory is not where the file says")
    except _DAMAGE as error:
        yield from _scanned_members(stream, meter)
        raise ArchiveError(
            f"damaged archive: {error or type(error).__name__}; read without its directory"
        ) from None
    with archive:
        inside = _beginning_inside_others(infos)
        for number, info in enumerate(infos):
            meter.add_entry()
            if info.filename.endswith("/"):
                continue
            name = info.orig_filename if "\0" in info.orig_filename else info.filename
            found_instead = _found_instead(info, meter)
            if found_instead is None and number in inside:
                found_instead = "a member that begins inside another one"
            with contextlib.ExitStack() as opened:
                read = _zip_read(partial(archive.open, info), opened, meter)
                member = make_member(name, info.file_size, found_instead, read, meter.limits)
                if member is not None:
                    yield member


def _scanned_members(stream: BinaryIO, meter: Meter) -> Iterator[Member]:
    """Yields what a zip holds by the headers of the members themselves."""
    for found in scan_zip(stream):
        meter.add_entry()

        def read(size: int, found: ScannedMember = found) -> bytes:
            try:
                data = found.read(size)
            except DamageError as error:
                raise ArchiveError(str(error)) from None
            meter.add_bytes(len(data))
            return data

        member = make_member(found.name, found.size_bytes, found.found_instead, read, meter.limits)
        if member is not None:
            yield member


def _zip_read(
    open_member: Callable[[], Any], opened: contextlib.ExitStack, meter: Meter
) -> Callable[[int], bytes]:
    read_file = file_read(open_member, opened, meter)

    def read(size: int) -> bytes:
        try:
            return read_file(size)
        except _DAMAGE as error:
            raise ArchiveError(f"{error or type(error).__name__}") from None

    return read


def _found_instead(info: zipfile.ZipInfo, meter: Meter) -> str | None:
    """Returns what an entry of the directory is instead of a file that can be read."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind and kind != stat.S_IFREG:
        return "a symbolic link" if kind == stat.S_IFLNK else "no regular file"
    if info.flag_bits & _ENCRYPTED_FLAGS:
        return "an encrypted member"
    # What it states is only worth a refusal: what comes out is counted all the same.
    if info.file_size > meter.limits.max_archive_bytes or meter.is_bomb(
        info.file_size, info.compress_size
    ):
        return (
            f"a member of {info.compress_size} bytes that expands to {info.file_size} "
            "(limits.max_archive_bytes, "
            "limits.max_expansion_ratio)"
        )
    return None


def _beginning_inside_others(infos: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Returns the indices of entries whose bytes begin within those of another. This is how a small
    zip holds the same bytes many times.
    """
    found: set[int] = set()
    end = 0
    for number in sorted(range(len(infos)), key=lambda n: (infos[n].header_offset, n)):
        info = infos[number]
        if info.header_offset < end:
            found.add(number)
        end = max(end, info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size)
    return found


class _BoundedReads:
    """A zip's file with reads of bounded size, for `zipfile`. That reads a whole directory in one
    go, as large as the file says it is, and makes an object of each entry.
    """

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size > self._limit_bytes:
            raise zipfile.BadZipFile(
                f"a directory of {size} bytes, expected at most {self._limit_bytes} "
                "(limits.max_members)"
            )
        return self._stream.read(self._limit_bytes if size < 0 else size)
