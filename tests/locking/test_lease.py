"""How a run holds its catalog: whatever of it is at work renews the lock, and looks at it before it
publishes.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.job_run import JobRun
from tests.support.locks import (
    acquire,
    give_back,
    lease_of,
    make_old,
    other_state,
    put,
    token_of,
    wait_until,
)
from transforms.locking import lease as lease_module
from transforms.locking import lock
from transforms.locking.lease import holding
from transforms.locking.lock import NAME, HeldLock, LockHeldError, LockLostError, look
from transforms.media.errors import StorageError

MB = 1_000_000


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


class _Clock:
    """What stands for the clock of this process, and moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(lease_module, "_now", clock)
    return clock


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The catalogs that were looked at, in order."""
    looked: list[str] = []

    def watched(catalog_uri: str) -> HeldLock | None:
        looked.append(catalog_uri)
        return look(catalog_uri)

    monkeypatch.setattr(lock, "look", watched)
    return looked


def _held(catalog: Path) -> HeldLock:
    held = look(str(catalog))
    assert held is not None
    return held


def _is_kept() -> bool:
    return any(thread.name == "lock-renewal" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _nobody_renews() -> None:
    """Threads of an earlier test are gone when one begins."""
    wait_until(lambda: not _is_kept())


# --- renewing -------------------------------------------------------------------------------------


def test_lock_outlives_its_first_lease_while_the_run_is_at_work(catalog: Path) -> None:
    acquire(catalog, "run-1", lease_seconds=0.3)
    began = time.monotonic()

    with lease_of(catalog, "run-1", lease_seconds=0.3).at_work():
        while time.monotonic() < began + 0.6:
            with pytest.raises(LockHeldError, match="run run-1"):
                acquire(catalog, "run-2")


def test_lock_is_renewed_by_any_process_of_the_run(catalog: Path) -> None:
    """The one that took it may be gone."""
    acquire(catalog, "job", is_one_process=False)
    make_old(catalog / NAME, 400)

    def work() -> None:
        with lease_of(catalog, "job").at_work():
            wait_until(lambda: _held(catalog).age_seconds < 300)

    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join()

    assert worker.exitcode == 0
    assert _held(catalog).seconds_left > 890


def test_lock_is_not_renewed_before_a_third_of_the_lease_has_passed(catalog: Path) -> None:
    acquire(catalog, "run-1")
    make_old(catalog / NAME, 290)
    written = (catalog / NAME).read_bytes()

    for _ in range(3):
        lease_of(catalog, "run-1").check()

    assert (catalog / NAME).read_bytes() == written


def test_of_many_at_work_one_renews(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stands for a worker process: they know each other by the lock alone."""
    renewals: list[float] = []
    swap = lock.swap

    def counted(catalog_uri: str, expected: str | None, new: lock.LockState) -> bool:
        is_renewed = swap(catalog_uri, expected, new)
        renewals.extend([time.monotonic()] * is_renewed)
        return is_renewed

    acquire(catalog, "job", is_one_process=False, lease_seconds=0.9)
    monkeypatch.setattr(lock, "swap", counted)
    began = time.monotonic()
    workers = [lease_of(catalog, "job", lease_seconds=0.9).at_work() for _ in range(12)]
    for worker in workers:
        worker.__enter__()
    wait_until(lambda: len(renewals) >= 3)
    for worker in workers:
        worker.__exit__(None, None, None)

    assert len(renewals) <= (time.monotonic() - began) / 0.3 + 1


