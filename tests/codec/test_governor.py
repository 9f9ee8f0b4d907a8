"""The governor: as many jobs at work as there are slots, whichever processes they belong to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.codec import codec_jobs, contender
from tests.support.codec import MEMORY_BYTES, is_running, run_job, wait_until
from transforms.codec import governor as governor_module
from transforms.codec.governor import JOB_BYTES, Governor
from transforms.codec.machine import Machine
from transforms.codec.pool import CodecPool, RunStoppedError
from transforms.codec.slot_files import SlotFiles, SlotFolderError

ROOT = Path(__file__).parents[2]
FOREVER = 600.0


def make_governor(folder: Path, slots: int) -> Governor:
    governor = Governor(SlotFiles(folder))
    governor.use(slots)
    return governor


def go_on() -> None:
    """Nothing ends the waiting."""


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Has `work` done meanwhile, and holds that it has come to its end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(20)
    assert not thread.is_alive()


def take_all(governor: Governor, slots: int) -> ExitStack:
    stack = ExitStack()
    for _ in range(slots):
        stack.enter_context(governor.slot(go_on))
    return stack


def free_slots(folder: Path, slots: int) -> int:
    files = SlotFiles(folder)
    locks = [files.take(slot) for slot in range(slots)]
    found = [lock for lock in locks if lock is not None]
    for lock in found:
        files.give_back(lock)
    return len(found)


# --- several processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 12])
def test_as_many_jobs_are_at_work_as_there_are_slots(tmp_path: Path, slots: int) -> None:
    log = tmp_path / "log"
    each = {1: 2, 2: 4, 12: 10}[slots]
    processes = [
        contender.start(tmp_path, slots, threads=4, jobs=each, seconds=0.02, log=log, awaited=slots)
        for _ in range(4)
    ]
    for process in processes:
        assert process.wait(60) == 0

    found = contender.spans(log)
    assert len(found) == 4 * 4 * each
    assert contender.most_at_once(found) == slots
    assert free_slots(tmp_path, slots) == slots


def test_who_waits_gets_a_turn_beside_one_that_always_wants_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    greedy = contender.start(
        tmp_path, 1, threads=4, jobs=2_000, seconds=0.005, log=log, name="greedy"
    )
    wait_until(lambda: len(contender.spans(log)) > 5)
    modest = contender.start(tmp_path, 1, threads=1, jobs=20, seconds=0.005, log=log, name="modest")
    modest.wait(60)
    greedy.kill()
    greedy.wait()

    found = contender.spans(log)
    turns = [span for span in found if span.name == "modest"]
    assert len(turns) == 20
    between = [
        span
        for span in found
        if span.name == "greedy" and turns[0].begin < span.begin < turns[-1].end
    ]
    assert len(between) <= 2 * len(turns)  # one each, but for a moment in which it was not in line


@pytest.mark.parametrize("whom", ["holder", "head", "second"])
def test_slot_of_a_process_that_is_killed_is_free_and_so_is_its_place(
    tmp_path: Path, whom: str
) -> None:
    log = tmp_path / "log"
    holder = contender.start(tmp_path, 1, threads=1, jobs=1, seconds=FOREVER, log=log)
    files = SlotFiles(tmp_path)
    wait_until(lambda: files.folder.exists() and files.count_held() == 1)
    waiting = []
    for name in ("head-1", "next-1"):
        waiting.append(contender.start(tmp_path, 1, threads=1, jobs=1, seconds=0.0, log=log))
        wait_until(lambda name=name: is_locked(files.folder / name))  # type: ignore[misc]
    killed = {"holder": holder, "head": waiting[0], "second": waiting[1]}[whom]

    killed.send_signal(signal.SIGKILL)
    killed.wait()
    holder.kill()
    holder.wait()

    for process in waiting:
        assert process.wait(20) == (-signal.SIGKILL if process is killed else 0)
    assert len(contender.spans(log)) == sum(process is not killed for process in waiting)


def is_locked(path: Path) -> bool:
    """Whether anybody has a file locked, by the kernel's list."""
    inode = path.stat().st_ino
    return any(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_codec_process_that_outlives_its_worker_holds_no_slot(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = (
        "from pathlib import Path\n"
        "from tests.codec import codec_jobs\n"
        "from tests.support.codec import run_job\n"
        "from transforms.codec.governor import Governor\n"
        "from transforms.codec.pool import CodecPool\n"
        "from transforms.codec.slot_files import SlotFiles\n"
        f"governor = Governor(SlotFiles(Path({str(tmp_path)!r})))\n"
        "governor.use(1)\n"
        f"with CodecPool(governor).lend({MEMORY_BYTES}) as codec:\n"
        f"    run_job(codec, codec_jobs.work_for, 60, Path({str(marker)!r}))\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_until(lambda: marker.exists() and marker.read_text() != "")
    child = int(marker.read_text())
    assert free_slots(tmp_path, 1) == 0
    os.kill(child, signal.SIGSTOP)  # else it would end with its parent

    worker.kill()
    worker.wait()

    assert is_running(child)
    assert free_slots(tmp_path, 1) == 1
    os.kill(child, signal.SIGKILL)


def test_slot_is_free_when_its_holder_was_forked_meanwhile(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 1)
    with governor.slot(go_on):
        forked = os.fork()
        if not forked:
            signal.pause()
            os._exit(0)

    assert free_slots(tmp_path, 1) == 1
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)


# --- runs that were told different numbers --------------------------------------------------------


def test_run_with_two_slots_beside_one_with_twelve_has_two(tmp_path: Path) -> None:
    two, twelve = make_governor(tmp_path, 2), make_governor(tmp_path, 12)

    with take_all(twelve, 10):  # the last ones
        with take_all(two, 2):
            assert free_slots(tmp_path, 12) == 0
        assert free_slots(tmp_path, 2) == 2


def test_who_waits_for_the_first_slots_does_not_hold_up_who_may_use_others(tmp_path: Path) -> None:
    two, three = make_governor(tmp_path, 2), make_governor(tmp_path, 3)
    got = threading.Event()
    with take_all(three, 1), take_all(two, 2) as first:

        def wait_for_first() -> None:
            with two.slot(go_on):
                got.set()

        with in_thread(wait_for_first):
            wait_until(lambda: is_locked(SlotFiles(tmp_path).folder / "head-2"))
            three_waits = threading.Event()
            three_done = threading.Event()

            def wait_for_last() -> None:
                three_waits.set()
                with three.slot(go_on):
                    three_done.set()

            with in_thread(wait_for_last):
                three_waits.wait(5)
                assert not got.is_set()
                first.close()
                assert got.wait(5)
                assert three_done.wait(5)


# --- waiting --------------------------------------------------------------------------------------


def test_threads_of_a_process_get_their_turns_in_the_order_they_came(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 1)
    order: list[int] = []
    threads = []

    def work(number: int) -> None:
        with governor.slot(go_on):
            order.append(number)

    with governor.slot(go_on):
        for number in range(8):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: len(governor._line) == number + 1)  # type: ignore[misc]
    for thread in threads:
        thread.join(10)

    assert order == list(range(8))


@pytest.mark.parametrize("others", [0, 2], ids=["at the head", "behind others"])
def test_stopped_pool_waits_for_no_slot(tmp_path: Path, others: int) -> None:
    holder = make_governor(tmp_path, 1)
    with holder.slot(go_on):
        waiting = [
            contender.start(tmp_path, 1, threads=1, jobs=1, seconds=0.0, log=tmp_path / "log")
            for _ in range(others)
        ]
        if others:
            wait_until(lambda: is_locked(SlotFiles(tmp_path).folder / "next-1"))
        pool = CodecPool(make_governor(tmp_path, 1))
        ended: list[BaseException] = []

        def work() -> None:
            try:
                with pool.lend(MEMORY_BYTES) as codec:
                    run_job(codec, codec_jobs.give_pid)
            except BaseException as error:
                ended.append(error)

        with in_thread(work):
            wait_until(lambda: len(pool.governor._line) == 1)
            began = time.monotonic()
            pool.stop()

        assert time.monotonic() - began < 2
        assert [type(error) for error in ended] == [RunStoppedError]
        assert not pool._all  # who waits has no child yet
    for process in waiting:
        assert process.wait(20) == 0
    pool.restart()
    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.give_back, 1) == 1
    pool.stop()


