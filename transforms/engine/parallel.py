"""Runs a DoFn's slow work on threads that drive codec processes, so that one worker process keeps
all cores busy. How many slots its machine has for them is found out on the worker; that no more
jobs are at work than that, however many bundles and processes there are, is the governor's doing.

Beam's local engine hands a whole stage to one thread. Of what has arrived the threads take the
largest first: taken last, a big call beside many small ones would leave the other cores idle. A
call that is larger than a core's share of what is left may keep more than one core busy by itself.
Other engines hand out bundles, and may give what is not taken in yet to another worker: so work is
taken as it comes, and little of it ahead.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from transforms.codec.pool import POOL

_LOOK_AHEAD = 1_000
"""Elements that wait at most: a few kB each."""
_LOOK_AHEAD_ALONE = 4
_LOOK_AHEAD_OF_BUNDLE = 2
"""Elements per slot that are taken in at most where the engine splits work: one at work, one next.
"""
_THREADS_PER_SLOT = 2
"""While one waits for its codec process, the other puts away what its own has made. Of 1,000 small
archives on two cores both slots were in use 80 % of the time, 67 % with one.
"""
_BEGUN_WITH = 16
"""Elements per slot that are waited for before the first is taken: they come within ms, and the
largest may be among them.
"""


class ParallelFn(beam.DoFn):
    """Base of DoFns whose `process` is `take`: their `work` is done on threads. Outputs of a bundle
    come in any order.
    """

    def __init__(self, codec_processes: int | None, *, in_one_bundle: bool) -> None:
        """Args:
        codec_processes: how many codec jobs are at work at a time; None for as many as the worker's
            machine has cores and memory for.
        in_one_bundle: whether all there is comes in one bundle; then, with more than one at a time,
            the largest that are known come first.
        """
        self._codec_processes = codec_processes
        self._in_one_bundle = in_one_bundle

    def work(self, element: Any) -> Iterable[Any]:
        """Returns an element's outputs, tagged or not. Runs outside Beam's own threads: no metrics
        in here.
        """
        raise NotImplementedError

    def work_at(self, element: Any) -> list[Any]:
        """Does an element's work."""
        return list(self.work(element))

    def size(self, element: Any) -> int:
        """Returns how much work an element is, in any unit: it decides what is worked on first, and
        nothing else.
        """
        return 0

    def share_of(self, element: Any) -> int:
        """Returns how many cores are an element's own: its share of all that is not done, at least
        one. Of a bundle among many it is one: what else there is nobody knows.
        """
        if not self._in_one_bundle:
            return 1
        with self._lock:
            return max(1, round(self._slots * self.size(element) / max(1, self._size_left)))

    def count(self, output: Any) -> None:
        """Counts an output; runs in Beam's thread."""

    def give(self, outputs: list[Any]) -> Iterable[Any]:
        """Returns what is given out now that an element is done: its outputs, or what was gathered.
        Runs in Beam's thread.
        """
        return outputs

    def give_rest(self) -> Iterable[Any]:
        """Returns what was gathered; when it has waited for long, and at the end of a bundle."""
        return ()

    def patience_seconds(self) -> float | None:
        """Returns how long what was gathered may wait; None for as long as it takes."""
        return None

    def setup(self) -> None:
        self._slots = POOL.governor.use(self._codec_processes)
        self._by_size = self._in_one_bundle and self._slots > 1
        threads = _THREADS_PER_SLOT * self._slots
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=type(self).__name__)

    def start_bundle(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, Any]] = []  # a heap by size, then arrival
        self._results: queue.SimpleQueue[list[Any] | BaseException] = queue.SimpleQueue()
        self._size_left = 0
        """Of all that is not done."""
        self._arrived = 0
        self._begun = 0
        self._given = 0

    def take(self, element: Any) -> Iterator[Any]:
        """Takes an element in, and yields what is done by now."""
        size = self.size(element)
        with self._lock:
            heapq.heappush(self._waiting, (-size if self._by_size else 0, self._arrived, element))
            self._size_left += size
        self._arrived += 1
        if self._by_size:
            most = _LOOK_AHEAD
        elif self._in_one_bundle:
            most = _LOOK_AHEAD_ALONE
        else:
            most = _LOOK_AHEAD_OF_BUNDLE * self._slots
        if not self._by_size or self._arrived > min(_BEGUN_WITH * self._slots, most // 2):
            self._begin()
        while self._arrived - self._given >= most or not self._results.empty():
            yield from self._next_result()

    def finish_bundle(self) -> Iterator[Any]:
        self._begin()
        while self._given < self._arrived:
            for output in self._next_result():
                yield _in_global_window(output)
        for output in self._counted(self.give_rest()):
            yield _in_global_window(output)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while self._begun < self._arrived:
            # Each task takes what is largest when its turn has come, not the element it was made
            # for.
            self._pool.submit(self._take_one)
            self._begun += 1

    def _take_one(self) -> None:
        with self._lock:
            if not self._waiting:  # the run ends
                return
            _, _, element = heapq.heappop(self._waiting)
        try:
            self._results.put(self.work_at(element))
        except BaseException as error:
            self._results.put(error)
        finally:
            with self._lock:
                self._size_left -= self.size(element)

    def _next_result(self) -> Iterator[Any]:
        try:
            result = self._results.get(timeout=self.patience_seconds())
        except queue.Empty:
            yield from self._counted(self.give_rest())
            return
        self._given += 1
        if isinstance(result, BaseException):
            with self._lock:
                self._waiting.clear()  # the run ends: what has not begun need not
            raise result
        yield from self._counted(self.give(result))

    def _counted(self, outputs: Iterable[Any]) -> Iterator[Any]:
        for output in outputs:
            self.count(output)
            yield output


def _in_global_window(output: Any) -> Any:
    if isinstance(output, beam.pvalue.TaggedOutput):
        return beam.pvalue.TaggedOutput(output.tag, _in_global_window(output.value))
    windowed: WindowedValue = GlobalWindows.windowed_value(output)
    return windowed
