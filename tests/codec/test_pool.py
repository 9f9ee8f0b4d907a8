"""The pool of codec processes: lending, replacing, stopping, warming up."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.codec import codec_jobs
from tests.support.codec import MEMORY_BYTES, is_running, run_job, wait_until
from transforms.codec.pool import CodecPool, RunStoppedError
from transforms.codec.process import CodecProcess
from transforms.media.errors import CodecProcessError, RtpdumpError


def test_pool_lends_the_same_child_again(pool: CodecPool) -> None:
    pids = []
    for _ in range(3):
        with pool.lend(MEMORY_BYTES) as codec:
            pids.append(run_job(codec, codec_jobs.give_pid))

    assert len(set(pids)) == 1


def test_pool_lends_a_child_to_one_borrower_at_a_time(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as one, pool.lend(MEMORY_BYTES) as other:
        assert run_job(one, codec_jobs.give_pid) != run_job(other, codec_jobs.give_pid)


def test_pool_replaces_a_child_that_died_at_work(pool: CodecPool) -> None:
    with pytest.raises(CodecProcessError), pool.lend(MEMORY_BYTES) as codec:
        run_job(codec, codec_jobs.kill_itself, int(signal.SIGKILL))

    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_back, 1) == 1


def test_pool_replaces_a_child_that_died_while_idle(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        pid = run_job(codec, codec_jobs.give_pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))

    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_back, 1) == 1


def test_pool_lends_on_after_a_recording_error(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        pid = run_job(codec, codec_jobs.give_pid)
    with pytest.raises(RtpdumpError), pool.lend(MEMORY_BYTES) as codec:
        run_job(codec, codec_jobs.refuse_dump)

    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_pid) == pid


def test_stopped_pool_kills_idle_and_working_children_and_lends_no_more(
    pool: CodecPool, tmp_path: Path
) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        idle = run_job(codec, codec_jobs.give_pid)
        with pool.lend(MEMORY_BYTES) as second:
            assert run_job(second, codec_jobs.give_pid) != idle
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with pool.lend(MEMORY_BYTES) as busy:
                run_job(busy, codec_jobs.work_for, 60, tmp_path / "pid")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")

    pool.stop()

    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in ended] == [
        RunStoppedError
    ]  # no recording's fault, so never a row
    assert not is_running(idle)
    assert not is_running(int((tmp_path / "pid").read_text()))
    with pytest.raises(RunStoppedError, match="the run is being stopped"), pool.lend(MEMORY_BYTES):
        pass


def test_pool_lends_again_after_a_restart(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        first = run_job(codec, codec_jobs.give_pid)
    pool.stop()

    pool.restart()

    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_pid) != first


def test_warm_child_takes_the_first_job(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)

    with pool.lend(MEMORY_BYTES) as first, pool.lend(MEMORY_BYTES) as second:
        pids = {run_job(codec, codec_jobs.give_pid) for codec in (first, second)}
    assert len(pids) == 2
    assert len(pool._all) == 2


def test_one_warm_child_is_enough(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)
    pool.warm(MEMORY_BYTES)

    assert len(pool._all) == 1


def test_child_with_another_bound_on_its_memory_is_not_lent(pool: CodecPool) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        first = run_job(codec, codec_jobs.give_pid)
    with pool.lend(MEMORY_BYTES + 1) as codec:
        assert run_job(codec, codec_jobs.give_pid) != first
    assert not is_running(first)


def test_warm_child_ends_with_the_pool(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)
    (child,) = pool._all

    pool.stop()

    assert not child.is_alive


def test_warm_child_has_imported_what_jobs_need(codec: CodecProcess) -> None:
    wanted = {
        f"transforms.media.{name}" for name in ("unpack_archive", "extract_track", "mix_call")
    }
    assert not wanted & set(run_job(codec, codec_jobs.give_modules))

    codec.warm()

    assert wanted <= set(run_job(codec, codec_jobs.give_modules))


def test_child_that_died_warming_up_is_not_lent(pool: CodecPool) -> None:
    pool.warm(MEMORY_BYTES)
    (child,) = pool._all
    child.kill()

    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_back, 1) == 1
