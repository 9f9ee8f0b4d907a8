"""The catalog's lock on a disk: one run at a time, dead runs in nobody's way."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.locks import (
    acquire,
    acquires,
    dead_process_here,
    give_back,
    make_old,
    of_an_earlier_version,
    other_state,
    race,
)
from transforms.locking import lock
from transforms.locking.lock import NAME, LockHeldError, look
from transforms.media.errors import CallpressError, ConfigError, StorageError

HOUR = 3_600


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def _write(catalog: Path, data: bytes, age_seconds: float = 0) -> None:
    catalog.mkdir(parents=True, exist_ok=True)
    (catalog / NAME).write_bytes(data)
    make_old(catalog / NAME, age_seconds)


def _read(catalog: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((catalog / NAME).read_text())
    return state


def _race(count: int, run: Callable[[int], bool]) -> list[bool]:
    return race(count, run, at_first=lambda: None)


# --- one run at a time ----------------------------------------------------------------------------


def test_lock_says_who_has_it_and_for_how_long(catalog: Path) -> None:
    before = time.time()

    acquire(catalog, "run-1", lease_seconds=600)

    state = _read(catalog)
    assert (state["run_id"], state["host"], state["pid"], state["machine"]) == (
        "run-1",
        socket.gethostname(),
        os.getpid(),
        lock.this_machine(),
    )
    assert state["lease_seconds"] == 600
    assert before + 600 <= state["expires_unix_s"] <= time.time() + 600
    assert state["took_over"] is False


def test_lock_of_a_run_with_workers_names_the_job_and_no_process(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may end and the run not; who waits for it looks for the job."""
    monkeypatch.setenv("JOB_ID", "2026-01-05_job")

    acquire(catalog, "run-1", is_one_process=False)

    state = _read(catalog)
    assert (state["pid"], state["machine"], state["job_id"]) == (0, "", "2026-01-05_job")
    with pytest.raises(
        LockHeldError, match=rf"run run-1 on {socket.gethostname()}, job 2026-01-05_job holds"
    ):
        acquire(catalog, "run-2")


