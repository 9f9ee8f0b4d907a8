"""The codec processes of a worker: as many as there are threads at work, each lent to one at a
time.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Concatenate, ParamSpec, TypeVar

from transforms.codec.process import CodecProcess, Inputs, JobResult, LostWorkError, Terms
from transforms.media.errors import CallpressError, CodecProcessError
from transforms.media.job import JobHost
from transforms.media.settings import LimitSettings

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class RunStoppedError(CallpressError):
    """The run is being stopped: of no recording's making, so that it becomes no row."""


class _Gate:
    """Lets many in together, or one alone; who wants to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._wanting = 0
        self._is_alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._wanting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._wanting += 1
            self._changed.wait_for(lambda: not self._is_alone and not self._inside)
            self._wanting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


class CodecLoan:
    """A codec process while it is lent."""

    def __init__(self, pool: CodecPool, process: CodecProcess, memory_bytes: int) -> None:
        self._pool = pool
        self._memory_bytes = memory_bytes
        self.process = process

    def run(
        self,
        terms: Terms,
        job: Callable[Concatenate[JobHost, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> JobResult[T]:
        """As `CodecProcess.run`; but work that is lost is tried once more, alone.

        Alone, because several children at once may have used up the machine's memory, or its time,
        and the kernel does not always kill the one to blame. It waits until those at work have
        ended, and those who come later wait for it.

        Raises:
          RecordingError: what the job raised.
          CodecProcessError: lost twice, or a bug of ours.
          RunStoppedError: the pool was stopped.
        """
        told = 0

        def tell(count: int) -> None:
            nonlocal told
            told += count
            terms.on_progress(count)

        def attempt() -> JobResult[T]:
            self._pool.check()
            try:
                return self.process.run(replace(terms, on_progress=tell), job, *args, **kwargs)
            except LostWorkError:
                self._pool.check()
                raise

        try:
            with self._pool.gate.together():
                return attempt()
        except LostWorkError as error:
            first = error.message
        logger.warning("%s over %s; it is tried once more, alone", first, job.__name__)
        with self._pool.gate.alone():
            self.process = self._pool.replace(self.process, self._memory_bytes)
            terms.on_progress(-told)
            try:
                return attempt()
            except LostWorkError as error:
                both = f"{first}, and again when tried alone"
                raise CodecProcessError(
                    both if error.message == first else f"{first}; tried alone, {error.message}"
                ) from None


class CodecPool:
    """The children of this process: as many as there are threads at work, each lent to one at a
    time.
    """

    def __init__(self) -> None:
        self.gate = _Gate()
        self._idle: queue.SimpleQueue[CodecProcess] = queue.SimpleQueue()
        self._all: set[CodecProcess] = set()
        self._is_stopped = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, memory_bytes: int) -> Iterator[CodecLoan]:
        """Lends a live child. Raises: RunStoppedError."""
        loan = CodecLoan(self, self._take(memory_bytes), memory_bytes)
        try:
            yield loan
        finally:
            with self._lock:
                is_fit = loan.process.is_alive and not self._is_stopped
                if is_fit:
                    self._idle.put(loan.process)
                else:
                    self._all.discard(loan.process)
            if not is_fit:
                loan.process.close()

    def warm(self, memory_bytes: int) -> None:
        """Starts a child that imports what jobs need and waits for its first. Raises:
        RunStoppedError.
        """
        process = self._start(memory_bytes)
        process.warm()
        self._idle.put(process)

    def check(self) -> None:
        """Raises: RunStoppedError: the pool was stopped."""
        if self._is_stopped:
            raise RunStoppedError("the run is being stopped")

    def replace(self, process: CodecProcess, memory_bytes: int) -> CodecProcess:
        """Returns a fresh child for one that is lent. Raises: RunStoppedError."""
        process.close()
        with self._lock:
            self._all.discard(process)
        return self._start(memory_bytes)

    def _take(self, memory_bytes: int) -> CodecProcess:
        while True:
            self.check()
            try:
                process = self._idle.get_nowait()
            except queue.Empty:
                return self._start(memory_bytes)
            if process.answers():
                return process
            process.close()  # it died while nobody used it
            with self._lock:
                self._all.discard(process)

    def _start(self, memory_bytes: int) -> CodecProcess:
        process = CodecProcess(memory_bytes)
        with self._lock:
            if not self._is_stopped:
                self._all.add(process)
                return process
        process.close()
        raise RunStoppedError("the run is being stopped")

    def stop(self) -> None:
        """Kills every child, also those at work, and lends no more."""
        with self._lock:
            self._is_stopped = True
            processes, self._all = self._all, set()
            idle, self._idle = self._idle, queue.SimpleQueue()
        for process in processes:
            # its borrower closes it: a pipe closed under a reader may be another file by the time
            # it reads
            process.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                idle.get_nowait().close()

    def restart(self) -> None:
        """Lends again after `stop`."""
        with self._lock:
            self._is_stopped = False


POOL = CodecPool()


def run_in_codec_process(
    limits: LimitSettings,
    inputs: Inputs,
    on_progress: Callable[[int], None],
    job: Callable[Concatenate[JobHost, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> JobResult[T]:
    """Returns what `job(host, *args, **kwargs)` gives in a codec process of this worker.

    Args:
      limits: how much memory and time the job may take.
      inputs: what the names of its inputs stand for.
      on_progress: told what the job tells; less than nothing when work is begun anew.
      job: a function at the top of a module of `transforms.media`.
      args, kwargs: picklable.

    Raises:
      RecordingError: what the job raised.
      CodecProcessError: the process died or passed a limit, twice; or a bug of ours.
      RunStoppedError: the run is being stopped.
    """
    terms = Terms(inputs=inputs, on_progress=on_progress, timeout_seconds=limits.codec_seconds)
    with POOL.lend(limits.codec_memory_bytes) as codec:
        return codec.run(terms, job, *args, **kwargs)
