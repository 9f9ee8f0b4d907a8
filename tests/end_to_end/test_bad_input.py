"""Broken and foreign input: a row that says what and where, neighbours whole, the exit status by
the contract.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
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
from tests.support.command import SAMPLE, callpress, decode_with_ffmpeg, press, query
from tests.support.encryption import encrypt_dump, sframe


def _segment(frequency_hz: float, name: str, **changes: Any) -> Segment:
    return Segment(
        packets=encode_opus(tone(frequency_hz, 2)),
        base_filename=name,
        ssrc=int(frequency_hz),
        **changes,
    )


def _two_people() -> list[Participant]:
    return [
        Participant(participant_id="alice", segments=[_segment(300, "alice_1")]),
        Participant(participant_id="bob", segments=[_segment(500, "bob_1")]),
    ]


def _press_one(archive: bytes, tmp_path: Path, name: str = "call.tar.gz") -> tuple[Path, int]:
    path = tmp_path / name
    path.write_bytes(archive)
    out = tmp_path / "out"
    done = callpress("run", "--input", path, "--output", out)
    assert "Traceback" not in done.out + done.err
    return out, done.status


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"these are not the bytes of an archive" * 40, "expected tar, gzipped tar or zip"),
        (gzip.compress(b"no tar in here" * 100), "does not hold a tar"),
        (make_archive({"readme.txt": b"hello"}), "no *_timing_metadata.json"),
        (make_archive({"readme.txt": b"hello"}, "zip"), "no *_timing_metadata.json"),
        (SAMPLE.read_bytes()[:2000], "damaged"),
    ],
    ids=["empty", "random", "gzip-without-tar", "foreign-tar", "foreign-zip", "truncated"],
)
def test_a_broken_archive_is_a_row_and_its_neighbour_is_pressed(
    tmp_path: Path, content: bytes, message: str
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "bad.tar.gz").write_bytes(content)
    (folder / "good.tar.gz").write_bytes(make_call_archive(_two_people()))
    out = tmp_path / "out"
    done = callpress("run", "--input", folder / "*", "--output", out)
    assert done.status == 1
    assert "Traceback" not in done.out + done.err
    (failure,) = query(out / "catalog", "failures")
    assert message in failure["message"]
    assert failure["archive_uri"] == str(folder / "bad.tar.gz")
    assert failure["error_type"] == "ArchiveError"
    assert {
        Path(r["archive_uri"]).name: r["status"] for r in query(out / "catalog", "archives")
    } == {
        "bad.tar.gz": "failed",
        "good.tar.gz": "ok",
    }
    assert len(query(out / "catalog", "recordings")) == 3


def test_exit_status_follows_the_ratio(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "bad.tar.gz").write_bytes(b"x" * 1000)
    (folder / "good.tar.gz").write_bytes(make_call_archive(_two_people()))
    config = tmp_path / "lenient.toml"
    config.write_text("max_failed_ratio = 0.5\n")
    done = callpress(
        "run", "--input", folder / "*", "--output", tmp_path / "out", "--config", config
    )
    assert done.status == 0
    (run,) = query(tmp_path / "out" / "catalog", "runs")
    assert run["status"] == "partial"


def test_a_missing_dump_costs_only_its_segment(tmp_path: Path) -> None:
    people = [
        Participant(participant_id="alice", segments=[_segment(300, "alice_1")]),
        Participant(
            participant_id="bob",
            segments=[
                _segment(500, "bob_1", with_dump=False),
                _segment(510, "bob_10", start_ms=4000),
            ],
        ),
    ]
    out, status = _press_one(make_call_archive(people), tmp_path)
    assert status == 1
    (failure,) = query(out / "catalog", "failures")
    assert failure["member"] == "bob_1.rtpdump"
    assert (failure["participant_id"], failure["output_type"]) == ("bob", "audio_only")
    tracks = {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")}
    assert tracks == {"alice": "ok", "bob": "partial"}
    assert query(out / "catalog", "calls")[0]["status"] == "partial"
    assert query(out / "catalog", "archives")[0]["status"] == "partial"
    assert len(query(out / "catalog", "recordings")) == 3


def test_an_unreadable_metadata_file_costs_only_its_session(tmp_path: Path) -> None:
    members = make_call_members(_two_people())
    name = "p1_timing_metadata.json"
    members[name] = b'{"call_type": "default", '
    out, status = _press_one(make_archive(members), tmp_path)
    assert status == 1
    failures = query(out / "catalog", "failures")
    assert {row["error_type"] for row in failures} == {"TimingMetadataError", "ArchiveError"}
    assert any(row["member"] == name and "expected JSON" in row["message"] for row in failures)
    assert {row["participant_id"] for row in query(out / "catalog", "tracks")} == {"alice"}


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    people = [
        Participant(participant_id="alice", segments=[_segment(300, "alice_1")]),
        Participant(participant_id="bob", segments=[_segment(500, "bob_1", codec="audio/PCMU")]),
    ]
    out, _ = _press_one(make_call_archive(people), tmp_path)
    (failure,) = query(out / "catalog", "failures")
    assert failure["error_type"] == "UnsupportedCodecError"
    assert "audio/PCMU" in failure["message"]
    tracks = {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")}
    assert tracks == {"alice": "ok", "bob": "failed"}
    mix = next(
        row for row in query(out / "catalog", "recordings") if row["recording_type"] == "composite"
    )
    assert mix["duration_ms"] == pytest.approx(2000, abs=25)


def test_a_call_in_which_nobody_sent_anything_is_empty(tmp_path: Path) -> None:
    people = [Participant(participant_id="alice"), Participant(participant_id="bob")]
    out, status = _press_one(make_call_archive(people), tmp_path)
    assert status == 0
    (call,) = query(out / "catalog", "calls")
    assert (call["status"], call["participant_count"], call["track_count"], call["start_time"]) == (
        "empty",
        2,
        0,
        None,
    )
    assert query(out / "catalog", "archives")[0]["status"] == "empty"
    assert query(out / "catalog", "failures") == []
    assert query(out / "catalog", "recordings") == []


def test_a_damaged_dump_gives_what_came_before_the_damage(tmp_path: Path) -> None:
    members = make_call_members(_two_people())
    dump = members["bob_1.rtpdump"]
    cut = len(dump) // 2
    members["bob_1.rtpdump"] = dump[:cut] + bytes(len(dump) - cut)
    out, _ = _press_one(make_archive(members), tmp_path)
    (failure,) = query(out / "catalog", "failures")
    assert failure["member"] == "bob_1.rtpdump"
    assert "record" in failure["message"]
    assert {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")} == {
        "alice": "ok",
        "bob": "partial",
    }


def test_ids_of_all_kinds_make_safe_names(tmp_path: Path) -> None:
    ids = ["A/b ü_1", "a/b ü_1", "..", "", "x" * 60, "x" * 61, "👩‍🚀", "per_son", "a~b"]
    people = [
        Participant(
            participant_id=name,
            user_session_id=f"s{number}",
            segments=[_segment(300 + number, f"d{number}")],
        )
        for number, name in enumerate(ids)
    ]
    out, status = _press_one(
        make_call_archive(people, call_id="../../etc", call_session_id="S 1"), tmp_path
    )
    assert status == 0
    rows = query(out / "catalog", "recordings")
    assert {row["participant_id"] for row in rows} == {*ids, None}
    names = {row["filename"].lower() for row in rows}
    assert len(names) == len(ids) + 1
    for row in rows:
        path = Path(row["uri"])
        assert path.resolve().is_relative_to((out / "recordings").resolve())
        assert len(decode_with_ffmpeg(path, row["channels"])) == row["duration_samples"]


def test_unsafe_member_paths_are_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in {
            "../escape_timing_metadata.json": b"{}",
            **make_call_members(_two_people()),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    out, status = _press_one(data.getvalue(), tmp_path)
    assert status == 1
    (failure,) = query(out / "catalog", "failures")
    assert "leaves the archive" in failure["message"]


@pytest.mark.parametrize("unix_ms", [9 * 10**18, 10**15, -1, 0], ids=str)
def test_a_time_that_cannot_be_costs_nothing_but_its_own(tmp_path: Path, unix_ms: int) -> None:
    members = make_call_members(_two_people())
    metadata = json.loads(members["p1_timing_metadata.json"])
    metadata["segments"]["audio"][0]["first_rtp_unix_timestamp"] = unix_ms
    members["p1_timing_metadata.json"] = json.dumps(metadata).encode()
    out, status = _press_one(make_archive(members), tmp_path)
    assert status == 0  # the dump itself says when its packets came
    assert {row["status"] for row in query(out / "catalog", "tracks")} == {"ok"}


def test_a_dump_that_two_sessions_list_belongs_to_the_first(tmp_path: Path) -> None:
    members = make_call_members(_two_people())
    metadata = json.loads(members["p1_timing_metadata.json"])
    metadata["segments"]["audio"][0]["base_filename"] = "alice_1"
    members["p1_timing_metadata.json"] = json.dumps(metadata).encode()
    out, status = _press_one(make_archive(members), tmp_path)
    assert status == 1
    messages = [row["message"] for row in query(out / "catalog", "failures")]
    assert any("listed again" in message for message in messages)
    assert {row["participant_id"]: row["status"] for row in query(out / "catalog", "tracks")} == {
        "alice": "ok",
        "bob": "failed",
    }


def test_a_zip_with_flipped_bytes_never_stops_a_run(tmp_path: Path) -> None:
    good = make_call_archive(_two_people(), kind="zip")
    directory = good.rindex(b"PK\x01\x02")
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, position in enumerate(range(directory, len(good), 3)):
        (raw / f"{number:03}.zip").write_bytes(
            good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :]
        )
    out = tmp_path / "out"
    done = callpress("run", "--input", raw / "*", "--output", out)
    assert done.status in (0, 1)
    assert "Traceback" not in done.out + done.err
    archives = query(out / "catalog", "archives")
    assert len(archives) == number + 1
    assert not any("bug" in (row["error_message"] or "") for row in archives)


def test_summary_json_tells_the_result(tmp_path: Path) -> None:
    path = tmp_path / "call.tar.gz"
    path.write_bytes(make_call_archive(_two_people()))
    summary = tmp_path / "deep" / "summary.json"
    press(tmp_path / "out", path, flags=("--summary-json", summary))
    found = json.loads(summary.read_text())
    run_id, started, finished = (
        found.pop("run_id"),
        found.pop("started_at"),
        found.pop("finished_at"),
    )
    assert run_id.startswith("20")
    assert started < finished
    assert found.pop("cpu_seconds") > 0
    assert found.pop("bytes_read") == path.stat().st_size
    assert found.pop("bytes_written") == sum(
        row["size_bytes"] for row in query(tmp_path / "out" / "catalog", "recordings")
    )
    assert found == {
        "exit_status": 0,
        "reason": "ok",
        "repress": None,
        "reconcile": None,
        "notices": None,
        "unmatched": [],
        "first_time": {"ok": 1, "partial": 0, "failed": 0, "empty": 0},
        "counts": {
            "archives": {
                "listed": 1,
                "skipped": 0,
                "ok": 1,
                "partial": 0,
                "failed": 0,
                "empty": 0,
                "waiting": 0,
            },
            "calls": {"ok": 1, "partial": 0, "failed": 0, "empty": 0},
            "recordings": 3,
            "failures": 0,
            "left_out": 0,
            "passed_over": {"composite": 0, "individual": 0, "other_event": 0},
        },
        "told": [],
        "claimed_seconds": 3.96,
        "missing_seconds": 0.0,
        "media_seconds": pytest.approx(6 - 3 * 312 / 48000, abs=0.001),
        "failures": [],
    }


def test_a_track_that_is_encrypted_end_to_end_has_a_file_and_is_not_heard(tmp_path: Path) -> None:
    members = make_call_members(_two_people())
    members["bob_1.rtpdump"] = encrypt_dump(members["bob_1.rtpdump"], sframe(3))
    out, _ = _press_one(make_archive(members), tmp_path)
    (failure,) = query(out / "catalog", "failures")
    assert failure["error_type"] == "EncryptedAudioError"
    assert (failure["participant_id"], failure["member"]) == ("bob", "bob_1.rtpdump")
    tracks = {row["participant_id"]: row for row in query(out / "catalog", "tracks")}
    assert {name: row["status"] for name, row in tracks.items()} == {
        "alice": "ok",
        "bob": "partial",
    }
    sound = ("loudness_lufs", "peak_dbfs", "speech_ms", "audio_bandwidth_hz")
    assert all(tracks["alice"][column] is not None for column in sound)
    assert [tracks["bob"][column] for column in sound] == [None] * len(sound)
    assert tracks["bob"]["media_ms"] == 2_000
    recordings = {row["participant_id"]: row for row in query(out / "catalog", "recordings")}
    assert set(recordings) == {None, "alice", "bob"}
    assert recordings["bob"]["duration_ms"] == pytest.approx(2_000, abs=25)
    assert query(out / "catalog", "calls")[0]["status"] == "partial"
    assert {row["participant_id"] for row in query(out / "catalog", "speech")} <= {"alice"}


def test_a_call_of_which_all_is_encrypted_has_its_files_and_no_mix(tmp_path: Path) -> None:
    members = make_call_members(_two_people())
    for name in ("alice_1.rtpdump", "bob_1.rtpdump"):
        members[name] = encrypt_dump(members[name], sframe(3))
    out, _ = _press_one(make_archive(members), tmp_path)
    recordings = query(out / "catalog", "recordings")
    assert {row["participant_id"] for row in recordings} == {"alice", "bob"}
    (call,) = query(out / "catalog", "calls")
    assert (call["status"], call["loudness_lufs"]) == ("partial", None)