def test_one_thread_renews_for_all_that_a_process_works_on(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(catalog, "run-1")
    started: list[str] = []

    class Watched(threading.Thread):
        def start(self) -> None:
            started.append(self.name)
            super().start()

    monkeypatch.setattr(threading, "Thread", Watched)
    lease = lease_of(catalog, "run-1")

    for _ in range(1_000):
        with lease.at_work(), lease.at_work():
            pass

    assert started == ["lock-renewal"]
    lease.give_back()


def test_nobody_renews_when_nothing_is_at_work(catalog: Path, looks: list[str]) -> None:
    acquire(catalog, "run-1", lease_seconds=0.3)
    with lease_of(catalog, "run-1", lease_seconds=0.3).at_work():
        wait_until(lambda: looks)

    wait_until(lambda: not _is_kept())

    wait_until(lambda: _held(catalog).is_dead())
    assert acquire(catalog, "run-2")


def test_run_that_was_away_for_longer_than_its_lease_goes_on_if_nobody_came(catalog: Path) -> None:
    """As on a machine that slept."""
    acquire(catalog, "run-1")
    make_old(catalog / NAME, 2_000)

    lease_of(catalog, "run-1").check()

    assert _held(catalog).seconds_left > 890


# --- looking before publishing --------------------------------------------------------------------


def test_look_holds_good_for_a_fifteenth_of_the_lease(
    catalog: Path, clock: _Clock, looks: list[str]
) -> None:
    acquire(catalog, "run-1")
    lease = lease_of(catalog, "run-1")

    for _ in range(100):
        lease.check()
    clock.now += 59
    lease.check()
    assert len(looks) == 1
    clock.now += 2
    lease.check()

    assert len(looks) == 2


def test_upload_is_begun_only_with_so_much_left_as_it_may_take(
    catalog: Path, clock: _Clock, looks: list[str]
) -> None:
    """A third of the lease, and a second for each MB."""
    acquire(catalog, "run-1")
    make_old(catalog / NAME, 290)  # 610 s are left, and none is to be renewed yet
    lease = lease_of(catalog, "run-1")
    lease.check()
    written = (catalog / NAME).read_bytes()

    clock.now += 40
    lease.check(200 * MB)
    assert len(looks) == 1
    make_old(catalog / NAME, 330)
    lease.check(280 * MB)

    assert len(looks) == 2
    assert (catalog / NAME).read_bytes() != written
    assert _held(catalog).seconds_left > 890
    lease.check(10_000 * MB)  # no lease is as long: it is renewed while it goes on


def test_renewal_that_takes_too_long_is_looked_at_again(
    catalog: Path, clock: _Clock, looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the lease is to be left when the answer is there."""
    acquire(catalog, "run-1")
    make_old(catalog / NAME, 400)
    swap = lock.swap

    def slowly(catalog_uri: str, expected: str | None, new: lock.LockState) -> bool:
        clock.now += 700
        return swap(catalog_uri, expected, new)

    monkeypatch.setattr(lock, "swap", slowly)

    lease_of(catalog, "run-1").check()

    assert len(looks) == 2


def test_store_that_answers_too_slowly_lets_nothing_be_published(
    catalog: Path, clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire(catalog, "run-1")
    swap = lock.swap

    def look_slowly(catalog_uri: str) -> HeldLock | None:
        clock.now += 700
        return look(catalog_uri)

    def swap_slowly(catalog_uri: str, expected: str | None, new: lock.LockState) -> bool:
        clock.now += 700
        return swap(catalog_uri, expected, new)

    monkeypatch.setattr(lock, "look", look_slowly)
    monkeypatch.setattr(lock, "swap", swap_slowly)

    with pytest.raises(StorageError, match=f"{NAME}: renewing it takes too long, of its 900 s 300"):
        lease_of(catalog, "run-1").check()


# --- losing it ------------------------------------------------------------------------------------


def _taken(catalog: Path) -> None:
    put(catalog, other_state())


def _removed(catalog: Path) -> None:
    (catalog / NAME).unlink()


def _damaged(catalog: Path) -> None:
    put(catalog, b"{")


def _given_back_by_another(catalog: Path) -> None:
    put(catalog, other_state(expires_unix_s=0))


def _ended(catalog: Path) -> None:
    give_back(catalog, "run-1", after_seconds=60)


LOSSES = {
    "taken": (_taken, r"run other on elsewhere \(process 1\) has it now"),
    "removed": (_removed, "it is gone"),
    "damaged": (_damaged, "a run whose lock is damaged has it now"),
    "taken and given back": (_given_back_by_another, "it is gone"),
    "ended": (_ended, "the run was ended"),
}


@pytest.mark.parametrize(("lose", "now"), LOSSES.values(), ids=LOSSES)
def test_run_that_lost_its_lock_publishes_nothing(
    catalog: Path, lose: Callable[[Path], None], now: str
) -> None:
    acquire(catalog, "run-1", is_one_process=False)
    lose(catalog)
    lease = lease_of(catalog, "run-1")

    with pytest.raises(LockLostError, match=rf"run run-1 lost the catalog's lock .* \({now}\)"):
        lease.check()

    with pytest.raises(LockLostError), lease.at_work():
        pytest.fail("a run that lost its lock went on")


@pytest.mark.parametrize(("lose", "now"), LOSSES.values(), ids=LOSSES)
def test_run_at_work_is_told_that_it_lost_its_lock(
    catalog: Path, lose: Callable[[Path], None], now: str
) -> None:
    told: list[str] = []
    acquire(catalog, "run-1", is_one_process=False, lease_seconds=0.3)
    lease = lease_of(catalog, "run-1", lease_seconds=0.3)

    with lease.telling(told.append), lease.at_work():
        lose(catalog)
        wait_until(lambda: told)

    assert len(told) == 1
    assert "run run-1 lost the catalog's lock" in told[0]


def test_nothing_is_won_back(catalog: Path) -> None:
    acquire(catalog, "run-1")
    written = (catalog / NAME).read_bytes()
    lease = lease_of(catalog, "run-1")
    _taken(catalog)
    with pytest.raises(LockLostError):
        lease.check()

    (catalog / NAME).write_bytes(written)  # whatever becomes of it

    with pytest.raises(LockLostError):
        lease.check()
    assert (catalog / NAME).read_bytes() == written


def test_worker_of_an_ended_job_does_not_renew(catalog: Path) -> None:
    acquire(catalog, "job", is_one_process=False)
    give_back(catalog, "job", after_seconds=60)
    written = (catalog / NAME).read_bytes()

    with pytest.raises(LockLostError, match="the run was ended"):
        lease_of(catalog, "job").check()

    assert (catalog / NAME).read_bytes() == written


# --- giving it back -------------------------------------------------------------------------------


def test_lock_that_is_given_back_by_the_run_at_work_is_not_lost(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On the local engine the last step gives it back while the command still holds it."""
    told: list[str] = []
    acquire(catalog, "run-1", lease_seconds=0.3)
    lease = lease_of(catalog, "run-1", lease_seconds=0.3)

    with lease.telling(told.append), lease.at_work():
        lease.give_back()
        wait_until(lambda: not _is_kept())
        acquire(catalog, "run-2")
        with lease.at_work():
            pass

    assert not told
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    lease.give_back()
    assert _held(catalog).name.startswith("run run-2 on")


def test_lock_that_cannot_be_given_back_costs_the_run_nothing(
    catalog: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acquire(catalog, "run-1")
    (catalog / NAME).unlink()
    (catalog / NAME).mkdir()

    lease_of(catalog, "run-1").give_back()

    assert "was not given back" in caplog.text


@pytest.mark.parametrize("holder", ["run-1", "other", "nobody"])
def test_whether_it_is_held_still(catalog: Path, holder: str) -> None:
    acquire(catalog, "run-1")
    if holder == "other":
        _taken(catalog)
    elif holder == "nobody":
        give_back(catalog, "run-1")

    assert lease_of(catalog, "run-1").is_held() == (holder == "run-1")


# --- commands that are no run ---------------------------------------------------------------------


def test_command_holds_the_catalog_and_gives_it_back_however_it_ends(catalog: Path) -> None:
    def work() -> None:
        with holding(str(catalog), "verify-1"):
            acquire(catalog, "run-1")

    with pytest.raises(LockHeldError, match="run verify-1 on"):
        work()

    assert look(str(catalog)) is None


def test_command_is_refused_while_a_run_is_at_work(catalog: Path) -> None:
    acquire(catalog, "run-1")

    with pytest.raises(LockHeldError), holding(str(catalog), "verify-1"):
        pytest.fail("two are at work")

    assert lease_of(catalog, "run-1").is_held()


# --- the lease of a run ---------------------------------------------------------------------------


def test_leases_of_one_run_are_one_in_a_process(context: JobRun) -> None:
    first, second = (
        lease_module.lease_of(*context.changed(lock_token=token_of(run)))
        for run in ("run-1", "run-2")
    )

    assert lease_module.lease_of(*context.changed(lock_token=token_of("run-1"))) is first
    assert first is not second


def test_steps_that_are_run_without_a_lock_ask_for_none(context: JobRun) -> None:
    lease = lease_module.lease_of(*context)

    lease.check(10 * MB)
    with lease.at_work():
        assert lease.is_held()
    lease.give_back()

    assert not Path(context.catalog_uri).exists()
