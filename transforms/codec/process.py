"""Runs a function of `transforms.media` in a child process with limits; its death is a
`RecordingError` of that work.

The child imports no Beam. It opens local files by itself and asks its parent for everything else,
so no storage client lives there. It dies with its parent. Work that it died over, or that took too
much time or memory, is tried once more in a fresh child while no other is at work; a bug of ours
(an exception in the child) would only repeat itself and is not.

    parent                                   child
    ("warm", None, ())               ->  (between jobs)                     no answer
    ("ping", None, ())               ->  (between jobs)
                                     <-      "pong"
    ("run", function, args)          ->
                                     <-      ("read", name, offset, size)     any number of times
    bytes | StorageError             ->
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
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, BinaryIO, cast

from transforms.media.errors import CodecProcessError, RecordingError
from transforms.media.text import printable

logger = logging.getLogger(__name__)
_PING_SECONDS = 10


class LostWorkError(CodecProcessError):
    """The child died over the work, or it took too much time or memory: a fresh child may fare
    better.
    """


class CodecProcess:
    """One child, reused from job to job. Used by one thread at a time."""

    def __init__(self, memory_bytes: int) -> None:
        """Starts the child. Args: memory_bytes: bound on its private memory (RLIMIT_DATA)."""
        self._memory_bytes = memory_bytes
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
                "-m",
                "transforms.codec.child",
                str(theirs.fileno()),
                str(memory_bytes),
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
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        open_remote: Callable[[str], BinaryIO],
        on_progress: Callable[[int], None],
        timeout_seconds: float,
    ) -> tuple[Any, int]:
        """Returns what `function(*args, open_input=..., on_progress=...)` gives in the child, and
        its CPU time in ns.

        Args:
          function: module-level, of `transforms.media`.
          args: picklable.
          open_remote: opens what is no local path, on behalf of the child.
          on_progress: told what the function reports, in samples or bytes.
          timeout_seconds: the child is killed after this.

        Raises:
          RecordingError: what the function raised.
          LostWorkError: the child died, or ran out of time or memory.
          CodecProcessError: a bug of ours; it costs this recording and not the run, and its
            traceback goes to the log.
        """
        handles: dict[str, BinaryIO] = {}
        # A timer, since a child that is stuck in the middle of a message would hold up any wait for
        # the end of it.
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
                        # the child gives up its work, and so the error comes back as the work's
                        answer = error
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
                    raise LostWorkError(
                        "the codec process ran out of memory (limits.codec_memory_bytes)"
                    )
                else:
                    logger.error("bug in the codec process:\n%s", rest[0])
                    line = rest[0].strip().rsplit("\n", 1)[-1]
                    raise CodecProcessError(
                        "a bug in the codec process, please report it with the log: "
                        f"{printable(line[:300])}"
                    )
        except _ChildGoneError:
            self.close()
            if self._has_expired:
                raise LostWorkError(
                    f"the codec process took more than {timeout_seconds:g} s (limits.codec_seconds)"
                ) from None
            status = self._process.returncode
            how = (
                f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            )
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
        except (
            EOFError,
            OSError,
        ) as error:  # the latter also when it died in the middle of a message
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
        """Whether it can take a job. Between jobs only: a child killed a moment ago may still look
        alive.
        """
        try:
            self._connection.send(("ping", None, ()))
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


def _serve(
    handles: dict[str, BinaryIO],
    open_remote: Callable[[str], BinaryIO],
    name: str,
    offset: int,
    size: int,
) -> bytes:
    """Reads for the child. Raises: StorageError."""
    if name not in handles:
        handles[name] = open_remote(name)
    handle = handles[name]
    if size < 0:
        return handle.seek(0, io.SEEK_END).to_bytes(8, "big")
    if handle.tell() != offset:
        handle.seek(offset)
    return handle.read(size)
