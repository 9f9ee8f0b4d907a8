"""Tar entries byte by byte, so that any field may lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLOCK_BYTES = 512


def tar_header(
    name: bytes,
    size: int = 0,
    kind: bytes = b"0",
    *,
    link: bytes = b"",
    base256: bool = False,
    tail: bytes = b"",
) -> bytes:
    """Returns a ustar header (POSIX.1-2017), also one that the standard library refuses to write.

    Args:
      name: up to 100 bytes.
      size: as stated.
      kind: the type flag.
      link: target of a link.
      base256: whether the size is written as GNU writes what does not fit in octal; needed below
        zero.
      tail: of the block's last 155 bytes.
    """
    stated = b"%011o\0" % size
    if base256:
        stated = (size % (1 << 96) | (0 if size < 0 else 1 << 95)).to_bytes(12, "big")
    block = (
        name.ljust(100, b"\0")
        + b"0000644\0"
        + b"0000000\0" * 2
        + stated
        + b"00000000000\0"
        + b" " * 8
        + kind
    )
    block = (block + link.ljust(100, b"\0") + b"ustar\x0000").ljust(345, b"\0") + tail
    block = block.ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def tar_entry(name: str | bytes, data: bytes = b"", kind: bytes = b"0", **header: Any) -> bytes:
    """Returns a header and its content, padded."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return tar_header(raw, len(data), kind, **header) + data + bytes(-len(data) % BLOCK_BYTES)


def pax_entry(records: Mapping[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    """Returns a PAX header (POSIX.1-2017).

    Args:
      records: by keyword, or as they stand in the header.
      kind: `x` for the next member, `g` for all that follow.
    """
    if not isinstance(records, bytes):
        text = b""
        for key, value in records.items():
            body = b" " + key + b"=" + value + b"\n"
            size = len(body) + 1
            while len(b"%d" % size) + len(body) != size:
                size += 1
            text += b"%d" % size + body
        records = text
    return tar_entry(b"pax", records, kind)


def gnu_long_name(name: bytes) -> bytes:
    """Returns what GNU tar writes before a member whose name is over 100 bytes."""
    return tar_entry(b"././@LongLink", name + b"\0", b"L")


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """Returns the entries of a tar, without its end."""
    return b"".join(tar_entry(name, data) for name, data in members.items())


TAR_END = bytes(2 * BLOCK_BYTES)
"""What ends a tar: two blocks of zeros."""
