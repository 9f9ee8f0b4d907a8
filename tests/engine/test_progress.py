"""Progress: whoever listens hears every report, until it stops listening; a portion adds up to its
size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from transforms.engine import progress


@pytest.fixture
def told() -> Iterator[list[int]]:
    """What is reported of `bytes_done` while a test runs."""
    told: list[int] = []
    stop = progress.listen(lambda what, count: told.append(count) if what == "bytes_done" else None)
    yield told
    stop()


def test_listener_hears_figures_until_it_stops() -> None:
    told: list[tuple[str, int]] = []
    stop = progress.listen(lambda what, count: told.append((what, count)))

    progress.add("archives")
    progress.add("media_samples", 48_000)
    stop()
    progress.add("archives")

    assert told == [("archives", 1), ("media_samples", 48_000)]


def test_every_listener_hears_a_report() -> None:
    first: list[int] = []
    second: list[int] = []
    stops = [
        progress.listen(lambda _, count: first.append(count)),
        progress.listen(lambda _, count: second.append(count)),
    ]

    progress.add("tracks", 2)
    stops[0]()
    progress.add("tracks", 3)
    stops[1]()

    assert first == [2]
    assert second == [2, 3]


def test_listener_that_stops_while_it_is_told_does_not_silence_others() -> None:
    told: list[str] = []
    stops: list[Callable[[], None]] = []

    def leave(_what: str, _count: int) -> None:
        told.append("leaving")
        stops[0]()

    stops.append(progress.listen(leave))
    stops.append(progress.listen(lambda what, _count: told.append(what)))
    progress.add("calls")
    progress.add("calls")
    stops[1]()

    assert told == ["leaving", "calls", "calls"]


def test_reports_from_many_threads_all_arrive() -> None:
    told: list[int] = []
    stop = progress.listen(lambda _, count: told.append(count))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: progress.add("media_samples", number), range(200)))
    stop()

    assert sorted(told) == list(range(200))


def test_report_without_a_listener_does_nothing() -> None:
    progress.add("failures")


def test_portion_tells_its_size_as_steps_are_taken(told: list[int]) -> None:
    with progress.Portion("bytes_done", 1_000, 10) as portion:
        for _ in range(10):
            portion.advance(1)

    assert told == [100] * 10


def test_portion_tells_what_is_left_when_it_ends(told: list[int]) -> None:
    with progress.Portion("bytes_done", 1_000, 10) as portion:
        portion.advance(3)

    assert told == [300, 700]


def test_portion_of_work_that_fails_is_dealt_with_all_the_same(told: list[int]) -> None:
    def fail() -> None:
        with progress.Portion("bytes_done", 1_000, 10) as portion:
            portion.advance(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert sum(told) == 1_000


def test_portion_never_tells_more_than_its_size(told: list[int]) -> None:
    with progress.Portion("bytes_done", 1_000, 3) as portion:
        portion.advance(2)
        portion.advance(5)
        portion.advance(5)

    assert told == [666, 334]


def test_portion_takes_back_the_steps_of_lost_work(told: list[int]) -> None:
    with progress.Portion("bytes_done", 1_000, 10) as portion:
        portion.advance(12)
        portion.advance(-12)
        portion.advance(5)

    assert told == [1_000, -1_000, 500, 500]


def test_portion_of_no_size_or_no_steps_tells_at_most_its_size(told: list[int]) -> None:
    with progress.Portion("bytes_done", 0, 0) as portion:
        portion.advance(5)
    with progress.Portion("bytes_done", 7, 0):
        pass

    assert told == [7]
