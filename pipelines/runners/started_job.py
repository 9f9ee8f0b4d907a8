"""A job that an engine elsewhere has: asked for its state, its counters, its end."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import PipelineState

from transforms.begin_run import RUNS

logger = logging.getLogger(__name__)

_OUR_NAMESPACE = "transforms."
_ASKED_AGAIN = 3


class StartedJob:
    """One job, as Beam's result of starting it knows it."""

    def __init__(self, result: Any, options: PipelineOptions) -> None:
        """Args: result: what `Pipeline.run` gave."""
        self._result = result
        self._options = options
        self._watching: threading.Thread | None = None
        self.error: Exception | None = None
        """What Beam's waiting ended with, if not well. It is not always the job that has ended."""
        self.run_id: str | None = None
        """The run's, once the counters tell it."""

    @property
    def is_none(self) -> bool:
        """Whether no job was started: only its template was written."""
        return getattr(self._result, "has_job", True) is False

    @property
    def id(self) -> str:
        """The engine's name for it; empty where it gives none."""
        if self.is_none:
            return ""
        if hasattr(self._result, "job_id"):
            return str(self._result.job_id())
        return str(getattr(self._result, "_job_id", ""))  # Beam's portable runner has no other

    @property
    def address(self) -> str:
        """Where a browser sees it; empty where that is not known."""
        cloud = self._options.view_as(GoogleCloudOptions)
        if not hasattr(self._result, "has_job") or not cloud.project:
            return ""
        return (
            f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{self.id}"
            f"?project={cloud.project}"
        )

    # --- waiting ---

    def watch(self) -> None:
        """Has Beam wait for the end in a thread; it logs what the engine says."""
        self._watching = threading.Thread(target=self._wait, daemon=True, name="job-watch")
        self._watching.start()

    def _wait(self) -> None:
        try:
            self._result.wait_until_finish()
        except Exception as error:
            self.error = error

    def wait(self, seconds: float) -> bool:
        """Waits until Beam's waiting is over, at most so long; returns whether it is."""
        assert self._watching is not None
        self._watching.join(seconds)
        return not self._watching.is_alive()

    @property
    def is_out_of_sight(self) -> bool:
        """Whether Beam's waiting ended since the engine was not to be reached."""
        return isinstance(self.error, grpc.RpcError)

    # --- asking ---

    def state(self) -> str:
        """Returns the state the engine says, of `PipelineState`. Raises: Exception: it does not
        answer.
        """
        return str(self._result.state)

    def has_ended(self) -> bool:
        """Whether the engine says that the job is at its end. Raises: Exception: it does not
        answer.
        """
        return PipelineState.is_terminal(self.state())

    def counters(self) -> Mapping[str, int]:
        """Returns our counters as they are now, by name; those that cannot be had are left out."""
        found: Counter[str] = Counter()
        try:
            # Beam's portable runner would give its first answer for ever.
            if hasattr(self._result, "_metrics"):
                self._result._metrics = None
            asked = self._result.metrics().query(MetricsFilter())
        except Exception as error:
            logger.info("the job's counters cannot be had: %s", error)
            return {}
        for counter in asked["counters"]:
            name = counter.key.metric
            if name.namespace == RUNS:
                self.run_id = name.name
            elif (name.namespace or "").startswith(_OUR_NAMESPACE):
                found[name.name] += counter.committed or 0
        return found

    def learn_run_id(self) -> None:
        """Asks once more for the run's id, if it is not known."""
        for _ in range(_ASKED_AGAIN):
            if self.run_id is None:
                self.counters()

    # --- ending ---

    def cancel(self) -> None:
        """Asks the engine to end the job. Raises: Exception: it does not answer, or will not."""
        self._result.cancel()

    def let_go(self) -> None:
        """Ends what of the job lives in this process: workers, where they do."""
        with contextlib.suppress(Exception):
            getattr(self._result, "_cleanup", lambda: None)()
