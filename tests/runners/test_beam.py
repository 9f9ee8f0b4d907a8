"""The launcher's part in a job that an engine elsewhere has, with an engine that does as it is
told.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult
from apache_beam.runners.runner import PipelineState

from pipelines.runners import beam as beam_engine
from pipelines.runners.beam import BeamEngine
from pipelines.runners.engine import EngineDownError
from pipelines.runners.started_job import StartedJob
from pipelines.stopping import StoppedError
from transforms.begin_run import RUNS
from transforms.media.errors import ConfigError

NO_JOB_SERVER = "127.0.0.1:1"


class _Engine:
    """What `Pipeline.run` gives of a job, and the engine behind it."""

    def __init__(self, *states: object, waiting_ends_with: BaseException | None = None) -> None:
        """Args: states: what it says each time it is asked, the last one from then on; an error is
        raised. waiting_ends_with: what Beam's waiting for the end raises.
        """
        self._states = list(states)
        self._waiting_ends_with = waiting_ends_with
        self.cancelled = 0

    def job_id(self) -> str:
        return "job-7"

    @property
    def state(self) -> object:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        return state

    def wait_until_finish(self) -> None:
        if self._waiting_ends_with is not None:
            raise self._waiting_ends_with

    def metrics(self) -> Any:
        names = {(RUNS, "20260107T020000Z-abcdef"): 1, ("transforms.x.X", "calls_pressed"): 2}
        counters = [
            SimpleNamespace(
                key=SimpleNamespace(metric=SimpleNamespace(namespace=namespace, name=name)),
                committed=count,
            )
            for (namespace, name), count in names.items()
        ]
        return SimpleNamespace(query=lambda _: {"counters": counters})

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beam_engine, "_WAIT_SECONDS", 0.01)


def _run(engine: _Engine, monkeypatch: pytest.MonkeyPatch) -> BeamEngine:
    """Runs a job on it. Raises: as `BeamEngine.run`, with what the launcher knows of the job as
    `launcher`.
    """
    launcher = BeamEngine(PipelineOptions(["--runner=PortableRunner", "--job_endpoint=embed"]))
    monkeypatch.setattr(beam.Pipeline, "run", lambda _: engine)
    try:
        launcher.run(lambda _: None)
    except BaseException as error:
        error.launcher = launcher  # type: ignore[attr-defined]
        raise
    return launcher


class _LostError(grpc.RpcError):
    """The way to the engine, interrupted."""


def test_job_is_told_at_once_and_its_run_known_in_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = _run(_Engine(PipelineState.DONE), monkeypatch)

    assert "Created job with id: [job-7]" in capsys.readouterr().err
    assert launcher.run_id == "20260107T020000Z-abcdef"
    assert launcher.has_ended


def test_waiting_that_breaks_is_not_the_jobs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    states = (PipelineState.RUNNING, _LostError(), PipelineState.RUNNING, PipelineState.DONE)

    launcher = _run(_Engine(*states, waiting_ends_with=_LostError()), monkeypatch)

    assert launcher.has_ended


def test_engine_that_stays_away_is_given_up_and_the_job_is_not_said_to_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(beam_engine, "_AWAY_SECONDS", 0.05)

    with pytest.raises(EngineDownError, match="whether job job-7 is at work is not known") as told:
        _run(_Engine(_LostError(), waiting_ends_with=_LostError()), monkeypatch)

    assert not told.value.launcher.has_ended  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (PipelineState.CANCELLED, "it was cancelled, and not by this command"),
        (PipelineState.FAILED, "it failed; the engine's log says why"),
        (PipelineState.UPDATED, "it ended in state UPDATED"),
    ],
)
def test_other_ends_than_the_good_one_are_told(
    monkeypatch: pytest.MonkeyPatch, state: str, told: str
) -> None:
    with pytest.raises(EngineDownError, match=told):
        _run(_Engine(state), monkeypatch)


@pytest.fixture
def _interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise StoppedError("SIGTERM")

    monkeypatch.setattr(StartedJob, "wait", stop)


@pytest.mark.usefixtures("_interrupted")
def test_stopped_run_waits_for_the_end_of_its_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running, ending = PipelineState.RUNNING, PipelineState.CANCELLING
    engine = _Engine(running, ending, ending, PipelineState.CANCELLED)

    with pytest.raises(StoppedError) as told:
        _run(engine, monkeypatch)

    assert engine.cancelled == 1
    assert "job job-7 is in state CANCELLED" in capsys.readouterr().err
    assert told.value.launcher.has_ended  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_interrupted")
def test_job_that_does_not_end_when_asked_is_not_said_to_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beam_engine, "_CANCEL_SECONDS", 0.05)

    with pytest.raises(StoppedError) as told:
        _run(_Engine(PipelineState.CANCELLING), monkeypatch)

    assert "job job-7 is in state CANCELLING still" in capsys.readouterr().err
    launcher = told.value.launcher  # type: ignore[attr-defined]
    assert not launcher.has_ended
    assert "It is not known whether job job-7 has ended" in launcher.what_is_unknown


def test_dataflows_job_has_an_address() -> None:
    engine = _Engine(PipelineState.DONE)
    engine.has_job = True  # type: ignore[attr-defined]
    flags = ["--runner=DataflowRunner", "--project=lab-project", "--region=europe-west1"]

    assert StartedJob(engine, PipelineOptions(flags)).address == (
        "https://console.cloud.google.com/dataflow/jobs/europe-west1/job-7?project=lab-project"
    )


@pytest.mark.parametrize("how", ["waits", "leaves"])
def test_template_is_no_job(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is written with `--template_location`, and started by others."""
    flags = ["--runner=PortableRunner", "--job_endpoint=embed"]
    result = DataflowPipelineResult(None, SimpleNamespace(dataflow_client=None))
    launcher = BeamEngine(PipelineOptions(flags))
    monkeypatch.setattr(beam.Pipeline, "run", lambda _: result)

    if how == "waits":
        launcher.run(lambda _: None)
    else:
        assert launcher.start(lambda _: None) == ""

    assert launcher.has_ended
    assert launcher.run_id is None
    assert "job" not in capsys.readouterr().err


