"""Runs a function of `transforms.media` in a child process with limits; its death is a `RecordingError` of that work.

The child imports no Beam. It opens local files by itself and asks its parent for everything else, so no storage client
lives there. It dies with its parent.

    parent                                   child
    ("ping", None, ())               ->  (between jobs)
                                     <-      "pong"
    ("run", function, args)          ->
                                     <-      ("read", name, offset, size)     any number of times
    bytes | StorageError             ->
                                     <-      ("progress", samples)            no answer
                                     <-      ("done" | "failed" | "crashed", value, cpu_ns)
"""

from __future__ import annotations

import contextlib
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

from transforms.media.errors import CodecProcessError, RecordingError, StorageError
from transforms.positioned_file import PositionedFile

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 20
_PING_SECONDS = 10


# --- the parent's side -----------------------------------------------------------------------------------------------


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
          on_progress: told what the function reports, in samples.
          timeout_seconds: the child is killed after this.

        Raises:
          RecordingError: what the function raised, or `CodecProcessError` when the child died or ran out of time or memory.
            A bug of ours is one, too: it costs this recording and not the run, and its traceback goes to the log.
        """
        deadline = time.monotonic() + timeout_seconds
        handles: dict[str, BinaryIO] = {}
        try:
            self._connection.send(("run", function, args))
            while True:
                if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise CodecProcessError(f"the codec process took more than {timeout_seconds:g} s (limits.codec_seconds)")
                kind, *rest = self._connection.recv()
                if kind == "read":
                    answer: bytes | RecordingError
                    try:
                        answer = _serve(handles, open_remote, *rest)
                    except RecordingError as error:
                        answer = error  # the child gives up its work, and so the error comes back as the work's
                    except BaseException:
                        self.close()  # it waits for an answer that will never come
                        raise
                    self._connection.send(answer)
                elif kind == "progress":
                    on_progress(rest[0])
                elif kind == "done":
                    return rest[0], rest[1]
                elif kind == "failed":
                    raise cast(RecordingError, rest[0])
                else:
                    logger.error("bug in the codec process:\n%s", rest[0])
                    line = rest[0].strip().rsplit("\n", 1)[-1]
                    raise CodecProcessError(f"a bug in the codec process, please report it with the log: {line[:300]}")
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.close()
            status = self._process.returncode
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise CodecProcessError(f"the codec process died with {how}") from None
        finally:
            for handle in handles.values():
                handle.close()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self._connection.closed and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it can take a job. Between jobs only: a child killed a moment ago may still look alive."""
        try:
            self._connection.send(("ping", None, ()))
            return self._connection.poll(_PING_SECONDS) and self._connection.recv() == "pong"
        except (EOFError, OSError):
            return False

    def close(self) -> None:
        """Kills the child; harmless when it is dead."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._connection.close()


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


class CodecPool:
    """The children of this process: as many as there are threads at work, each lent to one at a time."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[CodecProcess] = queue.SimpleQueue()
        self._all: set[CodecProcess] = set()
        self._closed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, memory_bytes: int) -> Iterator[CodecProcess]:
        """Lends a live child."""
        with self._lock:
            if self._closed:
                raise CodecProcessError("the run is being stopped")
        process = self._take(memory_bytes)
        try:
            yield process
        finally:
            if process.is_alive:
                self._idle.put(process)
            else:
                with self._lock:
                    self._all.discard(process)

    def _take(self, memory_bytes: int) -> CodecProcess:
        while True:
            try:
                process = self._idle.get_nowait()
            except queue.Empty:
                process = CodecProcess(memory_bytes)
                with self._lock:
                    self._all.add(process)
                return process
            if process.answers():
                return process
            process.close()  # it died while nobody used it
            with self._lock:
                self._all.discard(process)

    def stop(self) -> None:
        """Kills every child, also those at work, and lends no more."""
        with self._lock:
            self._closed = True
            processes, self._all = self._all, set()
        for process in processes:
            with contextlib.suppress(OSError):
                process.close()

    def restart(self) -> None:
        """Lends again after `stop`."""
        with self._lock:
            self._closed = False
            self._idle = queue.SimpleQueue()


POOL = CodecPool()


# --- the child's side ------------------------------------------------------------------------------------------------


class _RemoteFile(PositionedFile):
    """A file that the parent reads for us."""

    def __init__(self, connection: Connection, name: str) -> None:
        super().__init__()
        self._connection = connection
        self._name = name

    def read_at(self, position: int, size: int) -> bytes:
        self._connection.send(("read", self._name, position, size))
        answer = self._connection.recv()
        if isinstance(answer, RecordingError):
            raise answer
        return cast(bytes, answer)

    def find_end(self) -> int:
        return int.from_bytes(self.read_at(0, -1), "big")


def _open_input(connection: Connection, name: str) -> BinaryIO:
    if "://" in name:
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(connection, name), _BUFFER_BYTES))
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


def _serve_jobs(connection: Connection) -> None:
    while True:
        try:
            kind, function, args = connection.recv()
        except EOFError:
            return
        if kind == "ping":
            connection.send("pong")
            continue
        started = time.process_time_ns()
        answer: tuple[str, Any]
        try:
            result = function(
                *args,
                open_input=functools.partial(_open_input, connection),
                on_progress=lambda samples: connection.send(("progress", samples)),
            )
            answer = ("done", result)
            pickle.dumps(answer)
        except RecordingError as error:
            error.__cause__ = None
            answer = ("failed", error)
        except MemoryError:
            answer = ("failed", CodecProcessError("the codec process ran out of memory (limits.codec_memory_bytes)"))
        except BaseException:
            answer = ("crashed", traceback.format_exc())
        connection.send((*answer, time.process_time_ns() - started))


def main(argv: list[str]) -> None:
    """The child. Args: argv: the connection's file descriptor, the memory limit in bytes."""
    connection = Connection(int(argv[0]))
    _limit_memory(int(argv[1]))
    _die_with_parent()
    _serve_jobs(connection)


if __name__ == "__main__":
    main(sys.argv[1:])
