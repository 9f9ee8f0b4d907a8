"""Functions that the tests run in a codec process; imports no Beam."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from transforms.media.errors import RtpdumpError

OpenInput = Callable[[str], BinaryIO]


def give_back(value: Any, **_: Any) -> Any:
    """Returns its argument."""
    return value


def give_pid(**_: Any) -> int:
    """Returns the child's process id."""
    return os.getpid()


def give_modules(**_: Any) -> list[str]:
    """Returns the names of all modules the child has imported."""
    return sorted(sys.modules)


def give_lambda(**_: Any) -> Any:
    """Returns what cannot be pickled."""
    return lambda: None


def refuse_dump(**_: Any) -> None:
    """Fails as a parser does."""
    try:
        raise KeyError("a cause that stays in the child")
    except KeyError as error:
        raise RtpdumpError(
            "a.rtpdump: record 17: length 6, need at least 8", member="a.rtpdump", byte_offset=4096
        ) from error


def divide_by_zero(**_: Any) -> float:
    """Has a bug."""
    return 1 / 0


def kill_itself(signal_number: int, **_: Any) -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), signal_number)
    signal.pause()


def segfault(**_: Any) -> None:
    """Reads where nothing is, in native code."""
    ctypes.string_at(0)


def cut_message_short(seconds: float, **_: Any) -> None:
    """Begins a message to the parent, and ends, or sleeps, in the middle of it."""
    os.write(int(sys.argv[1]), (1 << 20).to_bytes(4, "big") + b"half a message")
    time.sleep(seconds)
    os._exit(1)


def fail_times(marker: Path, times: int, how: str, **_: Any) -> str:
    """Is lost so many times, then goes well; `marker` has a line per try, with the process that
    made it.
    """
    with marker.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(marker.read_text().splitlines()) > times:
        return "done"
    if how == "killed":
        kill_itself(signal.SIGKILL)
    elif how == "segfault":
        segfault()
    elif how == "exit":
        leave(3)
    elif how == "memory":
        raise MemoryError
    elif how == "time":
        work_for(60)
    elif how == "bug":
        divide_by_zero()
    elif how == "recording":
        refuse_dump()
    raise AssertionError(how)


def fill_disk(**_: Any) -> None:
    """Writes to a disk that has no room."""
    with Path("/dev/full").open("wb") as file:
        file.write(b"x" * (1 << 20))


def fail_on_disk(code: int, **_: Any) -> None:
    """Fails as a disk does."""
    raise OSError(code, os.strerror(code), "/disk/track")


def note_time(log: Path, name: str, seconds: float, **_: Any) -> None:
    """Writes down when it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    with log.open("a") as file:
        file.write(f"{name} {began} {time.monotonic()}\n")


def die_then_note_time(marker: Path, log: Path, seconds: float, **_: Any) -> None:
    """Dies the first time; the second it writes down when it began and ended."""
    if not marker.exists():
        marker.touch()
        kill_itself(signal.SIGKILL)
    note_time(log, "alone", seconds)


def die_once_then_work(marker: Path, again: Path, **_: Any) -> None:
    """Dies the first time; the second it is busy for long."""
    if not marker.exists():
        marker.touch()
        kill_itself(signal.SIGKILL)
    work_for(60, again)


def leave(status: int, **_: Any) -> None:
    """Ends the process."""
    os._exit(status)


def work_for(seconds: float, marker: Path | None = None, **_: Any) -> int:
    """Keeps busy; writes its process id to `marker` when it begins."""
    if marker is not None:
        marker.write_text(str(os.getpid()))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        sum(range(10_000))
    return os.getpid()


def take_memory(size_bytes: int, **_: Any) -> int:
    """Allocates."""
    return len(bytearray(size_bytes))


def report_progress(counts: Sequence[int], *, on_progress: Callable[[int], None], **_: Any) -> None:
    """Reports each number."""
    for count in counts:
        on_progress(count)


def report_then_die_once(
    marker: Path, samples: int, *, on_progress: Callable[[int], None], **_: Any
) -> None:
    """Reports its work, and dies over it the first time."""
    on_progress(samples)
    if not marker.exists():
        marker.touch()
        kill_itself(signal.SIGKILL)


def read_whole(name: str, *, open_input: OpenInput, **_: Any) -> bytes:
    """Reads an input to its end."""
    with open_input(name) as file:
        return file.read()


def read_pieces(
    name: str, seeks: Sequence[tuple[int, int, int]], *, open_input: OpenInput, **_: Any
) -> list[tuple[int, bytes, int]]:
    """Seeks and reads. Args: seeks: (offset, whence, size). Returns (position, data, position
    after) of each.
    """
    found = []
    with open_input(name) as file:
        for offset, whence, size in seeks:
            at = file.seek(offset, whence)
            found.append((at, file.read(size), file.tell()))
    return found


def read_two(first: str, second: str, *, open_input: OpenInput, **_: Any) -> bytes:
    """Reads two inputs in turns."""
    with open_input(first) as one, open_input(second) as other:
        return one.read(2) + other.read(2) + one.read(2) + other.read(2)


def read_on_threads(
    names: Sequence[str], *, open_input: OpenInput, on_progress: Callable[[int], None], **_: Any
) -> list[str]:
    """Reads files whole, a thread each, in small pieces; tells of each piece and returns their
    SHA-256.
    """

    def read(name: str) -> str:
        digest = hashlib.sha256()
        with open_input(name) as file:
            while piece := file.read(10_000):
                digest.update(piece)
                on_progress(len(piece))
        return digest.hexdigest()

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(read, names))
