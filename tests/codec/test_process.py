"""The codec process: results, errors, limits and deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.codec import codec_jobs
from tests.support.codec import LARGE_DATA, MEMORY_BYTES, is_running, run_job, terms, wait_until
from transforms.codec.process import CodecProcess
from transforms.media.errors import CodecProcessError, RtpdumpError, StorageError

ROOT = Path(__file__).parents[2]


# --- results and errors ---------------------------------------------------------------------------


def test_result_and_cpu_time_come_back(codec: CodecProcess) -> None:
    value, cpu_ns = codec.run(terms(), codec_jobs.work_for, 0.2)

    assert value != os.getpid()
    assert 50_000_000 < cpu_ns < 2_000_000_000


def test_child_serves_job_after_job(codec: CodecProcess) -> None:
    pids = {run_job(codec, codec_jobs.give_pid) for _ in range(3)}

    assert len(pids) == 1
    assert run_job(codec, codec_jobs.give_back, {"a": (1, b"2", Path("3"))}) == {
        "a": (1, b"2", Path("3"))
    }


def test_large_arguments_and_results_pass(codec: CodecProcess) -> None:
    assert run_job(codec, codec_jobs.give_back, LARGE_DATA) == LARGE_DATA


def test_progress_is_told_in_order(codec: CodecProcess) -> None:
    told: list[int] = []

    run_job(codec, codec_jobs.report_progress, (48_000, 1, 960), on_progress=told.append)

    assert told == [48_000, 1, 960]


def test_recording_error_comes_back_as_itself_with_its_fields(codec: CodecProcess) -> None:
    with pytest.raises(RtpdumpError, match="record 17: length 6, need at least 8") as caught:
        run_job(codec, codec_jobs.refuse_dump)

    assert caught.value.message == "a.rtpdump: record 17: length 6, need at least 8"
    assert (caught.value.member, caught.value.byte_offset, caught.value.retryable) == (
        "a.rtpdump",
        4096,
        False,
    )
    assert run_job(codec, codec_jobs.give_back, "next") == "next"


def test_bug_costs_the_recording_and_its_traceback_is_logged(
    codec: CodecProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        CodecProcessError, match=r"bug in the codec process.*ZeroDivisionError: division by zero"
    ):
        run_job(codec, codec_jobs.divide_by_zero)

    assert "in divide_by_zero" in caplog.text
    assert run_job(codec, codec_jobs.give_back, "next") == "next"


def test_result_that_cannot_be_pickled_is_a_bug(
    codec: CodecProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CodecProcessError, match="bug in the codec process"):
        run_job(codec, codec_jobs.give_lambda)

    assert "pickle" in caplog.text
    assert run_job(codec, codec_jobs.give_back, "next") == "next"


def test_child_imports_nothing_from_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be any project's, another version of this one among them."""
    (tmp_path / "transforms").mkdir()
    for module in ("transforms/__init__.py", "numpy.py", "pickle.py"):
        (tmp_path / module).write_text("raise SystemExit(77)\n")
    monkeypatch.chdir(tmp_path)
    child = CodecProcess(MEMORY_BYTES)
    try:
        assert run_job(child, codec_jobs.give_back, "here") == "here"
    finally:
        child.close()


def test_child_has_not_imported_beam(codec: CodecProcess) -> None:
    modules = run_job(codec, codec_jobs.give_modules)

    assert "transforms.media.errors" in modules
    heavy = (
        "apache_beam",
        "pyarrow",
        "pipelines",
        "google.auth",
        "google.cloud.storage",
        "tenacity",
    )
    assert [name for name in modules if name.startswith(heavy)] == []


# --- deaths and limits ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_death_by_a_signal_names_it(codec: CodecProcess, number: signal.Signals) -> None:
    with pytest.raises(CodecProcessError, match=f"died with signal {number.name}") as caught:
        run_job(codec, codec_jobs.kill_itself, int(number))

    assert caught.value.retryable
    assert not codec.is_alive


