"""`callpress verify --repair`: what is wrong is noted, and the next run presses it anew; without it
nothing does.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.beam import speak
from tests.support.builders import Participant, Segment, make_call_archive
from tests.support.command import callpress, press, query
from transforms.catalog import pending_replacement


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two archives of a call each in `raw`, and what was made of them in `out`."""
    (tmp_path / "raw").mkdir()
    for call in "ab":
        people = [
            Participant(participant_id=name, segments=[Segment(packets=speak(), ssrc=number)])
            for number, name in enumerate("xy", 1)
        ]
        archive = make_call_archive(people, call_id=call, call_session_id=call)
        (tmp_path / "raw" / f"{call}.tar.gz").write_bytes(archive)
    press(tmp_path / "out", tmp_path / "raw" / "*")
    return tmp_path


def _files(folder: Path, call: str, kind: str) -> list[Path]:
    return sorted((folder / "out" / "recordings" / "default" / call).rglob(kind))


def _lose_rows(folder: Path, table: str, rows: int) -> None:
    (file,) = (folder / "out" / "catalog" / table).rglob("*.parquet")
    pq.write_table(pq.ParquetFile(file).read().slice(rows), file)


def _notes(folder: Path) -> frozenset[str]:
    return pending_replacement.archives_to_repeat(str(folder / "out" / "catalog"))


def test_what_is_wrong_is_noted_pressed_anew_and_then_right(folder: Path) -> None:
    catalog, raw = folder / "out" / "catalog", folder / "raw" / "*"
    files = sorted((folder / "out" / "recordings").rglob("*.m*"))
    (_files(folder, "a", "*.mkv")[0]).unlink()
    mix = _files(folder, "b", "*.mp3")[0]
    mix.write_bytes(mix.read_bytes()[:1_000])
    _lose_rows(folder, "tracks", 1)
    _lose_rows(folder, "calls", 1)

    found = callpress("verify", "--catalog", catalog)
    assert found.status == 1
    assert found.out.count("to heal: `callpress verify --repair` notes its call") >= 4
    assert _notes(folder) == frozenset()
    assert "2 listed, 2 skipped" in press(folder / "out", raw).out  # by itself it heals nothing

    repaired = callpress("verify", "--catalog", catalog, "--repair", "--json")
    assert repaired.status == 1
    assert json.loads(repaired.out)["repair"] == {"calls_noted": 2, "calls_not_noted": []}
    assert len(_notes(folder)) == 2

    done = press(folder / "out", raw)
    assert "2 calls are noted to be pressed anew" in done.err
    assert "2 listed, 2 ok" in done.out
    assert callpress("verify", "--catalog", catalog).status == 0
    assert sorted((folder / "out" / "recordings").rglob("*.m*")) == files
    assert len(query(catalog, "calls")) == 2
    assert _notes(folder) == frozenset()
    assert "2 listed, 2 skipped" in press(folder / "out", raw).out


def test_file_that_lost_its_row_gets_it_back(folder: Path) -> None:
    _lose_rows(folder, "recordings", 1)
    catalog = folder / "out" / "catalog"
    (stray,) = (
        line
        for line in callpress("verify", "--catalog", catalog).out.splitlines()
        if "it has no row in recordings" in line
    )
    assert "; to heal: remove it, or `callpress verify --repair` notes its call" in stray
    assert "noted 1 calls" in callpress("verify", "--catalog", catalog, "--repair").out
    press(folder / "out", folder / "raw" / "*")
    assert callpress("verify", "--catalog", catalog).status == 0


def test_call_whose_archive_is_gone_is_not_noted_and_keeps_what_it_has(folder: Path) -> None:
    catalog = folder / "out" / "catalog"
    _files(folder, "a", "*.mkv")[0].unlink()
    (folder / "raw" / "a.tar.gz").unlink()
    before = query(catalog, "recordings")

    done = callpress("verify", "--catalog", catalog, "--repair")

    gone = folder / "raw" / "a.tar.gz"
    assert f"not noted: call default:a, session a: archive {gone} is gone" in done.out
    assert "noted 0 calls\n" in done.out
    assert _notes(folder) == frozenset()
    press(folder / "out", folder / "raw" / "*")
    assert query(catalog, "recordings") == before


def test_archive_that_goes_after_it_was_noted_is_said_by_the_run(folder: Path) -> None:
    catalog = folder / "out" / "catalog"
    _files(folder, "a", "*.mkv")[0].unlink()
    assert "noted 1 calls" in callpress("verify", "--catalog", catalog, "--repair").out
    gone = folder / "raw" / "a.tar.gz"
    gone.unlink()
    done = press(folder / "out", folder / "raw" / "*")
    assert f"session a, was to be pressed anew: archive {gone} is gone" in done.err
    assert "are noted" not in done.err


def test_run_over_other_archives_does_not_say_that_it_presses_what_is_noted(folder: Path) -> None:
    catalog = folder / "out" / "catalog"
    _files(folder, "a", "*.mkv")[0].unlink()
    assert "noted 1 calls; the next" in callpress("verify", "--catalog", catalog, "--repair").out
    done = press(folder / "out", folder / "raw" / "b.tar.gz")
    assert "1 calls are noted to be pressed anew" in done.err
    assert "this run presses those of which it is given an archive" in done.err
    assert "1 listed, 1 skipped" in done.out
    assert _notes(folder) == {str(folder / "raw" / "a.tar.gz")}


def test_repair_takes_the_lock_of_the_catalog(folder: Path) -> None:
    catalog = folder / "out" / "catalog"
    state = {"run_id": "night", "host": "elsewhere", "pid": 1, "expires_unix_s": time.time() + 60}
    (catalog / "callpress.lock").write_text(json.dumps(state))
    done = callpress("verify", "--catalog", catalog, "--repair")
    assert done.status == 1
    assert "run night on elsewhere" in done.err
    assert done.out == ""
