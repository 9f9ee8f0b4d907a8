"""The local engine: Beam's in-process one, with nothing fetched and nothing listening."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, TypeOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms import userstate

from pipelines.progress_display import showing_progress
from transforms.codec.pool import POOL
from transforms.media.errors import ConfigError

_NAMES = ("directrunner", "direct", "fnapirunner")


def is_local(runner: str | None) -> bool:
    """Whether a value of `--runner` means this engine.

    By the name DirectRunner Beam itself would try to download another one.
    """
    return runner is None or runner.lower() in _NAMES


class LocalEngine:
    """Runs in this process; shows how far it is, live from the codec processes."""

    shares_this_machine = True
    has_workers_here = True
    is_one_process = True
    run_id: str | None = None
    has_ended = True
    what_is_unknown = ""
    stop_seconds = 0.0

    def __init__(self, options: PipelineOptions, codec_processes: int | None) -> None:
        """Args: codec_processes: as many as were asked for."""
        self._options = options
        self._codec_processes = codec_processes

    def start(self, build: Callable[[beam.Pipeline], Any]) -> str:
        """Raises: ConfigError: this engine ends with this process."""
        raise ConfigError(
            "--detach needs an engine elsewhere, such as --runner=DataflowRunner: the local one "
            "ends with this command"
        )

    def run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        """Runs a pipeline to its end. Raises: whatever a step raised."""
        with showing_progress(POOL.governor.use(self._codec_processes)):
            try:
                pipeline = make_local_pipeline(self._options)
                build(pipeline)
                pipeline.run().wait_until_finish()
            finally:
                _specs_of.cache_clear()


_specs_of = functools.lru_cache(maxsize=2_000)(userstate.get_dofn_specs)


def make_local_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns a pipeline on Beam's `FnApiRunner`, in this process and without gRPC.

    One thread of Beam drives all codec processes (see `engine.parallel`): the engine's own worker
    threads would split work by count before it is known how long each piece takes, and listen on
    every network interface.
    """
    direct = options.view_as(DirectOptions)
    direct.direct_running_mode = "in_memory"
    direct.direct_num_workers = 1
    # Beam asks each step some eight times whether it has state, and reads all of its functions for
    # the answer: in a small run that was a fifth of its CPU time.
    userstate.get_dofn_specs = _specs_of
    # The types of the graph are the same whatever a run is asked for, and the tests check them:
    # here that is a third of a second of a small run.
    options.view_as(TypeOptions).pipeline_type_check = False
    return beam.Pipeline(runner=FnApiRunner(), options=options)
