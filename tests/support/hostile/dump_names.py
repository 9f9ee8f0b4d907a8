"""Segments whose `base_filename` names no dump, another participant's, or the start of one."""

from __future__ import annotations

from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with
from tests.support.hostile.guest import (
    MALLORY,
    SUFFIX,
    dump_of,
    guest,
    metadata_of,
    plain_packets,
    segment_fields,
)


def _with_base_filename(call_id: str, base_filename: str) -> bytes:
    return archive_with(
        call_id, {f"z{SUFFIX}": metadata_of(call_id, segment_fields(base_filename))}
    )


@hostile_case(r"\.\./\.\./etc/passwd\.rtpdump: not in the archive")
def base_path(call_id: str) -> bytes:
    return _with_base_filename(call_id, "../../etc/passwd")


@hostile_case(r"\*\.rtpdump: not in the archive")
def base_glob(call_id: str) -> bytes:
    return _with_base_filename(call_id, "*")


@hostile_case("listed again by")
def base_of_another(call_id: str) -> bytes:
    return _with_base_filename(call_id, "alice_1")


@hostile_case("alice_\\.rtpdump: not in the archive")
def base_prefix_of_another(call_id: str) -> bytes:
    return _with_base_filename(call_id, "alice_")


@hostile_case("not in the archive")
def base_of_another_folder(call_id: str) -> bytes:
    return _with_base_filename(call_id, "other/alice_1")


@hostile_case(None)
def base_that_begins_another(call_id: str) -> bytes:
    """A dump `alice_10` beside Alice's `alice_1`."""
    members = guest(call_id, dump_of(plain_packets(10)))
    renamed = {name.replace(f"{MALLORY}_1", "alice_10"): data for name, data in members.items()}
    metadata = metadata_of(call_id, segment_fields("alice_10"))
    return archive_with(call_id, {**renamed, f"{MALLORY}{SUFFIX}": metadata})
