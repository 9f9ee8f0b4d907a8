"""BeginRun: nothing -> which run this is. The first step of a job: it takes the catalog's lock."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import pending_replacement
from transforms.context import JobSettings, RunIdentity
from transforms.engine import begun
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn
from transforms.locking import lock
from transforms.recovery import repair
from transforms.recovery.take_up import TakenUp
from transforms.storage import objects, uris

RUNS = "callpress.run"
"""Namespace of a counter whose name is the run's id."""


class BeginRun(beam.PTransform):
    """Input: the pipeline's beginning. Output: `RunIdentity`, one element.

    The run is named in a step of its own, behind which the engine keeps what came of it: where the
    next one is done again, it finds the lock its own. Writes the lock; deletes what killed
    processes left half written in the catalog. A worker of another version than the launcher does
    none of it: it cannot unpickle the settings (`transforms.stamp`).
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[RunIdentity]:
        named = begin | "Start" >> beam.Impulse() | "NameRun" >> beam.Map(_name, self._job)
        return break_fusion(named, "KeepName", self._job) | "TakeLock" >> beam.ParDo(
            _TakeLockFn(self._job)
        )


class LookBack(beam.PTransform):
    """Input: `RunIdentity`, one, which has the lock, and the `TakenUp` of it. Output: the same run,
    which knows what was taken up and what it is to repeat.
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(
        self, inputs: tuple[beam.PCollection[RunIdentity], beam.PCollection[TakenUp]]
    ) -> beam.PCollection[RunIdentity]:
        locked, taken = inputs
        return locked | "LookBack" >> beam.ParDo(
            _LookBackFn(self._job),
            beam.pvalue.AsSingleton(locked),
            beam.pvalue.AsSingleton(taken),
        )


def _name(_: bytes, job: JobSettings) -> RunIdentity:
    """Returns a new run."""
    return new_run(job, time.time_ns())


def new_run(job: JobSettings, now_unix_ns: int) -> RunIdentity:
    """Returns a run that begins now."""
    started_unix_ns = now_unix_ns // 1_000 * 1_000  # the tables hold microseconds
    started = datetime.fromtimestamp(started_unix_ns // 1_000_000_000, UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    return RunIdentity(
        run_id=run_id,
        started_unix_ns=started_unix_ns,
        staging_uri=uris.join(job.staging_root, run_id),
        lock_token=secrets.token_hex(16),
        since_unix_ns=job.filters.since_unix_ns(started_unix_ns),
    )


class _TakeLockFn(beam.DoFn):
    def __init__(self, job: JobSettings) -> None:
        self._job = job

    def process(self, run: RunIdentity) -> Iterator[RunIdentity]:
        run = _take_lock(self._job, run)
        # For the launcher, wherever it is: engines hand on the names of counters.
        Metrics.counter(RUNS, run.run_id).inc()
        begun.tell(run)
        yield run


class _LookBackFn(RunFn):
    """Tells what was taken up, and what this run is to repeat."""

    def each(self, run: RunIdentity, taken: TakenUp) -> Iterator[RunIdentity]:
        if taken.calls:
            begun.say(
                f"took up {taken.calls} calls that an earlier run had finished before it ended"
            )
        for line in repair.what_is_repeated(self.job.catalog_uri):
            begun.say(line)
        repeat = pending_replacement.archives_to_repeat(self.job.catalog_uri)
        yield replace(run, repeat_archives=repeat, taken_up=taken.archives)


def _take_lock(job: JobSettings, run: RunIdentity) -> RunIdentity:
    """Takes the catalog's lock for a run, which is begun then.

    Raises:
      ConfigError: the catalog's store cannot compare and swap.
      LockHeldError: another run is at work.
      StorageError: the lock cannot be read or written.
    """
    state = lock.state_of(
        run.run_id,
        run.lock_token,
        is_one_process=job.is_one_process,
        lease_seconds=job.settings.limits.lock_seconds,
    )
    took_over = lock.acquire(job.catalog_uri, state)
    objects.delete_partials(job.catalog_uri)
    return replace(run, took_over=took_over)
