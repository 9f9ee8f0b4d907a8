"""Runs programs and tells what they cost: CPU of the whole tree, wall time, memory of each process,
bytes by file.

CPU is what the kernel charged to a program and to all its descendants, also to those that it left
behind. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LOOK_SECONDS = 0.02
_CODEC_PROCESS = "transforms.codec.child"
_PR_SET_CHILD_SUBREAPER = 36
"""Of `prctl(2)`: whose parent has ended becomes a child of the caller."""
_started: set[int] = set()
"""Programs that are measured now, in any thread."""
_started_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Used:
    """What one run of a program took."""

    cpu_s: float
    """User and system time of it and its children."""
    wall_s: float


class ProgramFailedError(Exception):
    """A measured program ended with another exit status than it should."""


def run(command: Sequence[str | Path], *, exit_status: int = 0) -> Used:
    """Runs a program to its end, on the cores this thread may use.

    Raises:
      ProgramFailedError: it ended with another exit status; with the end of what it said.
    """
    return _watch(command, exit_status, None)


def _watch(
    command: Sequence[str | Path], exit_status: int, look: Callable[[int], None] | None
) -> Used:
    """As `run`; `look` is called with the program's process id every so often while it runs."""
    # An engine may kill its workers without waiting for them: the kernel charges that time to
    # whoever does.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        with _started_lock:
            others = set(_children(os.getpid()))  # servers of whoever measures
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            _started.add(process.pid)
        ended = 0
        while not ended:
            ended, status, used = os.wait4(process.pid, os.WNOHANG if look else 0)
            if look and not ended:
                look(process.pid)
                time.sleep(_LOOK_SECONDS)
        wall_s = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != exit_status:
            said.seek(0)
            end = said.read()[-2_000:].decode(errors="replace")
            line = " ".join(map(str, command))
            raise ProgramFailedError(
                f"exit status {process.returncode}, expected {exit_status}: {line}\n{end}"
            )
    cpu_s = used.ru_utime + used.ru_stime
    with _started_lock:
        _started.remove(process.pid)
        while left := set(_children(os.getpid())) - _started - others:
            _, _, used = os.wait4(left.pop(), 0)
            cpu_s += used.ru_utime + used.ru_stime
    return Used(cpu_s=cpu_s, wall_s=wall_s)


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keeps this thread, and the programs and threads it starts, on that many cores.

    Raises:
      ValueError: there are not as many.
    """
    before = os.sched_getaffinity(0)
    if len(before) < count:
        raise ValueError(f"{count} cores are needed, there are {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def idle_seconds(command: Sequence[str | Path], cores: int) -> tuple[float, float]:
    """Runs a program to its end on that many cores; returns the core seconds that it left unused,
    and the seconds it took.

    Counted are threads that run or could run, so that work of others on the machine, for which ours
    have to wait, is not taken for idleness. Raises: ProgramFailedError.
    """
    looks: list[int] = []

    def look(launcher: int) -> None:
        looks.append(min(cores, sum(map(_runnable_threads, (launcher, *descendants(launcher))))))

    with on_cores(cores):
        wall_s = _watch(command, 0, look).wall_s
    return (cores - sum(looks) / len(looks)) * wall_s, wall_s


def jobs_at_work(command: Sequence[str | Path], cores: int) -> list[int]:
    """Runs a program to its end on that many cores; returns how many codec processes had a job,
    look by look. Raises: ProgramFailedError.
    """
    looks: list[int] = []

    def look(launcher: int) -> None:
        codec = [pid for pid in descendants(launcher) if _is_codec_process(pid)]
        looks.append(sum(not _waits_for_a_job(pid) for pid in codec))

    with on_cores(cores):
        _watch(command, 0, look)
    return looks


def _waits_for_a_job(pid: int) -> bool:
    """Whether a codec process has none: it waits for one in `poll`, and nowhere else."""
    try:
        return "poll" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return True  # it ended meanwhile


def _runnable_threads(pid: int) -> int:
    count = 0
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            count += stat.read_text().rpartition(")")[2].split()[0] == "R"
    return count


def _is_codec_process(pid: int) -> bool:
    try:
        return _CODEC_PROCESS in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False  # it ended meanwhile


# --- memory ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The most memory any process of a kind ever held (`VmHWM`: its own pages and the file pages it
    has mapped), in bytes.
    """

    launcher: int
    """It is the worker, too, on the local engine."""
    codec_process: int


