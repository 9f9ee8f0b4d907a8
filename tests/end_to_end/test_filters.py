"""Calls, participants, sessions and output types that a run is asked for by name, and that are
nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
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


CASES = [
    ("--call default:standup", None),
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
        *(pytest.param(*CASES[n], False, marks=pytest.mark.slow) for n in (1, 5, 7, 9)),
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