def test_run_that_waits_for_others_for_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(governor_module, "_TELLING_SECONDS", 0.0)
    governor, other = make_governor(tmp_path, 2), make_governor(tmp_path, 2)
    ended = threading.Event()

    def work() -> None:
        with governor.slot(go_on):
            ended.set()

    with take_all(governor, 1), take_all(other, 1) as held, in_thread(work):
        wait_until(lambda: len(governor._line) == 1)
        held.close()
    assert ended.is_set()
    assert not caplog.messages  # something of this process is at work

    with take_all(other, 2) as held, in_thread(work):
        wait_until(lambda: bool(caplog.messages))
        held.close()
    assert "no codec job of this process could begin" in caplog.messages[0]
    assert f"all 2 slots in {SlotFiles(tmp_path).folder}" in caplog.messages[0]


def test_who_waits_takes_no_time_of_a_core(tmp_path: Path) -> None:
    holder, governor = make_governor(tmp_path, 2), make_governor(tmp_path, 2)
    done: list[int] = []

    def work() -> None:
        with governor.slot(go_on):
            done.append(1)

    with ExitStack() as threads, take_all(holder, 2):
        before = time.process_time()
        for _ in range(20):
            threads.enter_context(in_thread(work))
        wait_until(lambda: len(governor._line) == 20)
        time.sleep(0.5)  # waiting is what is measured
        assert time.process_time() - before < 0.05
    assert len(done) == 20


