"""Members of a tar that are no regular files: links, devices, pipes, sparse files."""

from __future__ import annotations

import struct

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import entries_before
from tests.support.hostile.guest import SUFFIX
from tests.support.hostile.raw_tar import BLOCK_BYTES, pax_entry, tar_entry, tar_header

_FOUR_TIB = 1 << 42


@hostile_case("a symbolic link")
def symlink_first(call_id: str) -> bytes:
    """A link that takes the name of Alice's dump before the dump comes."""
    return entries_before(
        call_id, tar_entry("alice_1.rtpdump", kind=b"2", link=b"/tmp/callpress-evil")
    )


@hostile_case("no timing metadata lists")
def symlink_folder(call_id: str) -> bytes:
    """A link and a member that would be written through it."""
    return entries_before(
        call_id,
        tar_entry("d", kind=b"2", link=b"/tmp") + tar_entry("d/callpress-evil.rtpdump", b"evil"),
    )


@hostile_case("a symbolic link")
def symlink_metadata(call_id: str) -> bytes:
    return entries_before(call_id, tar_entry(f"x{SUFFIX}", kind=b"2", link=b"/etc/passwd"))


@hostile_case("a hard link")
def hard_link(call_id: str) -> bytes:
    return entries_before(call_id, tar_entry("x.rtpdump", kind=b"1", link=b"/etc/passwd"))


@hostile_case("a block device")
def devices(call_id: str) -> bytes:
    return entries_before(
        call_id, tar_entry("c.sdp", kind=b"3") + tar_entry("b.rtpdump", kind=b"4")
    )


@hostile_case("a pipe")
def fifo(call_id: str) -> bytes:
    return entries_before(call_id, tar_entry("x.rtpdump", kind=b"6"))


@hostile_case(None)
def links_of_no_matter(call_id: str) -> bytes:
    """A link and a device under names that nobody reads."""
    return entries_before(
        call_id, tar_entry("latest", kind=b"2", link=b"x") + tar_entry("dev", kind=b"3")
    )


@hostile_case("a sparse file")
def sparse_4tib_old(call_id: str) -> bytes:
    """The old GNU format: the real size stands in the header's tail."""
    tail = b"\0" * 138 + struct.pack(">Q", _FOUR_TIB)
    return entries_before(call_id, tar_header(b"x.rtpdump", 0, b"S", tail=tail))


@hostile_case("a sparse file")
def sparse_4tib_pax(call_id: str) -> bytes:
    """The PAX format 1.0: the map of holes stands before the content."""
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.realsize": b"%d" % _FOUR_TIB,
    }
    content = b"1\n0\n0\n".ljust(BLOCK_BYTES, b"\0")
    return entries_before(call_id, pax_entry(records) + tar_entry("x.rtpdump", content))
