"""The catalog's lock in S3 and Azure, against servers that honour conditional uploads."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.cloud_servers import CloudServer
from tests.support.locks import (
    acquire,
    acquires,
    dead_process_here,
    give_back,
    lease_of,
    other_state,
    wait_until,
)
from tests.support.storage_proxy import Faults, holding
from transforms.locking.lock import NAME, LockHeldError, LockLostError, look
from transforms.media.errors import StorageError
from transforms.storage import objects, uris
from transforms.storage.registry import store_of

pytestmark = pytest.mark.usefixtures("cloud_faults")


@pytest.fixture
def catalog(cloud_place: str) -> str:
    return cloud_place


def _read_state(catalog: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(objects.read_bytes(uris.join(catalog, NAME)))
    return found


def _write(catalog: str, data: bytes) -> None:
    objects.write_bytes(uris.join(catalog, NAME), data)


def _race(catalog: str, count: int = 6) -> int:
    """Returns how many of so many runs got the lock, all of them at once. They are threads: the
    store's client does not outlive a fork.
    """
    barrier = threading.Barrier(count)

    def run(number: int) -> bool:
        barrier.wait()
        return acquires(catalog, number)

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(run, range(count)))


def test_lock_is_taken_named_and_given_back(catalog: str) -> None:
    acquire(catalog, "run-1")

    state = _read_state(catalog)
    lease_of(catalog, "run-1").check()
    with pytest.raises(
        LockHeldError, match=rf"run run-1 on .* holds the catalog's lock {catalog}/{NAME}"
    ):
        acquire(catalog, "run-2")
    assert give_back(catalog, "run-1")
    assert _read_state(catalog) == {**state, "expires_unix_s": 0}
    assert look(catalog) is None
    with pytest.raises(LockLostError):
        lease_of(catalog, "run-1").check()
    assert not acquire(catalog, "run-2")


@pytest.mark.parametrize("before", ["nothing", "given back", "dead"])
def test_of_two_racers_the_slower_one_loses(
    catalog: str, cloud_faults: Faults, before: str
) -> None:
    """Both have seen the lock free. The upload of the first is held on its way while the second one
    takes it: let go, it is refused by the store.
    """
    if before == "given back":
        _write(catalog, other_state(expires_unix_s=0))
    elif before == "dead":
        _write(catalog, other_state(**dead_process_here()))
    told: list[Exception] = []

    def slower() -> None:
        try:
            acquire(catalog, "slower")
        except LockHeldError as error:
            told.append(error)

    with holding(cloud_faults, f"PUT .*{NAME}") as held:
        thread = threading.Thread(target=slower)
        thread.start()
        assert held.has_come.wait(30)
        acquire(catalog, "faster")
        held.let_go()
        thread.join(30)

    assert "run faster on" in str(told[0])
    assert _read_state(catalog)["run_id"] == "faster"
    lease_of(catalog, "faster").check()


@pytest.mark.parametrize("before", ["nothing", "dead"])
def test_of_many_runs_at_once_exactly_one_gets_it(catalog: str, before: str) -> None:
    if before == "dead":
        _write(catalog, other_state(**dead_process_here()))

    assert _race(catalog) == 1


@pytest.mark.parametrize("wrong_by", [-3_600, 3_600])
def test_clock_of_this_machine_counts_for_nothing(
    catalog: str, monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    true_time = time.time
    acquire(catalog, "job", is_one_process=False, lease_seconds=900)
    monkeypatch.setattr(time, "time", lambda: true_time() + wrong_by)

    with pytest.raises(LockHeldError, match="run job on"):
        acquire(catalog, "run-1")

    assert objects.read_for_swap(uris.join(catalog, NAME)).age_seconds < 30


def test_lapsed_lock_is_taken_over_by_the_clock_of_the_store(catalog: str) -> None:
    acquire(catalog, "job", is_one_process=False, lease_seconds=1)

    def is_dead() -> bool:
        held = look(catalog)
        return held is not None and held.is_dead()

    wait_until(is_dead)

    assert _race(catalog, 3) == 1
    assert _read_state(catalog)["took_over"]


def test_damaged_lock_is_respected(catalog: str) -> None:
    _write(catalog, b"{")

    with pytest.raises(LockHeldError, match="is damaged: it may be a living run's until"):
        acquire(catalog, "run-1")


def test_answer_that_is_lost_is_not_taken_for_another_run(
    catalog: str, cloud_faults: Faults
) -> None:
    """The upload was done and its answer is 503: tried again, the condition fails by our own
    hand.
    """
    cloud_faults.only, cloud_faults.lost_answer_ratio = f"PUT .*{NAME}", 1.0

    acquire(catalog, "run-1")

    assert cloud_faults.counts["lost answer"] == 2  # it is made, and then replaced
    cloud_faults.lost_answer_ratio = 0
    lease_of(catalog, "run-1").check()
    assert give_back(catalog, "run-1")


def test_store_that_fails_now_and_then_lets_exactly_one_in(
    catalog: str, cloud_faults: Faults
) -> None:
    cloud_faults.unavailable_ratio = cloud_faults.lost_answer_ratio = 0.1

    assert _race(catalog) == 1


def test_conflict_of_two_uploads_is_tried_again(catalog: str, cloud_faults: Faults) -> None:
    """S3 answers 409 to both of two conditional uploads that meet: neither run may take it for the
    other one's lock.
    """
    body = b"<Error><Code>ConditionalRequestConflict</Code><Message>Conflict.</Message></Error>"
    cloud_faults.only, cloud_faults.refusal = f"PUT .*{NAME}", (409, body)
    cloud_faults.unavailable_ratio = 1.0
    uploads: list[str] = []

    def relent(request: str) -> None:
        if request.startswith("PUT"):
            uploads.append(request)
            cloud_faults.unavailable_ratio = float(len(uploads) < 2)

    cloud_faults.before = relent

    acquire(catalog, "run-1")

    assert len(uploads) == 3  # refused, made, and then replaced
    lease_of(catalog, "run-1").check()


def test_bucket_that_is_gone_is_no_other_run(cloud: CloudServer) -> None:
    with pytest.raises(
        StorageError, match=rf"{cloud.base}gone/catalog/{NAME}: .*404 .*there is no"
    ):
        acquire(f"{cloud.base}gone/catalog", "run-1")


def test_look_costs_two_requests(catalog: str, cloud_faults: Faults) -> None:
    acquire(catalog, "run-1")
    cloud_faults.counts.clear()

    look(catalog)

    assert cloud_faults.counts["requests"] == 2


@pytest.mark.parametrize("expected", ["stale", "none", "gone"])
def test_swap_of_what_is_another_by_now_writes_nothing(catalog: str, expected: str) -> None:
    uri = f"{catalog}/x"
    stale = objects.compare_and_swap(uri, None, b"one")
    objects.write_bytes(uri, b"two")
    if expected == "gone":
        objects.delete(uri)

    for store in (objects, store_of(uri)):
        token = None if expected == "none" else stale
        assert store.compare_and_swap(uri, token, b"three") is None

    assert [found.size_bytes for found in objects.match(uri)] == [3] * (expected != "gone")
