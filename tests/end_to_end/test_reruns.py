"""Runs over what was pressed before: nothing twice, nothing stale, nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_archive,
    make_call_members,
    tone,
)
from tests.support.command import SAMPLE, callpress, copy_tree, decode_with_ffmpeg, press, query
from tests.support.locks import make_old
from transforms.catalog import pending_replacement
from transforms.media.values import CallKey

SECONDS = 3


def _talk(
    frequency_hz: float, start_ms: int = 0, *, seconds: float = SECONDS, name: str | None = None
) -> Segment:
    packets = encode_opus(tone(frequency_hz, seconds), frame_ms=20)
    ssrc = int(frequency_hz)
    return Segment(
        packets=packets,
        start_ms=start_ms,
        ssrc=ssrc,
        base_filename=name or f"f{frequency_hz:.0f}_{start_ms}",
    )


def _recordings(output: Path) -> dict[str, dict[str, Any]]:
    rows = query(output / "catalog", "recordings")
    by_name = {row["participant_id"] or "mix": row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def _check_files(output: Path) -> None:
    """Each row has its file, unchanged, and each file its row."""
    rows = query(output / "catalog", "recordings")
    for row in rows:
        assert hashlib.sha256(Path(row["uri"]).read_bytes()).hexdigest() == row["sha256"]
    on_disk = {str(path) for path in (output / "recordings").rglob("*") if path.is_file()}
    assert on_disk == {row["uri"] for row in rows}


def _hashes(output: Path) -> dict[str, str]:
    return {name: row["sha256"] for name, row in _recordings(output).items()}


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Two archives of one call: alice in both, bob in the first, carol in the second."""
    folder = tmp_path / "raw"
    folder.mkdir()
    first = [
        Participant(participant_id="alice", segments=[_talk(300)]),
        Participant(participant_id="bob", segments=[_talk(500)]),
    ]
    second = [
        Participant(participant_id="alice", segments=[_talk(300, 5000)]),
        Participant(participant_id="carol", segments=[_talk(700, 4000)]),
    ]
    (folder / "first.tar.gz").write_bytes(make_call_archive(first))
    (folder / "second.zip").write_bytes(make_call_archive(second, kind="zip"))
    return folder