def test_death_by_an_exit_names_the_status(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with exit status 3"):
        run_job(codec, codec_jobs.leave, 3)

    assert not codec.is_alive


def test_segfault_in_native_code_names_it(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with signal SIGSEGV"):
        run_job(codec, codec_jobs.segfault)


def test_death_in_the_middle_of_a_message_is_one(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with exit status 1"):
        run_job(codec, codec_jobs.cut_message_short, 0)


def test_time_limit_holds_for_a_child_stuck_in_the_middle_of_a_message(codec: CodecProcess) -> None:
    began = time.monotonic()

    with pytest.raises(CodecProcessError, match=r"took more than 0\.3 s"):
        run_job(codec, codec_jobs.cut_message_short, 60, timeout_seconds=0.3)

    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "job", [(codec_jobs.fill_disk,), (codec_jobs.fail_on_disk, 5)], ids=["disk full", "read error"]
)
def test_trouble_with_the_disk_is_a_storage_error_and_no_bug(
    codec: CodecProcess, job: tuple[Any, ...]
) -> None:
    with pytest.raises(StorageError, match=r"No space left on device|track: Input/output error"):
        run_job(codec, *job)

    assert run_job(codec, codec_jobs.give_back, "next") == "next"


def test_death_between_jobs_is_noticed(codec: CodecProcess) -> None:
    pid = run_job(codec, codec_jobs.give_pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not codec.is_alive)

    with pytest.raises(CodecProcessError, match="SIGKILL"):
        run_job(codec, codec_jobs.give_pid)


def test_time_limit_kills_the_child(codec: CodecProcess, tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(CodecProcessError, match=r"took more than 0\.5 s \(limits\.codec_seconds\)"):
        run_job(codec, codec_jobs.work_for, 60, tmp_path / "pid", timeout_seconds=0.5)

    assert time.monotonic() - began < 10
    assert not codec.is_alive
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_time_limit_holds_for_a_child_that_keeps_reporting(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match=r"took more than 0\.3 s"):
        run_job(codec, codec_jobs.report_progress, range(100_000_000), timeout_seconds=0.3)


def test_memory_limit_is_an_error_and_the_child_lives_on(codec: CodecProcess) -> None:
    pid = run_job(codec, codec_jobs.give_pid)

    with pytest.raises(
        CodecProcessError, match=r"out of memory \(limits\.codec_memory_bytes\)"
    ) as caught:
        run_job(codec, codec_jobs.take_memory, 2 * MEMORY_BYTES)

    assert caught.value.retryable
    assert run_job(codec, codec_jobs.take_memory, MEMORY_BYTES // 4) == MEMORY_BYTES // 4
    assert run_job(codec, codec_jobs.give_pid) == pid


def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = (
        "from pathlib import Path\n"
        "from tests.codec import codec_jobs\n"
        "from transforms.codec.process import CodecProcess, Terms\n"
        "terms = Terms(inputs=None, on_progress=None, timeout_seconds=60)\n"
        f"child = CodecProcess({MEMORY_BYTES})\n"
        f"child.run(terms, codec_jobs.work_for, 60, Path({str(marker)!r}))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_until(lambda: marker.exists() and marker.read_text() != "")
    child = int(marker.read_text())
    assert is_running(child)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    wait_until(lambda: not is_running(child))


def test_child_without_work_ends_and_one_at_work_does_not() -> None:
    child = CodecProcess(MEMORY_BYTES, idle_seconds=0.3)
    for _ in range(2):
        assert run_job(child, codec_jobs.work_for, 0.6) == child._process.pid

    wait_until(lambda: not child.is_alive)

    assert not child.answers()
    assert child._process.wait() == 0
    child.close()


def test_close_kills_the_child_and_may_be_called_twice(codec: CodecProcess) -> None:
    pid = run_job(codec, codec_jobs.give_pid)

    codec.close()
    codec.close()

    assert not is_running(pid)
    assert not codec.is_alive
