"""Runs a job of `transforms.media` in a child process with limits; its death is a `RecordingError`
of that job.

The child imports no Beam. It asks its parent what the name of an input stands for, opens files of
this machine by itself and has its parent read everything else, so no storage client lives there.
It dies with its parent. A job that it died over, or that took too much time or memory, is tried
once more by the pool, in a fresh child while no other is at work; a bug of ours (an exception in
the child) would only repeat itself and is not.

    parent                                   child
    ("warm",)                        ->  (between jobs)                     no answer
    ("ping",)                        ->  (between jobs)
                                     <-      "pong"
    ("run", job, args, kwargs)       ->
                                     <-      ("open", name)                   any number of times
    path | None                      ->
                                     <-      ("read", name, offset, size)     any number of times
    bytes | StorageError             ->
                                     <-      ("cores", most)                  any number of times
    how many it may keep busy        ->
                                     <-      ("progress", count)              no answer
                                     <-      ("done" | "failed" | "exhausted" | "crashed",
                                              value, cpu_ns)
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
)

from transforms.media.errors import CodecProcessError, RecordingError
from transforms.media.job import JobHost
from transforms.media.text import printable

logger = logging.getLogger(__name__)
_PING_SECONDS = 10
_IDLE_SECONDS = 30.0
"""What a child without work has of memory is of more use to others than its start costs: 0.2 s."""


P = ParamSpec("P")
T = TypeVar("T")


class Inputs(Protocol):
    """What the names of a job's inputs stand for."""

    def local_path(self, name: str) -> str | None:
        """Returns the path of a file of this machine; None for anything else."""

    def open(self, name: str) -> BinaryIO:
        """Opens anything for reading; seekable. Raises: StorageError, also from its reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms a codec process does a job."""

    inputs: Inputs
    on_progress: Callable[[int], None]
    """Told what the job tells: samples, or bytes of an archive."""
    timeout_seconds: float
    """The child is killed after this."""
    share: int = 1
    """How many of this machine's cores are to be its own, also where others wait for one."""
    cores: Callable[[int], int] = lambda _most: 1
    """Asked how many cores the job may keep busy from now on, of so many that it could."""


class JobResult(NamedTuple, Generic[T]):
    """What a job gave, and what it took."""

    value: T
    cpu_ns: int
    """CPU time of the child."""


class LostWorkError(CodecProcessError):
    """The child died over the work, or it took too much time or memory: a fresh child may fare
    better.
    """


class CodecProcess:
    """One child, reused from job to job. Used by one thread at a time."""

    def __init__(self, memory_bytes: int, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Starts the child.

        Args:
          memory_bytes: bound on its private memory (RLIMIT_DATA).
          idle_seconds: after so long without work it ends.
        """
        self.memory_bytes = memory_bytes
        self._connection, theirs = Pipe()
        package_root = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [package_root, os.environ.get("PYTHONPATH")])
            ),
            # One job is one thread of work; parallel jobs are parallel processes.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",  # whoever starts it may be in a folder that has modules of these names
                "-m",
                "transforms.codec.child",
                str(theirs.fileno()),
                str(memory_bytes),
                str(idle_seconds),
            ],
            pass_fds=[theirs.fileno()],
            # never written to: its end tells the child that the parent is gone
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C on the terminal is the parent's to handle
        )
        theirs.close()
        self._has_expired = False

    def run(
        self,
        terms: Terms,
        job: Callable[Concatenate[JobHost, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> JobResult[T]:
        """Returns what `job(host, *args, **kwargs)` gives in the child.

        Args:
          terms: what the job may use.
          job: a function at the top of a module of `transforms.media`.
          args, kwargs: picklable.

        Raises:
          RecordingError: what the job raised.
          LostWorkError: the child died, or ran out of time or memory.
          CodecProcessError: a bug of ours; it costs this recording and not the run, and its
            traceback goes to the log.
        """
        handles: dict[str, BinaryIO] = {}
        # A timer, since a child that is stuck in the middle of a message would hold up any wait for
        # the end of it.
        timer = threading.Timer(terms.timeout_seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._send(("run", job, args, kwargs))
            while True:
                kind, *rest = self._receive()
                if kind == "open":
                    self._send(terms.inputs.local_path(*rest))
                elif kind == "read":
                    self._send(self._read(handles, terms.inputs, *rest))
                elif kind == "cores":
                    self._send(terms.cores(*rest))
                elif kind == "progress":
                    terms.on_progress(*rest)
                else:
                    return JobResult(*_judge(kind, *rest))
        except _ChildGoneError:
            self.close()
            raise LostWorkError(self._why_gone(terms.timeout_seconds)) from None
        finally:
            timer.cancel()
            for handle in handles.values():
                handle.close()

    def _read(
        self, handles: dict[str, BinaryIO], inputs: Inputs, name: str, offset: int, size: int
    ) -> bytes | RecordingError:
        """Reads for the child; an error is an answer as well: it comes back as that of its work."""
        try:
            return _read_for_child(handles, inputs, name, offset, size)
        except RecordingError as error:
            return error
        except BaseException:
            self.close()  # it waits for an answer that will never come
            raise

    def _why_gone(self, timeout_seconds: float) -> str:
        if self._has_expired:
            return f"the codec process took more than {timeout_seconds:g} s (limits.codec_seconds)"
        status = self._process.returncode
        if status < 0:
            return f"the codec process died with signal {signal.Signals(-status).name}"
        return f"the codec process died with exit status {status}"

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _ChildGoneError from error

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:  # the latter when it died in the middle of a message
            raise _ChildGoneError from error

    def _expire(self) -> None:
        self._has_expired = True
        self.kill()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self._connection.closed and self._process.poll() is None

    def warm(self) -> None:
        """Has the child import what jobs need, and does not wait for it."""
        with contextlib.suppress(OSError):  # it died: who wants to lend it finds out
            self._connection.send(("warm",))

    def answers(self) -> bool:
        """Whether it can take a job. Between jobs only: a child killed a moment ago may still look
        alive.
        """
        try:
            self._connection.send(("ping",))
            return self._connection.poll(_PING_SECONDS) and self._connection.recv() == "pong"
        except (EOFError, OSError):
            return False

    def kill(self) -> None:
        """Kills the child. From any thread: whoever waits for it finds it gone."""
        self._process.kill()

    def close(self) -> None:
        """Kills the child and lets go of its pipes; harmless when it is dead. By its borrower, or
        when it has none.
        """
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._connection.close()


class _ChildGoneError(Exception):
    """The pipe to the child is broken."""


def _judge(ending: str, value: Any, cpu_ns: int) -> tuple[Any, int]:
    """Returns what a job gave, and its CPU time in ns; raises what became of it instead."""
    if ending == "done":
        return value, cpu_ns
    if ending == "failed":
        raise cast(RecordingError, value)
    if ending == "exhausted":
        raise LostWorkError("the codec process ran out of memory (limits.codec_memory_bytes)")
    logger.error("bug in the codec process:\n%s", value)
    line = value.strip().rsplit("\n", 1)[-1]
    raise CodecProcessError(
        f"a bug in the codec process, please report it with the log: {printable(line[:300])}"
    )


def _read_for_child(
    handles: dict[str, BinaryIO], inputs: Inputs, name: str, offset: int, size: int
) -> bytes:
    """Returns bytes of an input, its length when `size` is negative. Raises: StorageError."""
    if name not in handles:
        handles[name] = inputs.open(name)
    handle = handles[name]
    if size < 0:
        return handle.seek(0, io.SEEK_END).to_bytes(8, "big")
    if handle.tell() != offset:
        handle.seek(offset)
    return handle.read(size)
