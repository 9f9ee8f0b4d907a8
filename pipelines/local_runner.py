"""What a local run adds to Beam's in-process engine: nothing fetched, nothing listening, clean ends on Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from transforms.codec_process import POOL

LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner")
"""Values of `--runner` that mean this engine. By the name DirectRunner Beam would try to download another one."""


class TerminatedError(BaseException):
    """SIGTERM came."""


def make_local_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns a pipeline on Beam's `FnApiRunner`, in this process and without gRPC.

    One thread of Beam drives all codec processes (see `transforms.parallel`): the engine's own worker threads would split
    work by count before it is known how long each piece takes, and listen on every network interface.
    """
    direct = options.view_as(DirectOptions)
    direct.direct_running_mode = "in_memory"
    direct.direct_num_workers = 1
    return beam.Pipeline(runner=FnApiRunner(), options=options)


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Turns SIGTERM into `TerminatedError`, and kills the codec processes when the block ends by an exception."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    POOL.restart()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        POOL.stop()
