"""Archives with very many members, with members that are there twice, or of no matter."""

from __future__ import annotations

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import (
    archive_with,
    entries_before,
    entries_behind,
    good_members,
)
from tests.support.hostile.guest import SUFFIX
from tests.support.hostile.raw_tar import tar_entry


@hostile_case(None)
def members_empty_99000(call_id: str) -> bytes:
    return entries_before(call_id, b"".join(tar_entry(f"m{n}.txt") for n in range(99_000)))


@hostile_case("more than 100000 members", intact=())
def members_too_many(call_id: str) -> bytes:
    return entries_before(call_id, b"".join(tar_entry(f"m{n}") for n in range(100_001)))


@hostile_case("more of this kind in the archive")
def dumps_unlisted_5000(call_id: str) -> bytes:
    return entries_behind(call_id, b"".join(tar_entry(f"d/{n}.rtpdump") for n in range(5_000)))


@hostile_case("a second member of this name")
def members_twice(call_id: str) -> bytes:
    return entries_behind(call_id, tar_entry("alice_1.rtpdump", b"other"))


@hostile_case(None)
def metadata_twice(call_id: str) -> bytes:
    """The same timing metadata under two names."""
    last = list(good_members(call_id).values())[-1]
    return entries_behind(call_id, tar_entry(f"q{SUFFIX}", last))


@hostile_case(None)
def resource_forks(call_id: str) -> bytes:
    """What macOS puts into archives beside each file."""
    return archive_with(call_id, {"__MACOSX/._alice_1.rtpdump": b"x", f"._p0{SUFFIX}": b"Mac OS X"})
