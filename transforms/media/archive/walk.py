"""Walks the members of an archive once, in order: tar, gzipped tar, zip or a folder, told apart by
content.

Nothing is extracted: a member is a name and a stream. An entry that is no regular file, has a path
that leaves the archive, or cannot be read is a member with a `finding` and without bytes. The walk
goes on behind it where it can.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, cast

from transforms.media.archive.gunzip import Gunzip
from transforms.media.archive.member import (
    BUFFER_BYTES,
    Member,
    MemberStream,
    Meter,
    file_read,
    make_member,
    no_member,
)
from transforms.media.archive.tar import BLOCK_BYTES, CutOffError, TarReader, looks_like_tar
from transforms.media.archive.zip_members import (
    zip_members,
)
from transforms.media.errors import ArchiveError
from transforms.media.settings import LimitSettings
from transforms.media.text import utf8_text

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_FOREIGN_MAGICS = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"#!rtpplay": "a bare rtpdump",
}


class DamagedEndError(ArchiveError):
    """The archive is damaged behind its end mark: all members came."""


def walk_archive(
    stream: BinaryIO,
    limits: LimitSettings,
    on_cut: Callable[[str], None] = lambda _: None,
) -> Iterator[Member]:
    """Yields the entries of an archive that are no folders, in the archive's order.

    Args:
      stream: the archive; a zip is read by seeking, everything else forward only.
      limits: bounds on entries, names, expanded bytes and time.
      on_cut: told why there is nothing more, where that is no error raised here: the archive ends
        in the middle of a member, which has told it, or of a header.

    Raises:
      ArchiveError: neither tar, gzipped tar nor zip; damaged so that there is no way on (after the
        members before the damage were given; not when a member's stream has raised it already);
        over a limit.
      CodecProcessError: past its time.
    """
    buffered = io.BufferedReader(cast("io.RawIOBase", stream), 1 << 20)
    head = buffered.peek(BLOCK_BYTES)[:BLOCK_BYTES]
    meter = Meter(limits)
    if not head:
        raise ArchiveError("the file is empty, expected tar, gzipped tar or zip")
    if head.startswith(_ZIP_MAGICS):
        yield from zip_members(buffered, meter)
    elif head.startswith(_GZIP_MAGIC):
        gunzip = Gunzip(buffered, meter.add_bytes)
        unzipped = io.BufferedReader(gunzip, BUFFER_BYTES)
        head = unzipped.read(BLOCK_BYTES)
        if not looks_like_tar(head):
            found = (
                f"damaged archive: {gunzip.damage}"
                if gunzip.damage
                else "gzip data that does not hold a tar archive"
            )
            raise ArchiveError(f"{found}, expected .tar.gz")
        yield from _tar_members(TarReader(unzipped, head), meter, gunzip, on_cut)
    elif looks_like_tar(head):
        yield from _tar_members(TarReader(_Metered(buffered, meter)), meter, None, on_cut)
    else:
        named = next(
            (f" ({name})" for magic, name in _FOREIGN_MAGICS.items() if head.startswith(magic)), ""
        )
        raise ArchiveError(f"begins with {head[:8]!r}{named}, expected tar, gzipped tar or zip")


def walk_folder(
    members: Sequence[tuple[str, int]],
    open_member: Callable[[str], BinaryIO],
    limits: LimitSettings,
    why_not: Callable[[str], str | None] = lambda _: None,
) -> Iterator[Member]:
    """Yields the files of an unpacked folder as `walk_archive` does.

    Args:
      members: path relative to the folder, and size in bytes. A path that ends in `/` is a folder
        in it that cannot be listed.
      open_member: opens one by its relative path.
      limits: as for `walk_archive`.
      why_not: what a member is instead of a file of the folder, None for a file; asked before it is
        opened.
    """
    meter = Meter(limits)
    for name, size in members:
        meter.add_entry()
        if name.endswith("/") or not name:
            yield no_member(f"folder {utf8_text(name)!r} in it cannot be listed")
            continue
        with contextlib.ExitStack() as opened:
            read = file_read(partial(open_member, name), opened, meter)
            member = make_member(name, size, why_not(name), read, limits)
            if member is not None:
                yield member


def _tar_members(
    reader: TarReader, meter: Meter, gunzip: Gunzip | None, on_cut: Callable[[str], None]
) -> Iterator[Member]:

    def damage(error: CutOffError) -> ArchiveError:
        return ArchiveError((gunzip.damage if gunzip else None) or f"cut off: {error}")

    def read(size: int) -> bytes:
        try:
            return reader.read(size)
        except CutOffError as error:
            raise damage(error) from None

    try:
        for entry in reader.entries():
            if gunzip and gunzip.damage and not entry.name:
                break  # half a header at the end
            meter.add_entry()
            if entry.is_folder:
                continue
            member = make_member(
                entry.name, entry.size_bytes, entry.found_instead, read, meter.limits
            )
            if member is None:
                continue
            yield member
            if cast("MemberStream", member.stream).is_damaged:
                on_cut(f"cut off in {member.name}")
                return  # it has been told, and there is nothing behind it
    except CutOffError as error:
        raise ArchiveError(f"damaged archive: {damage(error).message}") from None
    if reader.ends_in_a_header:
        on_cut(f"cut off at byte {meter.expanded_bytes} of the tar")
    if gunzip is None:
        if not reader.has_end:
            raise ArchiveError(
                f"damaged archive: ends at byte {meter.expanded_bytes} without an end mark, "
                "members may be missing"
            )
    elif gunzip.damage:
        message = f"damaged archive: {gunzip.damage}"
        raise DamagedEndError(message) if reader.has_end else ArchiveError(message)
    elif gunzip.foreign_at is not None:
        yield no_member(
            f"at byte {gunzip.foreign_at} something follows that is no gzip data, expected the "
            "end of the file"
        )


class _Metered:
    """A plain tar's bytes, counted."""

    def __init__(self, source: io.BufferedReader[Any], meter: Meter) -> None:
        self._source = source
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._meter.add_bytes(len(data))
        return data
