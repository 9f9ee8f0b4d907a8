"""What runs inside a codec process: it takes jobs from its parent, one after the other."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, BinaryIO, cast

from transforms.media.errors import RecordingError, StorageError
from transforms.media.job import JobHost
from transforms.media.positioned_file import PositionedFile

_BUFFER_BYTES = 1 << 20
_SWITCH_SECONDS = 0.0005
"""How long a thread that wants to go on waits for the interpreter: libopus comes back every 30 us,
and Python's own 5 ms would cost a call on two threads 6 % of both CPU and time.
"""
_STACK_BYTES = 1 << 20
"""Of a thread: the system's 8 MB would count as memory, used or not."""
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


class _Parent:
    """What a job asks of the parent and tells it, from any of its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def open_input(self, name: str) -> BinaryIO:
        """Opens an input: a file of this machine here, all else by way of the parent."""
        path = self._ask("open", name)
        if path is None:
            return cast(BinaryIO, io.BufferedReader(_RemoteFile(self, name), _BUFFER_BYTES))
        try:
            return open(path, "rb")
        except OSError as error:
            raise StorageError(f"{name}: {error.strerror}") from error

    def read(self, name: str, position: int, size: int) -> bytes:
        """Returns bytes of a file that the parent reads for us."""
        return cast(bytes, self._ask("read", name, position, size))

    def _ask(self, *question: Any) -> Any:
        with self._lock:
            self._connection.send(question)
            answer = self._connection.recv()
        if isinstance(answer, RecordingError):
            raise answer
        return answer

    def cores(self, most: int) -> int:
        """Returns how many cores the job may keep busy from now on, of so many that it could."""
        return cast(int, self._ask("cores", most))

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


def _serve_jobs(connection: Connection, idle_seconds: float) -> None:
    parent = _Parent(connection)
    host = JobHost(
        open_input=parent.open_input, tell_progress=parent.tell_progress, cores=parent.cores
    )
    while True:
        if not connection.poll(idle_seconds):
            return
        try:
            kind, *work = connection.recv()
        except EOFError:
            return
        if kind == "ping":
            connection.send("pong")
            continue
        if kind == "warm":
            _import_jobs()
            continue
        started = time.process_time_ns()
        answer = _do(host, *work)
        connection.send((*answer, time.process_time_ns() - started))


def _import_jobs() -> None:
    """Imports what jobs need. None of it is garbage; to look for some takes a tenth of the time."""
    gc.disable()
    import av  # noqa: F401

    import transforms.media.extract_track
    import transforms.media.mix_call
    import transforms.media.unpack_archive  # noqa: F401

    gc.freeze()
    gc.enable()


def _do(
    host: JobHost, job: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, Any]:
    """Does a job; returns how it ended, and with what."""
    try:
        answer = ("done", job(host, *args, **kwargs))
        pickle.dumps(answer)
        return answer
    except RecordingError as error:
        error.__cause__ = None
        return "failed", error
    except MemoryError:
        return "exhausted", None
    except OSError as error:
        if error.errno not in _DISK_ERRNOS:
            return "crashed", traceback.format_exc()
        where = error.filename or "the work folder"
        return "failed", StorageError(f"{where}: {error.strerror}")
    except BaseException:
        return "crashed", traceback.format_exc()


def main(argv: list[str]) -> None:
    """The child. Args: argv: the connection's file descriptor, the memory limit in bytes, how many
    seconds to wait for work.
    """
    connection = Connection(int(argv[0]))
    sys.setswitchinterval(_SWITCH_SECONDS)
    threading.stack_size(_STACK_BYTES)
    _limit_memory(int(argv[1]))
    _allow_many_files()
    _die_with_parent()
    _serve_jobs(connection, float(argv[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