def peak_memory(command: Sequence[str | Path]) -> Peaks:
    """Runs `callpress` to its end; returns what its processes held. Raises: ProgramFailedError."""
    peaks = {True: 0, False: 0}

    def look(launcher: int) -> None:
        for pid in (launcher, *descendants(launcher)):
            is_codec = _is_codec_process(pid)
            if (
                is_codec or pid == launcher
            ):  # else a copy of the launcher that is about to become something else
                with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                    peaks[is_codec] = max(peaks[is_codec], _high_water_bytes(pid))

    _watch(command, 0, look)
    return Peaks(launcher=peaks[False], codec_process=peaks[True])


def descendants(pid: int) -> Iterator[int]:
    """Yields the children of a process, theirs, and so on."""
    for child in _children(pid):
        yield child
        yield from descendants(child)


def _children(pid: int) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, listed.read_text().split())


def _high_water_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory")  # it has ended and waits to be waited for


# --- files ----------------------------------------------------------------------------------------


def seconds_until(command: Sequence[str | Path], happened: Callable[[], bool]) -> float:
    """Runs a program to its end; returns the seconds from its start until something had happened,
    at most 20 ms too many.

    Raises:
      ProgramFailedError: it failed.
      ValueError: it never happened.
    """
    started = time.monotonic()
    seen: list[float] = []

    def look(_: int) -> None:
        if not seen and happened():
            seen.append(time.monotonic() - started)

    _watch(command, 0, look)
    if not seen:
        raise ValueError("it ended before it happened")
    return seen[0]


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that a program and its children read and wrote, by the last name each file had."""

    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)


_READS = ("read", "pread64", "readv", "preadv", "preadv2")
_WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
_COPIES = ("sendfile", "copy_file_range")
_RENAMES = ("rename", "renameat", "renameat2")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (\d+|0x[0-9a-f]+)$")
_FILE = re.compile(r"\d+<(/[^>]*)>")
_NAME = re.compile(r'"(/[^"]*)"')


def traffic(command: Sequence[str | Path]) -> Traffic:
    """Runs a program under strace; returns what it read and wrote. What it maps counts as read.
    Raises: ProgramFailedError.
    """
    found = Traffic()
    renamed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        calls = ",".join((*_READS, *_WRITES, *_COPIES, *_RENAMES, "mmap"))
        # A log for each thread, so that no call is told in two halves.
        run(
            [
                "strace",
                "-ff",
                "-y",
                "-s",
                "0",
                "-e",
                f"trace={calls}",
                "-e",
                "signal=none",
                "-o",
                f"{folder}/log",
                *command,
            ]
        )
        for log in Path(folder).iterdir():
            with log.open(errors="replace") as lines:
                for line in lines:
                    _count(line, found, renamed)
    for counter in (found.read, found.written):
        for path in list(counter):
            last = path
            while last in renamed:
                last = renamed[last]
            if last != path:
                counter[last] += counter.pop(path)
    return found


def _count(line: str, found: Traffic, renamed: dict[str, str]) -> None:
    call = _CALL.match(line.strip())
    if call is None:
        return
    name, arguments, result = call.groups()
    if name in _RENAMES:
        source, target = _NAME.findall(arguments)
        renamed[source] = target
        return
    files = _FILE.findall(arguments)
    if not files:
        return
    if name == "mmap":
        found.read[files[0]] += int(arguments.split(", ")[1])
    elif name in _READS:
        found.read[files[0]] += int(result)
    elif name in _WRITES:
        found.written[files[0]] += int(result)
    else:
        target, source = (files[0], files[-1]) if name == "sendfile" else (files[-1], files[0])
        found.read[source] += int(result)
        found.written[target] += int(result)
