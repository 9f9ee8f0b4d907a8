"""Calls, participants, sessions and output types that a run is asked for by name, and that are
nowhere.
"""

from __future__ import annotations

import json
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
from tests.support.command import callpress, press, query


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two archives and what was made of them; to be added to only by runs that skip
    all of it.
    """
    folder = tmp_path_factory.mktemp("filters")
    (folder / "raw").mkdir()
    for call, names in (("standup", ("alice", "bob")), ("retro", ("carol",))):
        people = [
            Participant(
                participant_id=name,
                segments=[Segment(packets=encode_opus(tone(300, 1)), ssrc=n + 1)],
            )
            for n, name in enumerate(names)
        ]
        archive = make_call_archive(people, call_id=call, call_session_id=call)
        (folder / "raw" / f"{call}.tar.gz").write_bytes(archive)
    press(folder / "out", folder / "raw" / "*")
    return folder


ALICES_TRACK = "sess-alice:TRACK_TYPE_AUDIO"
CASES = [
    ("--call default:standup", None),
    ("--call default:st* --exclude-call default:retro --exclude-participant bob", None),
    (f"--track-id {ALICES_TRACK}", None),
    ("--track-id other", f"--track-id other matches nothing; there are {ALICES_TRACK}, sess-bob:"),
    (f"--track-id {ALICES_TRACK} --participant carol",
     f"--track-id {ALICES_TRACK} matches nothing; there are sess-carol:TRACK_TYPE_AUDIO\n"),
    ("--call default:standpu", "--call default:standpu matches nothing; there are default:retro, "
     "default:standup"),
    ("--call default:standup --call other:standup", "--call other:standup matches nothing"),
    ("--participant alice", None),
    ("--participant eve", "--participant eve matches nothing; there are alice, bob, carol"),
    ("--call default:standup --participant carol",
     "--participant carol matches nothing; there are alice, bob"),
    ("--user-session sess-bob --participant bob", None),
    ("--user-session nobody", "--user-session nobody matches nothing; there are sess-"),
    ("--output-type audio_only", None),
    ("--output-type screenshare_audio_only",
     "--output-type screenshare_audio_only matches nothing; there are audio_only"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said", "is_done"),
    [
        *((flags, said, True) for flags, said in CASES),
        *(
            pytest.param(flags, said, False, marks=pytest.mark.slow)
            for flags, said in CASES
            if said is not None and flags.count("--") == 1
        ),
    ],
)
def test_what_is_named_and_nowhere_is_told(
    pressed: Path, flags: str, said: str | None, is_done: bool, tmp_path: Path
) -> None:
    """Whether the archives are read, or skipped because the catalog has them, makes no
    difference.
    """
    out = pressed / "out" if is_done else tmp_path / "out"
    end = tmp_path / "end.json"

    done = callpress(
        *("run", "--input", pressed / "raw" / "*", "--output", out, "--summary-json", end),
        *flags.split(),
    )

    summary = json.loads(end.read_text())
    assert (done.status, summary["reason"]) == ((1, "nothing_matched") if said else (0, "ok"))
    assert bool(summary["unmatched"]) == bool(said)
    assert (said or "nothing new: the catalog has all of the 2 archives") in done.err
    assert summary["counts"]["archives"]["skipped"] == (2 if is_done else 0)


@pytest.mark.parametrize("is_done", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_globs_that_match_nothing_and_what_was_to_be_left_out_are_said(
    pressed: Path, is_done: bool, tmp_path: Path
) -> None:
    """Whom a glob finds no call for is not missed either."""
    out = pressed / "out" if is_done else tmp_path / "out"
    end = tmp_path / "end.json"
    flags = (
        "--call support:* --call [st]*:? --participant dave --exclude-call retro: "
        "--exclude-participant alise"
    )

    done = callpress(
        *("run", "--input", pressed / "raw" / "*", "--output", out, "--summary-json", end),
        *flags.split(),
    )

    summary = json.loads(end.read_text())
    assert (done.status, summary["reason"]) == (0, "ok"), done.err
    there = "default:retro, default:standup"
    told = [
        f"--call [st]*:? matches nothing; there are {there}",
        f"--call support:* matches nothing; there are {there}",
        f"--exclude-call retro: matches nothing; there are {there}",
        "--exclude-participant alise matches nothing",
        "--participant dave matches nothing",
    ]
    assert summary["told"] == told
    assert sorted(f"{each['flag']} {each['value']}" for each in summary["unmatched"]) == [
        line.partition(" matches")[0] for line in told
    ]
    assert not (tmp_path / "out" / "recordings").exists()


def test_calls_that_globs_find_are_pressed_whole_and_those_left_out_are_not(
    tmp_path: Path,
) -> None:
    """Several calls in one archive, and in several."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    voice = [Segment(packets=encode_opus(tone(300, 0.2)))]
    people = [Participant(participant_id="alice", segments=voice)]

    def members(call_id: str, call_type: str = "support") -> dict[str, bytes]:
        return make_call_members(
            people,
            call_type=call_type,
            call_id=call_id,
            call_session_id=call_id,
            folder=f"{call_type}{call_id}/",
        )

    several = {**members("1"), **members("test-2"), **members("3", "default")}
    (raw / "several.tar.gz").write_bytes(make_archive(several))
    (raw / "own.zip").write_bytes(make_archive({**members("4"), **members("5")}, "zip"))
    (raw / "left.tar.gz").write_bytes(make_archive(members("test-6")))
    flags = ("--call", "support:*", "--exclude-call", "*:test-*")

    press(out, raw / "*", flags=flags)

    recordings = query(out / "catalog", "recordings")
    assert sorted((row["call_cid"], row["recording_type"]) for row in recordings) == [
        (f"support:{call}", kind) for call in "145" for kind in ("composite", "individual")
    ]
    archives = query(out / "catalog", "archives")
    assert [Path(row["archive_uri"]).name for row in archives] == ["own.zip"], "the others may wait"
    assert {row["status"] for row in query(out / "catalog", "calls")} == {"ok"}
    press(out, raw / "*")
    calls = {row["call_cid"] for row in query(out / "catalog", "calls")}
    assert calls == {*(f"support:{call}" for call in "145"), "default:3"} | {
        f"support:test-{call}" for call in "26"
    }
    assert callpress("verify", "--catalog", out / "catalog").status == 0


