"""Gzip data in several members, followed by other things, cut off or damaged."""

from __future__ import annotations

from random import Random

from tests.support.builders import make_archive
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import (
    archive_with,
    good_archive,
    good_entries,
    good_members,
)
from tests.support.hostile.raw_gzip import gzip_of
from tests.support.hostile.raw_tar import TAR_END


def _archive_with_a_large_dump(call_id: str) -> bytes:
    return archive_with(call_id, {"x.rtpdump": Random(1).randbytes(300_000)})


def _flip_byte(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 0xFF
    return bytes(changed)


@hostile_case(None)
def gzip_concatenated(call_id: str) -> bytes:
    """One tar in three gzip members, the last of which holds nothing (RFC 1952 s2.2)."""
    return gzip_of(good_entries(call_id)) + gzip_of(TAR_END) + gzip_of(b"")


@hostile_case(None)
def archives_concatenated(call_id: str) -> bytes:
    """A whole tar.gz for each member, one behind the other."""
    members = good_members(call_id)
    return b"".join(make_archive({name: data}) for name, data in members.items())


@hostile_case(None)
def gzip_zeros_behind(call_id: str) -> bytes:
    return good_archive(call_id) + bytes(5_000)


@hostile_case("something follows that is no gzip")
def gzip_garbage_behind(call_id: str) -> bytes:
    return good_archive(call_id) + b"garbage"


@hostile_case("damaged gzip data")
def gzip_member_broken_behind(call_id: str) -> bytes:
    return good_archive(call_id) + b"\x1f\x8b\x08garbage that is no gzip data at all"


@hostile_case("in the middle of gzip data")
def gzip_without_trailer(call_id: str) -> bytes:
    return good_archive(call_id)[:-8]


@hostile_case("in the middle of gzip data")
def gzip_cut_in_the_trailer(call_id: str) -> bytes:
    return good_archive(call_id)[:-3]


@hostile_case("in the middle of gzip data")
def gzip_cut_in_a_later_dump(call_id: str) -> bytes:
    return _archive_with_a_large_dump(call_id)[:-200_000]


@hostile_case("in the middle of gzip data", intact=())
def gzip_cut_before_the_metadata(call_id: str) -> bytes:
    return good_archive(call_id)[:2_000]


@hostile_case("incorrect data check")
def gzip_wrong_checksum(call_id: str) -> bytes:
    return _flip_byte(good_archive(call_id), -6)


@hostile_case("incorrect length check")
def gzip_wrong_length(call_id: str) -> bytes:
    return _flip_byte(good_archive(call_id), -2)


@hostile_case("damaged gzip data")
def gzip_flipped_in_a_later_dump(call_id: str) -> bytes:
    return _flip_byte(_archive_with_a_large_dump(call_id), -99_000)


@hostile_case(None)
def gzip_long_name(call_id: str) -> bytes:
    """A gzip header with a file name of 300 kB (RFC 1952 s2.3.1)."""
    header = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"n" * 300_000 + b"\0"
    return header + good_archive(call_id)[10:]