def test_trouble_with_the_folder_ends_the_waiting_of_all(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 1)
    folder = SlotFiles(tmp_path).folder
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with governor.slot(go_on):
                pass
        except BaseException as error:
            ended.append(error)

    with governor.slot(go_on), in_thread(work), in_thread(work):
        wait_until(lambda: len(governor._line) == 2)
        folder.rename(tmp_path / "away")
        folder.symlink_to(tmp_path)
    assert [type(error) for error in ended] == [SlotFolderError] * 2


def test_job_goes_on_with_what_it_has_when_there_is_trouble_with_the_folder(
    tmp_path: Path,
) -> None:
    governor = make_governor(tmp_path, 3)
    with governor.slot(go_on) as slots:
        assert slots.cores(2) == 2
        SlotFiles(tmp_path).folder.rename(tmp_path / "away")
        SlotFiles(tmp_path).folder.write_text("")

        assert slots.cores(3) == 2


def test_folder_that_is_tidied_away_is_made_again(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 2)
    folder = SlotFiles(tmp_path).folder
    with governor.slot(go_on):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    with governor.slot(go_on):
        assert free_slots(tmp_path, 2) == 1


# --- more than one core for a job -----------------------------------------------------------------


def test_job_takes_cores_that_are_free_and_gives_them_back(tmp_path: Path) -> None:
    governor, other = make_governor(tmp_path, 8), make_governor(tmp_path, 8)
    with governor.slot(go_on) as slots:
        with take_all(other, 3):
            assert slots.cores(2) == 2
            assert slots.cores(8) == 5  # what is free by now
            assert free_slots(tmp_path, 8) == 0
        assert slots.cores(8) == 8
        assert slots.cores(8) == 8
    assert free_slots(tmp_path, 8) == 8


def test_job_keeps_one_core_when_others_wait(tmp_path: Path) -> None:
    governor, other = make_governor(tmp_path, 3), make_governor(tmp_path, 3)
    got, done = threading.Event(), threading.Event()

    def work() -> None:
        with other.slot(go_on):
            got.set()
            assert done.wait(10)

    with governor.slot(go_on) as slots:
        assert slots.cores(3) == 3
        with in_thread(work):
            wait_until(lambda: len(other._line) == 1)
            wait_until(lambda: slots.cores(3) == 1)
            assert got.wait(5)
            wait_until(lambda: slots.cores(3) == 2)
            done.set()
        wait_until(lambda: slots.cores(3) == 3)


