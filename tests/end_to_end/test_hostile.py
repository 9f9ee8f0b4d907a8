"""Many hostile archives and a good call in one run.

The good call comes out whole, the others have their rows, nothing gets out.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import Finished, callpress, decode_with_ffmpeg, query
from tests.support.hostile.cases import CASES
from tests.support.hostile.good_call import entries_before
from tests.support.hostile.guest import MALLORY
from tests.support.hostile.ids import CONTROL_ID, LONG_ID, SLASH_ID
from tests.support.hostile.raw_tar import tar_entry

NAMES = [
    "path_up.tar.gz",
    "path_terminal.tar.gz",
    "zip_path_absolute.zip",
    "name_5000_pax.tar.gz",
    "symlink_first.tar.gz",
    "symlink_folder.tar.gz",
    "devices.tar.gz",
    "sparse_4tib_old.tar.gz",
    "size_4tib_last.tar.gz",
    "pax_quadratic.tar.gz",
    "members_twice.tar.gz",
    "gzip_garbage_behind.tar.gz",
    "gzip_wrong_checksum.tar.gz",
    "gzip_cut_in_a_later_dump.tar.gz",
    "gzip_cut_before_the_metadata.tar.gz",
    "bomb_behind.tar.gz",
    "bomb_first.tar.gz",
    "bomb_in_a_header.tar.gz",
    "bomb_of_blanks.tar.gz",
    "zip_bomb.zip",
    "zip_encrypted.zip",
    "zip_without_directory.zip",
    "empty.tar.gz",
    "random.tar.gz",
    "json_nested_200000.tar.gz",
    "json_utf16.tar.gz",
    "id_slash.tar.gz",
    "id_control.tar.gz",
    "id_long.tar.gz",
    "ids_by_case.tar.gz",
    "ids_by_normalisation.tar.gz",
    "base_path.tar.gz",
    "time_30_days_apart.tar.gz",
    "dump_all_wrong.tar.gz",
    "dump_random_timestamps.tar.gz",
    "dump_random_opus.tar.gz",
    "dump_weeks_between.tar.gz",
    "codec_unknown.tar.gz",
    "no_metadata.tar.gz",
]


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A folder with `raw`, `out`, and `outside`, which links in the archives point to; and the run
    over it.
    """
    root = tmp_path_factory.mktemp("hostile")
    raw, outside = root / "raw", root / "outside"
    raw.mkdir()
    outside.mkdir()
    for name in NAMES:
        (raw / name).write_bytes(CASES[name].build())
    linked = [
        tar_entry("d", kind=b"2", link=str(outside).encode()),
        tar_entry("d/evil.rtpdump", b"evil"),
    ]
    (raw / "links.tar.gz").write_bytes(entries_before("links", b"".join(linked)))
    people = [
        Participant(
            participant_id=name, segments=[Segment(packets=encode_opus(tone(hz, 3)), ssrc=hz)]
        )
        for name, hz in (("carol", 440), ("dave", 660))
    ]
    (raw / "good.tar.gz").write_bytes(make_call_archive(people, call_id="good"))
    before = os.getcwd()
    os.chdir(outside)  # where a relative path of an archive would lead to
    started = time.monotonic()
    try:
        done = callpress("run", "--input", raw / "*", "--output", root / "out")
    finally:
        os.chdir(before)
    assert time.monotonic() - started < 120  # a minute on a machine that does nothing else
    return root, done


def _rows(run: tuple[Path, Finished], table: str) -> list[dict[str, Any]]:
    return query(run[0] / "out" / "catalog", table)


def _named(row: dict[str, Any]) -> str:
    return Path(row["archive_uri"]).name


def test_the_run_ends_by_the_contract(hostile_run: tuple[Path, Finished]) -> None:
    _, done = hostile_run
    assert done.status == 1
    assert "Traceback" not in done.out + done.err
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", done.out)
    assert {_named(row) for row in _rows(hostile_run, "archives")} == {
        *NAMES,
        "links.tar.gz",
        "good.tar.gz",
    }


