"""Ctrl-C and SIGTERM at any stage of a run: it ends within seconds, says how to go on, and nothing
half made is to be seen.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.command import callpress, query
from tests.support.locks import other_state
from tests.support.processes import children_of, is_running, wait_until
from tests.support.storage_proxy import Faults, proxied
from transforms.locking import lock
from transforms.storage import credentials, objects

LIMIT_SECONDS = 5


class Run:
    """`callpress run` in a process of its own."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "run", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Waits for something that the run does."""
        wait_until(lambda: condition() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def stop(self, number: int, *more: int) -> tuple[int, str, float]:
        """Sends a signal, and more of them soon after; returns the exit status, standard error and
        the seconds it took.
        """
        children = children_of(self.process.pid)
        began = time.monotonic()
        self.process.send_signal(number)
        for other in more:
            time.sleep(0.2)
            self.process.send_signal(other)
        _, err = self.process.communicate(timeout=60)
        seconds = time.monotonic() - began
        wait_until(lambda: not any(map(is_running, children)), 2)
        return self.process.returncode, err, seconds


@pytest.fixture(scope="module")
def long_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of which a second's unpacking and some seconds' mixing come."""
    return _write_long_call(tmp_path_factory.mktemp("long") / "long.tar", 800)


def _write_long_call(path: Path, seconds: int) -> Path:
    packets = list(encode_opus(noise(20), bitrate_bps=64_000)) * (seconds // 20)
    people = [
        Participant(
            participant_id=f"p{n}",
            segments=[Segment(packets=packets, ssrc=n + 1, base_filename=f"d{n}")],
        )
        for n in range(4)
    ]
    path.write_bytes(make_call_archive(people, kind="tar"))
    return path


def _check_stopped(status: int, expected: int, err: str, seconds: float) -> None:
    assert status == expected
    assert seconds < LIMIT_SECONDS
    assert (
        "The same command again takes up the calls that are finished and presses the others." in err
    )
    assert err.count("The same command again") == 1
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("working_on", "number", "expected"),
    [("*/*/work/*/*.packets", signal.SIGTERM, 143), ("*/*/work/*/mix", signal.SIGINT, 130)],
    ids=["unpacking-sigterm", "mixing-ctrl-c"],
)
def test_stop_in_the_middle_of_work(
    long_call: Path, tmp_path: Path, working_on: str, number: int, expected: int
) -> None:
    out = tmp_path / "out"
    end = tmp_path / "end.json"
    run = Run("--input", long_call, "--output", out, "--summary-json", end)
    run.wait_until(lambda: list(out.glob(f".staging/{working_on}")))

    status, err, seconds = run.stop(
        number, signal.SIGINT, signal.SIGINT
    )  # an impatient finger changes nothing

    _check_stopped(status, expected, err, seconds)
    told = json.loads(end.read_text())
    assert (told["exit_status"], told["reason"]) == (expected, "cancelled")
    assert told["run_id"] in err
    assert lock.look(str(out / "catalog")) is None
    assert not list(out.rglob("*.partial"))
    assert not [
        path for part in ("packets", "work") for path in (out / ".staging").glob(f"*/*/{part}/*")
    ]
    assert not list((out / "recordings").rglob("*.mp3"))


# --- with a store that is slow or silent ----------------------------------------------------------


@pytest.fixture
def slow(gcs: dict[str, str]) -> Iterator[tuple[Faults, dict[str, str]]]:
    """A proxy before the store, and the environment that leads there; this process goes to the
    store itself.
    """
    faults = Faults()
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = gcs["STORAGE_EMULATOR_HOST"]
    for cached in (credentials.have_credentials, credentials.storage_client):
        cached.cache_clear()
    with proxied(gcs["STORAGE_EMULATOR_HOST"], faults) as url:
        yield faults, {"STORAGE_EMULATOR_HOST": url}
    for cached in (credentials.have_credentials, credentials.storage_client):
        cached.cache_clear()
    if before is None:
        del os.environ["STORAGE_EMULATOR_HOST"]
    else:
        os.environ["STORAGE_EMULATOR_HOST"] = before


def _short_call() -> bytes:
    people = [
        Participant(participant_id="alice", segments=[Segment(packets=encode_opus(noise(1)))])
    ]
    return make_call_archive(people)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held_up", "number", "expected"),
    [
        (r"GET .*stops/raw/call\.tar\.gz.*alt=media", signal.SIGINT, 130),
        (r"POST /upload.*stops/out/catalog/tracks/", signal.SIGTERM, 143),
    ],
    ids=["reading-ctrl-c", "publishing-sigterm"],
)
def test_stop_while_the_store_gives_no_answer(
    slow: tuple[Faults, dict[str, str]], tmp_path: Path, held_up: str, number: int, expected: int
) -> None:
    faults, environment = slow
    objects.delete_below("gs://calls/stops")
    objects.write_bytes("gs://calls/stops/raw/call.tar.gz", _short_call())
    silent: list[str] = []

    def hold(request: str) -> None:
        if silent or re.search(held_up, request):
            silent.append(request)
            time.sleep(30)  # and from now on for whatever is asked, also while the run cleans up

    faults.before = hold
    command = (
        "--input",
        "gs://calls/stops/raw/*",
        "--output",
        "gs://calls/stops/out",
        f"--temp_location={tmp_path}/tmp",
    )
    run = Run(*command, env=environment)
    run.wait_until(lambda: silent)

    status, err, seconds = run.stop(number)

    _check_stopped(status, expected, err, seconds)
    faults.before = None
    there = [listed.path for listed in objects.list_below("gs://calls/stops/out/recordings")]
    assert not [path for path in there if not path.endswith((".mkv", ".mp3"))]
    # Its lock could not be given back, but it names a process of this machine that is no more.
    again = callpress("run", *command)
    assert again.status == 0, again.err + again.out
    verified = callpress("verify", "--catalog", "gs://calls/stops/out/catalog")
    assert verified.status == 0, verified.out


@pytest.mark.slow
def test_run_that_loses_its_lock_stops_before_it_publishes(tmp_path: Path) -> None:
    """As after a machine was asleep for longer than the lease: another run has taken over."""
    out = tmp_path / "out"
    lock_file = out / "catalog" / "callpress.lock"
    end = tmp_path / "end.json"
    profile = tmp_path / "short_lease.toml"
    profile.write_text("[limits]\nlock_seconds = 15\n")  # it is looked at each second
    run = Run(
        *("--input", _write_long_call(tmp_path / "long.tar", 100), "--output", out),
        *("--summary-json", end, "--config", profile),
    )
    run.wait_until(lambda: list(out.glob(".staging/*/*/work/*/mix")))
    theirs = other_state(run_id="the-other").decode()
    lock_file.write_text(theirs)

    _, err = run.process.communicate(timeout=120)

    assert run.process.returncode == 1
    assert "run the-other on elsewhere (process 1) has it now" in err
    told = json.loads(end.read_text())
    assert (told["exit_status"], told["reason"]) == (1, "lock_lost")
    assert "Traceback" not in err
    assert lock_file.read_text() == theirs
    assert not list((out / "catalog").rglob("*.parquet"))


@pytest.mark.slow
def test_stopped_run_is_gone_on_with(tmp_path: Path) -> None:
    """SIGTERM before anything is made: the run is still listing."""
    for number in range(3):
        (tmp_path / f"{number}.tar.gz").write_bytes(_short_call())
    out = tmp_path / "out"
    run = Run("--input", tmp_path / "*.tar.gz", "--output", out)
    run.wait_until(lambda: (out / "catalog" / "callpress.lock").exists())

    status, err, seconds = run.stop(signal.SIGTERM)

    _check_stopped(status, 143, err, seconds)
    assert callpress("run", "--input", tmp_path / "*.tar.gz", "--output", out).status == 0
    assert len(query(out / "catalog", "archives")) == 3


# --- the handler by itself ------------------------------------------------------------------------


def _run_script(body: str, number: int | None) -> tuple[int, str, float]:
    """Runs code inside `stopping_cleanly`, and sends a signal once it prints a line."""
    script = (
        "import ctypes, threading, time\n"
        "from pipelines.stopping import StoppedError, stopping_cleanly\n"
        "try:\n"
        "    with stopping_cleanly(lambda: 'farewell') as stopper:\n"
        "        print('ready', flush=True)\n"
        f"        {body}\n"
        "except StoppedError:\n"
        "    stopper.leave()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    if number is not None:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - began


@pytest.mark.slow
def test_main_thread_stuck_where_no_signal_reaches_ends_in_time_too() -> None:
    stuck = (
        "m = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; "
        "lock(m); lock(m)"
    )

    status, err, seconds = _run_script(stuck, signal.SIGTERM)

    assert (status, err) == (143, "\nfarewell\n")
    assert seconds < LIMIT_SECONDS


@pytest.mark.slow
def test_cleaning_up_that_never_ends_is_cut_short() -> None:
    status, err, seconds = _run_script(
        "exec('try: threading.Event().wait()\\nfinally: threading.Event().wait()')", signal.SIGINT
    )

    assert (status, err) == (130, "\nfarewell\n")
    assert seconds < LIMIT_SECONDS


def test_last_thing_to_do_that_never_ends_is_cut_short() -> None:
    script = (
        "import threading\n"
        "from pipelines.stopping import StoppedError, stopping_cleanly\n"
        "try:\n"
        "    never = threading.Event()\n"
        "    with stopping_cleanly(lambda: 'farewell', lambda status: never.wait()) as stopper:\n"
        "        stopper.stop('enough')\n"
        "        threading.Event().wait()\n"
        "except StoppedError:\n"
        "    stopper.leave()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (1, "\ncallpress: enough\nfarewell\n")


def test_run_is_ended_from_another_thread_as_failed() -> None:
    body = (
        "threading.Thread(target=stopper.stop, args=('the lock is gone',)).start(); "
        "threading.Event().wait()"
    )

    status, err, seconds = _run_script(body, None)

    assert (status, err) == (1, "\ncallpress: the lock is gone\nfarewell\n")
    assert seconds < 2
