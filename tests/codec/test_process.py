"""The codec process: results, errors, limits and deaths, remote inputs, reuse."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import pytest

from tests.codec import codec_jobs
from transforms.codec.pool import CodecLoan, CodecPool, RunStoppedError
from transforms.codec.process import CodecProcess, Terms
from transforms.media.errors import CodecProcessError, RtpdumpError, StorageError
from transforms.storage import objects

MEMORY_BYTES = 512 << 20
ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 20_000
"""5 MB: several buffers of the child."""

Opener = Callable[[str], BinaryIO]


def _refuse(name: str) -> BinaryIO:
    raise AssertionError(f"{name} is not remote")


@dataclass(frozen=True)
class Names:
    """Inputs of a job: paths, and what a store would have."""

    open: Opener = _refuse

    def local_path(self, name: str) -> str | None:
        return None if "://" in name else name


def terms(
    open_remote: Opener = _refuse,
    on_progress: Callable[[int], None] = lambda _: None,
    timeout_seconds: float = 30,
) -> Terms:
    return Terms(
        inputs=Names(open_remote), on_progress=on_progress, timeout_seconds=timeout_seconds
    )


def _run(
    codec: CodecProcess | CodecLoan,
    function: Callable[..., Any],
    *args: Any,
    open_remote: Opener = _refuse,
    on_progress: Callable[[int], None] = lambda _: None,
    timeout_seconds: float = 30,
) -> Any:
    return codec.run(terms(open_remote, on_progress, timeout_seconds), function, *args).value


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.fixture
def codec() -> Iterator[CodecProcess]:
    process = CodecProcess(MEMORY_BYTES)
    yield process
    process.close()


@pytest.fixture
def pool() -> Iterator[CodecPool]:
    found = CodecPool()
    yield found
    found.stop()


# --- results and errors ---------------------------------------------------------------------------


def test_result_and_cpu_time_come_back(codec: CodecProcess) -> None:
    value, cpu_ns = codec.run(terms(), codec_jobs.work_for, 0.2)

    assert value != os.getpid()
    assert 50_000_000 < cpu_ns < 2_000_000_000


def test_child_serves_job_after_job(codec: CodecProcess) -> None:
    pids = {_run(codec, codec_jobs.give_pid) for _ in range(3)}

    assert len(pids) == 1
    assert _run(codec, codec_jobs.give_back, {"a": (1, b"2", Path("3"))}) == {
        "a": (1, b"2", Path("3"))
    }


def test_large_arguments_and_results_pass(codec: CodecProcess) -> None:
    assert _run(codec, codec_jobs.give_back, DATA) == DATA


def test_progress_is_told_in_order(codec: CodecProcess) -> None:
    heard: list[int] = []

    _run(codec, codec_jobs.report_progress, (48_000, 1, 960), on_progress=heard.append)

    assert heard == [48_000, 1, 960]


def test_recording_error_comes_back_as_itself_with_its_fields(codec: CodecProcess) -> None:
    with pytest.raises(RtpdumpError, match="record 17: length 6, need at least 8") as caught:
        _run(codec, codec_jobs.refuse_dump)

    assert caught.value.message == "a.rtpdump: record 17: length 6, need at least 8"
    assert (caught.value.member, caught.value.byte_offset, caught.value.retryable) == (
        "a.rtpdump",
        4096,
        False,
    )
    assert _run(codec, codec_jobs.give_back, "next") == "next"


def test_bug_costs_the_recording_and_its_traceback_is_logged(
    codec: CodecProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        CodecProcessError, match=r"bug in the codec process.*ZeroDivisionError: division by zero"
    ):
        _run(codec, codec_jobs.divide_by_zero)

    assert "in divide_by_zero" in caplog.text
    assert _run(codec, codec_jobs.give_back, "next") == "next"


def test_result_that_cannot_be_pickled_is_a_bug(
    codec: CodecProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CodecProcessError, match="bug in the codec process"):
        _run(codec, codec_jobs.give_lambda)

    assert "pickle" in caplog.text
    assert _run(codec, codec_jobs.give_back, "next") == "next"


def test_child_has_not_imported_beam(codec: CodecProcess) -> None:
    modules = _run(codec, codec_jobs.give_modules)

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
        _run(codec, codec_jobs.kill_itself, int(number))

    assert caught.value.retryable
    assert not codec.is_alive


def test_death_by_an_exit_names_the_status(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with exit status 3"):
        _run(codec, codec_jobs.leave, 3)

    assert not codec.is_alive


def test_segfault_in_native_code_names_it(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with signal SIGSEGV"):
        _run(codec, codec_jobs.segfault)


def test_death_in_the_middle_of_a_message_is_one(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match="died with exit status 1"):
        _run(codec, codec_jobs.cut_message_short, 0)


def test_time_limit_holds_for_a_child_stuck_in_the_middle_of_a_message(codec: CodecProcess) -> None:
    began = time.monotonic()

    with pytest.raises(CodecProcessError, match=r"took more than 0\.3 s"):
        _run(codec, codec_jobs.cut_message_short, 60, timeout_seconds=0.3)

    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "job", [(codec_jobs.fill_disk,), (codec_jobs.fail_on_disk, 5)], ids=["disk full", "read error"]
)
def test_trouble_with_the_disk_is_a_storage_error_and_no_bug(
    codec: CodecProcess, job: tuple[Any, ...]
) -> None:
    with pytest.raises(StorageError, match=r"No space left on device|track: Input/output error"):
        _run(codec, *job)

    assert _run(codec, codec_jobs.give_back, "next") == "next"


def test_death_between_jobs_is_noticed(codec: CodecProcess) -> None:
    pid = _run(codec, codec_jobs.give_pid)
    os.kill(pid, signal.SIGKILL)
    _wait_until(lambda: not codec.is_alive)

    with pytest.raises(CodecProcessError, match="SIGKILL"):
        _run(codec, codec_jobs.give_pid)


def test_time_limit_kills_the_child(codec: CodecProcess, tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(CodecProcessError, match=r"took more than 0\.5 s \(limits\.codec_seconds\)"):
        _run(codec, codec_jobs.work_for, 60, tmp_path / "pid", timeout_seconds=0.5)

    assert time.monotonic() - began < 10
    assert not codec.is_alive
    assert not _is_running(int((tmp_path / "pid").read_text()))


def test_time_limit_holds_for_a_child_that_keeps_reporting(codec: CodecProcess) -> None:
    with pytest.raises(CodecProcessError, match=r"took more than 0\.3 s"):
        _run(codec, codec_jobs.report_progress, range(100_000_000), timeout_seconds=0.3)


def test_memory_limit_is_an_error_and_the_child_lives_on(codec: CodecProcess) -> None:
    pid = _run(codec, codec_jobs.give_pid)

    with pytest.raises(
        CodecProcessError, match=r"out of memory \(limits\.codec_memory_bytes\)"
    ) as caught:
        _run(codec, codec_jobs.take_memory, 2 * MEMORY_BYTES)

    assert caught.value.retryable
    assert _run(codec, codec_jobs.take_memory, MEMORY_BYTES // 4) == MEMORY_BYTES // 4
    assert _run(codec, codec_jobs.give_pid) == pid


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
    _wait_until(lambda: marker.exists() and marker.read_text() != "")
    child = int(marker.read_text())
    assert _is_running(child)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    _wait_until(lambda: not _is_running(child))


def test_close_kills_the_child_and_may_be_called_twice(codec: CodecProcess) -> None:
    pid = _run(codec, codec_jobs.give_pid)

    codec.close()
    codec.close()

    assert not _is_running(pid)
    assert not codec.is_alive


# --- inputs ---------------------------------------------------------------------------------------


class _Remote:
    """Opens names from a dictionary and counts what is read."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {f"gs://bucket/{name}": data for name, data in objects.items()}
        self.opened: list[str] = []
        self.handles: list[BinaryIO] = []

    def __call__(self, name: str) -> BinaryIO:
        self.opened.append(name)
        if name not in self.objects:
            raise StorageError(f"{name}: No such object")
        self.handles.append(io.BytesIO(self.objects[name]))
        return self.handles[-1]


