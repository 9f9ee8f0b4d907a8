"""Runs a DoFn's slow work on threads: each drives a codec process, so that one worker process keeps all cores busy.

Beam's local engine hands a whole stage to one thread; work is taken from here as threads come free, so a big call beside
many small ones leaves no core idle. On other engines one thread per worker is enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue


class ParallelFn(beam.DoFn):
    """Base of DoFns whose `work` is done on threads. Outputs of a bundle come in any order."""

    def __init__(self, threads: int) -> None:
        """Args: threads: how many elements are worked on at a time."""
        self._threads = threads

    def work(self, element: Any) -> Iterable[Any]:
        """Returns an element's outputs, tagged or not. Runs outside Beam's own threads: no metrics in here."""
        raise NotImplementedError

    def count(self, output: Any) -> None:
        """Counts an output; runs in Beam's thread."""

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=type(self).__name__)

    def start_bundle(self) -> None:
        self._pending: deque[Future[list[Any]]] = deque()

    def process(self, element: Any) -> Iterator[Any]:
        self._pending.append(self._pool.submit(self._collect, element))
        while len(self._pending) >= 4 * self._threads:
            yield from self._finished()

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            for output in self._finished():
                yield _in_global_window(output)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _collect(self, element: Any) -> list[Any]:
        return list(self.work(element))

    def _finished(self) -> Iterator[Any]:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        self._pending = deque(future for future in self._pending if future not in done)
        for future in done:
            try:
                outputs = future.result()
            except BaseException:
                for other in self._pending:  # the run ends: what has not begun need not
                    other.cancel()
                raise
            for output in outputs:
                self.count(output)
                yield output


def _in_global_window(output: Any) -> Any:
    if isinstance(output, beam.pvalue.TaggedOutput):
        return beam.pvalue.TaggedOutput(output.tag, _in_global_window(output.value))
    windowed: WindowedValue = GlobalWindows.windowed_value(output)
    return windowed
