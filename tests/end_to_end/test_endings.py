"""What programs are told of a run's end: `--summary-json` is written however it ends, and why."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from pipelines.runners.beam import BeamEngine
from pipelines.runners.engine import EngineDownError
from tests.support.command import SAMPLE, Finished, callpress
from tests.support.locks import acquire
from transforms.locking.lock import LockHeldError, LockLostError
from transforms.media.errors import StorageError, StoreDownError

NOTHING: dict[str, Any] = {
    "counts": {
        "archives": {
            "listed": 0,
            "skipped": 0,
            "ok": 0,
            "partial": 0,
            "failed": 0,
            "empty": 0,
            "waiting": 0,
        },
        "calls": {"ok": 0, "partial": 0, "failed": 0, "empty": 0},
        "recordings": 0,
        "failures": 0,
        "left_out": 0,
        "passed_over": {"composite": 0, "individual": 0, "other_event": 0},
    },
    "repress": None,
    "reconcile": None,
    "notices": None,
    "claimed_seconds": 0.0,
    "missing_seconds": 0.0,
    "unmatched": [],
    "first_time": {"ok": 0, "partial": 0, "failed": 0, "empty": 0},
    "media_seconds": 0.0,
    "cpu_seconds": 0.0,
    "bytes_read": 0,
    "bytes_written": 0,
    "failures": [],
    "told": [],
}
"""What is told of a run that did nothing: the shape of one that did."""


def _check(path: Path, status: int, reason: str, *, has_run_id: bool) -> None:
    found = json.loads(path.read_text())
    assert (found.pop("run_id") is not None) == has_run_id
    started, finished = found.pop("started_at"), found.pop("finished_at")
    assert datetime.fromisoformat(started) <= datetime.fromisoformat(finished)
    assert found == {"exit_status": status, "reason": reason, **NOTHING}


def _run(tmp_path: Path, *flags: object) -> Finished:
    return callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out"),
        *("--summary-json", tmp_path / "deep" / "end.json", *flags),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "--summary_json=END --inptu x --output OUT",
        "--summary-json END --summary-json END",
        "--summary-json END --output OUT --call x",
        "--input x --output OUT --summary-json=END --config podcats",
        "--input x --output OUT --summary-json END y",
        "--input x --output OUT --summary-json END --runner=Foo --temp_location=z",
    ],
)
def test_wrong_command_line_is_told(arguments: str, tmp_path: Path) -> None:
    end = tmp_path / "deep" / "end.json"

    text = arguments.replace("END", str(end)).replace("OUT", str(tmp_path / "out"))
    done = callpress("run", *text.split())

    assert done.status == 2
    assert done.err.count("callpress: ") == 1
    _check(end, 2, "usage", has_run_id=False)


@pytest.mark.parametrize("flags", [(), ("--dry_run",)], ids=["run", "dry run"])
def test_patterns_that_match_nothing_are_told(flags: tuple[str, ...], tmp_path: Path) -> None:
    end = tmp_path / "end.json"
    command = ("run", "--input", "/nowhere/*", "--output", tmp_path / "out", "--summary-json", end)

    assert callpress(*command, *flags).status == 1

    _check(end, 1, "nothing_matched", has_run_id=False)


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    end = tmp_path / "end.json"
    command = ("run", "--input", SAMPLE, "--output", "/proc/nothing", "--summary-json", end)

    done = callpress(*command)

    assert (done.status, done.err.count("\n")) == (1, 1)
    _check(end, 1, "storage_down", has_run_id=False)


def test_run_that_another_one_keeps_out_is_told(tmp_path: Path) -> None:
    acquire(tmp_path / "out" / "catalog", "the-other")

    done = _run(tmp_path)

    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "run the-other on" in done.err
    assert not (tmp_path / "out" / "catalog" / "results").exists()
    _check(tmp_path / "deep" / "end.json", 1, "lock_held", has_run_id=False)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageError("/out: timed out"), "storage_down"),
        (StoreDownError("gs://bucket gives no answer"), "storage_down"),
        (LockHeldError("run other holds it"), "lock_held"),
        (LockLostError("run other has it now"), "lock_lost"),
        (EngineDownError("--runner X: refused"), "engine_down"),
        (KeyError("of ours"), "bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_ends_a_run_amid_its_work_is_told(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("transforms.recovery.repair.what_is_repeated", fail)

    done = _run(tmp_path)

    assert done.status == 1
    assert ("this is a bug" in done.err) == (reason == "bug")
    assert "Traceback" not in done.err  # it stands in the log
    _check(tmp_path / "deep" / "end.json", 1, reason, has_run_id=True)


def test_bug_before_any_work_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("of ours")

    monkeypatch.setattr("pipelines.obey.load_profile", fail)

    with pytest.raises(KeyError, match="of ours"):
        _run(tmp_path)

    _check(tmp_path / "deep" / "end.json", 1, "bug", has_run_id=False)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_run_that_is_stopped_before_it_has_begun_is_told(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("pipelines.obey.load_profile", lambda _: os.kill(os.getpid(), number))

    assert _run(tmp_path).status == status

    _check(tmp_path / "deep" / "end.json", status, "cancelled", has_run_id=False)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (str, "is a folder, expected the name of a file in it"),
        (lambda path: f"{path}/new/", "is a folder"),
        (lambda _: ".", "is a folder"),
        (lambda _: "gs://bucket", "is a folder"),
        (lambda _: "gs://bucket/summaries/", "is a folder"),
        (lambda _: "", "names nothing"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--dry_run",)], ids=["run", "dry run"])
def test_summary_to_a_folder_is_refused_before_any_work(
    name: Callable[[Path], str], message: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    command = ("run", "--input", SAMPLE, "--output", tmp_path / "out", *flags)

    done = callpress(*command, f"--summary-json={name(tmp_path)}")

    assert (done.status, done.err.count("\n")) == (2, 1)
    assert message in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_summary_that_cannot_be_written_changes_no_exit_status(tmp_path: Path) -> None:
    done = callpress("run", "--inptu", "x", "--summary-json", "/proc/none/end.json")

    assert done.status == 2
    assert "callpress: --summary-json /proc/none/end.json: cannot be written: " in done.err
    assert "Traceback" not in done.err


# --- engines --------------------------------------------------------------------------------------


class _Down(PipelineRunner):
    """An engine of which nothing but an error comes."""

    error: Exception

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), EngineDownError),
        (RuntimeError("Pipeline job-1 failed in state FAILED: no workers"), EngineDownError),
        (TypeError("cannot pickle"), TypeError),
    ],
)
def test_engine_that_starts_no_job_is_told_from_a_bug(
    error: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Down, "error", error, raising=False)
    engine = BeamEngine(PipelineOptions([f"--runner={__name__}._Down"]))

    with pytest.raises(expected) as raised:
        engine.run(lambda pipeline: None)

    assert type(raised.value) is expected
