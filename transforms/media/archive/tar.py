"""Reads tar forward only, in constant memory, and believes no size that the archive has no bytes
for.

A single block is judged by the standard library (`TarInfo.frombuf`). The walk is ours: `tarfile`
takes extended headers of any size into memory, follows them by recursion, parses PAX records in
quadratic time (CVE-2024-6232), loops for ever on sizes below zero (CVE-2025-8194), and ends at the
first damaged header, whatever lies behind it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from transforms.media import caps

BLOCK_BYTES = 512
_SKIP_BYTES = 1 << 18
_NONE = bytes(BLOCK_BYTES)

_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"x", b"X", b"g"
_EXTENDED = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL)
_OLD_SPARSE = b"S"
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
    _OLD_SPARSE: "a sparse file",
    b"D": "a folder listing",
    b"M": "a part of a file of several volumes",
    b"V": "a volume label",
}
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
    tarfile.DIRTYPE,
)


class Source(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """Returns `size` bytes, fewer only at the end."""
        ...


class CutOffError(Exception):
    """The source ended in the middle of something; the message says of what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A header of the archive, or a place where one should be."""

    name: str
    """As it stands there; bytes that are not UTF-8 are lone surrogates. Empty where there is no
    header.
    """
    size_bytes: int
    is_folder: bool
    found_instead: str | None
    """What it is instead of a file, with its article; None for a file."""


class TarReader:
    """One pass over a tar. `read` gives the bytes of the entry that came last."""

    def __init__(self, source: Source, head: bytes = b"") -> None:
        """Args: head: the first bytes, where they have been taken from the source."""
        self._source = source
        self._ahead = head  # read already, not yet looked at
        self._position = 0
        self._left = 0
        self._padding = 0
        self.has_end = False
        """Whether the end mark came: without it members may be missing."""
        self.ends_in_a_header = False
        """Whether the last bytes are none that can be read, and no end mark came before them."""

    def read(self, size: int) -> bytes:
        """Returns up to `size` bytes of the entry's content, fewer before its end or damage only.

        Raises:
          CutOffError: there are no more, though the header says so.
        """
        if not self._left or size <= 0:
            return b""
        data = self._take(min(size, self._left))
        if not data:
            raise CutOffError(f"ends at byte {self._position} of the tar, {self._left} bytes short")
        self._left -= len(data)
        return data

    def entries(self) -> Iterator[Entry]:
        """Yields what the archive lists, reading past the content of each.

        Raises:
          CutOffError: the source ends in the middle of an entry.
        """
        name: str | None = None
        pax: dict[bytes, bytes] = {}
        unread: str | None = None  # why an extended header could not be taken
        while True:
            self._skip_content()
            at = self._position
            block = self._take(BLOCK_BYTES)
            if not block:
                return
            if block == _NONE:
                self.has_end = True
                continue
            info = parse_header(block)
            if info is None:
                # As GNU tar does: the next header that is one is where the archive goes on.
                yield self._foreign(at, block)
                continue
            self.has_end = False
            if info.type in _EXTENDED:
                self._set_content(info.size)
                if info.size > caps.MAX_TAR_EXTENDED_BYTES:
                    unread = f"a member whose name or header takes {info.size} bytes"
                    continue
                data = self._read_whole(info.size)
                if info.type == _LONG_NAME:
                    name = _decode(data.split(b"\0", 1)[0])
                elif info.type in (_PAX, _PAX_SOLARIS):
                    records = _pax_records(data)
                    if records is None:
                        unread = "a member with a damaged PAX header"
                    else:
                        pax = records
                continue
            yield self._entry(info, block, name, pax, unread)
            name, pax, unread = None, {}, None

    def _entry(
        self,
        info: tarfile.TarInfo,
        block: bytes,
        name: str | None,
        pax: dict[bytes, bytes],
        unread: str | None,
    ) -> Entry:
        size, found_instead = info.size, unread
        sparse = info.type == _OLD_SPARSE or any(key.startswith(b"GNU.sparse.") for key in pax)
        if b"size" in pax:
            if pax[b"size"].isdigit() and len(pax[b"size"]) < 20:
                size = int(pax[b"size"])
            else:
                found_instead = "a member whose PAX size is no number"
        if info.type == _OLD_SPARSE and block[482]:  # the map goes on in blocks of its own
            while True:
                more = self._take(BLOCK_BYTES)
                if len(more) < BLOCK_BYTES:
                    raise CutOffError(
                        f"ends at byte {self._position} of the tar, in the map of a sparse file"
                    )
                if not more[504]:
                    break
        name = _decode(pax[b"GNU.sparse.name"]) if b"GNU.sparse.name" in pax else name
        name = _decode(pax[b"path"]) if b"path" in pax else info.name if name is None else name
        if sparse:
            found_instead = found_instead or "a sparse file"
        elif info.type not in _FILES and info.type != tarfile.DIRTYPE:
            found_instead = found_instead or _KINDS.get(
                info.type, f"a member of type {info.type!r}"
            )
        self._set_content(0 if info.type in _WITHOUT_DATA else size)
        return Entry(
            name=name,
            size_bytes=self._left,
            is_folder=info.type == tarfile.DIRTYPE,
            found_instead=found_instead,
        )

    def _foreign(self, at: int, block: bytes) -> Entry:
        """Reads on to the next header; what lies before it is told as one thing."""
        had_end = self.has_end
        end = " after its end mark" if had_end else ""
        stop = at
        while block and parse_header(block) is None:
            stop = self._position if block.strip(b"\0") else stop
            block = self._take(BLOCK_BYTES)
        self.ends_in_a_header = not block and not had_end
        self._ahead = block + self._ahead
        self._position -= len(block)
        self.has_end = True  # what is missing for want of one has been told by this
        return Entry(
            name="",
            size_bytes=stop - at,
            is_folder=False,
            found_instead=f"{stop - at} bytes at byte {at} of the tar{end} that are no header "
            "and no content",
        )

    def _set_content(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK_BYTES

    def _read_whole(self, size: int) -> bytes:
        data = self._take(size)
        if len(data) < size:
            raise CutOffError(
                f"ends at byte {self._position} of the tar, in an extended header of {size} bytes"
            )
        self._left = 0
        return data

    def _skip_content(self) -> None:
        rest, self._left = self._left, 0
        while rest:
            data = self._take(min(rest, _SKIP_BYTES))
            if not data:
                raise CutOffError(f"ends at byte {self._position} of the tar, {rest} bytes short")
            rest -= len(data)
        self._take(self._padding)  # a writer that was stopped may have left it out
        self._padding = 0

    def _take(self, size: int) -> bytes:
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        if len(data) < size:
            data += self._source.read(size - len(data))
        self._position += len(data)
        return data


def parse_header(block: bytes) -> tarfile.TarInfo | None:
    """Returns what a block of 512 bytes says as a header; None when it is none, or states a size
    below zero.
    """
    # Most blocks that are no header are told without a look at their checksum, which is octal
    # digits.
    if len(block) < BLOCK_BYTES or block[148:156].strip(b"\0 01234567"):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    except (
        ValueError,
        IndexError,
        OverflowError,
    ):  # numbers that are none, in older versions of the library
        return None
    return info if info.size >= 0 else None


def looks_like_tar(head: bytes) -> bool:
    """Tells a tar by its first block: a header, also a damaged one, or the end mark of an archive
    without members.
    """
    return len(head) >= BLOCK_BYTES and (
        head[:BLOCK_BYTES] == _NONE
        or head[257:262] == b"ustar"
        or parse_header(head[:BLOCK_BYTES]) is not None
    )


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[bytes, bytes] | None:
    """Returns the records of a PAX header (POSIX.1-2017, pax), each `<length> <key>=<value>\\n`;
    None if damaged.
    """
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 10)
        digits = data[position:space] if space > position else b""
        stop = position + int(digits) if digits.isdigit() else 0
        if stop <= space + 1 or stop > len(data) or data[stop - 1 : stop] != b"\n":
            return None
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals:
            return None
        found[key] = value
        position = stop
    return found
