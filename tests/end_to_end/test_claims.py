"""What the metadata claims and what packets came, against what was made: every second and every
record ends in a file or in a row that says why not.

One run over many archives, each of a call that lacks something in its own way.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_members,
    tone,
)
from tests.support.command import callpress, decode_with_ffmpeg, query
from tests.support.media import level_at

Members = dict[str, bytes]
Row = dict[str, Any]


def _segment(frequency_hz: float, name: str, seconds: float = 3.0, **changes: Any) -> Segment:
    return Segment(
        packets=encode_opus(tone(frequency_hz, seconds)),
        base_filename=name,
        ssrc=int(frequency_hz),
        first_rtp_timestamp=int(frequency_hz) * 1_000_003,
        **changes,
    )


def _records(dump: bytes) -> tuple[bytes, list[bytes]]:
    """Returns a dump's head, and its records one by one."""
    at = dump.index(b"\n") + 17
    head, records = dump[:at], []
    while at < len(dump):
        (length,) = struct.unpack_from(">H", dump, at)
        records.append(dump[at : at + length])
        at += length
    return head, records


def _is_rtp(record: bytes) -> bool:
    return record[2:4] != b"\0\0"


def _offset_ms(record: bytes) -> int:
    return int.from_bytes(record[4:8], "big")


def _kept(members: Members, name: str, keep: Callable[[bytes], bool]) -> Members:
    """Returns an archive's members, one dump less the records that are not to be kept."""
    head, records = _records(members[name])
    return {**members, name: head + b"".join(record for record in records if keep(record))}


def _two_people(seconds: float = 3.0) -> list[Participant]:
    return [
        Participant(participant_id="alice", segments=[_segment(300, "alice_1", seconds)]),
        Participant(participant_id="bob", segments=[_segment(500, "bob_1", seconds)]),
    ]


def _whole(call_id: str) -> Members:
    return make_call_members(_two_people(), call_id=call_id)


def _cut_cleanly(call_id: str) -> Members:
    return _kept(_whole(call_id), "alice_1.rtpdump", lambda record: _offset_ms(record) <= 1_500)


def _header_alone(call_id: str) -> Members:
    return _kept(_whole(call_id), "alice_1.rtpdump", lambda _: False)


def _reports_alone(call_id: str) -> Members:
    return _kept(_whole(call_id), "alice_1.rtpdump", lambda record: not _is_rtp(record))


def _begins_late(call_id: str) -> Members:
    return _kept(_whole(call_id), "alice_1.rtpdump", lambda record: _offset_ms(record) > 800)


def _exchanged(call_id: str) -> Members:
    members = _whole(call_id)
    alice, bob = members["alice_1.rtpdump"], members["bob_1.rtpdump"]
    return {**members, "alice_1.rtpdump": bob, "bob_1.rtpdump": alice}


def _exchanged_alike(call_id: str) -> Members:
    """Both begin with the same time stamp; only their ends tell them apart."""
    people = [
        Participant(
            participant_id=who,
            segments=[replace(_segment(hz, f"{who}_1", seconds), first_rtp_timestamp=0)],
        )
        for who, hz, seconds in (("alice", 300, 2.0), ("bob", 500, 3.0))
    ]
    members = make_call_members(people, call_id=call_id)
    alice, bob = members["alice_1.rtpdump"], members["bob_1.rtpdump"]
    return {**members, "alice_1.rtpdump": bob, "bob_1.rtpdump": alice}


def _first_claim_alone(call_id: str) -> Members:
    """The metadata says that a first packet came, and no more; the dump has none."""
    members = _header_alone(call_id)
    metadata = json.loads(members["p0_timing_metadata.json"])
    segment = metadata["segments"]["audio"][0]
    del segment["last_rtp_rtp_timestamp"], segment["last_rtp_unix_timestamp"]
    return {**members, "p0_timing_metadata.json": json.dumps(metadata).encode()}


def _second_round_cut(call_id: str) -> Members:
    """By RTP time all is there: what is gone had the same time stamps."""
    return _kept(
        _counts_again(call_id), "alice_1.rtpdump", lambda record: _offset_ms(record) < 3_000
    )


