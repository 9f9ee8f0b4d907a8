"""Nights that are bounded: what is left waits, and is first in the next run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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

    size = (raw / "00.tar.gz").stat().st_size
    result = _run(raw, "--since", TOMORROW, "--max-bytes", 3 * size + size // 2)
    assert _counts(result) == (7, 3, 4)
    assert _archives(raw, Status.WAITING) == ["00", "01", "02", "03"]

    assert _counts(_run(raw, "--since", TOMORROW)) == (4, 4, 0)
    assert _archives(raw, Status.WAITING) == []
    assert len(query(raw.parent / "out" / "catalog", "calls")) == 12
    _verify(raw)


@pytest.mark.slow
def test_run_that_is_to_stop_at_once_leaves_everything_to_the_next(raw: Path) -> None:
    # In portions: once the time is up, all that are left are put off together.
    result = _run(raw, "--stop-after", "0s", "--portion-archives", 4)

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


# --- portions -------------------------------------------------------------------------------------


OF_RUN = ("run_id", "created_at", "processed_at", "failed_at", "started_at", "finished_at",
          "settings_json", "cpu_ms")  # fmt: skip
"""Columns in which two runs over the same archives differ."""


def _tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [
            {name: str(value).replace(str(out), "") for name, value in row.items()
             if name not in OF_RUN}
            for row in query(out / "catalog", table)
        ]
        for table in ("recordings", "segments", "tracks", "dumps", "calls", "archives", "speech",
                      "failures", "runs")
    }  # fmt: skip


@pytest.mark.slow
def test_run_in_portions_makes_what_one_at_once_makes(raw: Path, tmp_path: Path) -> None:
    (raw / "06.tar.gz").write_bytes(b"no archive at all")
    command = ("run", "--input", raw / "*", "--output")
    found = {}
    for name, flags in (("whole", ()), ("divided", ("--portion-archives", 4))):
        summary = tmp_path / f"{name}.json"
        done = callpress(*command, tmp_path / name, *flags, "--summary-json", summary)
        assert done.status == 1  # 1 of 12 is more than 5 %
        assert ("callpress: portion 2 of 3 is published\n" in done.err) == bool(flags)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [
            "catalog", "recordings",
        ]  # fmt: skip
        result = json.loads(summary.read_text())
        for figure in ("run_id", "started_at", "finished_at", "cpu_seconds"):
            del result[figure]
        found[name] = result, _tables(tmp_path / name)
    assert found["whole"] == found["divided"]
    assert found["divided"][0]["counts"]["archives"]["ok"] == 11


@pytest.mark.slow
def test_call_in_two_portions_is_whole_and_stays_so_while_an_archive_of_it_waits(
    tmp_path: Path,
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, name in enumerate(("alice", "bob")):
        person = Participant(participant_id=name, segments=[Segment(packets=PACKETS)])
        (raw / f"{number}.tar.gz").write_bytes(make_call_archive([person]))
        os.utime(raw / f"{number}.tar.gz", (FIRST_UNIX_S, FIRST_UNIX_S))

    result = _run(raw, "--portion-archives", 1)

    catalog = tmp_path / "out" / "catalog"
    before = query(catalog, "calls")
    assert [(row["participant_count"], len(row["archive_uris"])) for row in before] == [(2, 2)]
    assert len(query(catalog, "recordings")) == 3
    assert _counts(result) == (2, 2, 0)
    assert not list((catalog / "callpress.unfinished").glob("*"))
    _verify(raw)

    # One changes, its row goes to another date; the other is as it was.
    os.utime(raw / "1.tar.gz", (FIRST_UNIX_S + 86_400 * 3,) * 2)
    assert _counts(_run(raw, "--overwrite", "--stop-after", "0s")) == (2, 0, 2)
    rows = query(catalog, "archives")
    assert sorted((Path(row["archive_uri"]).name, row["status"]) for row in rows) == [
        ("0.tar.gz", "ok"), ("1.tar.gz", "waiting"),
    ]  # fmt: skip
    assert query(catalog, "calls") == before
    _verify(raw)


@pytest.mark.slow
def test_run_killed_in_its_last_portion_has_the_others_in_its_tables(raw: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run", "--input", f"{raw}/*",
         "--output", str(raw.parent / "out"), "--portion-archives", "4"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "portion 2 of 3 is published" in line:
                process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = [f"{number:02d}" for number in range(4, 12)]
    assert _archives(raw, Status.OK) == done
    assert len(query(raw.parent / "out" / "catalog", "calls")) == 8
    assert _archives(raw, Status.WAITING) == ["00", "01", "02", "03"]

    result = _run(raw, "--since", TOMORROW)

    assert result["counts"]["archives"]["listed"] <= 4  # what was completed was taken up
    assert _archives(raw, Status.OK) == [f"{number:02d}" for number in range(12)]
    _verify(raw)
    assert [path.name for path in (raw.parent / "out").iterdir()] == ["catalog", "recordings"]


def test_portions_are_refused_where_each_would_be_a_job(raw: Path) -> None:
    done = callpress(
        "run", "--input", raw / "*", "--output", raw.parent / "out", "--portion-archives", 4,
        "--runner", "PrismRunner", "--temp_location", raw.parent / "tmp",
    )  # fmt: skip

    assert done.status == 2
    assert "--portion-archives is for the local engine: others press a night in one job" in done.err
    assert not (raw.parent / "out" / "catalog").exists()
