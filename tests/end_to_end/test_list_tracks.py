"""`list-tracks`: the published tracks that the metadata of archives speaks of, as people and
scripts of the vendor's command know them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builders import make_archive, make_timing_metadata
from tests.support.command import SAMPLE, callpress


def _metadata(participant_id: str, user_session_id: str) -> bytes:
    """Returns timing metadata that lists a voice and a camera of one person."""

    def segment(name: str, kind: str, codec: str) -> dict[str, object]:
        return {
            "base_filename": name,
            "codec": codec,
            "track_id": f"t-{kind.lower()}",
            "track_type": f"TRACK_TYPE_{kind}",
            "first_rtp_unix_timestamp": 1_767_751_200_000,
            "last_rtp_unix_timestamp": 1_767_751_201_500,
        }

    return make_timing_metadata(
        segments={
            "audio": [segment(name, "AUDIO", "audio/opus") for name in ("a2", "a1")],
            "video": [segment("v1", "VIDEO", "video/VP8")],
        },
        participant_id=participant_id,
        user_session_id=user_session_id,
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar.gz"
    members = {
        "1_timing_metadata.json": _metadata("zoe\x1b[2J", "s-1"),
        "2_timing_metadata.json": _metadata("amy", "s-2"),
    }
    path.write_bytes(make_archive(members))
    return path


def test_table_has_a_line_per_track() -> None:
    done = callpress("list-tracks", "--input-file", SAMPLE)

    heading, *lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert heading.split() == (
        ["USER", "ID", "SESSION", "ID", "TRACK", "ID", "TYPE", "SCREENSHARE", "CODEC", "SEGMENTS"]
    )
    assert [line.split()[0] for line in lines] == ["alice", "bob", "carol", "dave", "dave"]
    share = lines[-1].split()
    assert share[1:] == [
        "sess-dave-1",
        "sess-dave-1:TRACK_TYPE_SCREEN_SHARE_AUDIO:b14873de",
        "TRACK_TYPE_SCREEN_SHARE_AUDIO",
        "Yes",
        "audio/opus",
        "1",
    ]


def test_table_of_several_calls_says_of_which_each_track_is(archive: Path) -> None:
    done = callpress("list-tracks", "--input-file", SAMPLE, "--input-file", archive)

    heading, *lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert heading.split()[:5] == ["CALL", "CALL", "SESSION", "USER", "ID"]
    assert {tuple(line.split()[:2]) for line in lines} == {
        ("default:weekly-sync", "weekly-sync-2026-11-22"),
        ("default:standup", "session-1"),
    }


def test_json_has_the_vendors_fields(archive: Path) -> None:
    done = callpress("list-tracks", "--input-file", archive, "--format", "json")

    found = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert found["userIds"] == ["amy", "zoe\x1b[2J"]
    assert found["sessions"] == ["s-1", "s-2"]
    voice, camera = found["tracks"][:2]
    assert voice["userId"] == "amy"
    assert (voice["trackId"], voice["trackKind"]) == ("t-audio", "audio")
    assert (camera["trackId"], camera["trackKind"]) == ("t-video", "video")
    assert voice["segmentCount"] == 2
    assert [each["baseFilename"] for each in voice["segments"]] == ["a1", "a2"]
    assert voice["trackStartTime"] == "2026-01-07T02:00:00.000Z"
    assert voice["trackEndTime"] == "2026-01-07T02:00:01.500Z"
    assert not voice["isScreenshare"]


@pytest.mark.parametrize(
    ("shape", "kind", "lines"),
    [
        ("users", None, ["amy", "zoe\\x1b[2J"]),
        ("sessions", None, ["s-1", "s-2"]),
        ("tracks", None, ["t-audio", "t-video"]),
        ("tracks", "video", ["t-video"]),
    ],
)
def test_ids_are_a_line_each(shape: str, kind: str | None, lines: list[str], archive: Path) -> None:
    flags = () if kind is None else ("--track-type", kind)

    done = callpress("list-tracks", "--input-file", archive, "--format", shape, *flags)

    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == lines


def test_same_metadata_in_two_archives_is_listed_once(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.tar.gz"
    other.write_bytes(archive.read_bytes())

    done = callpress(
        *("list-tracks", "--input-file", archive, "--input-file", other, "--format", "json")
    )

    assert [track["segmentCount"] for track in json.loads(done.out)["tracks"]] == [2, 1, 2, 1]


def test_working_directory_that_was_deleted_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    done = callpress("list-tracks", "--input-file", "a.tar.gz")

    assert done.status == 2
    assert done.err.startswith("callpress: a.tar.gz: the working directory cannot be told (No ")
    assert done.err.count("\n") == 1


def test_no_track_of_a_kind_is_said() -> None:
    done = callpress("list-tracks", "--input-file", SAMPLE, "--track-type", "video")

    assert done.status == 1
    assert done.err == "callpress: no video in what --input-file names\n"