@pytest.mark.parametrize(
    ("flags", "made"),
    [(("--track-id", "second"), {"alice"}), (("--exclude-participant", "alice"), {"bob", "dan"})],
)
def test_a_run_about_some_tracks_writes_their_files_whole_and_no_mix(
    tmp_path: Path, flags: tuple[str, ...], made: set[str]
) -> None:
    """A published track is in one archive; the file it is in comes from both."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()

    def voice(number: int, start_ms: int = 0, **fields: Any) -> Segment:
        packets = encode_opus(tone(300, 0.2))
        return Segment(packets=packets, ssrc=number, start_ms=start_ms, **fields)

    first = [
        Participant(participant_id="alice", segments=[voice(1, track_id="first")]),
        Participant(participant_id="bob", segments=[voice(2), voice(3, 900, with_dump=False)]),
    ]
    second = [
        Participant(participant_id="alice", segments=[voice(4, 600, track_id="second")]),
        Participant(participant_id="dan", segments=[voice(5, track_id="third")]),
    ]
    for name, people in (("a", first), ("b", second)):
        (raw / f"{name}.tar.gz").write_bytes(make_call_archive(people))

    done = callpress("run", "--input", raw / "*", "--output", out, *flags)

    assert done.status == (1 if "bob" in made else 0), done.err  # his second dump is not there
    files = {row["participant_id"]: row for row in query(out / "catalog", "recordings")}
    assert files.keys() == made
    if "alice" in made:
        assert 790 <= files["alice"]["duration_ms"] <= 800, "of both archives"
    assert query(out / "catalog", "archives") == []
    about = {row["participant_id"] for row in query(out / "catalog", "failures")}
    assert about == ({"bob"} & made)
    before = {row["uri"]: row["size_bytes"] for row in files.values()}

    callpress("run", "--input", raw / "*", "--output", out)

    files = {row["participant_id"]: row for row in query(out / "catalog", "recordings")}
    assert files.keys() == {None, "alice", "bob", "dan"}
    assert before.items() <= {row["uri"]: row["size_bytes"] for row in files.values()}.items()
    assert callpress("verify", "--catalog", out / "catalog").status == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "callpress: nothing new: the catalog has all of the 2 archives\n"),
        (("--since", "2100-01-01"), "no archive is newer than 2100-01-01 00:00:00+00:00 (--since)"),
        (("--since", "2100-01-01", "--call", "default:nope"), "no archive is newer than"),
    ],
)
def test_quiet_night_is_said(pressed: Path, flags: tuple[str, ...], said: str) -> None:
    done = callpress("run", "--input", pressed / "raw" / "*", "--output", pressed / "out", *flags)

    assert done.status == 0
    assert said in done.err


def test_run_about_somebody_silent_does_not_call_the_call_empty(tmp_path: Path) -> None:
    voice = [Segment(packets=encode_opus(tone(300, 1)), ssrc=1)]
    people = [
        Participant(participant_id="alice", segments=voice),
        Participant(participant_id="mute", segments=[]),
    ]
    (tmp_path / "a.tar.gz").write_bytes(make_call_archive(people))
    catalog = tmp_path / "out" / "catalog"

    press(tmp_path / "out", tmp_path / "a.tar.gz", flags=("--participant", "mute"))

    assert [row["status"] for row in query(catalog, "calls")] == ["partial"]
    assert callpress("verify", "--catalog", catalog).status == 0
    press(tmp_path / "out", tmp_path / "a.tar.gz")
    assert [row["status"] for row in query(catalog, "calls")] == ["ok"]
    assert callpress("verify", "--catalog", catalog).status == 0
