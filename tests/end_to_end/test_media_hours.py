"""What is written of an archive is bounded by what it holds: silence is given up, never audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Segment,
    encode_opus,
    make_archive,
    make_call_members,
    noise,
)
from tests.support.command import callpress, decode_with_ffmpeg, query
from tests.support.media import rms

MINUTES = 25
PROFILE = """
[mp3]
bitrate_kbps = 32
[limits]
max_media_hours = 1
"""
CALLS = [f"call-{number}" for number in range(3)]


def members_of(*calls: str) -> dict[str, bytes]:
    """Returns members of an archive with these calls: a packet, 25 minutes of nothing, a packet."""
    packet = encode_opus(noise(0.02), bitrate_bps=64_000)
    segments = [
        Segment(packets=packet),
        Segment(packets=packet, start_ms=MINUTES * 60_000, ssrc=2),
    ]
    members: dict[str, bytes] = {}
    for call in calls:
        people = [Participant(participant_id="alice", segments=segments)]
        members |= make_call_members(people, call_id=call, folder=f"{call}/")
    return members


def press(folder: Path, *flags: object) -> int:
    profile = folder / "profile.toml"
    profile.write_text(PROFILE)
    return callpress(
        "run", "--input", f"{folder}/in/**", "--output", folder / "out", "--config", profile, *flags
    ).status


def made(folder: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """Returns the length in ms and checksum of each file, by call and kind."""
    return {
        (row["call_id"], row["recording_type"]): (row["duration_ms"], row["sha256"])
        for row in query(folder / "out" / "catalog", "recordings")
    }


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three calls of 25 minutes and two packets in one archive, of which an hour may be written.

    Two mixes fit into that, and no individual file as it is.
    """
    folder = tmp_path_factory.mktemp("hours")
    (folder / "in").mkdir()
    (folder / "in" / "a.tar.gz").write_bytes(make_archive(members_of(*CALLS)))
    press(folder)
    return folder


def test_hours_of_an_archive_are_bounded_by_what_it_holds(pressed: Path) -> None:
    files = made(pressed)
    packet_hours = 2 * len(CALLS) * 0.02 / 3_600
    assert sum(length for length, _ in files.values()) <= (1 + 100 * packet_hours) * 3_600_000
    mixes = [length for (_, kind), (length, _) in files.items() if kind == "composite"]
    assert mixes == [pytest.approx(MINUTES * 60_000, abs=50)] * 2


def test_all_audio_is_in_the_files_and_the_rows_say_what_was_left_out(pressed: Path) -> None:
    catalog = pressed / "out" / "catalog"
    rows = [row for row in query(catalog, "recordings") if row["recording_type"] == "individual"]
    assert len(rows) == len(CALLS)
    for row in rows:
        heard = decode_with_ffmpeg(row["uri"], 1)
        assert len(heard) == row["duration_samples"] == 48_000 + 2 * 960 - 312
        assert rms(heard[300:900]) > 0.01
        assert rms(heard[-900:-300]) > 0.01
    segments = sorted(query(catalog, "segments"), key=lambda row: row["file_start_ms"])
    assert [row["gap_before"] for row in segments] == ["none"] * 3 + ["left_out"] * 3
    assert [(row["file_start_ms"], row["call_start_ms"]) for row in segments[3:]] == [
        (1_020, pytest.approx(MINUTES * 60_000, abs=3))
    ] * 3
    failures = query(catalog, "failures")
    left_out = [row for row in failures if row["stage"] == "ExtractTracks"]
    assert {(row["call_id"], row["participant_id"]) for row in left_out} == {
        (call, "alice") for call in CALLS
    }
    for row in left_out:
        assert "leaves out 1 pauses of more than 600 s" in row["message"]
        assert "limits.max_media_hours" in row["message"]
    (no_mix,) = [row for row in failures if row["stage"] == "MixCalls"]
    assert "the mix would be 0.42 h long and is not written" in no_mix["message"]
    assert no_mix["participant_id"] is None
    calls: list[dict[str, Any]] = query(catalog, "calls")
    assert {row["status"] for row in calls} == {"partial"}
    assert {
        row["duration_ms"] // 60_000 for row in calls if row["call_id"] != no_mix["call_id"]
    } == {MINUTES}


def test_rerun_and_a_run_about_one_call_give_the_same(pressed: Path) -> None:
    before = made(pressed)
    for call in (CALLS[0], CALLS[2]):
        press(pressed, "--overwrite", "--call", f"default:{call}")
    assert made(pressed) == before


def test_late_archive_of_one_call_brings_its_own_hours_only(pressed: Path, tmp_path: Path) -> None:
    """The archive that comes late holds a third packet, and is allowed an hour of its own."""
    before = made(pressed)
    late = Participant(
        participant_id="alice",
        segments=[
            Segment(
                packets=encode_opus(noise(0.02), bitrate_bps=64_000),
                start_ms=(MINUTES + 1) * 60_000,
                ssrc=3,
            )
        ],
    )
    members = make_call_members(
        [late], call_id=CALLS[2], call_start_unix_ms=CALL_START_UNIX_MS, folder="late/"
    )
    (pressed / "in" / "b.tar.gz").write_bytes(make_archive(members))
    press(pressed)
    after = made(pressed)
    call = CALLS[2]
    assert {key: after[key] for key in before if key[0] != call} == {
        key: value for key, value in before.items() if key[0] != call
    }
    for kind in ("composite", "individual"):
        assert after[call, kind][0] == pytest.approx((MINUTES + 1) * 60_000, abs=50)