def test_local_file_is_read_by_the_child_itself(codec: CodecProcess, tmp_path: Path) -> None:
    path = tmp_path / "with space [1]"
    path.write_bytes(DATA)

    assert _run(codec, codec_jobs.read_whole, str(path)) == DATA


def test_local_file_that_is_gone_is_a_storage_error(codec: CodecProcess, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none: No such file or directory"):
        _run(codec, codec_jobs.read_whole, str(tmp_path / "none"))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, len(DATA)])
def test_remote_file_is_read_to_its_end(codec: CodecProcess, size: int) -> None:
    remote = _Remote(x=DATA[:size])

    assert _run(codec, codec_jobs.read_whole, "gs://bucket/x", open_remote=remote) == DATA[:size]


def test_remote_file_seeks_and_tells_like_a_local_one(codec: CodecProcess, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    seeks = [
        (0, io.SEEK_SET, 4),
        (3_000_000, io.SEEK_SET, 10),
        (-20, io.SEEK_CUR, 10),
        (-7, io.SEEK_END, 100),
        (0, io.SEEK_END, 1),
        (10, io.SEEK_END, 1),
        (5, io.SEEK_SET, -1),
        (0, io.SEEK_CUR, 1),
    ]

    remote = _run(
        codec, codec_jobs.read_pieces, "gs://bucket/x", seeks, open_remote=_Remote(x=DATA)
    )

    assert remote == _run(codec, codec_jobs.read_pieces, str(tmp_path / "x"), seeks)
    assert [at for at, _, _ in remote[:4]] == [0, 3_000_000, 2_999_990, len(DATA) - 7]


def test_two_remote_files_are_read_in_turns(codec: CodecProcess) -> None:
    remote = _Remote(one=b"abcd", other=b"1234")

    found = _run(
        codec, codec_jobs.read_two, "gs://bucket/one", "gs://bucket/other", open_remote=remote
    )

    assert found == b"ab12cd34"


def test_threads_of_a_job_may_read_and_tell_at_once(codec: CodecProcess) -> None:
    names = [f"gs://bucket/{number}" for number in range(4)]
    remote = _Remote(**{str(number): DATA[number:] for number in range(4)})
    told: list[int] = []

    found = _run(
        codec, codec_jobs.read_on_threads, names, open_remote=remote, on_progress=told.append
    )

    assert found == [hashlib.sha256(DATA[number:]).hexdigest() for number in range(4)]
    assert sum(told) == sum(len(DATA[number:]) for number in range(4))


def test_one_remote_file_opened_twice_has_two_positions(codec: CodecProcess) -> None:
    remote = _Remote(one=b"abcd")

    assert (
        _run(codec, codec_jobs.read_two, "gs://bucket/one", "gs://bucket/one", open_remote=remote)
        == b"ababcdcd"
    )


def test_remote_handles_are_closed_after_the_job_also_a_failed_one(codec: CodecProcess) -> None:
    remote = _Remote(x=b"data")
    _run(codec, codec_jobs.read_whole, "gs://bucket/x", open_remote=remote)
    with pytest.raises(StorageError):
        _run(codec, codec_jobs.read_two, "gs://bucket/x", "gs://bucket/none", open_remote=remote)

    assert len(remote.handles) == 2
    assert all(handle.closed for handle in remote.handles)


def test_remote_file_that_is_gone_is_a_storage_error(codec: CodecProcess) -> None:
    with pytest.raises(StorageError, match="gs://bucket/none: No such object"):
        _run(codec, codec_jobs.read_whole, "gs://bucket/none", open_remote=_Remote())

    assert _run(codec, codec_jobs.give_back, "next") == "next"


def test_remote_read_that_fails_in_passing_is_tried_again(
    codec: CodecProcess, store: ModuleType
) -> None:
    store.put("fake://bucket/x", DATA)
    store.TROUBLE["read"].extend([TimeoutError("timed out")])

    assert (
        _run(codec, codec_jobs.read_whole, "fake://bucket/x", open_remote=objects.open_input)
        == DATA
    )


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), ConnectionResetError("reset")],
    ids=lambda error: type(error).__name__,
)
def test_remote_read_that_keeps_failing_is_a_storage_error(
    codec: CodecProcess, store: ModuleType, error: Exception
) -> None:
    """It is neither a bug of ours nor the death of the child, and the child is free for the next
    job.
    """
    store.put("fake://bucket/x", DATA)
    store.TROUBLE["read"].extend([error] * 50)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            _run(codec, codec_jobs.read_whole, "fake://bucket/x", open_remote=objects.open_input)
        except BaseException as raised:
            caught.append(raised)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(15)
    hangs = thread.is_alive()
    if hangs:
        codec.close()
        thread.join(5)

    assert not hangs
    assert [type(raised) for raised in caught] == [StorageError]
    assert _run(codec, codec_jobs.give_back, "next") == "next"


