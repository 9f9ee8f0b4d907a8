"""Small archives that expand to gigabytes, each at another place of the format."""

from __future__ import annotations

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import good_entries, good_members
from tests.support.hostile.guest import SUFFIX
from tests.support.hostile.raw_gzip import GIB, deflate_zeros, gzip_bomb
from tests.support.hostile.raw_tar import TAR_END, tar_header
from tests.support.hostile.raw_zip import zip_with_member

_TWO_GIB = 2 * GIB


@hostile_case(r"limits\.max_expansion_ratio")
def bomb_behind(call_id: str) -> bytes:
    before = good_entries(call_id) + tar_header(b"bomb.rtpdump", _TWO_GIB)
    return gzip_bomb(before, _TWO_GIB, after=TAR_END)


@hostile_case(r"limits\.max_expansion_ratio")
def bomb_of_no_matter(call_id: str) -> bytes:
    """Under a name that nobody reads: it must be skipped, which costs as much."""
    before = good_entries(call_id) + tar_header(b"bomb.bin", _TWO_GIB)
    return gzip_bomb(before, _TWO_GIB, after=TAR_END)


@hostile_case(r"limits\.max_expansion_ratio", intact=())
def bomb_first(call_id: str) -> bytes:
    header = tar_header(b"bomb.rtpdump", _TWO_GIB)
    return gzip_bomb(header, _TWO_GIB, after=good_entries(call_id) + TAR_END)


@hostile_case(r"limits\.max_expansion_ratio")
def bomb_after_the_end(call_id: str) -> bytes:
    return gzip_bomb(good_entries(call_id) + TAR_END, _TWO_GIB)


@hostile_case(r"limits\.max_expansion_ratio")
def bomb_in_a_header(call_id: str) -> bytes:
    """A PAX header of 2 GiB."""
    before = good_entries(call_id) + tar_header(b"x", _TWO_GIB, b"x")
    return gzip_bomb(before, _TWO_GIB, fill=b"1")


@hostile_case(r"limits\.max_metadata_member_bytes")
def bomb_of_blanks(call_id: str) -> bytes:
    """Timing metadata that is all blanks, which JSON allows."""
    before = good_entries(call_id) + tar_header(b"z" + SUFFIX.encode(), GIB)
    return gzip_bomb(before, GIB, fill=b" ", after=TAR_END)


@hostile_case(r"limits\.max_expansion_ratio")
def bomb_of_sparse_maps(call_id: str) -> bytes:
    """A sparse file whose map of holes says in each block that another one follows."""
    header = tar_header(b"x.rtpdump", 0, b"S", tail=b"\0" * 137 + b"\1")
    return gzip_bomb(good_entries(call_id) + header, _TWO_GIB, fill=b"\1")


@hostile_case(r"expands to 2147483648 \(limits", ending=".zip")
def zip_bomb(call_id: str) -> bytes:
    content = deflate_zeros(b"", _TWO_GIB)
    return zip_with_member(good_members(call_id), b"bomb.rtpdump", content, size=_TWO_GIB)


@hostile_case("Bad CRC-32", ending=".zip")
def zip_bomb_that_lies(call_id: str) -> bytes:
    """A bomb that states a thousand bytes."""
    content = deflate_zeros(b"", _TWO_GIB)
    return zip_with_member(good_members(call_id), b"bomb.rtpdump", content, size=1_000)
