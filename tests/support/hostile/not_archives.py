"""Files that are called archives and are none."""

from __future__ import annotations

from random import Random

from tests.support.builders import make_rtpdump
from tests.support.hostile.case import hostile_case
from tests.support.hostile.raw_gzip import gzip_of


@hostile_case("the file is empty", intact=())
def empty(_: str) -> bytes:
    return b""


@hostile_case("begins with", intact=())
def random(_: str) -> bytes:
    return Random(1).randbytes(9_000)


@hostile_case("no \\*_timing_metadata", intact=())
def zeros(_: str) -> bytes:
    """A tar that ends at once."""
    return bytes(9_000)


@hostile_case("begins with", intact=())
def text(_: str) -> bytes:
    return b"<html>403 Forbidden</html>" * 40


@hostile_case(r"\(7z\)", intact=())
def seven_zip(_: str) -> bytes:
    return b"7z\xbc\xaf\x27\x1c" + bytes(900)


@hostile_case(r"\(rar\)", intact=())
def rar(_: str) -> bytes:
    return b"Rar!\x1a\x07\x01" + bytes(900)


@hostile_case(r"\(xz\)", intact=())
def xz(_: str) -> bytes:
    return b"\xfd7zXZ\0" + bytes(900)


@hostile_case(r"\(a bare rtpdump\)", intact=())
def bare_rtpdump(_: str) -> bytes:
    return make_rtpdump(0, []) + bytes(900)


@hostile_case("does not hold a tar", intact=())
def gzip_of_text(_: str) -> bytes:
    return gzip_of(b"hello" * 400)


@hostile_case("does not hold a tar", intact=())
def gzip_of_gzip(_: str) -> bytes:
    return gzip_of(gzip_of(Random(1).randbytes(9_000)))


@hostile_case("in the middle of gzip data", intact=())
def gzip_magic(_: str) -> bytes:
    return b"\x1f\x8b"


@hostile_case("damaged archive", intact=())
def zip_magic(_: str) -> bytes:
    return b"PK\x03\x04" + bytes(99)
