"""The catalog's lock in Cloud Storage, against fake-gcs-server, which honours preconditions on
uploads.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.api_core import exceptions as google_errors

from tests.support.storage_proxy import Faults
from tests.support.storage_servers import (
    client_with_faults,
    forget_clients,
    running_fake_gcs_server,
)
from transforms.locking.lock import (
    NAME,
    CatalogLock,
    LockHeldError,
    LockLostError,
    _this_machine,
    check_held,
    look,
)
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


def _write_state(catalog: str, **changes: Any) -> None:
    state = {
        "run_id": "other",
        "host": "elsewhere",
        "pid": 1,
        "expires_unix_s": time.time() + 900,
        **changes,
    }
    _blob(catalog).upload_from_string(json.dumps(state))


def _race(count: int, run: Callable[[int], bool]) -> list[bool]:
    """Runs in so many processes at once, each with a client of its own; they live until all have
    ended, as runs do.
    """
    context = multiprocessing.get_context("fork")
    barrier, results, ended = context.Barrier(count), context.SimpleQueue(), context.Event()

    def enter(number: int) -> None:
        forget_clients()
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


def _acquires(catalog: str, number: int) -> bool:
    try:
        CatalogLock(catalog, f"run-{number}").acquire()
    except LockHeldError:
        return False
    return True


def test_lock_is_taken_named_and_given_up(catalog: str) -> None:
    first = CatalogLock(catalog, "run-1")
    first.acquire()

    state = _read_state(catalog)
    assert state is not None
    assert (state["run_id"], state["pid"]) == ("run-1", os.getpid())
    check_held(catalog, "run-1")
    with pytest.raises(
        LockHeldError, match=rf"run run-1 on .* holds the catalog's lock {catalog}/{NAME}"
    ):
        CatalogLock(catalog, "run-2").acquire()
    first.release()
    assert _read_state(catalog) == {**state, "expires_unix_s": 0}
    assert look(catalog) is None
    with pytest.raises(LockLostError):
        check_held(catalog, "run-1")


@pytest.mark.parametrize("before", ["nothing", "lapsed", "dead", "garbage"])
def test_of_many_processes_at_once_exactly_one_gets_it(catalog: str, before: str) -> None:
    for turn in range(2):
        place = f"{catalog}-{turn}"
        if before == "lapsed":
            _write_state(place, expires_unix_s=time.time() - 1)
        elif before == "dead":
            process = subprocess.Popen(["true"])
            process.wait()
            _write_state(place, host=socket.gethostname(), machine=_this_machine(), pid=process.pid)
        elif before == "garbage":
            _blob(place).upload_from_string("{")

        assert sum(_race(6, functools.partial(_acquires, place))) == 1


def test_lock_taken_between_the_look_and_the_grasp_is_left_alone(
    catalog: str, faults: Faults
) -> None:
    """The very race: another run's upload arrives first."""
    _write_state(catalog, expires_unix_s=time.time() - 1)
    overtaken: list[str] = []

    def overtake(request: str) -> None:
        if "ifGenerationMatch" in request and "/upload/" in request and not overtaken:
            overtaken.append(request)
            _write_state(catalog, run_id="faster")

    faults.before = overtake

    with pytest.raises(LockHeldError, match="run faster on elsewhere"):
        CatalogLock(catalog, "slower").acquire()

    assert overtaken
    assert (_read_state(catalog) or {})["run_id"] == "faster"


def test_renewal_does_not_win_back_a_lock_that_was_taken(catalog: str) -> None:
    told: list[str] = []
    lock = CatalogLock(catalog, "run-1", lease_seconds=0.3, on_lost=told.append)
    lock.acquire()
    _write_state(catalog, run_id="run-2")

    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)

    assert told
    lock.release()
    assert (_read_state(catalog) or {})["run_id"] == "run-2"


def test_release_names_the_generation_it_means(catalog: str, faults: Faults) -> None:
    requests: list[str] = []
    lock = CatalogLock(catalog, "run-1")
    lock.acquire()
    generation = _blob(catalog)
    generation.reload()
    faults.before = requests.append

    lock.release()

    (written,) = [request for request in requests if not request.startswith("GET")]
    assert written.startswith("POST /upload/")
    assert f"ifGenerationMatch={generation.generation}" in written


def test_answer_that_is_lost_is_not_taken_for_another_run(catalog: str, faults: Faults) -> None:
    """The upload was done and its answer is 503: tried again, the precondition fails by our own
    hand.
    """
    faults.only, faults.lost_answer_ratio = "/upload/", 1.0
    lock = CatalogLock(catalog, "run-1")

    lock.acquire()

    assert faults.counts["lost answer"] == 1
    faults.lost_answer_ratio = 0
    check_held(catalog, "run-1")
    lock.release()
    assert look(catalog) is None


def test_store_that_fails_now_and_then_lets_exactly_one_in(catalog: str, faults: Faults) -> None:
    faults.unavailable_ratio = faults.lost_answer_ratio = 0.1

    assert sum(_race(6, lambda number: _acquires(catalog, number))) == 1


def test_renewal_outlives_a_store_that_is_away_for_a_while(catalog: str, faults: Faults) -> None:
    told: list[str] = []
    lock = CatalogLock(catalog, "run-1", lease_seconds=0.6, on_lost=told.append)
    lock.acquire()
    first = (_read_state(catalog) or {})["expires_unix_s"]
    faults.dead = True
    time.sleep(0.6)
    faults.dead = False

    deadline = time.monotonic() + 10
    while (_read_state(catalog) or {})["expires_unix_s"] <= first and time.monotonic() < deadline:
        time.sleep(0.05)

    check_held(catalog, "run-1")
    assert not told
    assert (_read_state(catalog) or {})["expires_unix_s"] > first
    lock.release()


def test_object_replaced_while_it_is_read_is_an_error_and_no_mixture(catalog: str) -> None:
    """Reads name the generation that was there when it was opened."""
    uri = f"{catalog}/archive"
    objects.write_bytes(uri, b"a" * 1000)
    with objects.open_input(uri) as file:
        objects.write_bytes(uri, b"b" * 1000)
        with pytest.raises(StorageError, match="HTTP status 404"):
            file.read(10)
