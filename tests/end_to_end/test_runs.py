"""`callpress runs`, and runs that are left to themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import schemas
from tests.support.command import SAMPLE, callpress, press
from tests.support.locks import acquire, dead_process_here, give_back, make_old, other_state
from tests.support.results import make_result, name_of
from transforms.catalog import results
from transforms.locking.lock import NAME
from transforms.reason import Reason

FREE: dict[str, Any] = {"lock": None, "runs": []}


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def _as_json(catalog: Path) -> dict[str, Any]:
    done = callpress("runs", "--catalog", catalog, "--json")
    assert (done.status, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    assert found.pop("catalog") == str(catalog)
    return found


def _told(catalog: Path, *flags: object) -> list[str]:
    done = callpress("runs", "--catalog", catalog, *flags)
    assert (done.status, done.err) == (0, "")
    return done.out.splitlines()


def test_run_is_listed_with_its_result(tmp_path: Path) -> None:
    """The result is that of --summary-json, to the letter."""
    end = tmp_path / "end.json"
    press(tmp_path / "out", SAMPLE, flags=("--summary-json", end))
    summary = json.loads(end.read_text())
    catalog = tmp_path / "out" / "catalog"

    assert _as_json(catalog) == {"lock": None, "runs": [summary]}
    example = schemas.examples("run-result")["run-result"]
    own = ("run_id", "started_at", "finished_at", "cpu_seconds")
    assert summary == {**example, **{name: summary[name] for name in own}}

    title, line = _told(catalog)
    assert title.split() == ["run", "ended", "took", "archives", "calls", "files", "failures"]
    assert line.split()[:2] == [summary["run_id"], "ok"]
    assert "1 listed, 1 ok" in line


def test_table_has_the_newest_first_and_says_how_each_ended(catalog: Path) -> None:
    results.write(str(catalog), make_result(1))
    results.write(str(catalog), make_result(2, Reason.TOO_MANY_FAILED, archives_failed=7))
    results.write(str(catalog), make_result(3, files_written=9, failures=4))

    assert [line.rstrip() for line in _told(catalog, "--last", 2)] == [
        " run                      ended               took  archives                   calls  "
        "files  failures",
        f" {name_of(3)}  ok               0:01:15  12 listed, 3 ok            2 ok       9"
        "         4",
        f" {name_of(2)}  too_many_failed  0:01:15  12 listed, 3 ok, 7 failed  2 ok       0"
        "         0",
    ]


def test_catalog_without_runs_is_no_error(catalog: Path) -> None:
    assert _told(catalog) == [f"no run has left a result in {catalog}/results"]
    assert _as_json(catalog) == FREE
    assert not catalog.exists()


def test_run_at_work_is_named(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_ID", "job-7")
    acquire(catalog, "run-1", is_one_process=False)
    make_old(catalog / NAME, 100)

    (line, _) = _told(catalog)
    lock = _as_json(catalog)["lock"]

    assert line.startswith("run run-1 on ")
    assert re.search(r", job job-7 is at work: the lock was last renewed 1\d\d s ago and ", line)
    assert re.search(r" and holds until \d\d:\d\d:\d\d UTC$", line)
    assert 100 <= lock.pop("renewed_seconds_ago") < 130
    assert 770 < lock.pop("seconds_left") <= 800
    assert lock.pop("host")
    assert lock == {"run_id": "run-1", "job_id": "job-7", "is_dead": False}


@pytest.mark.parametrize("how", ["lapsed", "killed"])
def test_run_that_died_is_told_as_dead(catalog: Path, how: str) -> None:
    catalog.mkdir()
    state = other_state() if how == "lapsed" else other_state(**dead_process_here())
    (catalog / NAME).write_bytes(state)
    make_old(catalog / NAME, 1_000 if how == "lapsed" else 10)

    (line, _) = _told(catalog)

    assert "run other on " in line
    assert line.endswith(" s ago; the next run takes up what it left")
    assert _as_json(catalog)["lock"]["is_dead"] is True


def test_lock_that_is_damaged_is_told(catalog: Path) -> None:
    catalog.mkdir()
    (catalog / NAME).write_bytes(b"{")

    (line, _) = _told(catalog)
    lock = _as_json(catalog)["lock"]

    assert line.startswith("a run whose lock is damaged is at work: ")
    assert (lock["run_id"], lock["host"], lock["job_id"]) == (None, None, None)


def test_result_that_is_damaged_is_told_beside_the_others(catalog: Path) -> None:
    results.write(str(catalog), make_result(1))
    path = catalog / "results" / f"{name_of(2)}.json"
    path.write_text("{")

    for flags in ((), ("--json",)):
        done = callpress("runs", "--catalog", catalog, *flags)

        assert done.status == 1
        assert name_of(1) in done.out
        assert done.err == (
            f"callpress: {path}: is damaged, expected the result of a run; remove it\n"
        )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--catalog is required"),
        (("--catalog", "x", "--last", "0"), "--last 0: expected a positive number"),
        (("--catalog", "x", "y"), "runs does not know y"),
        (("--catalog", "hdfs://server/x"), "only folders, gs://, s3:// and azfs:// can be"),
    ],
)
def test_what_cannot_be_listed_is_one_line(flags: tuple[str, ...], message: str) -> None:
    done = callpress("runs", *flags)

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err


def test_control_characters_of_a_damaged_lock_are_not_printed(catalog: Path) -> None:
    catalog.mkdir()
    (catalog / NAME).write_bytes(other_state(run_id="\x1b[2J", host="\n\n"))

    done = callpress("runs", "--catalog", catalog)

    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 2


# --- left to itself -------------------------------------------------------------------------------


def test_local_run_cannot_be_left_to_itself(tmp_path: Path) -> None:
    done = callpress("run", "--input", SAMPLE, "--output", tmp_path / "out", "--detach")

    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "callpress: --detach needs an engine elsewhere, such as --runner=DataflowRunner: the local "
        "one ends with this command\n"
    )
    assert not (tmp_path / "out" / "catalog" / NAME).exists()


@pytest.mark.parametrize("flag", ["--summary-json=END", "--dry_run"])
def test_what_waits_is_refused_beside_detach(flag: str, tmp_path: Path) -> None:
    flag = flag.replace("END", str(tmp_path / "end.json"))

    done = callpress("run", "--input", SAMPLE, "--output", tmp_path / "out", "--detach", flag)

    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "expected none beside --detach" in done.err
    assert not (tmp_path / "out").exists()


def test_lock_given_back_by_an_ended_job_is_told_with_when_it_ends(catalog: Path) -> None:
    acquire(catalog, "run-1", is_one_process=False)
    give_back(catalog, "run-1", after_seconds=60)

    assert 55 < _as_json(catalog)["lock"]["seconds_left"] <= 60
