"""The codec processes of a worker: one for each job that is at work, each lent to one at a time.
How many are at work, the governor says.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from transforms.codec.governor import Governor, Slots
from transforms.codec.process import CodecProcess, Inputs, JobResult, LostWorkError, Terms
from transforms.media.errors import CallpressError, CodecProcessError
from transforms.media.job import JobHost

if TYPE_CHECKING:  # a process of a command that takes a second begins with this module
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
    """A codec process while it is lent: from its first job on, since one that waits for its turn
    would take up memory.
    """

    def __init__(self, pool: CodecPool, memory_bytes: int) -> None:
        self._pool = pool
        self._memory_bytes = memory_bytes
        self.process: CodecProcess | None = None

    def run(
        self,
        terms: Terms,
        job: Callable[Concatenate[JobHost, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> JobResult[T]:
        """As `CodecProcess.run`, once there is a slot for it on this machine; but work that is lost
        is tried once more, alone.

        Alone, because several children at once may have used up the machine's memory, or its time,
        and the kernel does not always kill the one to blame. It waits until those at work have
        ended, and those who come later wait for it.

        Raises:
          RecordingError: what the job raised.
          CodecProcessError: lost twice, or a bug of ours.
          RunStoppedError: the pool was stopped.
          SlotFolderError: the governor's folder is of no use.
        """
        told = 0

        def tell(count: int) -> None:
            nonlocal told
            told += count
            terms.on_progress(count)

        def attempt(slots: Slots) -> JobResult[T]:
            self._pool.check()
            if self.process is None:
                self.process = self._pool.take(self._memory_bytes)
            now = replace(terms, on_progress=tell, cores=slots.cores)
            try:
                return self.process.run(now, job, *args, **kwargs)
            except LostWorkError:
                self._pool.check()
                raise

        turn = functools.partial(self._pool.governor.slot, self._pool.check, terms.share)
        try:
            with self._pool.gate.together(), turn() as slots:
                return attempt(slots)
        except LostWorkError as error:
            first = error.message
        logger.warning("%s over %s; it is tried once more, alone", first, job.__name__)
        with self._pool.gate.alone(), turn() as slots:
            self._give_up_process()
            terms.on_progress(-told)
            try:
                return attempt(slots)
            except LostWorkError as error:
                both = f"{first}, and again when tried alone"
                raise CodecProcessError(
                    both if error.message == first else f"{first}; tried alone, {error.message}"
                ) from None

    def _give_up_process(self) -> None:
        if self.process is not None:
            self._pool.discard(self.process)
            self.process = None


class CodecPool:
    """The children of this process: one for each job at work, each lent to one at a time."""

    def __init__(self, governor: Governor | None = None) -> None:
        self.governor = governor or Governor()
        self.gate = _Gate()
        self._idle: queue.SimpleQueue[CodecProcess] = queue.SimpleQueue()
        self._all: set[CodecProcess] = set()
        self._is_stopped = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, memory_bytes: int) -> Iterator[CodecLoan]:
        """Lends a child. Raises: RunStoppedError."""
        self.check()
        loan = CodecLoan(self, memory_bytes)
        try:
            yield loan
        finally:
            if loan.process is not None:
                self._take_back(loan.process)

    def _take_back(self, process: CodecProcess) -> None:
        with self._lock:
            is_fit = process.is_alive and not self._is_stopped
            if is_fit:
                self._idle.put(process)
        if not is_fit:
            self.discard(process)

    def warm(self, memory_bytes: int) -> None:
        """Starts a child that imports what jobs need and waits for its first, unless one waits.
        Raises: RunStoppedError.
        """
        if not self._idle.empty():
            return
        process = self._start(memory_bytes)
        process.warm()
        self._idle.put(process)

    def check(self) -> None:
        """Raises: RunStoppedError: the pool was stopped."""
        if self._is_stopped:
            raise RunStoppedError("the run is being stopped")

    def discard(self, process: CodecProcess) -> None:
        """Ends a child that nobody else has."""
        process.close()
        with self._lock:
            self._all.discard(process)

    def take(self, memory_bytes: int) -> CodecProcess:
        """Returns a live child with this bound on its memory. Raises: RunStoppedError."""
        while True:
            self.check()
            try:
                process = self._idle.get_nowait()
            except queue.Empty:
                return self._start(memory_bytes)
            if process.memory_bytes == memory_bytes and process.answers():
                return process
            self.discard(process)  # it died while nobody used it, or has another bound

    def _start(self, memory_bytes: int) -> CodecProcess:
        process = CodecProcess(memory_bytes)
        with self._lock:
            if not self._is_stopped:
                self._all.add(process)
                return process
        process.close()
        raise RunStoppedError("the run is being stopped")

    def stop(self) -> None:
        """Kills every child, also those at work, and lends no more; nobody waits for a slot."""
        with self._lock:
            self._is_stopped = True
            processes, self._all = self._all, set()
            idle, self._idle = self._idle, queue.SimpleQueue()
        self.governor.wake()
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
      SlotFolderError: the governor's folder is of no use.
    """
    terms = Terms(inputs=inputs, on_progress=on_progress, timeout_seconds=limits.codec_seconds)
    with POOL.lend(limits.codec_memory_bytes) as codec:
        return codec.run(terms, job, *args, **kwargs)