def _of_another(call_id: str) -> Members:
    """Alice's dump is one that no metadata of the archive speaks of."""
    members = _whole(call_id)
    stranger = make_call_members(
        [Participant(participant_id="carol", segments=[_segment(700, "carol_1")])]
    )
    return {**members, "alice_1.rtpdump": stranger["carol_1.rtpdump"]}


def _writers_way(call_id: str) -> Members:
    """All segments claim to end 200 ms behind their last packets."""
    members = make_call_members(
        [
            Participant(
                participant_id=name,
                segments=[_segment(300 + 100 * n, name, 2 + n / 2, start_ms=137 * n)],
            )
            for n, name in enumerate(("alice", "bob", "carol", "dave"))
        ],
        call_id=call_id,
    )
    for name in [name for name in members if name.endswith(".json")]:
        metadata = json.loads(members[name])
        for segment in metadata["segments"]["audio"]:
            segment["last_rtp_rtp_timestamp"] += 9_600
            segment["last_rtp_unix_timestamp"] += 200
        members[name] = json.dumps(metadata).encode()
    return members


def _other_type(call_id: str, count: int) -> Members:
    """The last packets of alice have a payload type that no description names."""
    members = _whole(call_id)
    head, records = _records(members["alice_1.rtpdump"])
    rtp = [index for index, record in enumerate(records) if _is_rtp(record)]
    for index in rtp[-count:]:
        records[index] = records[index][:9] + bytes([96]) + records[index][10:]
    return {**members, "alice_1.rtpdump": head + b"".join(records)}


def _counts_again(call_id: str) -> Members:
    """Alice's sender starts again with the same numbers and time stamps, at another tone."""
    members = make_call_members(_two_people(2.0), call_id=call_id)
    again = make_call_members(
        [
            Participant(
                participant_id="alice",
                segments=[
                    Segment(
                        packets=encode_opus(tone(900, 2.0)),
                        base_filename="alice_1",
                        ssrc=300,
                        first_rtp_timestamp=300 * 1_000_003,
                    )
                ],
            )
        ]
    )
    head, first = _records(members["alice_1.rtpdump"])
    _, second = _records(again["alice_1.rtpdump"])
    later = [
        record[:4] + struct.pack(">I", _offset_ms(record) + 4_000) + record[8:] for record in second
    ]
    metadata = json.loads(members["p0_timing_metadata.json"])
    metadata["segments"]["audio"][0]["last_rtp_unix_timestamp"] += 4_000
    return {
        **members,
        "alice_1.rtpdump": head + b"".join([*first, *later]),
        "p0_timing_metadata.json": json.dumps(metadata).encode(),
    }


ARCHIVES: dict[str, Members] = {
    name: make(name)
    for name, make in {
        "whole": _whole,
        "cut": _cut_cleanly,
        "header": _header_alone,
        "reports": _reports_alone,
        "late": _begins_late,
        "exchanged": _exchanged,
        "exchanged_alike": _exchanged_alike,
        "first_claim": _first_claim_alone,
        "again_cut": _second_round_cut,
        "stranger": _of_another,
        "convention": _writers_way,
        "few_foreign": lambda call_id: _other_type(call_id, 4),
        "foreign": lambda call_id: _other_type(call_id, 5),
        "again": _counts_again,
    }.items()
}


