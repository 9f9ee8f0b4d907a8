"""Runs that want a catalog's lock, for the tests of it on a disk and in Cloud Storage."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transforms.locking import lock
from transforms.locking.lease import Holder, Lease
from transforms.locking.lock import LockHeldError, LockState

OTHER = {"run_id": "other", "host": "elsewhere", "pid": 1, "token": "other's"}
"""What the lock says of a run that is at work on another machine; when it ends is to be added."""


def other_state(**changes: Any) -> bytes:
    """Returns the content of a lock object of another run."""
    state = {**OTHER, "lease_seconds": 900, "expires_unix_s": time.time() + 900, **changes}
    return json.dumps(state).encode()


def put(catalog: str | Path, content: bytes) -> None:
    """Writes the lock object at once, as a store does: a run at work may look at it just then."""
    written = Path(catalog, f"{lock.NAME}.new")
    written.write_bytes(content)
    written.replace(Path(catalog, lock.NAME))


def of_an_earlier_version(**changes: Any) -> bytes:
    """Returns what versions wrote whose lock had neither a token nor the length of its lease."""
    state = {"run_id": "older", "host": "elsewhere", "pid": 1, "machine": "another"}
    return json.dumps({**state, "expires_unix_s": time.time() + 900, **changes}).encode()


def dead_process_here() -> dict[str, Any]:
    """Returns what the lock says of a process of this machine that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return {"host": socket.gethostname(), "machine": lock.this_machine(), "pid": process.pid}


def state_of(run_id: str, **changes: Any) -> LockState:
    """Returns what a process of this machine writes that all of a run lives in."""
    return lock.state_of(run_id, token_of(run_id), **{"is_one_process": True, **changes})


def token_of(run_id: str) -> str:
    """Returns by what the processes of a run know each other."""
    return f"token of {run_id}"


def acquire(catalog: str | Path, run_id: str, **changes: Any) -> bool:
    """Takes the lock for a run; returns whether another one may be at work still."""
    return lock.acquire(str(catalog), state_of(run_id, **changes))


def acquires(catalog: str | Path, number: int) -> bool:
    """Whether run `number` gets the lock."""
    try:
        acquire(catalog, f"run-{number}")
    except LockHeldError:
        return False
    return True


def give_back(catalog: str | Path, run_id: str, after_seconds: float = 0.0) -> bool:
    """Gives a run's lock back."""
    return lock.give_back(str(catalog), token_of(run_id), after_seconds)


def lease_of(catalog: str | Path, run_id: str, lease_seconds: float = 900) -> Lease:
    """Returns the part that one more process has in a run's hold on its catalog."""
    return Lease(
        Holder(
            catalog_uri=str(catalog),
            run_id=run_id,
            token=token_of(run_id),
            lease_seconds=lease_seconds,
        )
    )


def race(count: int, run: Callable[[int], bool], *, at_first: Callable[[], None]) -> list[bool]:
    """Runs in so many processes at once; returns what each gave. They live until all have ended, as
    runs do.

    Args:
      count: of processes.
      run: what each does, by its number.
      at_first: what each does before they are let go.
    """
    context = multiprocessing.get_context("fork")
    barrier, results, ended = context.Barrier(count), context.SimpleQueue(), context.Event()

    def enter(number: int) -> None:
        at_first()
        barrier.wait()
        try:
            results.put(run(number))
        except BaseException as error:
            results.put(error)
        ended.wait(30)

    processes = [context.Process(target=enter, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    ended.set()
    for process in processes:
        process.join()
    assert all(isinstance(result, bool) for result in found), found
    return found


def make_old(path: Path, seconds: float) -> None:
    """Has a file be written so long ago, by the clock of its disk."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def wait_until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Waits for what another thread or process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()