# --- the pool -------------------------------------------------------------------------------------


def test_pool_lends_the_same_child_again(pool: CodecPool) -> None:
    pids = []
    for _ in range(3):
        with pool.lend(MEMORY_BYTES) as codec:
            pids.append(_run(codec, codec_jobs.give_pid))

    assert len(set(pids)) == 1


def test_pool_lends_a_child_to_one_borrower_at_a_time(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as one, pool.lend(MEMORY_BYTES) as other:
        assert _run(one, codec_jobs.give_pid) != _run(other, codec_jobs.give_pid)


def test_pool_replaces_a_child_that_died_at_work(pool: CodecPool) -> None:
    with pytest.raises(CodecProcessError), pool.lend(MEMORY_BYTES) as codec:
        _run(codec, codec_jobs.kill_itself, int(signal.SIGKILL))

    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_back, 1) == 1


def test_pool_replaces_a_child_that_died_while_idle(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        pid = _run(codec, codec_jobs.give_pid)
    os.kill(pid, signal.SIGKILL)
    _wait_until(lambda: not _is_running(pid))

    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_back, 1) == 1


def test_pool_lends_on_after_a_recording_error(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        pid = _run(codec, codec_jobs.give_pid)
    with pytest.raises(RtpdumpError), pool.lend(MEMORY_BYTES) as codec:
        _run(codec, codec_jobs.refuse_dump)

    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_pid) == pid


