"""Short ways to have a codec process do a job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from transforms.codec.pool import CodecLoan
from transforms.codec.process import CodecProcess, Terms

MEMORY_BYTES = 512 << 20
LARGE_DATA = bytes(range(256)) * 20_000
"""5 MB: several buffers of the child."""
Opener = Callable[[str], BinaryIO]


def refuse(name: str) -> BinaryIO:
    """Fails: for jobs whose files are all local."""
    raise AssertionError(f"{name} is not remote")


@dataclass(frozen=True)
class Names:
    """Inputs of a job: paths, and what a store would have."""

    open: Opener = refuse

    def local_path(self, name: str) -> str | None:
        return None if "://" in name else name


def terms(
    open_remote: Opener = refuse,
    on_progress: Callable[[int], None] = lambda _: None,
    timeout_seconds: float = 30,
) -> Terms:
    """Returns the terms of a job; without more said it has 30 s and no remote files."""
    return Terms(
        inputs=Names(open_remote), on_progress=on_progress, timeout_seconds=timeout_seconds
    )


def run_job(
    codec: CodecProcess | CodecLoan,
    function: Callable[..., Any],
    *args: Any,
    open_remote: Opener = refuse,
    on_progress: Callable[[int], None] = lambda _: None,
    timeout_seconds: float = 30,
) -> Any:
    """Returns what a job returns; the rest as in `terms`."""
    return codec.run(terms(open_remote, on_progress, timeout_seconds), function, *args).value


def is_running(pid: int) -> bool:
    """Tells whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits up to 10 s and holds that the condition has come about."""
    deadline = time.monotonic() + 10
    while not condition():  # asked once more it might be another
        assert time.monotonic() < deadline
        time.sleep(0.01)
