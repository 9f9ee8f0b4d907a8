"""The catalog's lock on a disk: one run at a time, dead runs in nobody's way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transforms.locking.lock import (
    NAME,
    CatalogLock,
    LockHeldError,
    LockLostError,
    _this_machine,
    check_held,
    look,
)
from transforms.media.errors import CallpressError, ConfigError


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def _write_state(catalog: Path, **changes: Any) -> None:
    catalog.mkdir(parents=True, exist_ok=True)
    state = {
        "run_id": "other",
        "host": "elsewhere",
        "pid": 1,
        "expires_unix_s": time.time() + 900,
        **changes,
    }
    (catalog / NAME).write_text(json.dumps(state))


def _read_state(catalog: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((catalog / NAME).read_text())
    return state


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_acquire_writes_who_holds_it_and_for_how_long(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1", lease_seconds=900)
    before = time.time()

    lock.acquire()

    state = _read_state(catalog)
    lock.release()
    assert (state["run_id"], state["host"], state["pid"]) == (
        "run-1",
        socket.gethostname(),
        os.getpid(),
    )
    assert before + 900 <= state["expires_unix_s"] <= time.time() + 900


def test_second_acquire_is_refused_and_names_the_holder(catalog: Path) -> None:
    first = CatalogLock(str(catalog), "run-1")
    first.acquire()
    second = CatalogLock(str(catalog), "run-2")

    with pytest.raises(
        LockHeldError, match=rf"run run-1 on .* \(process {os.getpid()}\) holds .*{NAME}"
    ):
        second.acquire()

    assert _read_state(catalog)["run_id"] == "run-1"
    first.release()


def test_refused_run_does_not_release_the_holders_lock(catalog: Path) -> None:
    first = CatalogLock(str(catalog), "run-1")
    first.acquire()
    second = CatalogLock(str(catalog), "run-2")
    with pytest.raises(LockHeldError):
        second.acquire()

    second.release()

    assert _read_state(catalog)["run_id"] == "run-1"
    first.release()


def test_living_run_on_another_host_is_respected(catalog: Path) -> None:
    _write_state(catalog)

    with pytest.raises(LockHeldError, match="run other on elsewhere"):
        CatalogLock(str(catalog), "run-1").acquire()


def test_lapsed_lease_is_taken_over(catalog: Path) -> None:
    _write_state(catalog, expires_unix_s=time.time() - 1)
    lock = CatalogLock(str(catalog), "run-1")

    lock.acquire()

    assert _read_state(catalog)["run_id"] == "run-1"
    lock.release()


def test_dead_process_of_this_host_is_taken_over(catalog: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    _write_state(catalog, host=socket.gethostname(), machine=_this_machine(), pid=process.pid)
    lock = CatalogLock(str(catalog), "run-1")

    lock.acquire()

    assert _read_state(catalog)["run_id"] == "run-1"
    lock.release()


def test_process_of_a_container_that_shares_the_hosts_name_is_respected(catalog: Path) -> None:
    """Its process ids are not ours: one that we do not see is not dead."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    _write_state(catalog, host=socket.gethostname(), machine="another", pid=process.pid)

    with pytest.raises(LockHeldError):
        CatalogLock(str(catalog), "run-1").acquire()


def test_living_process_of_this_host_is_respected(catalog: Path) -> None:
    _write_state(catalog, host=socket.gethostname(), machine=_this_machine(), pid=os.getppid())

    with pytest.raises(LockHeldError):
        CatalogLock(str(catalog), "run-1").acquire()