def test_stopped_pool_kills_idle_and_working_children_and_lends_no_more(
    pool: CodecPool, tmp_path: Path
) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        idle = _run(codec, codec_jobs.give_pid)
        with pool.lend(MEMORY_BYTES) as second:
            assert _run(second, codec_jobs.give_pid) != idle
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with pool.lend(MEMORY_BYTES) as busy:
                _run(busy, codec_jobs.work_for, 60, tmp_path / "pid")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    _wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")

    pool.stop()

    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in ended] == [
        RunStoppedError
    ]  # no recording's fault, so never a row
    assert not _is_running(idle)
    assert not _is_running(int((tmp_path / "pid").read_text()))
    with pytest.raises(RunStoppedError, match="the run is being stopped"), pool.lend(MEMORY_BYTES):
        pass


def test_pool_lends_again_after_a_restart(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        first = _run(codec, codec_jobs.give_pid)
    pool.stop()

    pool.restart()

    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_pid) != first


# --- lost work ------------------------------------------------------------------------------------


def _tries(marker: Path) -> list[str]:
    return marker.read_text().splitlines()


@pytest.mark.parametrize("how", ["killed", "segfault", "exit", "memory", "time"])
def test_lost_work_is_done_by_a_fresh_child(pool: CodecPool, tmp_path: Path, how: str) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        assert (
            _run(codec, codec_jobs.fail_times, tmp_path / "tries", 1, how, timeout_seconds=3)
            == "done"
        )
        pid = _run(codec, codec_jobs.give_pid)

    first, second = _tries(tmp_path / "tries")
    assert first != second
    assert pid == int(second)
    assert not _is_running(int(first))
    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_pid) == pid  # the fresh one stays, and only it


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "the codec process died with signal SIGKILL, and again when tried alone"),
        ("segfault", "the codec process died with signal SIGSEGV, and again when tried alone"),
        (
            "memory",
            "the codec process ran out of memory (limits.codec_memory_bytes), and again when "
            "tried alone",
        ),
        (
            "time",
            "the codec process took more than 1 s (limits.codec_seconds), and again when tried "
            "alone",
        ),
    ],
)
def test_work_lost_twice_is_that_recordings_error(
    pool: CodecPool, tmp_path: Path, how: str, message: str
) -> None:
    with pytest.raises(CodecProcessError) as caught, pool.lend(MEMORY_BYTES) as codec:
        _run(codec, codec_jobs.fail_times, tmp_path / "tries", 9, how, timeout_seconds=1)

    assert type(caught.value) is CodecProcessError  # its name is that of the row's error type
    assert caught.value.message == message
    assert caught.value.retryable
    assert len(_tries(tmp_path / "tries")) == 2
    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_back, 1) == 1


