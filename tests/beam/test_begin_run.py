"""BeginRun: the first step of a job takes the lock, and names the run for all others."""

from __future__ import annotations

import base64
import bz2
import re
import secrets
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter

from pipelines import press
from tests.support.beam import expect, make_pipeline
from tests.support.job_run import JobRun
from tests.support.locks import acquire, make_old, other_state
from transforms import begin_run
from transforms.begin_run import RUNS, BeginRun, new_run
from transforms.context import JobSettings, RunIdentity
from transforms.engine import begun
from transforms.filters import Filters
from transforms.locking import lock
from transforms.locking.lock import LockHeldError

NOW_UNIX_NS = 1_767_751_200_123_456_789


class _Listener:
    """Who started the run, in the same process."""

    def __init__(self) -> None:
        self.runs: list[RunIdentity] = []
        self.lines: list[str] = []

    def begin(self, run: RunIdentity) -> None:
        self.runs.append(run)

    def hear(self, line: str) -> None:
        self.lines.append(line)

    def divide(self, run: RunIdentity, portions: int) -> None:
        raise AssertionError(portions)


@pytest.fixture
def job(context: JobRun) -> JobSettings:
    return context.changed(staging_root=str(Path(context.staging_uri).parent)).job


def _take_lock(job: JobSettings, run: RunIdentity) -> RunIdentity:
    """Does the step that takes the lock, as an engine does it, once."""
    (taken,) = begin_run._TakeLockFn(job).process(run)
    return taken


def _held(job: JobSettings) -> lock.LockState:
    held = lock.look(job.catalog_uri)
    assert held is not None
    assert held.state is not None
    return held.state


def test_run_is_named_by_the_job_and_told_to_whoever_listens(job: JobSettings) -> None:
    listener = _Listener()

    def check(elements: list[RunIdentity]) -> None:
        assert [run.run_id for run in elements] == [_held(job).run_id]

    with begun.listening(listener), make_pipeline() as pipeline:
        expect(run=(pipeline | BeginRun(job), check))

    (run,) = listener.runs
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", run.run_id)
    assert run.staging_uri == f"{job.staging_root}/{run.run_id}"
    assert (_held(job).run_id, _held(job).token) == (run.run_id, run.lock_token)
    assert not run.took_over


def test_name_of_the_run_is_told_by_the_metrics_of_the_engine(job: JobSettings) -> None:
    """For the launcher, wherever the workers are."""
    pipeline = make_pipeline()
    _ = pipeline | BeginRun(job)
    done = pipeline.run()
    done.wait_until_finish()

    (counter,) = done.metrics().query(MetricsFilter().with_namespace(RUNS))["counters"]

    assert counter.key.metric.name == _held(job).run_id


def test_first_step_done_once_more_goes_on_with_the_lock(job: JobSettings) -> None:
    run = new_run(job, NOW_UNIX_NS)

    first, again = _take_lock(job, run), _take_lock(job, run)

    assert first == again == run
    assert _held(job).run_id == run.run_id
    with pytest.raises(LockHeldError, match=f"run {run.run_id} on"):
        _take_lock(job, new_run(job, NOW_UNIX_NS))


def test_first_step_done_once_more_knows_still_whom_it_took_over_from(job: JobSettings) -> None:
    path = Path(job.catalog_uri, lock.NAME)
    path.parent.mkdir()
    path.write_bytes(other_state())
    make_old(path, 901)
    run = new_run(job, NOW_UNIX_NS)

    assert [_take_lock(job, run).took_over for _ in range(2)] == [True, True]


def test_run_that_is_kept_out_tidies_up_nothing(job: JobSettings) -> None:
    acquire(job.catalog_uri, "other")
    being_written = Path(job.catalog_uri, "calls", ".part-0.parquet.77.partial")
    being_written.parent.mkdir()
    being_written.touch()
    run = new_run(job, NOW_UNIX_NS)

    with pytest.raises(LockHeldError):
        _take_lock(job, run)

    assert being_written.exists()
    Path(job.catalog_uri, lock.NAME).unlink()
    _take_lock(job, run)
    assert not being_written.exists()


def test_age_is_counted_from_when_the_run_begins(context: JobRun) -> None:
    """And not from when a template was made, or the command was typed."""
    job = context.changed(filters=Filters(since="36h")).job

    run = new_run(job, NOW_UNIX_NS)

    assert run.started_unix_ns == NOW_UNIX_NS // 1_000 * 1_000
    began = datetime.fromtimestamp(run.started_unix_ns // 1_000_000_000, UTC)
    assert run.since_unix_ns == (int(began.timestamp()) - 36 * 3_600) * 1_000_000_000
    assert new_run(job, NOW_UNIX_NS + 10**12).since_unix_ns == run.since_unix_ns + 10**12


def test_no_two_runs_are_one(job: JobSettings) -> None:
    first, second = new_run(job, NOW_UNIX_NS), new_run(job, NOW_UNIX_NS)

    assert first.run_id != second.run_id
    assert first.lock_token != second.lock_token


# --- what a template holds ------------------------------------------------------------------------


def _payloads(job: JobSettings) -> list[bytes]:
    """Returns all that is pickled into the steps of a job, in order of their names."""
    pipeline = beam.Pipeline()
    press.build(pipeline, ["/raw/*"], job)
    proto: Any = pipeline.to_runner_api()
    found: dict[tuple[str, int], bytes] = {}
    for transform in proto.components.transforms.values():
        payload = transform.spec.payload
        for text in re.findall(rb"[A-Za-z0-9+/]{80,}={0,2}", payload):
            try:
                found[transform.unique_name, len(found)] = bz2.decompress(base64.b64decode(text))
            except (ValueError, OSError):  # it is something else
                continue
    return [found[name] for name in sorted(found)]


def test_nothing_of_a_run_is_pickled_into_its_steps(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template is run each night: what is made when it is built would be the same each time."""
    job = context.changed(filters=Filters(since="36h")).job
    monkeypatch.setattr(secrets, "token_hex", lambda count: "5ee7" * count)
    monkeypatch.setattr(time, "time_ns", lambda: NOW_UNIX_NS)
    run = new_run(job, time.time_ns())

    payloads = _payloads(job)

    assert len(payloads) > 30
    assert any(job.settings_fingerprint.encode() in payload for payload in payloads)
    started = struct.pack("<q", run.started_unix_ns)
    for payload in payloads:
        assert run.run_id[:-6].encode() not in payload
        assert b"5ee7" not in payload
        assert started not in payload
        assert struct.pack("<q", NOW_UNIX_NS) not in payload
