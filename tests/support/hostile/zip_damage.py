"""Zips whose members or directory are damaged, lie or overlap, and odd ones that are sound."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import good_archive, good_members
from tests.support.hostile.raw_gzip import MIB, deflate_zeros
from tests.support.hostile.raw_zip import zip_entry, zip_of, zip_with, zip_with_member

_STORED = 0


@hostile_case(None, ending=".zip")
def tar_called_zip(call_id: str) -> bytes:
    return good_archive(call_id)


@hostile_case(None)
def zip_called_tar(call_id: str) -> bytes:
    return good_archive(call_id, "zip")


@hostile_case(None, ending=".zip")
def zip_with_comment(call_id: str) -> bytes:
    return good_archive(call_id, "zip")[:-2] + b"\x05\0words"


@hostile_case("an encrypted member", ending=".zip")
def zip_encrypted(call_id: str) -> bytes:
    return zip_with_member(good_members(call_id), b"x.rtpdump", b"\1" * 50, size=40, flags=1)


@hostile_case("damaged: ", ending=".zip")
def zip_method_unknown(call_id: str) -> bytes:
    return zip_with_member(good_members(call_id), b"x.rtpdump", b"\1" * 50, size=40, method=99)


@hostile_case("damaged: ", ending=".zip")
def zip_deflate_broken(call_id: str) -> bytes:
    return zip_with_member(good_members(call_id), b"x.rtpdump", b"\xff" * 50, size=40)


@hostile_case("Bad CRC-32", ending=".zip")
def zip_wrong_checksum(call_id: str) -> bytes:
    return zip_with_member(
        good_members(call_id), b"x.rtpdump", b"\1" * 50, size=50, method=_STORED, crc=7
    )


@hostile_case("leaves the archive", ending=".zip")
def zip_nul_name(call_id: str) -> bytes:
    return zip_with_member(
        good_members(call_id), b"a\0b.rtpdump", b"\1" * 50, size=50, method=_STORED
    )


@hostile_case("no timing metadata lists", ending=".zip")
def zip_name_latin(call_id: str) -> bytes:
    """A name that is no UTF-8 and does not say so."""
    return zip_with_member(good_members(call_id), b"\xe9\xff.rtpdump", b"", size=0, method=_STORED)


@hostile_case("damaged: ", ending=".zip")
def zip_offset_outside(call_id: str) -> bytes:
    _, central = zip_entry(b"x.sdp", b"", size=9)
    return zip_with(good_members(call_id), [(b"x.sdp", b"", central, 1 << 30)])


@hostile_case("differ", ending=".zip")
def zip_directory_names_another(call_id: str) -> bytes:
    local, _ = zip_entry(b"x.rtpdump", b"1", size=1)
    _, central = zip_entry(b"y.rtpdump", b"1", size=1)
    return zip_with(good_members(call_id), [(b"y.rtpdump", local, central, None)])


@hostile_case("begins inside another one", ending=".zip")
def zip_overlap(call_id: str) -> bytes:
    """500 entries of the directory that share one content of 8 MiB."""
    good = good_members(call_id)
    content = deflate_zeros(b"", 8 * MIB)
    crc = zlib.crc32(bytes(8 * MIB))
    local, _ = zip_entry(b"bomb0.rtpdump", content, size=8 * MIB, crc=crc)
    at = zip_of(good.items()).index(b"PK\x01\x02")
    entries = []
    for number in range(500):
        name = b"bomb%d.rtpdump" % number
        _, central = zip_entry(name, content, size=8 * MIB, crc=crc)
        entries.append((name, b"" if number else local, central, at))
    return zip_with(good, entries)


@hostile_case("a second member of this name", ending=".zip")
def zip_twice(call_id: str) -> bytes:
    return zip_of([*good_members(call_id).items(), ("alice_1.rtpdump", b"other")])


@hostile_case("read without its directory", ending=".zip")
def zip_without_directory(call_id: str) -> bytes:
    data = good_archive(call_id, "zip")
    return data[: data.index(b"PK\x01\x02")]


@hostile_case("read without its directory", ending=".zip")
def zip_directory_elsewhere(call_id: str) -> bytes:
    """The directory is there, and its end says that it lies at 1 GiB."""
    data = good_archive(call_id, "zip")
    return data[:-6] + struct.pack("<I", 1 << 30) + data[-2:]


@hostile_case("a symbolic link", ending=".zip")
def zip_symlink(call_id: str) -> bytes:
    link = zipfile.ZipInfo("x.rtpdump")
    link.external_attr = 0o120777 << 16
    return zip_of([(link, b"/etc/passwd"), *good_members(call_id).items()])


@hostile_case(None, ending=".zip")
def zip64(call_id: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in good_members(call_id).items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    return out.getvalue()