def test_the_good_call_is_whole(hostile_run: tuple[Path, Finished]) -> None:
    assert [
        row["status"] for row in _rows(hostile_run, "archives") if _named(row) == "good.tar.gz"
    ] == ["ok"]
    (call,) = [row for row in _rows(hostile_run, "calls") if row["call_id"] == "good"]
    assert (call["status"], call["track_count"]) == ("ok", 2)
    recordings = [row for row in _rows(hostile_run, "recordings") if row["call_id"] == "good"]
    assert len(recordings) == 3
    assert all(
        len(decode_with_ffmpeg(row["uri"], row["channels"])) == row["duration_samples"]
        for row in recordings
    )


def test_each_archive_has_a_row_that_says_what_was_found(
    hostile_run: tuple[Path, Finished],
) -> None:
    failures = _rows(hostile_run, "failures")
    for name in NAMES:
        messages = [
            row["message"] for row in failures if row["archive_uri"] and _named(row) == name
        ]
        wanted = CASES[name].message
        if wanted is None:
            assert messages == [], name
        else:
            assert any(re.search(wanted, message) for message in messages), (name, messages)
    for row in failures:
        assert row["message"].isprintable()
        assert "bug" not in row["message"]
    statuses = {_named(row): row["status"] for row in _rows(hostile_run, "archives")}
    for name in NAMES:
        assert statuses[name] == CASES[name].status, name


def test_neighbours_in_the_archive_and_the_call_are_whole(
    hostile_run: tuple[Path, Finished],
) -> None:
    tracks = {(row["call_id"], row["participant_id"]): row for row in _rows(hostile_run, "tracks")}
    mixes = {
        row["call_id"]: row
        for row in _rows(hostile_run, "recordings")
        if row["recording_type"] == "composite"
    }
    for name in NAMES:
        case = CASES[name]
        for participant_id in case.intact:
            assert tracks[case.call_id, participant_id]["status"] == "ok", name
            assert tracks[case.call_id, participant_id]["packets_received"] == 50
        if case.intact:
            assert mixes[case.call_id]["duration_ms"] < 60_000, name


def test_nothing_gets_out_and_each_file_has_its_row(hostile_run: tuple[Path, Finished]) -> None:
    root, _ = hostile_run
    assert sorted(path.name for path in root.iterdir()) == ["out", "outside", "raw"]
    assert list((root / "outside").iterdir()) == []
    assert len(list((root / "raw").iterdir())) == len(NAMES) + 2
    recordings = root / "out" / "recordings"
    files = {str(path) for path in recordings.rglob("*") if path.is_file()}
    assert files == {row["uri"] for row in _rows(hostile_run, "recordings")}
    assert not any(path.is_symlink() for path in recordings.rglob("*"))


@pytest.mark.parametrize(
    ("name", "count"),
    [("ids_by_case.tar.gz", 3), ("ids_by_normalisation.tar.gz", 2)],
    ids=["case", "normalisation"],
)
def test_ids_that_look_alike_have_a_file_each(
    hostile_run: tuple[Path, Finished], name: str, count: int
) -> None:
    call_id = CASES[name].call_id
    rows = [
        row
        for row in _rows(hostile_run, "recordings")
        if row["call_id"] == call_id and row["participant_id"] not in (None, "alice", "bob")
    ]
    assert len(rows) == count
    assert len({row["uri"].lower() for row in rows}) == count
    assert len({row["participant_id"] for row in rows}) == count
    assert all(row["filename"].isascii() for row in rows)


def test_ids_are_in_the_tables_as_they_are(hostile_run: tuple[Path, Finished]) -> None:
    found = {row["participant_id"] for row in _rows(hostile_run, "tracks")}
    assert {SLASH_ID, CONTROL_ID, LONG_ID, "zoe", "Zoe", "ZOE", MALLORY} <= found