def test_a_session_over_two_archives_makes_one_file(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    rows = _recordings(out)
    assert set(rows) == {"alice", "bob", "carol", "mix"}
    assert len(rows["alice"]["archive_uris"]) == 2
    assert rows["alice"]["duration_ms"] == pytest.approx(8000, abs=25)
    assert rows["mix"]["duration_ms"] == pytest.approx(8000, abs=25)
    segments = [
        row for row in query(out / "catalog", "segments") if row["participant_id"] == "alice"
    ]
    assert [
        row["gap_before"] for row in sorted(segments, key=lambda row: row["file_start_ms"])
    ] == ["none", "not_recorded"]
    sound = decode_with_ffmpeg(rows["alice"]["uri"], 1)[:, 0]
    assert abs(sound[int(3.5 * 48000) : int(4.5 * 48000)]).max() < 0.01
    assert abs(sound[(6 * 48000) :]).max() > 0.1
    _check_files(out)


def test_a_second_run_with_nothing_new_changes_nothing(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    before = {
        path: path.stat().st_mtime_ns for path in (out / "recordings").rglob("*") if path.is_file()
    }
    tables = {
        name: query(out / "catalog", name)
        for name in ("recordings", "tracks", "segments", "calls", "archives")
    }
    again = press(out, archives / "*")
    assert "2 skipped" in again.out
    assert {
        path: path.stat().st_mtime_ns for path in (out / "recordings").rglob("*") if path.is_file()
    } == before
    assert {name: query(out / "catalog", name) for name in tables} == tables
    assert [
        row["archives_skipped"]
        for row in sorted(query(out / "catalog", "runs"), key=lambda r: r["started_at"])
    ] == [0, 2]


def test_overwrite_presses_again_to_the_same_bytes(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    before = _hashes(out)
    press(out, archives / "*", flags=("--overwrite",))
    assert _hashes(out) == before
    assert len(query(out / "catalog", "recordings")) == 4


def test_a_late_archive_makes_the_call_anew_from_all(archives: Path, tmp_path: Path) -> None:
    whole, late = tmp_path / "whole", tmp_path / "late"
    press(whole, archives / "*")
    press(late, archives / "first.tar.gz")
    assert set(_recordings(late)) == {"alice", "bob", "mix"}
    start = query(late / "catalog", "calls")[0]["timeline_start_time"]
    done = press(late, archives / "second.zip")
    assert "failures   │ 0" in done.out
    assert _hashes(late) == _hashes(whole)
    assert query(late / "catalog", "calls")[0]["timeline_start_time"] == start
    assert query(late / "catalog", "calls")[0]["status"] == "ok"
    _check_files(late)


def test_a_late_archive_whose_earlier_one_is_gone_loses_nothing(
    archives: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    press(out, archives / "first.tar.gz")
    before = _hashes(out)
    (archives / "first.tar.gz").unlink()
    done = callpress("run", "--input", archives / "second.zip", "--output", out)
    assert done.status == 1  # one of one archive is partial
    after = _hashes(out)
    assert {name: after[name] for name in before} == before
    assert set(after) == {"alice", "bob", "mix", "carol"}
    _check_files(out)
    messages = [row["message"] for row in query(out / "catalog", "failures")]
    assert any("first.tar.gz" in message and "second.zip" in message for message in messages)
    status = {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")}
    assert status == {"alice": "partial", "bob": "ok", "carol": "ok"}
    (call,) = query(out / "catalog", "calls")
    assert call["status"] == "partial"
    assert call["track_count"] == 3


def test_changed_settings_press_anew_and_old_files_go(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    config = tmp_path / "ogg.toml"
    config.write_text('[individual]\ncontainer = "ogg"\n')
    press(out, archives / "*", flags=("--config", config))
    assert {row["container"] for row in query(out / "catalog", "recordings")} == {"ogg", "mp3"}
    _check_files(out)


def test_switching_an_output_off_deletes_nothing(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    before = _hashes(out)
    for text in ("[composite]\nenabled = false\n", "[individual]\nenabled = false\n"):
        config = tmp_path / "off.toml"
        config.write_text(text)
        press(out, archives / "*", flags=("--config", config))
        assert _hashes(out) == before
        _check_files(out)
        assert len(query(out / "catalog", "tracks")) == 3


@pytest.mark.parametrize(
    ("flags", "made"),
    [
        (("--participant", "bob"), {"bob"}),
        (("--user-session", "sess-alice-1"), {"alice"}),
        (("--output_type=screenshare_audio_only",), {"dave"}),
    ],
    ids=["participant", "user-session", "output-type"],
)
def test_a_filtered_run_writes_only_these_files_and_is_not_recorded(
    tmp_path: Path, flags: tuple[str, ...], made: set[str]
) -> None:
    out = tmp_path / "out"
    done = press(out, SAMPLE, flags=flags)
    assert set(_recordings(out)) == made
    assert query(out / "catalog", "archives") == []
    assert [row["status"] for row in query(out / "catalog", "calls")] == ["partial"]
    assert "1 ok" in done.out
    assert len(query(out / "catalog", "tracks")) == 1
    press(out, SAMPLE)
    assert len(query(out / "catalog", "recordings")) == 6
    _check_files(out)


def test_a_filtered_run_leaves_the_mix_and_other_rows_alone(pressed: Path, tmp_path: Path) -> None:
    out = copy_tree(pressed, tmp_path / "out")
    # The copied rows name the first output's files: only the rows are looked at.
    before = {
        name: query(out / "catalog", name)
        for name in ("recordings", "calls", "archives", "tracks", "segments")
    }
    press(out, SAMPLE, flags=("--participant", "bob", "--overwrite"))
    for name, rows in before.items():
        now = query(out / "catalog", name)
        others = [
            row
            for row in rows
            if row.get("participant_id") != "bob" or row["call_id"] != "weekly-sync"
        ]
        assert [row for row in now if row in others] == others, name
        assert len(now) == len(rows), name


def test_call_filter_selects_whole_calls(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for call in ("one", "two"):
        people = [Participant(participant_id="alice", segments=[_talk(300)])]
        (folder / f"{call}.tar").write_bytes(
            make_call_archive(people, kind="tar", call_id=call, call_session_id=call)
        )
    out = tmp_path / "out"
    press(out, folder / "*", flags=("--call", "default:one"))
    assert {row["call_id"] for row in query(out / "catalog", "recordings")} == {"one"}
    assert [Path(row["archive_uri"]).name for row in query(out / "catalog", "archives")] == [
        "one.tar"
    ]
    press(out, folder / "*")
    assert {row["call_id"] for row in query(out / "catalog", "calls")} == {"one", "two"}


def test_since_leaves_older_archives_out(archives: Path, tmp_path: Path) -> None:
    old = archives / "first.tar.gz"
    os.utime(old, (1_700_000_000, 1_700_000_000))
    out = tmp_path / "out"
    press(out, archives / "*", flags=("--since", "2h"))
    assert set(_recordings(out)) == {"alice", "carol", "mix"}


def test_a_changed_archive_under_another_date_leaves_no_second_row(
    archives: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    archive = archives / "first.tar.gz"
    os.utime(archive, (1_700_000_000, 1_700_000_000))
    press(out, archive)
    os.utime(archive, (1_760_000_000, 1_760_000_000))
    press(out, archive)
    (row,) = query(out / "catalog", "archives")
    assert str(row["call_date"]) == "2025-10-09"


def test_a_lock_whose_lease_has_run_out_is_taken_over(archives: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lock = out / "catalog" / "callpress.lock"
    lock.parent.mkdir(parents=True)
    state = '{"run_id": "run-before", "host": "elsewhere", "pid": 1, "expires_unix_s": %d}'
    lock.write_text(state % 4_000_000_000)
    refused = callpress("run", "--input", archives / "*", "--output", out)
    assert refused.status == 1
    assert "run-before" in refused.err
    assert refused.err.count("\n") == 1
    assert not (out / "recordings").exists()
    make_old(lock, 901)  # by the clock of the disk, whatever its run thought of the time
    press(out, archives / "*")
    assert json.loads(lock.read_text())["expires_unix_s"] == 0  # given back
    assert set(_recordings(out)) == {"alice", "bob", "carol", "mix"}


def _repack(path: Path, people: list[Participant], **changes: bytes) -> None:
    """Writes an archive again, some members replaced, with a later modification time."""
    members = {
        **make_call_members(people),
        **{name.replace("__", "."): data for name, data in changes.items()},
    }
    path.write_bytes(make_archive({name: data for name, data in members.items() if data}))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 60))


def _alice_and_bob() -> list[Participant]:
    return [
        Participant(participant_id="alice", segments=[_talk(300, name="alice")]),
        Participant(participant_id="bob", segments=[_talk(500, name="bob")]),
    ]


def test_filtered_runs_one_after_the_other_keep_each_others_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    press(out, SAMPLE, flags=("--participant", "alice"))
    press(out, SAMPLE, flags=("--participant", "bob"))
    assert set(_recordings(out)) == {"alice", "bob"}
    _check_files(out)


@pytest.mark.parametrize(
    "change",
    [{"p1_timing_metadata__json": b"{"}, {"bob__rtpdump": b""}],
    ids=["unreadable-metadata", "dump-gone"],
)
def test_what_an_archive_no_longer_gives_is_kept(tmp_path: Path, change: dict[str, bytes]) -> None:
    out, archive = tmp_path / "out", tmp_path / "call.tar.gz"
    archive.write_bytes(make_call_archive(_alice_and_bob()))
    press(out, archive)
    before = _hashes(out)
    _repack(archive, _alice_and_bob(), **change)
    done = callpress("run", "--input", archive, "--output", out)
    assert done.status == 1
    assert _hashes(out) == before  # the mix of two voices is not replaced by one of one
    _check_files(out)
    assert {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")} == {
        "alice": "ok",
        "bob": "partial",
    }
    assert query(out / "catalog", "calls")[0]["status"] == "partial"
    assert any(row["participant_id"] == "bob" for row in query(out / "catalog", "failures"))


def test_an_earlier_archive_overwritten_by_another_call_loses_nothing(
    archives: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    press(out, archives / "first.tar.gz")
    before = _hashes(out)
    other = [Participant(participant_id="zoe", segments=[_talk(900, name="zoe")])]
    (archives / "first.tar.gz").write_bytes(
        make_call_archive(other, call_id="other", call_session_id="other")
    )
    done = callpress("run", "--input", archives / "second.zip", "--output", out)
    assert done.status == 1
    assert {name: _hashes(out)[name] for name in before} == before
    assert any("no longer holds" in row["message"] for row in query(out / "catalog", "failures"))


def test_an_archive_under_two_names_is_heard_once(tmp_path: Path) -> None:
    for name, kind in (("one.tar.gz", "tar.gz"), ("two.zip", "zip")):
        (tmp_path / name).write_bytes(make_call_archive(_alice_and_bob(), kind=kind))
    out = tmp_path / "out"
    press(out, tmp_path / "*.tar.gz", tmp_path / "*.zip")
    assert {row["duration_ms"] for row in _recordings(out).values()} == {
        round(SECONDS * 1000 - 6.5)
    }


def test_a_recall_that_failed_is_tried_again(archives: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "out", tmp_path / "away.tar.gz"
    press(out, archives / "first.tar.gz")
    first = archives / "first.tar.gz"
    stamp = first.stat()
    first.rename(away)
    assert callpress("run", "--input", archives / "second.zip", "--output", out).status == 1
    away.rename(first)
    os.utime(first, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    press(out, archives / "*")
    assert query(out / "catalog", "calls")[0]["status"] == "ok"
    assert query(out / "catalog", "calls")[0]["participant_count"] == 3
    assert query(out / "catalog", "failures") == []
    whole = tmp_path / "whole"
    press(whole, archives / "*")
    assert _hashes(out) == _hashes(whole)


def test_a_call_whose_replacing_was_cut_short_is_pressed_again(
    archives: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    # What a run that dies between its files and its rows leaves: a file that is not what its row
    # says, and the note.
    row = _recordings(out)["alice"]
    Path(row["uri"]).write_bytes(b"of other settings")
    call = CallKey(
        call_type=row["call_type"], call_id=row["call_id"], call_session_id=row["call_session_id"]
    )
    pending_replacement.announce(str(out / "catalog"), call, row["archive_uris"], [])
    press(out, archives / "*")
    _check_files(out)
    assert pending_replacement.archives_to_repeat(str(out / "catalog")) == frozenset()
    assert "2 skipped" in press(out, archives / "*").out


def test_failures_of_a_call_are_told_once_also_by_a_filtered_run(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name, who, pitch in (("first", "alice", 300), ("second", "bob", 500)):
        people = [Participant(participant_id=who, segments=[_talk(pitch)])]
        (raw / f"{name}.tar.gz").write_bytes(make_call_archive(people))
    press(out, raw / "*")
    (raw / "first.tar.gz").unlink()
    (raw / "third.tar.gz").write_bytes(
        make_call_archive([Participant(participant_id="carol", segments=[_talk(700)])])
    )
    callpress("run", "--input", raw / "*", "--output", out)

    callpress(
        "run",
        "--input",
        raw / "second.tar.gz",
        "--output",
        out,
        "--overwrite",
        "--participant",
        "bob",
    )

    told = [
        (row["stage"], row["archive_uri"], row["participant_id"])
        for row in query(out / "catalog", "failures")
    ]
    assert told
    assert len(set(told)) == len(told)
    assert callpress("verify", "--catalog", out / "catalog").status == 0


def test_a_filtered_run_leaves_the_note_of_a_call_that_was_being_replaced(
    archives: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    press(out, archives / "*")
    (row,) = query(out / "catalog", "calls")
    call = CallKey(
        call_type=row["call_type"], call_id=row["call_id"], call_session_id=row["call_session_id"]
    )
    pending_replacement.announce(str(out / "catalog"), call, row["archive_uris"], [])

    press(out, archives / "*", flags=("--participant", "bob"))

    assert pending_replacement.archives_to_repeat(str(out / "catalog")) == set(row["archive_uris"])
    press(out, archives / "*")
    assert pending_replacement.archives_to_repeat(str(out / "catalog")) == frozenset()


# --- what one archive lacks and another brings ----------------------------------------------------


def _split_call(folder: Path) -> None:
    """Writes two archives of Alice's session: the metadata of both lists both segments, and each
    has the dump of one.
    """
    folder.mkdir(exist_ok=True)
    people = [Participant(participant_id="alice", segments=[_talk(300), _talk(400, 5000)])]
    members = make_call_members(people)
    for name, lacking in (("a", "f400_5000"), ("b", "f300_0")):
        part = {key: data for key, data in members.items() if not key.startswith(lacking)}
        (folder / f"{name}.tar.gz").write_bytes(make_archive(part))


def _statuses(output: Path) -> dict[str, set[str]]:
    return {
        table: {row["status"] for row in query(output / "catalog", table)}
        for table in ("archives", "calls", "tracks")
    }


_ALL_OK = {"archives": {"ok"}, "calls": {"ok"}, "tracks": {"ok"}}


def test_segments_that_one_archive_lacks_and_another_brings_are_missing_nowhere(
    tmp_path: Path,
) -> None:
    raw, together, apart = (tmp_path / name for name in ("raw", "together", "apart"))
    _split_call(raw)
    press(together, raw / "*")
    assert query(together / "catalog", "failures") == []
    assert _statuses(together) == _ALL_OK

    callpress("run", "--input", raw / "a.tar.gz", "--output", apart)
    (failure,) = query(apart / "catalog", "failures")
    assert failure["message"].startswith("f400_5000.rtpdump: not in the archive, listed by")
    assert {status for found in _statuses(apart).values() for status in found} == {"partial"}
    (before,) = query(apart / "catalog", "archives")

    press(apart, raw / "b.tar.gz")
    assert query(apart / "catalog", "failures") == []
    assert _statuses(apart) == _ALL_OK
    assert _hashes(apart) == _hashes(together)
    (after,) = (
        row
        for row in query(apart / "catalog", "archives")
        if row["archive_uri"].endswith("a.tar.gz")
    )
    healed = {"status": "ok", "error_type": None, "error_message": None}
    assert after == {**before, **healed}
    assert "2 skipped" in press(apart, raw / "*").out


def test_archive_of_metadata_alone_is_ok_when_another_brings_its_dumps(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    members = make_call_members([Participant(participant_id="alice", segments=[_talk(300)])])
    alone = {name: data for name, data in members.items() if name.endswith(".json")}
    (raw / "a.tar.gz").write_bytes(make_archive(alone))
    (raw / "b.tar.gz").write_bytes(make_archive(members))
    callpress("run", "--input", raw / "a.tar.gz", "--output", out)
    assert _statuses(out)["archives"] == {"failed"}
    press(out, raw / "b.tar.gz")
    assert query(out / "catalog", "failures") == []
    assert _statuses(out) == _ALL_OK


def test_dump_without_metadata_in_another_archive_is_told_on_both_sides(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    people = [Participant(participant_id="alice", segments=[_talk(300), _talk(400, 5000)])]
    members = make_call_members(people)
    stray = {name: members.pop(name) for name in list(members) if name.startswith("f400")}
    (raw / "a.tar.gz").write_bytes(make_archive(members))
    (raw / "b.tar.gz").write_bytes(make_archive(stray))
    callpress("run", "--input", raw / "*", "--output", out)
    rows = query(out / "catalog", "failures")
    found = {(Path(row["archive_uri"]).name, row["member"]) for row in rows}
    assert found >= {("a.tar.gz", "f400_5000.rtpdump"), ("b.tar.gz", "f400_5000.rtpdump")}
    assert _statuses(out)["calls"] == {"partial"}
