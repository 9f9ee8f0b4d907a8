"""Gzip members, small ones and ones that expand a thousandfold."""

from __future__ import annotations

import gzip
import zlib

MIB = 1 << 20
GIB = 1 << 30


def gzip_of(data: bytes) -> bytes:
    """Returns a gzip member."""
    return gzip.compress(data, compresslevel=1, mtime=0)


def deflate_zeros(
    before: bytes, zero_bytes: int, *, fill: bytes = b"\0", after: bytes = b""
) -> bytes:
    """Returns a raw deflate stream of `before`, a lot of one byte, and `after`.

    One compressed block of that byte is repeated: the lot costs a thousandth of its size and no
    time.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = block.compress(fill * MIB) + block.flush(zlib.Z_FULL_FLUSH)
    out += chunk * (zero_bytes // MIB)
    return out + packer.compress(after) + packer.flush()


def gzip_bomb(before: bytes, zero_bytes: int, *, fill: bytes = b"\0", after: bytes = b"") -> bytes:
    """Returns gzip data of `before`, a lot of one byte, and `after`.

    Its checksum is wrong: every reader must have given up before it.
    """
    return (
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        + deflate_zeros(before, zero_bytes, fill=fill, after=after)
        + bytes(8)
    )