# --- engines that are not there, and jobs that cannot be left -------------------------------------


def test_job_server_that_nobody_runs_is_told_soon() -> None:
    flags = [f"--job_endpoint={NO_JOB_SERVER}", "--job_server_timeout=1"]
    launcher = BeamEngine(PipelineOptions(["--runner=PortableRunner", *flags]))

    with pytest.raises(EngineDownError, match=f"^--job_endpoint {NO_JOB_SERVER}: no job server"):
        launcher.run(lambda _: None)

    assert launcher.has_ended


def test_missing_prism_is_told(tmp_path: Path) -> None:
    flags = ["--runner=PrismRunner", f"--prism_location={tmp_path}/prism"]

    with pytest.raises(EngineDownError, match=r"^--prism_location .*/prism: no such file$"):
        BeamEngine(PipelineOptions(flags)).run(lambda _: None)


@pytest.mark.parametrize(
    "flags",
    [
        ["--runner=PrismRunner"],
        ["--runner=PrismRunner", f"--job_endpoint={NO_JOB_SERVER}"],
        [
            "--runner=PortableRunner",
            f"--job_endpoint={NO_JOB_SERVER}",
            "--environment_type=LOOPBACK",
        ],
    ],
    ids=["own Prism", "Prism's own workers", "loopback"],
)
def test_job_that_would_end_with_the_command_is_not_left(flags: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^--detach: .* with this command"):
        BeamEngine(PipelineOptions(flags)).start(lambda _: None)


# --- signals --------------------------------------------------------------------------------------

_CANCELLING = """
import time
from pipelines.stopping import StoppedError, stopping_cleanly
with stopping_cleanly(lambda: "farewell", engine_seconds=60):
    try:
        print("at work", flush=True)
        time.sleep(60)
    except StoppedError:
        print("cancelling", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def cancelling() -> Iterator[subprocess.Popen[str]]:
    """A command that has been asked to end, and waits for its engine."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CANCELLING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cancelling\n"
    yield process
    process.kill()
    process.communicate()


def test_second_signal_ends_the_waiting_for_an_engine(cancelling: subprocess.Popen[str]) -> None:
    cancelling.send_signal(signal.SIGTERM)

    _, err = cancelling.communicate(timeout=20)

    assert cancelling.returncode == 128 + signal.SIGINT
    assert "farewell" in err