def test_release_gives_the_lock_back_and_lets_the_next_run_in_without_a_warning(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = CatalogLock(str(catalog), "run-1")
    first.acquire()
    held = _read_state(catalog)

    first.release()

    assert _read_state(catalog) == {**held, "expires_unix_s": 0}
    assert look(str(catalog)) is None
    second = CatalogLock(str(catalog), "run-2")
    second.acquire()
    assert not caplog.records
    second.release()


def test_lock_that_was_given_back_may_be_removed(catalog: Path) -> None:
    """Earlier versions remove theirs."""
    for number in range(2):
        lock = CatalogLock(str(catalog), f"run-{number}")
        lock.acquire()
        lock.release()
        (catalog / NAME).unlink()


def test_take_over_from_a_dead_run_is_told(catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write_state(catalog, expires_unix_s=time.time() - 1)
    lock = CatalogLock(str(catalog), "run-1")

    lock.acquire()

    assert [record.getMessage() for record in caplog.records] == [
        "took over the lock of run other, which is dead"
    ]
    lock.release()


def test_release_twice_is_harmless(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1")
    lock.acquire()
    lock.release()
    other = CatalogLock(str(catalog), "run-2")
    other.acquire()

    lock.release()

    assert _read_state(catalog)["run_id"] == "run-2"
    other.release()


def test_release_leaves_a_lock_that_was_taken_over(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1")
    lock.acquire()
    _write_state(catalog, run_id="run-2")

    lock.release()

    assert _read_state(catalog)["run_id"] == "run-2"


def test_renewal_extends_the_lease(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1", lease_seconds=0.3)
    lock.acquire()
    first = _read_state(catalog)["expires_unix_s"]

    _wait_until(lambda: _read_state(catalog)["expires_unix_s"] > first + 0.2)

    assert _read_state(catalog)["run_id"] == "run-1"
    lock.release()


def test_lock_outlives_its_first_lease_while_the_run_lives(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1", lease_seconds=0.3)
    lock.acquire()
    first = _read_state(catalog)["expires_unix_s"]
    _wait_until(lambda: time.time() > first)

    with pytest.raises(LockHeldError):
        CatalogLock(str(catalog), "run-2").acquire()
    lock.release()


def test_run_is_told_when_another_has_taken_over(catalog: Path) -> None:
    told: list[str] = []
    lock = CatalogLock(str(catalog), "run-1", lease_seconds=0.15, on_lost=told.append)
    lock.acquire()
    _write_state(catalog, run_id="run-2")

    _wait_until(lambda: told)

    assert "was taken by another run" in told[0]
    lock.release()
    assert _read_state(catalog)["run_id"] == "run-2"


def test_run_is_told_when_its_lock_was_removed(catalog: Path) -> None:
    told: list[str] = []
    lock = CatalogLock(str(catalog), "run-1", lease_seconds=0.15, on_lost=told.append)
    lock.acquire()
    (catalog / NAME).unlink()

    _wait_until(lambda: told)

    lock.release()


def test_holder_may_publish_and_nobody_else(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1")
    with pytest.raises(LockLostError, match="it is gone"):
        check_held(str(catalog), "run-1")
    assert not catalog.exists()  # looking makes nothing
    lock.acquire()

    check_held(str(catalog), "run-1")
    with pytest.raises(
        LockLostError, match=rf"run run-2 lost .*run run-1 on {socket.gethostname()} has it now"
    ):
        check_held(str(catalog), "run-2")

    lock.release()
    with pytest.raises(LockLostError):
        check_held(str(catalog), "run-1")


def test_lock_that_cannot_be_given_up_costs_the_run_nothing(catalog: Path) -> None:
    lock = CatalogLock(str(catalog), "run-1")
    lock.acquire()
    (catalog / NAME).unlink()
    (catalog / NAME).mkdir()

    lock.release()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'"run"',
        b'{"run_id": "x"}',
        b'{"run_id":1,"host":2,"pid":"x","expires_unix_s":3}',
    ],
    ids=[
        "empty",
        "cut short",
        "not text",
        "null",
        "list",
        "string",
        "fields missing",
        "pid is no number",
    ],
)
def test_garbage_lock_is_nobodys(catalog: Path, text: bytes) -> None:
    catalog.mkdir()
    (catalog / NAME).write_bytes(text)
    lock = CatalogLock(str(catalog), "run-1")

    lock.acquire()

    assert _read_state(catalog)["run_id"] == "run-1"
    lock.release()
    assert look(str(catalog)) is None


def test_lock_after_longer_garbage_is_readable(catalog: Path) -> None:
    catalog.mkdir()
    (catalog / NAME).write_bytes(b"x" * 10_000)
    lock = CatalogLock(str(catalog), "run-1")

    lock.acquire()

    assert _read_state(catalog)["run_id"] == "run-1"
    lock.release()


def test_of_many_runs_at_once_exactly_one_gets_it(catalog: Path) -> None:
    _write_state(catalog, expires_unix_s=0)
    locks = [CatalogLock(str(catalog), f"run-{number}") for number in range(12)]
    start = threading.Barrier(len(locks))
    refused: list[CallpressError] = []

    def acquire(lock: CatalogLock) -> None:
        start.wait()
        try:
            lock.acquire()
        except LockHeldError as error:
            refused.append(error)

    threads = [threading.Thread(target=acquire, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lock in locks:
        lock.release()

    assert len(refused) == len(locks) - 1
    assert look(str(catalog)) is None


# --- races between processes ----------------------------------------------------------------------


def _race(count: int, run: Callable[[int], bool]) -> list[bool]:
    """Runs in so many processes at once; returns what each gave. They live until all have ended, as
    runs do.
    """
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(count), context.SimpleQueue()
    ended = context.Event()

    def enter(number: int) -> None:
        barrier.wait()
        results.put(run(number))
        ended.wait(30)

    processes = [context.Process(target=enter, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    ended.set()
    for process in processes:
        process.join()
    return found


def _acquires(catalog: Path, number: int) -> bool:
    try:
        CatalogLock(str(catalog), f"run-{number}").acquire()
    except LockHeldError:
        return False
    return True


@pytest.mark.parametrize("before", ["nothing", "lapsed", "dead"])
def test_of_many_processes_at_once_exactly_one_gets_it(catalog: Path, before: str) -> None:
    for _ in range(5):
        if before == "nothing":
            (catalog / NAME).unlink(missing_ok=True)
        elif before == "lapsed":
            _write_state(catalog, expires_unix_s=time.time() - 1)
        else:
            process = subprocess.Popen(["true"])
            process.wait()
            _write_state(
                catalog, host=socket.gethostname(), machine=_this_machine(), pid=process.pid
            )

        assert sum(_race(8, lambda number: _acquires(catalog, number))) == 1


def test_holder_killed_at_once_lets_exactly_one_in(catalog: Path) -> None:
    context = multiprocessing.get_context("fork")
    has_it = context.Event()

    def hold() -> None:
        CatalogLock(str(catalog), "first").acquire()
        has_it.set()
        signal.pause()

    holder = context.Process(target=hold)
    holder.start()
    assert has_it.wait(10)
    assert not any(_race(4, lambda number: _acquires(catalog, number)))
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()

    assert sum(_race(8, lambda number: _acquires(catalog, number))) == 1


def test_never_are_two_inside_however_they_come_and_go(catalog: Path, tmp_path: Path) -> None:
    inside, entries = tmp_path / "inside", tmp_path / "entries"

    def come_and_go(number: int) -> bool:
        stop = time.monotonic() + 1.5
        while time.monotonic() < stop:
            lock = CatalogLock(str(catalog), f"run-{number}")
            try:
                lock.acquire()
            except LockHeldError:
                continue
            try:
                inside.touch(exist_ok=False)
            except FileExistsError:
                return False
            with entries.open("a") as file:
                file.write("x")
            inside.unlink()
            lock.release()
        return True

    assert all(_race(6, come_and_go))
    assert len(entries.read_text()) > 20


def test_other_stores_cannot_be_locked() -> None:
    with pytest.raises(ConfigError, match="--catalog s3://bucket/catalog: only folders and gs://"):
        CatalogLock("s3://bucket/catalog", "run-1").acquire()
    with pytest.raises(ConfigError, match="--catalog s3://bucket/catalog: only folders and gs://"):
        look("s3://bucket/catalog")
