"""Functions that the tests run in a codec process; imports no Beam."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
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
        raise RtpdumpError("a.rtpdump: record 17: length 6, need at least 8", member="a.rtpdump", byte_offset=4096) from error


def divide_by_zero(**_: Any) -> float:
    """Has a bug."""
    return 1 / 0


def kill_itself(signal_number: int, **_: Any) -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), signal_number)
    signal.pause()


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


def read_whole(name: str, *, open_input: OpenInput, **_: Any) -> bytes:
    """Reads an input to its end."""
    with open_input(name) as file:
        return file.read()


def read_pieces(
    name: str, seeks: Sequence[tuple[int, int, int]], *, open_input: OpenInput, **_: Any
) -> list[tuple[int, bytes, int]]:
    """Seeks and reads. Args: seeks: (offset, whence, size). Returns (position, data, position after) of each."""
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
