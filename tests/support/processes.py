"""Other processes: servers on this machine, and what can be seen of any of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"


def free_port() -> int:
    """Returns a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_server(
    command: Sequence[str | Path],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    stop_signal: int = signal.SIGTERM,
) -> Iterator[int]:
    """Runs a server from when it listens on a port until the end of the block.

    Args:
      command, port: how to start it, and where it will listen.
      env: what is added to its environment.
      log: where its output goes; by default nowhere.
      stop_signal: what it ends in good order upon.

    Yields:
      The id of its process.
    """
    with open(log or os.devnull, "ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
        )
    name = Path(command[0]).name
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((HOST, port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{name} ended by itself"
                assert time.monotonic() < deadline, f"{name} did not come up"
                time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(stop_signal)
        process.wait(15)


def children_of(pid: int) -> list[int]:
    """Returns the processes that this one has started, and those they have."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry.name), *children_of(int(entry.name))]
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
