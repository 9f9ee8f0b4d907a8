"""Zip members byte by byte, so that header and directory may lie and differ."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping


def zip_of(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """Returns a zip; members may have the same name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            info = (
                name
                if isinstance(name, zipfile.ZipInfo)
                else zipfile.ZipInfo(name, (2026, 1, 5, 10, 0, 0))
            )
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def zip_entry(
    name: bytes, content: bytes, *, size: int, crc: int = 0, method: int = 8, flags: int = 0
) -> tuple[bytes, bytes]:
    """Returns a member's local part and its directory entry up to the offset (APPNOTE 4.3.12).

    The local part is its header and content. The offset, the last 4 bytes before the name, and the
    name itself are left to `zip_with`.
    """
    common = struct.pack(
        "<HHHHHIIIHH",
        45,
        flags,
        method,
        0,
        0x5C21,
        crc,
        len(content),
        size % (1 << 32),
        len(name),
        0,
    )
    local = b"PK\x03\x04" + common + name + content
    return local, b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack(
        "<HHHI", 0, 0, 0, 0o100644 << 16
    )


def zip_with(
    good: Mapping[str, bytes], entries: Iterable[tuple[bytes, bytes, bytes, int | None]]
) -> bytes:
    """Returns a zip of good members and raw entries.

    Args:
      good: members written as they should be.
      entries: (name, local part, directory part, offset); None for an offset means where the local
        part comes to lie.
    """
    whole = zip_of(good.items())
    end = whole.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", whole, end + 10)
    body, directory = whole[:start], whole[start : start + size]
    for name, local, central, offset in entries:
        directory += central + struct.pack("<I", len(body) if offset is None else offset) + name
        body += local
        count += 1
    tail = struct.pack(
        "<HHHHIIH", 0, 0, count % (1 << 16), count % (1 << 16), len(directory), len(body), 0
    )
    return body + directory + b"PK\x05\x06" + tail


def zip_with_member(
    good: Mapping[str, bytes],
    name: bytes,
    content: bytes,
    *,
    size: int,
    crc: int = 0,
    method: int = zipfile.ZIP_DEFLATED,
    flags: int = 0,
) -> bytes:
    """Returns a zip of good members and one raw one behind them; the rest as in `zip_entry`."""
    local, central = zip_entry(name, content, size=size, crc=crc, method=method, flags=flags)
    return zip_with(good, [(name, local, central, None)])
