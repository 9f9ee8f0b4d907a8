"""Nights that are bounded: what is left waits, and is first in the next run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import callpress, query
from transforms.elements import Status

FIRST_UNIX_S = 1_767_700_000
PACKETS = encode_opus(tone(440, 0.5))
TOMORROW = "2100-01-01"
"""A --since that nothing is newer than."""


def _write(path: Path, *calls: str, at: int = 0) -> None:
    people = [
        Participant(
            participant_id="alice",
            segments=[Segment(packets=PACKETS)],
        )
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(make_call_archive(people, call_id=calls[0], call_session_id=calls[0]))
    os.utime(path, (FIRST_UNIX_S + at, FIRST_UNIX_S + at))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Twelve archives of a call each; the last by name is the oldest."""
    for number in range(12):
        _write(tmp_path / "raw" / f"{number:02d}.tar.gz", f"call-{number:02d}", at=-60 * number)
    return tmp_path / "raw"


def _run(raw: Path, *flags: object) -> dict[str, Any]:
    """Presses; returns the end result, of a run that went well."""
    summary = raw.parent / "summary.json"
    done = callpress(
        "run", "--input", raw / "*", "--output", raw.parent / "out", "--summary-json", summary,
        *flags,
    )  # fmt: skip
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(summary.read_text())
    for line in found["told"]:
        assert f"callpress: {line}\n" in done.err
    return found


def _archives(raw: Path, status: Status) -> list[str]:
    rows = query(raw.parent / "out" / "catalog", "archives")
    return sorted(Path(row["archive_uri"]).name[:2] for row in rows if row["status"] == str(status))


def _counts(result: dict[str, Any]) -> tuple[int, int, int]:
    counts = result["counts"]["archives"]
    return counts["listed"], counts["ok"], counts["waiting"]


def _verify(raw: Path) -> None:
    done = callpress("verify", "--catalog", raw.parent / "out" / "catalog")
    assert done.status == 0, done.out


@pytest.mark.slow
def test_what_waits_is_first_in_the_next_run_whatever_its_since(raw: Path) -> None:
    result = _run(raw, "--max-archives", 5)

    assert _counts(result) == (12, 5, 7)
    assert result["told"] == [
        "7 archives wait for the next run, which begins with them (--max-archives 5)"
    ]
    assert _archives(raw, Status.OK) == ["07", "08", "09", "10", "11"]  # the oldest
    assert _archives(raw, Status.WAITING) == [f"{number:02d}" for number in range(7)]
    (run,) = query(raw.parent / "out" / "catalog", "runs")
    assert (run["archives_listed"], run["archives_waiting"]) == (12, 7)
    _verify(raw)
    _write(raw / "90.tar.gz", "call-90", at=-9_999)  # older than all, and new

    size = (raw / "00.tar.gz").stat().st_size
    result = _run(raw, "--since", TOMORROW, "--max-bytes", 3 * size + size // 2)
    assert _counts(result) == (7, 3, 4)
    assert _archives(raw, Status.WAITING) == ["00", "01", "02", "03"]

    result = _run(raw, "--max-archives", 4)
    assert _counts(result)[1:] == (4, 1)
    assert _archives(raw, Status.WAITING) == ["90"]  # though it is the oldest of all

    assert _counts(_run(raw, "--since", TOMORROW)) == (1, 1, 0)
    assert _archives(raw, Status.WAITING) == []
    assert len(query(raw.parent / "out" / "catalog", "calls")) == 13
    _verify(raw)


@pytest.mark.slow
def test_run_that_is_to_stop_at_once_leaves_everything_to_the_next(raw: Path) -> None:
    result = _run(raw, "--stop-after", "0s")

    assert _counts(result) == (12, 0, 12)
    assert "(--stop-after 0s); no call was done in that time" in result["told"][0]
    rows = query(raw.parent / "out" / "catalog", "archives")
    assert {(row["status"], row["attempts"], row["error_type"]) for row in rows} == {
        ("waiting", 0, None)
    }
    _verify(raw)
    assert not (raw.parent / "out" / "recordings").exists()

    assert _counts(_run(raw, "--since", TOMORROW, "--stop-after", "5h")) == (12, 12, 0)
    _verify(raw)


@pytest.mark.slow
def test_rows_of_what_stands_are_not_hidden_by_what_waits(raw: Path) -> None:
    for path in list(raw.iterdir())[2:]:
        path.unlink()
    good, bad = sorted(raw.iterdir())
    bad.write_bytes(b"no archive at all")
    done = callpress("run", "--input", raw / "*", "--output", raw.parent / "out")
    assert done.status == 1
    before = query(raw.parent / "out" / "catalog", "archives")

    # As they are: what is known of them stays.
    assert _counts(_run(raw, "--overwrite", "--stop-after", "0s")) == (2, 0, 2)
    assert query(raw.parent / "out" / "catalog", "archives") == before
    assert len(query(raw.parent / "out" / "catalog", "failures")) == 1

    # Changed, and on another date: it waits, and its call's rows stay.
    os.utime(good, (FIRST_UNIX_S + 86_400 * 3, FIRST_UNIX_S + 86_400 * 3))
    _run(raw, "--stop-after", "0s")
    rows = query(raw.parent / "out" / "catalog", "archives")
    assert sorted((Path(row["archive_uri"]).name, row["status"]) for row in rows) == [
        (good.name, "waiting"), (bad.name, "failed"),
    ]  # fmt: skip
    assert len(query(raw.parent / "out" / "catalog", "recordings")) == 2
    _verify(raw)


def test_dry_run_tells_what_would_wait(raw: Path) -> None:
    done = callpress(
        "run", "--input", raw / "*", "--output", raw.parent / "out", "--dry-run",
        "--max-archives", 10, "--summary-json", raw.parent / "plan.json",
    )  # fmt: skip

    plan = json.loads((raw.parent / "plan.json").read_text())
    assert plan["archives"] == {"listed": 12, "to_press": 10, "to_skip": 0, "to_wait": 2}
    assert [entry["why"] for entry in plan["wait"]] == ["new, past --max-archives 10"] * 2
    assert [Path(entry["archive_uri"]).name[:2] for entry in plan["wait"]] == ["00", "01"]
    assert plan["bytes_to_wait"] == sum(entry["size_bytes"] for entry in plan["wait"])
    assert "would wait for the next run" in done.out


@pytest.mark.parametrize(
    "flags", [("--stop-after", "5"), ("--max-archives", "0"), ("--max-bytes", "20XB")]
)
def test_bound_that_is_none_is_refused_before_any_work(raw: Path, flags: tuple[str, ...]) -> None:
    done = callpress("run", "--input", raw / "*", "--output", raw.parent / "out", *flags)

    assert done.status == 2
    assert f"{flags[0]} {flags[1]}: expected" in done.err
    assert not (raw.parent / "out").exists()
