"""Work lost with its codec process: done once more by a fresh one, alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.codec import codec_jobs
from tests.support.codec import MEMORY_BYTES, is_running, run_job, wait_until
from transforms.codec.pool import CodecPool, RunStoppedError
from transforms.media.errors import CodecProcessError, RtpdumpError


def _tries(marker: Path) -> list[str]:
    return marker.read_text().splitlines()


@pytest.mark.parametrize("how", ["killed", "segfault", "exit", "memory", "time"])
def test_lost_work_is_done_by_a_fresh_child(pool: CodecPool, tmp_path: Path, how: str) -> None:
    with pool.lend(MEMORY_BYTES) as codec:
        assert (
            run_job(codec, codec_jobs.fail_times, tmp_path / "tries", 1, how, timeout_seconds=3)
            == "done"
        )
        pid = run_job(codec, codec_jobs.give_pid)

    first, second = _tries(tmp_path / "tries")
    assert first != second
    assert pid == int(second)
    assert not is_running(int(first))
    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_pid) == pid  # the fresh one stays, and only it


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
        run_job(codec, codec_jobs.fail_times, tmp_path / "tries", 9, how, timeout_seconds=1)

    assert type(caught.value) is CodecProcessError  # its name is that of the row's error type
    assert caught.value.message == message
    assert caught.value.retryable
    assert len(_tries(tmp_path / "tries")) == 2
    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_back, 1) == 1


@pytest.mark.parametrize(
    ("how", "error"), [("bug", CodecProcessError), ("recording", RtpdumpError)]
)
def test_what_would_only_repeat_itself_is_not_tried_again(
    pool: CodecPool, tmp_path: Path, how: str, error: type[Exception]
) -> None:
    with pytest.raises(error), pool.lend(MEMORY_BYTES) as codec:
        run_job(codec, codec_jobs.fail_times, tmp_path / "tries", 9, how)

    assert len(_tries(tmp_path / "tries")) == 1


def test_second_try_is_alone(pool: CodecPool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def work(number: int) -> None:
        with pool.lend(MEMORY_BYTES) as codec:
            for turn in range(3):
                run_job(codec, codec_jobs.note_time, log, f"other-{number}-{turn}", 0.2)

    def die() -> None:
        with pool.lend(MEMORY_BYTES) as codec:
            run_job(codec, codec_jobs.die_then_note_time, tmp_path / "died", log, 0.2)

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
    told: list[int] = []
    with pool.lend(MEMORY_BYTES) as codec:
        run_job(
            codec, codec_jobs.report_then_die_once, tmp_path / "died", 960, on_progress=told.append
        )

    assert sum(told) == 960


def test_stopped_pool_tries_nothing_again(pool: CodecPool, tmp_path: Path) -> None:
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with pool.lend(MEMORY_BYTES) as busy:
                run_job(busy, codec_jobs.work_for, 60, tmp_path / "pid")
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: (tmp_path / "pid").exists())

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
                run_job(busy, codec_jobs.die_once_then_work, tmp_path / "died", tmp_path / "again")
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: (tmp_path / "again").exists())

    pool.stop()

    thread.join(10)
    assert [type(error) for error in ended] == [RunStoppedError]
