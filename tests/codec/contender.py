"""A process of its own that wants slots: `python -m tests.codec.contender FOLDER SLOTS THREADS JOBS
SECONDS LOG NAME AWAITED`. Each job is a line in LOG: the process's name, when the job began and
when it ended, in seconds of a clock that all processes share. The first jobs stay at work until as
many have begun as AWAITED says. Imports no Beam.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from transforms.codec.governor import Governor
from transforms.codec.slot_files import SlotFiles

ROOT = Path(__file__).parents[2]


class Span(NamedTuple):
    """When a job was at work."""

    name: str
    begin: float
    end: float


def start(
    folder: Path,
    slots: int,
    *,
    threads: int,
    jobs: int,
    seconds: float,
    log: Path,
    name: str = "-",
    awaited: int = 1,
) -> subprocess.Popen[bytes]:
    """Starts one. Args: jobs: of each thread. seconds: that a job takes at least."""
    numbers = map(str, (slots, threads, jobs, seconds))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.codec.contender", folder, *numbers, log, name, str(awaited)],
        cwd=ROOT,
    )


def spans(log: Path) -> list[Span]:
    """Returns what is in a log."""
    if not log.exists():
        return []
    lines = [line.split() for line in log.read_text().splitlines()]
    return [Span(name, float(begin), float(end)) for name, begin, end in lines]


def most_at_once(found: list[Span]) -> int:
    """Returns how many jobs were at work together."""
    changes = [(span.begin, 1) for span in found] + [(span.end, -1) for span in found]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def main(argv: list[str]) -> None:
    """The process."""
    folder, slots, threads, jobs, seconds, log, name, awaited = argv
    begun = Path(f"{log}-begun")
    governor = Governor(SlotFiles(Path(folder)))
    governor.use(int(slots))

    def work() -> None:
        for _ in range(int(jobs)):
            with governor.slot(lambda: None):
                begin = time.monotonic()
                with begun.open("a") as file:
                    file.write(".")
                while begun.stat().st_size < int(awaited):
                    time.sleep(0.005)
                time.sleep(float(seconds))
                end = time.monotonic()
            with Path(log).open("a") as file:
                file.write(f"{name} {begin} {end}\n")

    each = [threading.Thread(target=work) for _ in range(int(threads))]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1:])
