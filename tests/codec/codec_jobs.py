"""Functions that the tests run in a codec process; imports no Beam."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transforms.media.errors import RtpdumpError
from transforms.media.job import JobHost


def give_back(_host: JobHost, value: Any) -> Any:
    """Returns its argument."""
    return value


def give_pid(_host: JobHost) -> int:
    """Returns the child's process id."""
    return os.getpid()


def give_modules(_host: JobHost) -> list[str]:
    """Returns the names of all modules the child has imported."""
    return sorted(sys.modules)


def give_lambda(_host: JobHost) -> Any:
    """Returns what cannot be pickled."""
    return lambda: None


def refuse_dump(_host: JobHost) -> None:
    """Fails as a parser does."""
    try:
        raise KeyError("a cause that stays in the child")
    except KeyError as error:
        raise RtpdumpError(
            "a.rtpdump: record 17: length 6, need at least 8", member="a.rtpdump", byte_offset=4096
        ) from error


def divide_by_zero(_host: JobHost) -> float:
    """Has a bug."""
    return 1 / 0


def kill_itself(_host: JobHost, signal_number: int) -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), signal_number)
    signal.pause()


def segfault(_host: JobHost) -> None:
    """Reads where nothing is, in native code."""
    ctypes.string_at(0)


def cut_message_short(_host: JobHost, seconds: float) -> None:
    """Begins a message to the parent, and ends, or sleeps, in the middle of it."""
    os.write(int(sys.argv[1]), (1 << 20).to_bytes(4, "big") + b"half a message")
    time.sleep(seconds)
    os._exit(1)


def fail_times(_host: JobHost, marker: Path, times: int, how: str) -> str:
    """Is lost so many times, then goes well; `marker` has a line per try, with the process that
    made it.
    """
    with marker.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(marker.read_text().splitlines()) > times:
        return "done"
    if how == "killed":
        kill_itself(_host, signal.SIGKILL)
    elif how == "segfault":
        segfault(_host)
    elif how == "exit":
        leave(_host, 3)
    elif how == "memory":
        raise MemoryError
    elif how == "time":
        work_for(_host, 60)
    elif how == "bug":
        divide_by_zero(_host)
    elif how == "recording":
        refuse_dump(_host)
    raise AssertionError(how)


def fill_disk(_host: JobHost) -> None:
    """Writes to a disk that has no room."""
    with Path("/dev/full").open("wb") as file:
        file.write(b"x" * (1 << 20))


def fail_on_disk(_host: JobHost, code: int) -> None:
    """Fails as a disk does."""
    raise OSError(code, os.strerror(code), "/disk/track")


def note_time(_host: JobHost, log: Path, name: str, seconds: float) -> None:
    """Writes down when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    with log.open("a") as file:
        file.write(f"{name} {began} {time.monotonic()}\n")


def die_then_note_time(_host: JobHost, marker: Path, log: Path, seconds: float) -> None:
    """Dies the first time; the second it writes down when it began and ended."""
    if not marker.exists():
        marker.touch()
        kill_itself(_host, signal.SIGKILL)
    note_time(_host, log, "alone", seconds)


def die_once_then_work(_host: JobHost, marker: Path, again: Path) -> None:
    """Dies the first time; the second it is busy for long."""
    if not marker.exists():
        marker.touch()
        kill_itself(_host, signal.SIGKILL)
    work_for(_host, 60, again)


def leave(_host: JobHost, status: int) -> None:
    """Ends the process."""
    os._exit(status)


def work_for(_host: JobHost, seconds: float, marker: Path | None = None) -> int:
    """Keeps busy; writes its process id to `marker` when it begins."""
    if marker is not None:
        marker.write_text(str(os.getpid()))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        sum(range(10_000))
    return os.getpid()


def take_memory(_host: JobHost, size_bytes: int) -> int:
    """Allocates."""
    return len(bytearray(size_bytes))


def report_progress(host: JobHost, counts: Sequence[int]) -> None:
    """Reports each number."""
    for count in counts:
        host.tell_progress(count)


def report_then_die_once(host: JobHost, marker: Path, samples: int) -> None:
    """Reports its work, and dies over it the first time."""
    host.tell_progress(samples)
    if not marker.exists():
        marker.touch()
        kill_itself(host, signal.SIGKILL)


def read_whole(host: JobHost, name: str) -> bytes:
    """Reads an input to its end."""
    with host.open_input(name) as file:
        return file.read()


def read_pieces(
    host: JobHost, name: str, seeks: Sequence[tuple[int, int, int]]
) -> list[tuple[int, bytes, int]]:
    """Seeks and reads. Args: seeks: (offset, whence, size). Returns (position, data, position
    after) of each.
    """
    found = []
    with host.open_input(name) as file:
        for offset, whence, size in seeks:
            at = file.seek(offset, whence)
            found.append((at, file.read(size), file.tell()))
    return found


def read_two(host: JobHost, first: str, second: str) -> bytes:
    """Reads two inputs in turns."""
    with host.open_input(first) as one, host.open_input(second) as other:
        return one.read(2) + other.read(2) + one.read(2) + other.read(2)


def read_on_threads(host: JobHost, names: Sequence[str]) -> list[str]:
    """Reads files whole, a thread each, in small pieces; tells of each piece and returns their
    SHA-256.
    """

    def read(name: str) -> str:
        digest = hashlib.sha256()
        with host.open_input(name) as file:
            while piece := file.read(10_000):
                digest.update(piece)
                host.tell_progress(len(piece))
        return digest.hexdigest()

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(read, names))


def ask_for_cores(host: JobHost, wishes: Sequence[int]) -> list[int]:
    """Returns how many cores it was given, wish by wish."""
    return [host.cores(most) for most in wishes]
