"""Runs a function of `transforms.media` in a child process with limits; its death is a `RecordingError` of that work.

The child imports no Beam. It opens local files by itself and asks its parent for everything else, so no storage client
lives there. It dies with its parent. Work that it died over, or that took too much time or memory, is tried once more in a
fresh child while no other is at work; a bug of ours (an exception in the child) would only repeat itself and is not.

    parent                                   child
    ("warm", None, ())               ->  (between jobs)                     no answer
    ("ping", None, ())               ->  (between jobs)
                                     <-      "pong"
    ("run", function, args)          ->
                                     <-      ("read", name, offset, size)     any number of times
    bytes | StorageError             ->
                                     <-      ("progress", count)              no answer
                                     <-      ("done" | "failed" | "exhausted" | "crashed", value, cpu_ns)
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, BinaryIO, cast

from transforms.media.errors import CallpressError, CodecProcessError, RecordingError, StorageError
from transforms.plain_text import printable
from transforms.positioned_file import PositionedFile

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 20
_SWITCH_SECONDS = 0.0005
"""How long a thread that wants to go on waits for the interpreter: libopus comes back every 30 us, and Python's own 5 ms would
cost a call on two threads 6 % of both CPU and time."""
_STACK_BYTES = 1 << 20
"""Of a thread: the system's 8 MB would count as memory, used or not."""
_PING_SECONDS = 10
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


# --- the parent's side -----------------------------------------------------------------------------------------------


class RunStoppedError(CallpressError):
    """The run is being stopped: of no recording's making, so that it becomes no row."""


class LostWorkError(CodecProcessError):
    """The child died over the work, or it took too much time or memory: a fresh child may fare better."""


class CodecProcess:
    """One child, reused from job to job. Used by one thread at a time."""

    def __init__(self, memory_bytes: int) -> None:
        """Starts the child. Args: memory_bytes: bound on its private memory (RLIMIT_DATA)."""
        self._memory_bytes = memory_bytes
        self._connection, theirs = Pipe()
        package_root = str(Path(__file__).resolve().parent.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
            # One job is one thread of work; parallel jobs are parallel processes.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transforms.codec_process", str(theirs.fileno()), str(memory_bytes)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,  # never written to: its end tells the child that the parent is gone
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C on the terminal is the parent's to handle
        )
        theirs.close()
        self._has_expired = False

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        open_remote: Callable[[str], BinaryIO],
        on_progress: Callable[[int], None],
        timeout_seconds: float,
    ) -> tuple[Any, int]:
        """Returns what `function(*args, open_input=..., on_progress=...)` gives in the child, and its CPU time in ns.

        Args:
          function: module-level, of `transforms.media`.
          args: picklable.
          open_remote: opens what is no local path, on behalf of the child.
          on_progress: told what the function reports, in samples or bytes.
          timeout_seconds: the child is killed after this.

        Raises:
          RecordingError: what the function raised.
          LostWorkError: the child died, or ran out of time or memory.
          CodecProcessError: a bug of ours; it costs this recording and not the run, and its traceback goes to the log.
        """
        handles: dict[str, BinaryIO] = {}
        # A timer, since a child that is stuck in the middle of a message would hold up any wait for the end of it.
        timer = threading.Timer(timeout_seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            self._send(("run", function, args))
            while True:
                kind, *rest = self._receive()
                if kind == "read":
                    answer: bytes | RecordingError
                    try:
                        answer = _serve(handles, open_remote, *rest)
                    except RecordingError as error:
                        answer = error  # the child gives up its work, and so the error comes back as the work's
                    except BaseException:
                        self.close()  # it waits for an answer that will never come
                        raise
                    self._send(answer)
                elif kind == "progress":
                    on_progress(rest[0])
                elif kind == "done":
                    return rest[0], rest[1]
                elif kind == "failed":
                    raise cast(RecordingError, rest[0])
                elif kind == "exhausted":
                    raise LostWorkError("the codec process ran out of memory (limits.codec_memory_bytes)")
                else:
                    logger.error("bug in the codec process:\n%s", rest[0])
                    line = rest[0].strip().rsplit("\n", 1)[-1]
                    raise CodecProcessError(
                        f"a bug in the codec process, please report it with the log: {printable(line[:300])}"
                    )
        except _ChildGoneError:
            self.close()
            if self._has_expired:
                raise LostWorkError(f"the codec process took more than {timeout_seconds:g} s (limits.codec_seconds)") from None
            status = self._process.returncode
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise LostWorkError(f"the codec process died with {how}") from None
        finally:
            timer.cancel()
            for handle in handles.values():
                handle.close()

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _ChildGoneError from error

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:  # the latter also when it died in the middle of a message
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
            self._connection.send(("warm", None, ()))

    def answers(self) -> bool:
        """Whether it can take a job. Between jobs only: a child killed a moment ago may still look alive."""
        try:
            self._connection.send(("ping", None, ()))
            return self._connection.poll(_PING_SECONDS) and self._connection.recv() == "pong"
        except (EOFError, OSError):
            return False

    def kill(self) -> None:
        """Kills the child. From any thread: whoever waits for it finds it gone."""
        self._process.kill()

    def close(self) -> None:
        """Kills the child and lets go of its pipes; harmless when it is dead. By its borrower, or when it has none."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._connection.close()


class _ChildGoneError(Exception):
    """The pipe to the child is broken."""


def _serve(handles: dict[str, BinaryIO], open_remote: Callable[[str], BinaryIO], name: str, offset: int, size: int) -> bytes:
    """Reads for the child. Raises: StorageError."""
    if name not in handles:
        handles[name] = open_remote(name)
    handle = handles[name]
    if size < 0:
        return handle.seek(0, io.SEEK_END).to_bytes(8, "big")
    if handle.tell() != offset:
        handle.seek(offset)
    return handle.read(size)


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
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        open_remote: Callable[[str], BinaryIO],
        on_progress: Callable[[int], None],
        timeout_seconds: float,
    ) -> tuple[Any, int]:
        """As `CodecProcess.run`; but work that is lost is tried once more, alone.

        Alone, because several children at once may have used up the machine's memory, or its time, and the kernel does not
        always kill the one to blame. It waits until those at work have ended, and those who come later wait for it.

        Raises:
          RecordingError: what the function raised.
          CodecProcessError: lost twice, or a bug of ours.
          RunStoppedError: the pool was stopped.
        """
        told_samples = 0

        def tell(samples: int) -> None:
            nonlocal told_samples
            told_samples += samples
            on_progress(samples)

        def attempt() -> tuple[Any, int]:
            self._pool.check()
            try:
                return self.process.run(
                    function, args, open_remote=open_remote, on_progress=tell, timeout_seconds=timeout_seconds
                )
            except LostWorkError:
                self._pool.check()
                raise

        try:
            with self._pool.gate.together():
                return attempt()
        except LostWorkError as error:
            first = error.message
        logger.warning("%s over %s; it is tried once more, alone", first, function.__name__)
        with self._pool.gate.alone():
            self.process = self._pool.replace(self.process, self._memory_bytes)
            on_progress(-told_samples)
            try:
                return attempt()
            except LostWorkError as error:
                both = f"{first}, and again when tried alone"
                raise CodecProcessError(both if error.message == first else f"{first}; tried alone, {error.message}") from None


class CodecPool:
    """The children of this process: as many as there are threads at work, each lent to one at a time."""

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
        """Starts a child that imports what jobs need and waits for its first. Raises: RunStoppedError."""
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
            process.kill()  # its borrower closes it: a pipe closed under a reader may be another file by the time it reads
        with contextlib.suppress(queue.Empty):
            while True:
                idle.get_nowait().close()

    def restart(self) -> None:
        """Lends again after `stop`."""
        with self._lock:
            self._is_stopped = False


POOL = CodecPool()


# --- the child's side ------------------------------------------------------------------------------------------------


class _Parent:
    """What a job asks of the parent and tells it, from any of its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def read(self, name: str, position: int, size: int) -> bytes:
        """Returns bytes of a file that the parent reads for us."""
        with self._lock:
            self._connection.send(("read", name, position, size))
            answer = self._connection.recv()
        if isinstance(answer, RecordingError):
            raise answer
        return cast(bytes, answer)

    def tell_progress(self, count: int) -> None:
        """Tells how much more of a job is done: samples, or bytes of an archive."""
        with self._lock:
            self._connection.send(("progress", count))


class _RemoteFile(PositionedFile):
    """A file that the parent reads for us."""

    def __init__(self, parent: _Parent, name: str) -> None:
        super().__init__()
        self._parent = parent
        self._name = name

    def read_at(self, position: int, size: int) -> bytes:
        return self._parent.read(self._name, position, size)

    def find_end(self) -> int:
        return int.from_bytes(self.read_at(0, -1), "big")


def _open_input(parent: _Parent, name: str) -> BinaryIO:
    if "://" in name:
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(parent, name), _BUFFER_BYTES))
    try:
        return open(name, "rb")
    except OSError as error:
        raise StorageError(f"{name}: {error.strerror}") from error


