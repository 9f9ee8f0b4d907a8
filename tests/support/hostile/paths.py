"""Members whose paths lead out of the archive, are no text, or have no end."""

from __future__ import annotations

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import entries_before, good_members
from tests.support.hostile.raw_gzip import MIB
from tests.support.hostile.raw_tar import gnu_long_name, pax_entry, tar_entry
from tests.support.hostile.raw_zip import zip_of


def _tar_with_path(call_id: str, path: str) -> bytes:
    return entries_before(call_id, tar_entry(path, b"evil"))


def _zip_with_path(call_id: str, path: str) -> bytes:
    return zip_of([(path, b"evil"), *good_members(call_id).items()])


@hostile_case("leaves the archive")
def path_up(call_id: str) -> bytes:
    return _tar_with_path(call_id, "../../escape.rtpdump")


@hostile_case("leaves the archive", ending=".zip")
def zip_path_up(call_id: str) -> bytes:
    return _zip_with_path(call_id, "../../escape.rtpdump")


@hostile_case("leaves the archive")
def path_inside_up(call_id: str) -> bytes:
    return _tar_with_path(call_id, "x/../../escape.rtpdump")


@hostile_case("leaves the archive", ending=".zip")
def zip_path_inside_up(call_id: str) -> bytes:
    return _zip_with_path(call_id, "x/../../escape.rtpdump")


@hostile_case("leaves the archive")
def path_absolute(call_id: str) -> bytes:
    return _tar_with_path(call_id, "/etc/cron.d/escape.sdp")


@hostile_case("leaves the archive", ending=".zip")
def zip_path_absolute(call_id: str) -> bytes:
    return _zip_with_path(call_id, "/etc/cron.d/escape.sdp")


@hostile_case("leaves the archive")
def path_backslash(call_id: str) -> bytes:
    return _tar_with_path(call_id, "..\\..\\escape.rtpdump")


@hostile_case("leaves the archive", ending=".zip")
def zip_path_backslash(call_id: str) -> bytes:
    return _zip_with_path(call_id, "..\\..\\escape.rtpdump")


@hostile_case("leaves the archive")
def path_drive(call_id: str) -> bytes:
    return _tar_with_path(call_id, "C:\\escape.rtpdump")


@hostile_case("leaves the archive", ending=".zip")
def zip_path_drive(call_id: str) -> bytes:
    return _zip_with_path(call_id, "C:\\escape.rtpdump")


@hostile_case("leaves the archive")
def path_nul(call_id: str) -> bytes:
    return entries_before(call_id, pax_entry({b"path": b"a\0b.rtpdump"}) + tar_entry("x", b"evil"))


@hostile_case("no timing metadata lists")
def path_not_text(call_id: str) -> bytes:
    return entries_before(call_id, tar_entry(b"\xff\xfe\x80.rtpdump", b"evil"))


@hostile_case(r"\\x1b\[2Jevil")
def path_terminal(call_id: str) -> bytes:
    """A name that clears a terminal and turns its own text round."""
    return _tar_with_path(call_id, "\x1b[2Jevil\r\n\u202etxt.rtpdump")


@hostile_case("has a name of 5008 bytes")
def name_5000_gnu(call_id: str) -> bytes:
    return entries_before(call_id, gnu_long_name(b"n" * 5_000 + b".rtpdump") + tar_entry("x"))


@hostile_case("has a name of 5008 bytes")
def name_5000_pax(call_id: str) -> bytes:
    return entries_before(
        call_id, pax_entry({b"path": b"n" * 5_000 + b".rtpdump"}) + tar_entry("x")
    )


@hostile_case("whose name or header takes")
def name_2mib(call_id: str) -> bytes:
    return entries_before(call_id, gnu_long_name(b"n" * 2 * MIB) + tar_entry("x.rtpdump"))
