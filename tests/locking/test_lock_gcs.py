"""The catalog's lock in Cloud Storage, against fake-gcs-server, which honours preconditions on
uploads.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions as google_errors

from tests.support.locks import (
    acquire,
    acquires,
    dead_process_here,
    give_back,
    lease_of,
    other_state,
    race,
    wait_until,
)
from tests.support.storage_proxy import Faults
from tests.support.storage_servers import (
    client_with_faults,
    forget_clients,
    running_fake_gcs_server,
)
from transforms.locking.lock import NAME, LockHeldError, LockLostError, look
from transforms.media.errors import StorageError
from transforms.storage import credentials, objects, uris

BUCKET = "locks"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    with running_fake_gcs_server() as url:
        yield url


@pytest.fixture
def faults(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """What is wrong between this process and the server; nothing at first."""
    with client_with_faults(server, monkeypatch) as faults:
        if not credentials.storage_client().bucket(BUCKET).exists():
            credentials.storage_client().create_bucket(BUCKET)
        yield faults


@pytest.fixture
def catalog(faults: Faults, request: pytest.FixtureRequest) -> str:
    return f"gs://{BUCKET}/{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}"


def _blob(catalog: str) -> Any:
    name = uris.join(catalog, NAME).removeprefix(f"gs://{BUCKET}/")
    return credentials.storage_client().bucket(BUCKET).blob(name)


def _read_state(catalog: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_blob(catalog).download_as_bytes())
    except google_errors.NotFound:
        return None
    return found


def _write(catalog: str, data: bytes) -> None:
    _blob(catalog).upload_from_string(data)


def _race(catalog: str, count: int = 6) -> int:
    """Returns how many of so many processes got the lock, each with a client of its own."""
    return sum(race(count, functools.partial(acquires, catalog), at_first=forget_clients))


def _let_lapse(catalog: str) -> None:
    """Waits for the end of a lease: nobody can set the clock of the store."""

    def is_dead() -> bool:
        held = look(catalog)
        return held is not None and held.is_dead()

    wait_until(is_dead)


def test_lock_is_taken_named_and_given_back(catalog: str) -> None:
    acquire(catalog, "run-1")

    state = _read_state(catalog)
    assert state is not None
    lease_of(catalog, "run-1").check()
    with pytest.raises(
        LockHeldError, match=rf"run run-1 on .* holds the catalog's lock {catalog}/{NAME}"
    ):
        acquire(catalog, "run-2")
    assert give_back(catalog, "run-1")
    assert _read_state(catalog) == {**state, "expires_unix_s": 0}
    assert look(catalog) is None
    assert not give_back(catalog, "run-1")
    with pytest.raises(LockLostError):
        lease_of(catalog, "run-1").check()
    assert not acquire(catalog, "run-2")


@pytest.mark.parametrize("before", ["nothing", "given back", "dead"])
def test_of_many_processes_at_once_exactly_one_gets_it(catalog: str, before: str) -> None:
    for turn in range(2):
        place = f"{catalog}-{turn}"
        if before == "given back":
            _write(place, other_state(expires_unix_s=0))
        elif before == "dead":
            _write(place, other_state(**dead_process_here()))

        assert _race(place) == 1


@pytest.mark.parametrize("wrong_by", [-3_600, 3_600])
def test_clocks_of_both_count_for_nothing(
    catalog: str, monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    """Of who wrote it, and of who looks; of many who come when the lease has run out, one gets
    it.
    """
    true_time = time.time
    acquire(catalog, "job", is_one_process=False, lease_seconds=2)
    monkeypatch.setattr(time, "time", lambda: true_time() + wrong_by)
    with pytest.raises(LockHeldError, match="run job on"):
        acquire(catalog, "run-1")
    _let_lapse(catalog)

    assert _race(catalog) == 1
    assert (_read_state(catalog) or {})["took_over"]


def test_damaged_lock_is_respected(catalog: str) -> None:
    _write(catalog, b"{")

    with pytest.raises(LockHeldError, match="is damaged: it may be a living run's until"):
        acquire(catalog, "run-1")


def test_lock_taken_between_the_look_and_the_grasp_is_left_alone(
    catalog: str, faults: Faults
) -> None:
    """The very race: another run's upload arrives first."""
    _write(catalog, other_state(**dead_process_here()))
    overtaken: list[str] = []

    def overtake(request: str) -> None:
        if "ifGenerationMatch" in request and "/upload/" in request and not overtaken:
            overtaken.append(request)
            _write(catalog, other_state(run_id="faster"))

    faults.before = overtake

    with pytest.raises(LockHeldError, match="run faster on elsewhere"):
        acquire(catalog, "slower")

    assert overtaken
    assert (_read_state(catalog) or {})["run_id"] == "faster"


