"""Any other engine that Beam has a runner for. What it prints of its own stays visible.

The job is the engine's: this process starts it, tells where it is and how far, waits, and says what
ended it. It may be gone before the job is.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.runners.runner import PipelineState

from pipelines.runners import dataflow_answers
from pipelines.runners.dataflow_preflight import is_dataflow
from pipelines.runners.engine import EngineDownError
from pipelines.runners.job_errors import error_of
from pipelines.runners.job_progress import JobProgress
from pipelines.runners.own_prism import OwnPrism
from pipelines.runners.started_job import StartedJob
from pipelines.stopping import StoppedError
from transforms.media.errors import CallpressError, ConfigError
from transforms.media.text import printable
from transforms.storage.errors import describe_error

logger = logging.getLogger(__name__)

_BUGS = (AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
"""What no engine that is out of reach, or gives up, raises here."""
_REACHED_SECONDS = 20
"""For a job server to answer for the first time, unless told to be shorter."""
_AWAY_SECONDS = 60.0
"""For an engine that does not answer in the middle of a job."""
_CANCEL_SECONDS = 60.0
"""For a job to end that was asked to."""
_WAIT_SECONDS = 0.5
_FOREVER_SECONDS = 10 * 365 * 86_400
_LOOPBACK = "LOOPBACK"


class BeamEngine:
    """Hands the job to the runner that the options name, and waits for its end."""

    shares_this_machine = False
    is_one_process = False
    stop_seconds = _CANCEL_SECONDS + 5

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options
        self._portable = options.view_as(PortableOptions)
        self._runner = str(options.view_as(StandardOptions).runner)
        is_prism = self._runner.lower() in ("prismrunner", "prism")
        self._own = OwnPrism(options) if is_prism and not self._portable.job_endpoint else None
        self.has_workers_here = self._portable.environment_type == _LOOPBACK or (
            is_prism and not self._portable.environment_type
        )
        self._job: StartedJob | None = None
        self.has_ended = True
        self.what_is_unknown = ""

    @property
    def run_id(self) -> str | None:
        """The run's, where the engine's counters have told it."""
        return self._job.run_id if self._job else None

    def start(self, build: Callable[[beam.Pipeline], Any]) -> str:
        """Starts the job and leaves it to itself; returns its id.

        Raises:
          ConfigError: it would end with this process.
          EngineDownError: the engine cannot be reached.
        """
        if self._own is not None:
            raise ConfigError(
                f"--detach: the Prism that --runner {self._runner} starts ends with this command; "
                "start one by itself and name it with --job_endpoint"
            )
        if self.has_workers_here:
            raise ConfigError(
                "--detach: workers of --environment_type LOOPBACK end with this command; name a "
                "pool of them with --environment_type EXTERNAL and --environment_config"
            )
        return self._submit(build).id

    def run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        """Runs a pipeline to its end; has the job cancelled when the run is stopped.

        Raises:
          StoppedError: it was stopped before.
          EngineDownError: the engine cannot be reached, or gave the job up by no fault of its
            steps.
          CallpressError: what a step raised on purpose.
          StepFailedError, OSError: what a step raised beside.
        """
        with contextlib.ExitStack() as at_end:
            at_end.enter_context(_quiet_threads())
            if self._own is not None:
                at_end.callback(self._stop_own)
            job = self._submit(build)
            if job.is_none:
                return
            try:
                self._follow(job)
            except StoppedError:
                self._cancel(job)
                raise
            finally:
                job.learn_run_id()
                job.let_go()

    def _stop_own(self) -> None:
        """Ends the engine that this process started, and with it the job."""
        if self._own is not None:
            self._own.stop()
        self.has_ended = True

    # --- starting ---

    def _submit(self, build: Callable[[beam.Pipeline], Any]) -> StartedJob:
        """Starts the job, and tells where it is."""
        self._reach()
        if self._own is not None:
            self._own.start()
        if is_dataflow(self._runner):
            dataflow_answers.check_uploads(self._options)
        build(pipeline := self._pipeline())
        self.has_ended = False
        self.what_is_unknown = (
            f"The job was being handed to --runner {self._runner}: look there whether it began."
        )
        try:
            self._job = StartedJob(pipeline.run(), self._options)
        except Exception as error:
            self.has_ended = True
            raise self._no_job(error) from error
        if self._job.is_none:
            self.has_ended = True
            return self._job
        self.what_is_unknown = (
            f"It is not known whether job {self._job.id} has ended: look there. Once it has, its "
            "hold on the catalog ends by itself."
        )
        _say(f"Created job with id: [{self._job.id}]")
        if self._job.address:
            _say(f"to be seen at {self._job.address}")
        return self._job

    def _pipeline(self) -> beam.Pipeline:
        """Returns an empty one. Raises: ConfigError: Beam does not take its options together."""
        try:
            return beam.Pipeline(
                runner=self._own.runner() if self._own else None, options=self._options
            )
        except ValueError as error:
            why = "; ".join(line for line in str(error).splitlines()[1:] if line) or str(error)
            raise ConfigError(f"--runner {self._runner}: {why}") from None

    def _reach(self) -> None:
        """Makes sure that a job server answers. Raises: EngineDownError."""
        endpoint = self._portable.job_endpoint
        if not endpoint or endpoint == "embed":
            return
        seconds = min(_REACHED_SECONDS, self._portable.job_server_timeout)
        with grpc.insecure_channel(endpoint) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=seconds)
            except grpc.FutureTimeoutError:
                raise EngineDownError(
                    f"--job_endpoint {endpoint}: no job server answers there, tried for {seconds} s"
                ) from None
        # It would bound the time that a job may take, too: Beam gives it to the streams by which
        # a job's state is told.
        self._portable.job_server_timeout = _FOREVER_SECONDS

    def _no_job(self, error: Exception) -> Exception:
        """Returns what to raise of an error of starting."""
        if isinstance(error, (CallpressError, *_BUGS)):
            return error
        if is_dataflow(self._runner):
            return dataflow_answers.error_of_start(error, self._options)
        return EngineDownError(f"--runner {self._runner}: {_describe(error)}")

    # --- waiting ---

    def _follow(self, job: StartedJob) -> None:
        """Waits for the job's end. Raises: as `run`."""
        progress = JobProgress(time.monotonic())
        job.watch()
        while not job.wait(_WAIT_SECONDS):
            progress.look(time.monotonic(), job.counters)
        away_since: float | None = None
        while not (state := self._state_after(job, away_since)) or not PipelineState.is_terminal(
            state
        ):
            # Beam waits no more, but the job is not at its end.
            now = time.monotonic()
            away_since = None if state else away_since or now
            if state:
                progress.look(now, job.counters)
            time.sleep(_WAIT_SECONDS)
        self.has_ended = True
        if state != PipelineState.DONE:
            raise self._what_ended(job, state)

    def _state_after(self, job: StartedJob, away_since: float | None) -> str:
        """Returns the job's state, empty where the engine does not answer. Raises:
        EngineDownError: it has not for long.
        """
        try:
            return job.state()
        except Exception as error:
            if away_since is None:
                if self._own is None:
                    _say(f"the engine does not answer ({_describe(error)}); trying again")
            elif self._own is not None or time.monotonic() - away_since > _AWAY_SECONDS:
                raise self._gone(job, error) from error
            return ""

    def _gone(self, job: StartedJob, error: Exception) -> Exception:
        """Returns what to raise where the engine does not answer any more."""
        if self._own is not None:
            return EngineDownError(
                f"--runner {self._runner}: Prism ended, and job {job.id} with it: "
                f"{self._own.last_words or _describe(error)}"
            )
        return EngineDownError(
            f"--runner {self._runner}: the engine has not answered for {_AWAY_SECONDS:.0f} s "
            f"({_describe(error)}); whether job {job.id} is at work is not known, look there"
        )

    def _what_ended(self, job: StartedJob, state: str) -> Exception:
        """Returns what to raise of a job that did not end well."""
        where = f"--runner {self._runner}, job {job.id}"
        if state == PipelineState.CANCELLED:
            return EngineDownError(f"{where}: it was cancelled, and not by this command")
        if state != PipelineState.FAILED:
            return EngineDownError(f"{where}: it ended in state {state}")
        if job.error is None or job.is_out_of_sight:
            return EngineDownError(f"{where}: it failed; the engine's log says why")
        error = error_of(str(job.error))
        if isinstance(error, EngineDownError):
            error = EngineDownError(f"{where}: {error}")
        error.__cause__ = job.error
        return error

    # --- stopping ---

    def _cancel(self, job: StartedJob) -> None:
        """Has the job cancelled, and waits until it is at its end, for as long as that may take."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        _say(f"job {job.id} is being cancelled; Ctrl-C once more leaves at once")
        try:
            if not job.has_ended():
                job.cancel()
            while not job.has_ended():
                if time.monotonic() > deadline:
                    _say(f"job {job.id} is in state {job.state()} still")
                    return
                time.sleep(_WAIT_SECONDS)
            self.has_ended = True
            _say(f"job {job.id} is in state {job.state()}")
        except Exception as error:
            _say(f"job {job.id} cannot be cancelled: {_describe(error)}")


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Sends to the log what Beam's threads say of an engine that is gone, within the block: it is
    told once, in a line.
    """
    before = threading.excepthook

    def hear(told: threading.ExceptHookArgs) -> None:
        if isinstance(told.exc_value, grpc.RpcError):
            logger.info("%s: %s", told.thread and told.thread.name, _describe(told.exc_value))
        else:
            before(told)

    threading.excepthook = hear
    try:
        yield
    finally:
        threading.excepthook = before


def _describe(error: Exception) -> str:
    """Returns an error in a line; gRPC's own text has many."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        said = str(error.details()).split("last error: ")[-1]
        return printable(f"{error.code().name}: {said}".split("\n", 1)[0])[:300]
    return describe_error(error)


def _say(line: str) -> None:
    print(f"callpress: {line}", file=sys.stderr, flush=True)
