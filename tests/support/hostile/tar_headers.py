"""Tars whose sizes lie or whose headers are broken, and sound ones of every format."""

from __future__ import annotations

import io
import tarfile

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import (
    entries_before,
    entries_behind,
    good_entries,
    good_members,
)
from tests.support.hostile.raw_gzip import MIB
from tests.support.hostile.raw_tar import TAR_END, pax_entry, tar_entry, tar_header


@hostile_case("cut off|ends at byte")
def size_4tib_last(call_id: str) -> bytes:
    return entries_behind(call_id, tar_header(b"x.rtpdump", 1 << 42, base256=True))


@hostile_case("no header and no content")
def size_below_zero(call_id: str) -> bytes:
    return entries_before(call_id, tar_header(b"x.rtpdump", -(1 << 40), base256=True))


@hostile_case("PAX size is no number")
def pax_size_no_number(call_id: str) -> bytes:
    return entries_before(call_id, pax_entry({b"size": b"-5"}) + tar_entry("x.rtpdump"))


@hostile_case("damaged PAX header")
def pax_damaged(call_id: str) -> bytes:
    return entries_before(call_id, pax_entry(b"999 path=x\n") + tar_entry("x.rtpdump"))


@hostile_case("damaged PAX header")
def pax_quadratic(call_id: str) -> bytes:
    """A record's length with a million digits, slow to turn into a number."""
    return entries_before(call_id, pax_entry(b"1" * (MIB - 1)) + tar_entry("x.rtpdump"))


@hostile_case(None)
def pax_global(call_id: str) -> bytes:
    return entries_before(call_id, pax_entry({b"comment": b"x", b"size": b"99"}, b"g"))


@hostile_case(None)
def pax_chain_20000(call_id: str) -> bytes:
    """Many headers before one member."""
    return entries_before(call_id, pax_entry({b"comment": b"x"}) * 20_000)


@hostile_case("no header and no content")
def header_damaged(call_id: str) -> bytes:
    return entries_before(call_id, b"\xff" + tar_entry("x.rtpdump", b"lost" * 200)[1:])


@hostile_case("without an end mark", ending=".tar")
def tar_without_end(call_id: str) -> bytes:
    return good_entries(call_id)


@hostile_case("no header and no content", ending=".tar")
def tar_cut_in_a_header(call_id: str) -> bytes:
    return good_entries(call_id) + tar_header(b"x.rtpdump", 9)[:300]


@hostile_case("after its end mark", ending=".tar")
def tar_garbage_behind(call_id: str) -> bytes:
    return good_entries(call_id) + TAR_END + b"\xffgarbage" * 500


@hostile_case(None, ending=".tar")
def two_tars_in_a_row(call_id: str) -> bytes:
    """An end mark after every member."""
    members = good_members(call_id)
    return b"".join(tar_entry(name, data) + TAR_END for name, data in members.items())


@hostile_case(None)
def format_ustar(call_id: str) -> bytes:
    return _written_by_the_library(call_id, tarfile.USTAR_FORMAT, "x" * 90)


@hostile_case(None)
def format_gnu(call_id: str) -> bytes:
    return _written_by_the_library(call_id, tarfile.GNU_FORMAT, "x" * 150)


@hostile_case(None)
def format_pax(call_id: str) -> bytes:
    return _written_by_the_library(call_id, tarfile.PAX_FORMAT, "x" * 150)


def _written_by_the_library(call_id: str, tar_format: int, long_name: str) -> bytes:
    """Returns a tar with a deep and long name, as the standard library writes it."""
    members = {**good_members(call_id), f"{'deep/' * 12}{long_name}.txt": b"x"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
