"""`callpress inspect --clock`: what it tells of clocks, and the drawings it writes."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
import xml.etree.ElementTree as ET
from datetime import datetime
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
    noise,
)
from tests.support.command import callpress
from tests.support.media import CAPTURES
from tests.support.simulation.calls import Person, simulate_call
from tests.support.simulation.sender import Sender

STALLS = CAPTURES / "capture_dtx_stalls.tar.gz"
ANN = Sender(seconds=60, stalls=((20, 0.15),), paths=((40, 0.04),), jitter_ms=4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A call of Ann, whose capture stood still once, and Bob, who sent no reports."""
    bob = Sender(seconds=40, report_every_s=None, paths=((20, 0.03),))
    people = [Person(name="ann", senders=[ANN]), Person(name="bob", senders=[bob])]
    path = tmp_path_factory.mktemp("raw") / "call.tar"
    path.write_bytes(simulate_call(people).archive)
    return path


def tracks_of(archive: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the first track of each participant of an archive as JSON has it."""
    return {session["participant_id"]: session["tracks"][0] for session in archive["sessions"]}


def test_each_piece_and_step_is_a_line(archive: Path) -> None:
    done = callpress("inspect", "--clock", archive)
    assert (done.status, done.err) == (0, "")
    lines = [line.strip() for line in done.out.splitlines()]
    assert "12 sender reports over 0:54.8 of media" in lines
    assert "no sender reports" in lines
    matches = [
        r"0:00\.000  piece to 0:20\.000: begins 2026-01-05T10:00:00\.0\d\dZ, "
        r"skew [+-]\d\.\d ppm fitted, sync_error_ms \d+\.\d",
        r"0:20\.000  step 1: \+1[45]\d\.\d ms at 2026-01-05T10:00:20\.\d{3}Z, reports confirm it: "
        r"1[45]\d\.\d ms of silence put in",
        r"0:20\.000  piece to 1:00\.000: begins 2026-01-05T10:00:20\.\d{3}Z, .*",
        r"\d:\d\d\.\d{3}  step 2: \+[34]\d\.\d ms at .*Z, reports deny it: nothing moved: path",
        r"\d:\d\d\.\d{3}  step 1: \+[23]\d\.\d ms at .*Z, reports cannot tell: nothing moved: in "
        "doubt",
    ]
    for pattern in matches:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, done.out)
    assert "drawn in" not in done.out


def test_json_has_the_same_of_each_track(archive: Path) -> None:
    done = callpress("inspect", "--clock", "--json", archive)
    assert done.status == 0
    (found,) = json.loads(done.out)["archives"]
    assert set(found) == {"uri", "error", "sessions", "findings"}
    assert found["findings"] == []
    clock = tracks_of(found)["ann"]["clock"]
    assert clock["drawing"] is None
    (run,) = clock["packet_runs"]
    pieces, steps = run.pop("pieces"), run.pop("steps")
    assert run == {
        "base_filename": "0_0",
        "ssrc": ANN.ssrc,
        "packet_count": 3_000,
        "media_ms": 60_000.0,
        "has_arrivals": True,
        "reports": {"count": 12, "span_ms": run["reports"]["span_ms"], "from_metadata": False},
    }
    assert [(piece["media_start_ms"], piece["media_end_ms"]) for piece in pieces] == [
        (0.0, 20_000.0),
        (20_000.0, 60_000.0),
    ]
    assert set(pieces[0]) == {
        "media_start_ms", "media_end_ms", "server_start_time", "skew_ppm", "is_fitted",
        "sync_error_ms",
    }  # fmt: skip
    assert [(step["evidence"], step["outcome"]) for step in steps] == [
        ("confirmed", "silence"),
        ("denied", "path"),
    ]
    assert set(steps[0]) == {
        "media_ms", "server_time", "size_ms", "evidence", "outcome", "moved_ms",
    }  # fmt: skip
    plain = json.loads(callpress("inspect", "--json", archive).out)["archives"][0]
    del found["findings"]
    for track in tracks_of(found).values():
        del track["clock"]
    assert found == plain


def test_each_track_is_drawn_under_an_escaped_name_and_nothing_else_is_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, drawn = tmp_path / "work", tmp_path / "a" / "drawn"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    done = callpress("inspect", "--clock", "--clock-output", drawn, archive)
    assert done.status == 0
    names = sorted(path.name for path in drawn.iterdir())
    expected = r"clock_default_standup_{0}_sess-{0}_audio_only_\d+\.svg"
    assert len(names) == 2
    for name, who in zip(names, ("ann", "bob"), strict=True):
        assert re.fullmatch(expected.format(who), name)
        assert ET.parse(drawn / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert f"  drawn in {drawn / name}\n" in done.out
    assert list(work.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "work"]
    before = {path: path.read_bytes() for path in drawn.iterdir()}
    (drawn / names[0]).write_text("of yesterday")
    callpress("inspect", "--clock", "--clock-output", drawn, archive)
    assert {path: path.read_bytes() for path in drawn.iterdir()} == before


def test_drawings_of_several_archives_do_not_replace_each_other(
    archive: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.tar"
    copy.write_bytes(archive.read_bytes())
    drawn = tmp_path / "drawn"
    done = callpress("inspect", "--clock", "--json", "--clock-output", drawn, archive, copy)
    found = json.loads(done.out)["archives"]
    places = [track["clock"]["drawing"] for one in found for track in tracks_of(one).values()]
    assert len({*places}) == 4
    assert sorted(places) == sorted(map(str, drawn.iterdir()))
    assert [Path(place).stem.endswith("_part1") for place in places] == [False, False, True, True]


def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    evil = "../../<script>/x"
    person = Participant(
        participant_id=evil,
        user_session_id=evil,
        segments=[Segment(packets=encode_opus(noise(1)), base_filename="a")],
    )
    archive = tmp_path / "call.tar.gz"
    archive.write_bytes(make_call_archive([person], call_id=evil, call_type=evil))
    drawn = tmp_path / "x" / "y" / "drawn"
    done = callpress("inspect", "--clock", "--clock-output", drawn, archive)
    assert done.status == 0
    (name,) = os.listdir(drawn)
    assert re.fullmatch(r"clock_[\w.~-]+\.svg", name)
    assert os.listdir(tmp_path / "x") == ["y"]
    assert {path.name for path in tmp_path.iterdir()} == {"call.tar.gz", "x"}
    ET.parse(drawn / name)


def test_what_is_damaged_is_told_and_the_rest_too(tmp_path: Path) -> None:
    people = [
        Participant(
            participant_id=name,
            segments=[Segment(packets=encode_opus(noise(2)), base_filename=name)],
        )
        for name in ("ann", "bob", "eve")
    ]
    members = make_call_members(people)
    members["ann.rtpdump"] = b"nothing of use"
    del members["eve.rtpdump"]
    archive = tmp_path / "call.tar"
    archive.write_bytes(make_archive(members, "tar"))
    drawn = tmp_path / "drawn"
    done = callpress("inspect", "--clock", "--json", "--clock-output", drawn, archive)
    assert done.status == callpress("inspect", archive).status == 0
    (found,) = json.loads(done.out)["archives"]
    runs = {who: track["clock"]["packet_runs"] for who, track in tracks_of(found).items()}
    assert [len(runs[who]) for who in ("ann", "bob", "eve")] == [0, 1, 0]
    assert any("ann.rtpdump: begins with" in message for message in found["findings"])
    assert any("eve.rtpdump: not in the archive" in message for message in found["findings"])
    assert len(list(drawn.iterdir())) == 1
    told = callpress("inspect", "--clock", archive).out
    assert "  no packets\n" in told
    assert "wrong: ann.rtpdump" in told


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_archive_that_cannot_be_read_is_told_as_without_the_flag(
    flags: tuple[str, ...], archive: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"nothing of use")
    for names in ([bad], [bad, archive], [tmp_path / "nowhere"]):
        plain = callpress("inspect", *flags, *names)
        done = callpress("inspect", "--clock", *flags, *names)
        assert (done.status, done.err) == (plain.status, plain.err)
        assert done.status == 1


def test_of_an_archive_that_is_cut_off_the_rest_is_told(archive: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(archive.read_bytes()[:90_000])
    done = callpress("inspect", "--clock", "--json", cut)
    assert done.status == callpress("inspect", cut).status == 1
    (found,) = json.loads(done.out)["archives"]
    assert found["error"] == "cut off in 1_0.rtpdump"
    (ann,) = tracks_of(found).values()
    assert len(ann["clock"]["packet_runs"]) == 1


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("--clock-output", "x"), 2, "--clock-output draws what --clock tells, expected --clock"),
        (("--clock", "--clock-output", ""), 2, "--clock-output '' names nothing"),
        (("--clock", "--clock"), 2, "--clock: given twice"),
        (("--clock", "--clock-output", "{file}"), 1, "cannot be written"),
        (("--clock", "--clock-output", "{file}/below"), 1, "cannot be written"),
    ],
)
def test_a_wrong_flag_is_one_clear_line(
    flags: tuple[str, ...], status: int, message: str, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    given = [flag.format(file=tmp_path / "file") for flag in flags]
    done = callpress("inspect", archive, *given)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_drawing_that_cannot_be_written_ends_the_command(archive: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    callpress("inspect", "--clock", "--clock-output", drawn, archive)
    for path in drawn.iterdir():
        path.unlink()
        path.mkdir()  # is not replaced by a file
    done = callpress("inspect", "--clock", "--clock-output", drawn, archive)
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(r"callpress: --clock-output: cannot be written: .+\n", done.err)


def test_without_a_temporary_folder_the_archive_is_told_as_unread(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    done = callpress("inspect", "--clock", archive)
    assert done.status == 1
    assert done.err == (
        f"callpress: {archive}: no folder to unpack into: No such file or directory\n"
    )


def test_of_a_captured_call_steps_say_by_how_much_pieces_lie_apart() -> None:
    (found,) = json.loads(callpress("inspect", "--clock", "--json", STALLS).out)["archives"]
    for who, track in tracks_of(found).items():
        (run,) = track["clock"]["packet_runs"]
        assert run["reports"]["count"] >= 5, who
        moved_ms = {step["media_ms"]: step["moved_ms"] for step in run["steps"]}
        assert len(run["pieces"]) > 1, who
        for before, after in itertools.pairwise(run["pieces"]):
            begins, ends = (
                datetime.fromisoformat(piece["server_start_time"]) for piece in (before, after)
            )
            media_ms = after["media_start_ms"] - before["media_start_ms"]
            apart_ms = (ends - begins).total_seconds() * 1e3 - media_ms
            apart_ms += media_ms * before["skew_ppm"] * 1e-6
            assert moved_ms[after["media_start_ms"]] == pytest.approx(apart_ms, abs=1.5)