def test_job_id_of_whatever_started_a_local_run_is_not_its(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_ID", "of the build server")

    acquire(catalog, "run-1")

    assert _read(catalog)["job_id"] == ""


def test_second_run_is_refused_and_told_the_holder(catalog: Path) -> None:
    acquire(catalog, "run-1")

    with pytest.raises(
        LockHeldError, match=rf"run run-1 on .* \(process {os.getpid()}\) holds .*{NAME}"
    ):
        acquire(catalog, "run-2")

    assert _read(catalog)["run_id"] == "run-1"


def test_refused_run_does_not_give_back_the_holders_lock(catalog: Path) -> None:
    acquire(catalog, "run-1")
    with pytest.raises(LockHeldError):
        acquire(catalog, "run-2")

    assert not give_back(catalog, "run-2")

    assert look(str(catalog)) is not None


def test_looking_makes_nothing(catalog: Path) -> None:
    assert look(str(catalog)) is None
    assert not catalog.exists()


def test_of_many_runs_at_once_exactly_one_gets_it(catalog: Path) -> None:
    _write(catalog, other_state(), age_seconds=HOUR)
    start = threading.Barrier(12)
    refused: list[CallpressError] = []

    def take(number: int) -> None:
        start.wait()
        try:
            acquire(catalog, f"run-{number}")
        except LockHeldError as error:
            refused.append(error)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(refused) == 11
    assert not any(give_back(catalog, "other") for _ in range(2))


@pytest.mark.parametrize("before", ["nothing", "given back", "lapsed", "dead", "damaged"])
def test_of_many_processes_at_once_exactly_one_gets_it(catalog: Path, before: str) -> None:
    for _ in range(5):
        if before == "nothing":
            (catalog / NAME).unlink(missing_ok=True)
        elif before == "given back":
            _write(catalog, other_state(expires_unix_s=0))
        elif before == "lapsed":
            _write(catalog, other_state(), age_seconds=901)
        elif before == "damaged":
            _write(catalog, b"{", age_seconds=901)
        else:
            _write(catalog, other_state(**dead_process_here()))

        assert sum(_race(8, functools.partial(acquires, catalog))) == 1


def test_never_are_two_inside_however_they_come_and_go(catalog: Path, tmp_path: Path) -> None:
    inside, entries = tmp_path / "inside", tmp_path / "entries"

    def come_and_go(number: int) -> bool:
        stop = time.monotonic() + 1.5
        while time.monotonic() < stop:
            if not acquires(catalog, number):
                continue
            try:
                inside.touch(exist_ok=False)
            except FileExistsError:
                return False
            with entries.open("a") as file:
                file.write("x")
            inside.unlink()
            give_back(catalog, f"run-{number}")
        return True

    assert all(_race(6, come_and_go))
    assert len(entries.read_text()) > 20


# --- dead and living ------------------------------------------------------------------------------


def test_living_run_on_another_host_is_respected(catalog: Path) -> None:
    _write(catalog, other_state(), age_seconds=890)

    with pytest.raises(LockHeldError, match="run other on elsewhere"):
        acquire(catalog, "run-1")


def test_lapsed_lease_is_taken_over_and_told(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(catalog, other_state(), age_seconds=901)

    assert acquire(catalog, "run-1")

    assert _read(catalog)["run_id"] == "run-1"
    assert [record.getMessage() for record in caplog.records] == [
        "took over the lock of run other on elsewhere (process 1), which is dead"
    ]


def test_lease_is_as_long_as_its_run_said(catalog: Path) -> None:
    _write(catalog, other_state(lease_seconds=1_800), age_seconds=1_000)
    with pytest.raises(LockHeldError):
        acquire(catalog, "run-1")
    _write(catalog, other_state(lease_seconds=60), age_seconds=61)

    acquire(catalog, "run-1")


@pytest.mark.parametrize("wrong_by", [-HOUR, HOUR])
def test_clock_of_who_looks_counts_for_nothing(
    catalog: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    """Ages are by the clock of the store."""
    _write(catalog, other_state(), age_seconds=800)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + wrong_by)

    with pytest.raises(LockHeldError, match="run other on elsewhere"):
        acquire(catalog, "run-1")
    make_old(catalog / NAME, 901 + wrong_by)  # which reckons by that clock

    assert acquire(catalog, "run-1")


@pytest.mark.parametrize("wrong_by", [-HOUR, HOUR])
def test_clock_of_who_wrote_it_counts_for_nothing(catalog: Path, wrong_by: int) -> None:
    state = other_state(expires_unix_s=time.time() + 900 + wrong_by)
    _write(catalog, state, age_seconds=1)
    with pytest.raises(LockHeldError):
        acquire(catalog, "run-1")
    _write(catalog, state, age_seconds=901)

    acquire(catalog, "run-1")


def test_dead_process_of_this_host_is_taken_over(catalog: Path) -> None:
    _write(catalog, other_state(**dead_process_here()))

    assert not acquire(catalog, "run-1")  # nothing of it can be at work

    assert _read(catalog)["run_id"] == "run-1"


def test_run_that_a_dead_one_took_over_from_may_be_at_work_still(catalog: Path) -> None:
    _write(catalog, other_state(**dead_process_here(), took_over=True))

    assert acquire(catalog, "run-1")


def test_process_of_a_container_that_shares_the_hosts_name_is_respected(catalog: Path) -> None:
    """Its process ids are not ours: one that we do not see is not dead."""
    _write(catalog, other_state(**{**dead_process_here(), "machine": "another"}))

    with pytest.raises(LockHeldError):
        acquire(catalog, "run-1")


def test_living_process_of_this_host_is_respected(catalog: Path) -> None:
    _write(catalog, other_state(**{**dead_process_here(), "pid": os.getppid()}))

    with pytest.raises(LockHeldError):
        acquire(catalog, "run-1")


def test_run_with_workers_does_not_die_with_a_process(catalog: Path) -> None:
    """Its launcher, or the worker that took the lock, may be gone, and the job at work."""
    context = multiprocessing.get_context("fork")
    worker = context.Process(
        target=acquire, args=(catalog, "job"), kwargs={"is_one_process": False}
    )
    worker.start()
    worker.join()

    with pytest.raises(LockHeldError, match="run job on"):
        acquire(catalog, "run-1")


def test_holder_killed_at_once_lets_exactly_one_in(catalog: Path) -> None:
    context = multiprocessing.get_context("fork")
    has_it = context.Event()

    def hold() -> None:
        acquire(catalog, "first")
        has_it.set()
        signal.pause()

    holder = context.Process(target=hold)
    holder.start()
    assert has_it.wait(10)
    assert not any(_race(4, functools.partial(acquires, catalog)))
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()

    assert sum(_race(8, functools.partial(acquires, catalog))) == 1


# --- the first step done once more ----------------------------------------------------------------


def test_run_that_has_it_goes_on_with_it(catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = acquire(catalog, "run-1", is_one_process=False)
    make_old(catalog / NAME, 600)

    again = acquire(catalog, "run-1", is_one_process=False)

    held = look(str(catalog))
    assert held is not None
    assert held.age_seconds < 60  # and holds for a whole lease again
    assert not first
    assert not again
    assert not caplog.records


def test_run_that_took_over_knows_it_still_when_its_step_is_done_once_more(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the first try knew is lost with it."""
    _write(catalog, other_state(), age_seconds=901)
    acquire(catalog, "run-1")

    assert acquire(catalog, "run-1")

    assert len(caplog.records) == 1


def test_run_does_not_win_back_what_was_taken_from_it(catalog: Path) -> None:
    acquire(catalog, "run-1", is_one_process=False)
    _write(catalog, other_state())

    with pytest.raises(LockHeldError, match="run other"):
        acquire(catalog, "run-1", is_one_process=False)


# --- giving back ----------------------------------------------------------------------------------


def test_lock_that_is_given_back_lets_the_next_run_in_without_a_warning(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acquire(catalog, "run-1")
    held = _read(catalog)

    assert give_back(catalog, "run-1")

    assert _read(catalog) == {**held, "expires_unix_s": 0}
    assert look(str(catalog)) is None
    assert not acquire(catalog, "run-2")
    assert not caplog.records


def test_lock_that_was_given_back_may_be_removed(catalog: Path) -> None:
    """Earlier versions remove theirs."""
    for number in range(2):
        acquire(catalog, f"run-{number}")
        give_back(catalog, f"run-{number}")
        (catalog / NAME).unlink()


def test_giving_back_twice_is_harmless(catalog: Path) -> None:
    acquire(catalog, "run-1")
    give_back(catalog, "run-1")
    acquire(catalog, "run-2")

    assert not give_back(catalog, "run-1")

    assert _read(catalog)["run_id"] == "run-2"
    assert look(str(catalog)) is not None


def test_lock_that_was_taken_over_is_not_given_back(catalog: Path) -> None:
    acquire(catalog, "run-1")
    _write(catalog, other_state())

    assert not give_back(catalog, "run-1")

    assert look(str(catalog)) is not None


def test_lock_of_an_ended_job_holds_for_as_long_as_a_worker_may_not_know(catalog: Path) -> None:
    acquire(catalog, "job", is_one_process=False)

    assert give_back(catalog, "job", after_seconds=60)

    with pytest.raises(LockHeldError, match="run job on"):
        acquire(catalog, "run-1")
    with pytest.raises(LockHeldError):  # a step of the job that is done once more
        acquire(catalog, "job", is_one_process=False)
    make_old(catalog / NAME, 61)
    assert acquire(catalog, "run-1")  # it may have left things half done


def test_lock_of_an_ended_local_run_does_not_wait_for_anybody(catalog: Path) -> None:
    acquire(catalog, "run-1")

    give_back(catalog, "run-1", after_seconds=60)

    held = look(str(catalog))
    assert held is not None
    assert held.state is not None
    assert held.state.pid == 0  # of this process, which lives on, nothing is waited for
    assert 55 < held.seconds_left <= 60


# --- what is not as we write it -------------------------------------------------------------------


DAMAGED = {
    "cut short": b"{",
    "not text": b"\xff\xfe",
    "null": b"null",
    "list": b"[1]",
    "string": b'"run"',
    "fields missing": b'{"run_id": "x"}',
    "pid is no number": b'{"run_id":1,"host":2,"pid":"x","expires_unix_s":3}',
    "pid is endless": other_state(pid=float("inf")),
    "lease is no number": other_state(lease_seconds=float("nan")),
    "lease is endless": other_state(lease_seconds=1e300),
    "lease is none": other_state(lease_seconds=-1),
    "nested deep": b"[" * 100_000,
    "long": b"x" * 10_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_lock_may_be_a_living_runs_for_as_long_as_a_lease(
    catalog: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _write(catalog, text, age_seconds=890)
    with pytest.raises(
        LockHeldError,
        match=rf"{NAME} is damaged: it may be a living run's until .* UTC; wait until then, or "
        "remove it",
    ):
        acquire(catalog, "run-1")
    assert (catalog / NAME).read_bytes() == text
    make_old(catalog / NAME, 901)

    assert acquire(catalog, "run-1")

    assert _read(catalog)["run_id"] == "run-1"
    assert [record.getMessage() for record in caplog.records] == [
        "took over the lock of a run whose lock is damaged, which is dead"
    ]
    assert give_back(catalog, "run-1")
    assert look(str(catalog)) is None


@pytest.mark.parametrize("text", [b"", b"\0" * 768, b" \n"], ids=["empty", "zeros", "blank"])
def test_what_a_power_cut_left_of_a_new_lock_is_nobodys(catalog: Path, text: bytes) -> None:
    _write(catalog, text)

    assert look(str(catalog)) is None
    assert not acquire(catalog, "run-1")


def test_number_that_no_process_can_have_is_a_dead_ones(catalog: Path) -> None:
    _write(catalog, other_state(**{**dead_process_here(), "pid": 2**40}))

    assert not acquire(catalog, "run-1")

    assert _read(catalog)["run_id"] == "run-1"


def test_lock_of_an_earlier_version_is_respected(catalog: Path) -> None:
    _write(catalog, of_an_earlier_version(), age_seconds=890)

    with pytest.raises(LockHeldError, match=r"run older on elsewhere \(process 1\)"):
        acquire(catalog, "run-1")


@pytest.mark.parametrize("how", ["given back", "lapsed", "dead"])
def test_lock_of_an_earlier_version_is_taken_when_that_has_ended(catalog: Path, how: str) -> None:
    if how == "given back":
        _write(catalog, of_an_earlier_version(expires_unix_s=0))
    elif how == "lapsed":
        _write(catalog, of_an_earlier_version(), age_seconds=901)
    else:
        _write(catalog, of_an_earlier_version(**dead_process_here()))

    assert acquire(catalog, "run-1") == (how == "lapsed")
    assert _read(catalog)["run_id"] == "run-1"


def test_lock_that_cannot_be_read_is_an_error_of_the_store(catalog: Path) -> None:
    (catalog / NAME).mkdir(parents=True)

    with pytest.raises(StorageError, match=NAME):
        acquire(catalog, "run-1")


def test_other_stores_cannot_be_locked() -> None:
    with pytest.raises(ConfigError, match="--catalog hdfs://server/catalog: only folders, gs://"):
        acquire("hdfs://server/catalog", "run-1")
    with pytest.raises(ConfigError, match="--catalog hdfs://server/catalog: only folders, gs://"):
        look("hdfs://server/catalog")