def test_job_gets_its_share_though_others_wait(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 2)
    ended = threading.Event()

    def small() -> None:
        with governor.slot(go_on):
            pass
        if not ended.is_set():
            small_ones.append(threading.Thread(target=small))
            small_ones[-1].start()

    small_ones: list[threading.Thread] = []
    with governor.slot(go_on), governor.slot(go_on, share=2) as large:
        for _ in range(3):
            small_ones.append(threading.Thread(target=small))
            small_ones[-1].start()
        assert large.cores(2) == 1
        first = large
        wait_until(lambda: len(governor._line) == 4)
        line = list(governor._line)
        assert line[0] in first._places  # it has stood there since it began
    ended.set()
    for thread in small_ones:
        thread.join(10)
    assert free_slots(tmp_path, 2) == 2


def test_share_that_came_is_kept_and_given_back_at_the_end(tmp_path: Path) -> None:
    governor, other = make_governor(tmp_path, 3), make_governor(tmp_path, 3)
    release = threading.Event()

    def work() -> None:
        with other.slot(go_on):
            assert release.wait(10)

    with take_all(other, 2) as held, governor.slot(go_on, share=2) as slots:
        assert slots.cores(3) == 1
        held.close()
        wait_until(lambda: slots.cores(2) == 2)
        wait_until(lambda: slots.cores(3) == 3)
        with in_thread(work):
            wait_until(lambda: len(other._line) == 1)
            wait_until(lambda: slots.cores(3) == 2)  # the third is another's
            wait_until(lambda: not other._line)
            assert slots.cores(3) == 2
            release.set()
    assert free_slots(tmp_path, 3) == 3


def test_place_in_line_of_a_job_that_has_ended_is_given_up(tmp_path: Path) -> None:
    governor = make_governor(tmp_path, 1)
    with governor.slot(go_on, share=3):
        wait_until(lambda: len(governor._line) == 2)

    assert not governor._line
    wait_until(lambda: free_slots(tmp_path, 1) == 1)


def test_job_in_a_codec_process_is_told_how_many_cores_it_has(tmp_path: Path) -> None:
    pool = CodecPool(make_governor(tmp_path, 3))
    with pool.lend(MEMORY_BYTES) as codec:
        assert run_job(codec, codec_jobs.ask_for_cores, (1, 2, 8)) == [1, 2, 3]
    pool.stop()
    assert free_slots(tmp_path, 3) == 3


# --- how many slots there are ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Machine(Machine):
    has_cores: int
    has_free_bytes: int | None

    def cores(self) -> int:
        return self.has_cores

    def free_bytes(self) -> int | None:
        return self.has_free_bytes


@pytest.mark.parametrize(
    ("cores", "free_bytes", "wanted", "expected"),
    [
        (2, None, None, 2),
        (32, 32 * JOB_BYTES, None, 32),
        (32, 8 * JOB_BYTES - 1, None, 7),
        (4, 0, None, 1),
        (1, 100 * JOB_BYTES, None, 1),
        (2, JOB_BYTES, 12, 12),
        (32, 1 << 50, 1, 1),
    ],
)
def test_slots_are_as_many_as_cores_and_memory_allow_unless_told(
    tmp_path: Path, cores: int, free_bytes: int | None, wanted: int | None, expected: int
) -> None:
    governor = Governor(SlotFiles(tmp_path), _Machine(has_cores=cores, has_free_bytes=free_bytes))

    assert governor.use(wanted) == expected
    with take_all(governor, expected):
        assert SlotFiles(tmp_path).count_held() == expected


def test_memory_of_jobs_at_work_is_theirs(tmp_path: Path) -> None:
    first = make_governor(tmp_path, 3)
    with take_all(first, 3):
        later = Governor(SlotFiles(tmp_path), _Machine(has_cores=8, has_free_bytes=2 * JOB_BYTES))
        assert later.use() == 5
