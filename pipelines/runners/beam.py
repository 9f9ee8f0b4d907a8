"""Any other engine that Beam has a runner for. What it prints of its own stays visible."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.stopping import StoppedError


class BeamEngine:
    """Hands the job to the runner that the options name, and waits for its end."""

    shares_this_machine = False
    codec_processes = 1

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options

    def run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        """Runs a pipeline to its end; asks for the job to be cancelled when the run is stopped."""
        pipeline = beam.Pipeline(options=self._options)
        build(pipeline)
        running = pipeline.run()
        try:
            running.wait_until_finish()
        except StoppedError:
            with contextlib.suppress(Exception):
                running.cancel()  # a job elsewhere would go on without the lock
            raise
