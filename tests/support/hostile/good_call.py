"""The good call that lies in every hostile archive, beside what is wrong."""

from __future__ import annotations

import functools

from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_members,
    tone,
)
from tests.support.hostile.raw_gzip import gzip_of
from tests.support.hostile.raw_tar import TAR_END, tar_of

Members = dict[str, bytes]
"""Content by the member's name, in the order in which they lie in the archive."""


@functools.cache
def speech(frequency_hz: int) -> tuple[bytes, ...]:
    """Returns a second of a tone as Opus packets of 20 ms."""
    return tuple(encode_opus(tone(frequency_hz, 1)))


def good_members(call_id: str) -> Members:
    """Returns the members of a call of Alice and Bob, a second each."""
    people = [
        Participant(
            participant_id=name,
            segments=[Segment(packets=speech(hz), base_filename=f"{name}_1", ssrc=hz)],
        )
        for name, hz in (("alice", 300), ("bob", 500))
    ]
    return make_call_members(people, call_id=call_id, call_session_id=f"session-{call_id}")


def good_packets(participant_id: str) -> tuple[bytes, ...]:
    """Returns what Alice or Bob sent."""
    return speech({"alice": 300, "bob": 500}[participant_id])


def good_entries(call_id: str) -> bytes:
    """Returns the good call as entries of a tar, without its end."""
    return tar_of(good_members(call_id))


def good_archive(call_id: str, kind: str = "tar.gz") -> bytes:
    """Returns an archive of the good call and nothing else; `kind` as in `make_archive`."""
    return make_archive(good_members(call_id), kind)


def archive_with(call_id: str, members: Members) -> bytes:
    """Returns a gzipped tar of the good call and some more members behind it."""
    return make_archive({**good_members(call_id), **members})


def entries_before(call_id: str, entries: bytes) -> bytes:
    """Returns a gzipped tar of raw entries and the good call behind them."""
    return gzip_of(entries + good_entries(call_id) + TAR_END)


def entries_behind(call_id: str, entries: bytes) -> bytes:
    """Returns a gzipped tar of the good call and raw entries behind it."""
    return gzip_of(good_entries(call_id) + entries + TAR_END)
