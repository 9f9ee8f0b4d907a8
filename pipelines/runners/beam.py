"""Any other engine that Beam has a runner for. What it prints of its own stays visible."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipelines.runners.engine import EngineDownError
from pipelines.stopping import StoppedError
from transforms.storage.errors import describe_error

_BUGS = (AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
"""What no engine that is out of reach, or gives up, raises here."""
_OURS = re.compile(r"\b(?:transforms|pipelines)[./\\]")
"""In the text of an error: a step of ours was at work, by its module or its file."""


class BeamEngine:
    """Hands the job to the runner that the options name, and waits for its end."""

    shares_this_machine = False
    is_one_process = False
    run_id: str | None = None
    has_ended = True
    what_is_unknown = ""

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options

    def start(self, build: Callable[[beam.Pipeline], Any]) -> str:
        """Starts the job and leaves it to itself; returns its id."""
        pipeline = beam.Pipeline(options=self._options)
        build(pipeline)
        return str(pipeline.run().job_id())

    def run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        """Runs a pipeline to its end; asks for the job to be cancelled when the run is stopped.

        Raises:
          EngineDownError: what came back does not speak of our steps.
          Exception: whatever else came back.
        """
        pipeline = beam.Pipeline(options=self._options)
        build(pipeline)
        running = None
        try:
            running = pipeline.run()
            running.wait_until_finish()
        except StoppedError:
            if running is not None:
                with contextlib.suppress(Exception):
                    running.cancel()  # a job elsewhere would go on without the lock
            raise
        except Exception as error:
            if isinstance(error, _BUGS) or _OURS.search(str(error)):
                raise
            runner = self._options.view_as(StandardOptions).runner
            raise EngineDownError(f"--runner {runner}: {describe_error(error)}") from error