@pytest.mark.parametrize(
    ("how", "error"), [("bug", CodecProcessError), ("recording", RtpdumpError)]
)
def test_what_would_only_repeat_itself_is_not_tried_again(
    pool: CodecPool, tmp_path: Path, how: str, error: type[Exception]
) -> None:
    with pytest.raises(error), pool.lend(MEMORY_BYTES) as codec:
        _run(codec, codec_jobs.fail_times, tmp_path / "tries", 9, how)

    assert len(_tries(tmp_path / "tries")) == 1


def test_second_try_is_alone(pool: CodecPool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def work(number: int) -> None:
        with pool.lend(MEMORY_BYTES) as codec:
            for turn in range(3):
                _run(codec, codec_jobs.note_time, log, f"other-{number}-{turn}", 0.2)

    def die() -> None:
        with pool.lend(MEMORY_BYTES) as codec:
            _run(codec, codec_jobs.die_then_note_time, tmp_path / "died", log, 0.2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)] + [
        threading.Thread(target=die)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    spans = [
        (name, float(began), float(ended))
        for name, began, ended in map(str.split, log.read_text().splitlines())
    ]
    assert len(spans) == 7
    ((_, began, ended),) = [span for span in spans if span[0] == "alone"]
    assert [
        name for name, start, stop in spans if name != "alone" and start < ended and began < stop
    ] == []
    others = [span for span in spans if span[0] != "alone"]
    assert any(
        one[1] < other[2] and other[1] < one[2]
        for one in others
        for other in others
        if one is not other
    )


def test_progress_of_lost_work_is_taken_back(pool: CodecPool, tmp_path: Path) -> None:
    heard: list[int] = []
    with pool.lend(MEMORY_BYTES) as codec:
        _run(
            codec, codec_jobs.report_then_die_once, tmp_path / "died", 960, on_progress=heard.append
        )

    assert sum(heard) == 960


def test_warm_child_takes_the_first_job(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)

    with pool.lend(MEMORY_BYTES) as first, pool.lend(MEMORY_BYTES) as second:
        pids = {_run(codec, codec_jobs.give_pid) for codec in (first, second)}
    assert len(pids) == 2
    assert len(pool._all) == 2


def test_warm_child_ends_with_the_pool(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)
    (child,) = pool._all

    pool.stop()

    assert not child.is_alive


def test_warm_child_has_imported_what_jobs_need(codec: CodecProcess) -> None:
    wanted = {
        f"transforms.media.{name}" for name in ("unpack_archive", "extract_track", "mix_call")
    }
    assert not wanted & set(_run(codec, codec_jobs.give_modules))

    codec.warm()

    assert wanted <= set(_run(codec, codec_jobs.give_modules))


def test_child_that_died_warming_up_is_not_lent(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)
    (child,) = pool._all
    child.kill()

    with pool.lend(MEMORY_BYTES) as codec:
        assert _run(codec, codec_jobs.give_back, 1) == 1


def test_stopped_pool_tries_nothing_again(pool: CodecPool, tmp_path: Path) -> None:
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with pool.lend(MEMORY_BYTES) as busy:
                _run(busy, codec_jobs.work_for, 60, tmp_path / "pid")
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    _wait_until(lambda: (tmp_path / "pid").exists())

    pool.stop()

    for thread in threads:
        thread.join(10)
    assert [type(error) for error in ended] == [RunStoppedError] * 2


def test_work_lost_again_because_the_pool_was_stopped_is_no_recordings_error(
    pool: CodecPool, tmp_path: Path
) -> None:
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with pool.lend(MEMORY_BYTES) as busy:
                _run(busy, codec_jobs.die_once_then_work, tmp_path / "died", tmp_path / "again")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    _wait_until(lambda: (tmp_path / "again").exists())

    pool.stop()

    thread.join(10)
    assert [type(error) for error in ended] == [RunStoppedError]