class Pressed:
    """What the run made."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        for name, members in ARCHIVES.items():
            (folder / f"{name}.tar.gz").write_bytes(make_archive(members))
        self.done = callpress("run", "--input", folder / "*.tar.gz", "--output", self.out)
        self._tables: dict[str, list[Row]] = {}

    def rows(self, table: str, call_id: str | None = None, who: str | None = None) -> list[Row]:
        if table not in self._tables:
            self._tables[table] = query(self.out / "catalog", table)
        return [
            row
            for row in self._tables[table]
            if call_id in (None, row.get("call_id")) and who in (None, row.get("participant_id"))
        ]

    def row(self, table: str, call_id: str, who: str | None = None) -> Row:
        (row,) = self.rows(table, call_id, who)
        return row

    def hear(self, call_id: str, who: str | None) -> np.ndarray:
        """Returns an individual file decoded, or the mix."""
        (row,) = [row for row in self.rows("recordings", call_id) if row["participant_id"] == who]
        return decode_with_ffmpeg(row["uri"], int(row["channels"]))


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Pressed:
    return Pressed(tmp_path_factory.mktemp("claims"))


def test_what_is_whole_is_ok(pressed: Pressed) -> None:
    for call_id in ("whole", "convention", "few_foreign"):
        assert pressed.row("calls", call_id)["status"] == "ok", pressed.rows("failures", call_id)
        assert pressed.rows("failures", call_id) == []


def test_every_record_has_one_fate(pressed: Pressed) -> None:
    rows = pressed.rows("dumps")
    assert len(rows) == 2 * 13 + 4
    for row in rows:
        fates = [row[column] for column in row if column.startswith("records_")]
        name = f"{row['member']}"
        _, records = _records(ARCHIVES[row["call_id"]][name])
        assert row["records"] == sum(fates) == len(records), (row["call_id"], name)


@pytest.mark.parametrize(
    ("call_id", "status", "missing_ms", "message"),
    [
        ("cut", "partial", 1_500, "ends 1.500 s before the last packet"),
        ("header", "failed", 2_980, "no RTP packets in it, the metadata claims 2.980 s"),
        ("reports", "failed", 2_980, "no RTP packets in it, the metadata claims 2.980 s"),
        ("late", "partial", 800, "begins 0.800 s after the first packet"),
        ("first_claim", "failed", 0, "no RTP packets in it, the metadata says that some came"),
        ("again_cut", "partial", 4_000, "ends 4.000 s before the last packet"),
        ("foreign", "partial", 100, "5 packets (0.100 s) are of payload types that nothing names"),
        ("stranger", "partial", 0, "its RTP time stamps are not those that the metadata claims"),
    ],
)
def test_what_is_missing_is_told(
    pressed: Pressed, call_id: str, status: str, missing_ms: int, message: str
) -> None:
    dump = pressed.row("dumps", call_id, "alice")
    assert dump["missing_ms"] == missing_ms
    track = pressed.row("tracks", call_id, "alice")
    assert (track["status"], track["missing_ms"]) == (status, missing_ms)
    (failure,) = pressed.rows("failures", call_id)
    assert failure["error_type"] == "MissingAudioError"
    assert message in failure["message"]
    assert failure["member"] == "alice_1.rtpdump"
    call = pressed.row("calls", call_id)
    assert (call["status"], call["missing_ms"]) == ("partial", missing_ms)
    assert pressed.row("tracks", call_id, "bob")["status"] == "ok"


def test_a_call_knows_who_can_be_heard(pressed: Pressed) -> None:
    call = pressed.row("calls", "header")
    assert (call["participant_count"], call["participants_with_audio"]) == (2, 1)


def test_what_begins_late_lies_where_its_rtp_time_puts_it(pressed: Pressed) -> None:
    whole, late = (pressed.row("tracks", name, "alice") for name in ("whole", "late"))
    assert late["offset_ms"] - whole["offset_ms"] == 800
    assert late["sync_error_ms"] < 10


def test_dumps_that_begin_alike_are_told_apart_by_their_ends(pressed: Pressed) -> None:
    for who, frequency_hz, other_hz in (("alice", 300, 500), ("bob", 500, 300)):
        heard = pressed.hear("exchanged_alike", who)
        assert level_at(heard, frequency_hz) > 100 * level_at(heard, other_hz)


def test_exchanged_dumps_are_taken_for_whose_they_are(pressed: Pressed) -> None:
    for who, frequency_hz, other_hz in (("alice", 300, 500), ("bob", 500, 300)):
        heard = pressed.hear("exchanged", who)
        assert level_at(heard, frequency_hz) > 100 * level_at(heard, other_hz)
        assert pressed.row("tracks", "exchanged", who)["missing_ms"] == 0
    assert sorted(row["message"] for row in pressed.rows("failures", "exchanged")) == [
        "alice_1.rtpdump: its RTP time stamps are those that p1_timing_metadata.json claims for "
        "bob_1.rtpdump, for which it was taken",
        "bob_1.rtpdump: its RTP time stamps are those that p0_timing_metadata.json claims for "
        "alice_1.rtpdump, for which it was taken",
    ]


def test_a_writers_way_is_said_once(pressed: Pressed) -> None:
    told = {
        Path(row["archive_uri"]).name: row["metadata_convention"]
        for row in pressed.rows("archives")
        if row["metadata_convention"]
    }
    assert told == {
        "convention.tar.gz": "in most segments last_rtp_rtp_timestamp lies 200 ms after the last "
        "packets of the dumps"
    }


def test_a_sender_that_counts_from_the_same_numbers_again_is_heard_twice(pressed: Pressed) -> None:
    dump = pressed.row("dumps", "again", "alice")
    assert dump["records_duplicate"] == dump["records_conflicting"] == 0
    mix = pressed.hear("again", None)
    first, second = mix[: 2 * 48_000], mix[4 * 48_000 : 6 * 48_000]
    assert level_at(first, 300) > 100 * level_at(first, 900)
    assert level_at(second, 900) > 100 * level_at(second, 300)


def test_the_nights_missing_seconds_are_told(pressed: Pressed) -> None:
    assert pressed.done.status == 1
    missing_s = sum(row["missing_ms"] for row in pressed.rows("calls")) / 1_000
    assert f"{missing_s:.1f} s of" in pressed.done.out
    (run,) = pressed.rows("runs")
    assert run["missing_ms"] == sum(row["missing_ms"] for row in pressed.rows("dumps"))
    assert run["claimed_ms"] == sum(row["claimed_ms"] or 0 for row in pressed.rows("dumps"))


def test_a_call_whose_archive_is_cut_off_is_partial(tmp_path: Path) -> None:
    """Cut between two members: all that is there is whole."""
    members = _whole("cut_off")
    whole = make_archive(
        dict(sorted(members.items(), key=lambda item: not item[0].startswith(("alice", "p0")))),
        "tar",
    )
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        bob = next(member for member in tar if member.name.startswith("bob"))
    (tmp_path / "call.tar").write_bytes(whole[: bob.offset + 100])
    done = callpress("run", "--input", tmp_path / "call.tar", "--output", tmp_path / "out")
    assert done.status == 1
    (call,) = query(tmp_path / "out" / "catalog", "calls")
    assert call["status"] == "partial"
    (track,) = query(tmp_path / "out" / "catalog", "tracks")
    assert (track["participant_id"], track["status"]) == ("alice", "ok")
    failures = query(tmp_path / "out" / "catalog", "failures")
    assert {row["call_id"] for row in failures} == {"cut_off", None}


def test_a_name_that_comes_again_in_another_archive_is_another_segment(tmp_path: Path) -> None:
    """The first archive lacks a dump; the second has one of that name, of five seconds later."""
    first = make_call_members(_two_people(), call_id="names")
    del first["alice_1.rtpdump"]
    again = [
        Participant(participant_id="alice", segments=[_segment(300, "alice_1", start_ms=5_000)])
    ]
    for name, members in (("a", first), ("b", make_call_members(again, call_id="names"))):
        (tmp_path / f"{name}.tar.gz").write_bytes(make_archive(members))
    callpress("run", "--input", tmp_path / "*.tar.gz", "--output", tmp_path / "out")
    (call,) = query(tmp_path / "out" / "catalog", "calls")
    assert (call["status"], call["missing_ms"]) == ("partial", 2_980)


def test_a_segment_that_two_archives_hold_in_parts_is_whole(tmp_path: Path) -> None:
    whole = make_call_members(_two_people(), call_id="parts")
    head = _kept(whole, "alice_1.rtpdump", lambda record: _offset_ms(record) <= 1_600)
    tail = _kept(whole, "alice_1.rtpdump", lambda record: _offset_ms(record) > 1_500)
    for name, members in (("a", head), ("b", tail)):
        (tmp_path / f"{name}.tar.gz").write_bytes(make_archive(members))
    done = callpress("run", "--input", tmp_path / "*.tar.gz", "--output", tmp_path / "out")
    assert done.status == 0, done.out
    (call,) = query(tmp_path / "out" / "catalog", "calls")
    assert (call["status"], call["missing_ms"]) == ("ok", 0)
    rows = query(tmp_path / "out" / "catalog", "dumps")
    assert sum(row["records_placed"] for row in rows) == 300