def _die_with_parent() -> None:
    """Ends this process once the parent's end of stdin is gone, whatever else is going on here."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _limit_memory(memory_bytes: int) -> None:
    import resource  # not on every platform; the limit is only kept where it is

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, hard))


def _allow_many_files() -> None:
    """A call of a thousand tracks has a thousand files open."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _serve_jobs(connection: Connection) -> None:
    parent = _Parent(connection)
    while True:
        try:
            kind, function, args = connection.recv()
        except EOFError:
            return
        if kind == "ping":
            connection.send("pong")
            continue
        if kind == "warm":
            import av  # noqa: F401

            import transforms.media.extract_track
            import transforms.media.mix_call
            import transforms.media.unpack_archive  # noqa: F401

            continue
        started = time.process_time_ns()
        answer: tuple[str, Any]
        try:
            result = function(
                *args,
                open_input=functools.partial(_open_input, parent),
                on_progress=parent.tell_progress,
            )
            answer = ("done", result)
            pickle.dumps(answer)
        except RecordingError as error:
            error.__cause__ = None
            answer = ("failed", error)
        except MemoryError:
            answer = ("exhausted", None)
        except OSError as error:
            if error.errno in _DISK_ERRNOS:
                answer = ("failed", StorageError(f"{error.filename or 'the work folder'}: {error.strerror}"))
            else:
                answer = ("crashed", traceback.format_exc())
        except BaseException:
            answer = ("crashed", traceback.format_exc())
        connection.send((*answer, time.process_time_ns() - started))


def main(argv: list[str]) -> None:
    """The child. Args: argv: the connection's file descriptor, the memory limit in bytes."""
    connection = Connection(int(argv[0]))
    sys.setswitchinterval(_SWITCH_SECONDS)
    threading.stack_size(_STACK_BYTES)
    _limit_memory(int(argv[1]))
    _allow_many_files()
    _die_with_parent()
    _serve_jobs(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
