"""What ended a job is told as on the local engine, from no more than the engine's text."""

from __future__ import annotations

import pytest

from pipelines.runners.engine import EngineDownError
from pipelines.runners.job_errors import StepFailedError, error_of
from transforms.locking.lock import LockHeldError, LockLostError
from transforms.media.errors import (
    CallpressError,
    ConfigError,
    StorageError,
    StoreDownError,
    exhausted_resource,
)

JOB = "Pipeline job-001 failed in state FAILED: "
TRACEBACK = (
    "bundle inst005 stage-004 failed:Traceback (most recent call last):\n"
    '  File "apache_beam/runners/common.py", line 1512, in process\n'
    '  File "/x/transforms/write_catalog.py", line 13, in process\n'
    "    raise thing\n"
    "{first}\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    "Traceback (most recent call last):\n"
    '  File "/x/apache_beam/runners/worker/sdk_worker.py", line 310, in _execute\n'
    "    response = task()\n"
    "               ^^^^^^\n"
    "{first} [while running 'WriteCatalog/Merge']\n"
)


def _raised(line: str) -> Exception:
    return error_of(JOB + TRACEBACK.format(first=line))


@pytest.mark.parametrize(
    "kind", [ConfigError, LockHeldError, LockLostError, StorageError, StoreDownError]
)
def test_what_a_step_raised_on_purpose_is_raised_anew(kind: type[CallpressError]) -> None:
    error = _raised(f"{kind.__module__}.{kind.__name__}: gs://calls/x: HTTP status 503: busy")

    assert type(error) is kind
    assert str(error) == "gs://calls/x: HTTP status 503: busy"


def test_an_error_behind_another_is_not_taken_for_it() -> None:
    text = TRACEBACK.format(first="transforms.media.errors.StorageError: gs://a: gone")

    error = error_of(text.replace("gs://a: gone [", "gs://b: gone [", 1))

    assert str(error) == "gs://b: gone"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ValueError: boom", "ValueError: boom"),
        ("AssertionError", "AssertionError"),
        ("KeyError: 'x'", "KeyError: 'x'"),
        ("google.api_core.exceptions.Unknown: what", "google.api_core.exceptions.Unknown: what"),
    ],
)
def test_anything_else_a_step_raised_is_a_bug(line: str, told: str) -> None:
    error = _raised(line)

    assert type(error) is StepFailedError
    assert str(error) == told


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "RuntimeError: MemoryError",
        "OSError: [Errno 24] Too many open files: 'x'",
        "RuntimeError: can't start new thread",
    ],
)
def test_a_machine_that_has_no_more_to_give_is_no_bug(line: str) -> None:
    assert exhausted_resource(_raised(line)) is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "bundle inst002 stage-002 failed:SDK worker disconnected: "
            "worker[job-007[job]_environment_1], 1 active instructions, error: context canceled",
            "a worker was lost (job-007[job]_environment_1)",
        ),
        (
            "prism worker[job-1] didn't get control connection to localhost:80 after 1m0s",
            "no worker came within 1m0s",
        ),
        ("no quota\nmore of it", "no quota"),
        ("", "it does not say why"),
    ],
)
def test_the_engines_own_words_are_no_bug(text: str, told: str) -> None:
    error = error_of(text)

    assert type(error) is EngineDownError
    assert told in str(error)
    assert "\n" not in str(error)


def test_workers_without_the_program_are_named() -> None:
    error = _raised("ModuleNotFoundError: No module named 'transforms'")

    assert type(error) is EngineDownError
    assert "--setup_file" in str(error)
