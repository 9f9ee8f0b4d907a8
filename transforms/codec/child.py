"""What runs inside a codec process: it takes jobs from its parent, one after the other."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import pickle
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any, BinaryIO, cast

from transforms.media.buffers import PositionedFile
from transforms.media.errors import RecordingError, StorageError

_BUFFER_BYTES = 1 << 20
_SWITCH_SECONDS = 0.0005
"""How long a thread that wants to go on waits for the interpreter: libopus comes back every 30 us,
and Python's own 5 ms would cost a call on two threads 6 % of both CPU and time.
"""
_STACK_BYTES = 1 << 20
"""Of a thread: the system's 8 MB would count as memory, used or not."""
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


# --- the child's side -----------------------------------------------------------------------------


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
                answer = (
                    "failed",
                    StorageError(f"{error.filename or 'the work folder'}: {error.strerror}"),
                )
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