def test_age_is_that_of_the_state_that_was_read(catalog: str, faults: Faults) -> None:
    """Another run takes over a lock that has lapsed, between the two requests of a look: it is not
    taken for as old as what it took over.
    """
    acquire(catalog, "job", is_one_process=False, lease_seconds=1)
    _let_lapse(catalog)
    overtaken: list[str] = []

    def overtake(request: str) -> None:
        if "alt=media" in request and not overtaken:
            overtaken.append(request)
            _write(catalog, other_state(run_id="faster", lease_seconds=1))

    faults.before = overtake

    with pytest.raises(LockHeldError, match="run faster on elsewhere"):
        acquire(catalog, "slower")

    assert overtaken


def test_renewal_does_not_win_back_a_lock_that_was_taken(catalog: str) -> None:
    told: list[str] = []
    acquire(catalog, "run-1", lease_seconds=0.3)
    lease = lease_of(catalog, "run-1", lease_seconds=0.3)
    with lease.telling(told.append), lease.at_work():
        _write(catalog, other_state())
        wait_until(lambda: told)

    lease.give_back()

    state = _read_state(catalog) or {}
    assert (state["run_id"], state["expires_unix_s"] > 0) == ("other", True)


def test_giving_back_names_the_generation_it_means(catalog: str, faults: Faults) -> None:
    requests: list[str] = []
    acquire(catalog, "run-1")
    generation = _blob(catalog)
    generation.reload()
    faults.before = requests.append

    give_back(catalog, "run-1")

    (written,) = [request for request in requests if not request.startswith("GET")]
    assert written.startswith("POST /upload/")
    assert f"ifGenerationMatch={generation.generation}" in written


def test_look_costs_two_requests(catalog: str, faults: Faults) -> None:
    requests: list[str] = []
    acquire(catalog, "run-1")
    faults.before = requests.append

    look(catalog)

    name = catalog.removeprefix(f"gs://{BUCKET}/")
    assert len([request for request in requests if name in request]) == 2


def test_answer_that_is_lost_is_not_taken_for_another_run(catalog: str, faults: Faults) -> None:
    """The upload was done and its answer is 503: tried again, the precondition fails by our own
    hand.
    """
    faults.only, faults.lost_answer_ratio = "/upload/", 1.0

    acquire(catalog, "run-1")

    assert faults.counts["lost answer"] == 2  # it is made, and then replaced
    faults.lost_answer_ratio = 0
    lease_of(catalog, "run-1").check()
    assert give_back(catalog, "run-1")
    assert look(catalog) is None


def test_store_that_fails_now_and_then_lets_exactly_one_in(catalog: str, faults: Faults) -> None:
    faults.unavailable_ratio = faults.lost_answer_ratio = 0.1

    assert _race(catalog) == 1


def test_renewal_outlives_a_store_that_is_away_for_a_while(catalog: str, faults: Faults) -> None:
    told: list[str] = []
    acquire(catalog, "run-1", lease_seconds=0.6)
    first = (_read_state(catalog) or {})["expires_unix_s"]
    lease = lease_of(catalog, "run-1", lease_seconds=0.6)
    with lease.telling(told.append), lease.at_work():
        faults.dead = True
        asked = faults.counts["requests"]
        wait_until(lambda: time.time() > first and faults.counts["requests"] > asked + 6)
        faults.dead = False

        wait_until(lambda: (_read_state(catalog) or {})["expires_unix_s"] > first)

        lease.check()
    assert not told


def test_bucket_that_is_gone_is_no_other_run(faults: Faults) -> None:
    with pytest.raises(StorageError, match=f"gs://gone/catalog/{NAME}: .*404"):
        acquire("gs://gone/catalog", "run-1")


def test_object_replaced_while_it_is_read_is_an_error_and_no_mixture(catalog: str) -> None:
    """Reads name the generation that was there when it was opened."""
    uri = f"{catalog}/archive"
    objects.write_bytes(uri, b"a" * 1000)
    with objects.open_input(uri) as file:
        objects.write_bytes(uri, b"b" * 1000)
        with pytest.raises(StorageError, match="HTTP status 404"):
            file.read(10)
