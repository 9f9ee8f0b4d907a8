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

_LOCAL_RUNNERS = ("directrunner", "direct", "fnapirunner")


def is_local(runner: str | None) -> bool:
    """Whether a value of `--runner` means this engine. By the name DirectRunner Beam would try to download another one."""
    return runner is None or runner.lower() in _LOCAL_RUNNERS


class StoppedError(BaseException):
    """Ctrl-C or SIGTERM came."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


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
    """Turns Ctrl-C and SIGTERM into `StoppedError`; the codec processes are gone when the block has ended, however it did."""
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if not received:  # a second one must not disturb the cleaning up
            received.append(number)
            raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    POOL.restart()
    try:
        yield
    except BaseException as error:
        if received:  # Beam wraps whatever is raised inside a step
            raise StoppedError(received[0]) from error
        raise
    finally:
        POOL.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
