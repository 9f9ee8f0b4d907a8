"""ParallelFn: work on threads, outputs in any order, nothing lost and nothing hidden."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics
from apache_beam.testing.util import assert_that, equal_to

from tests.beam.support import GroupOnce, count_of, make_pipeline
from transforms.parallel import ParallelFn

WAIT_SECONDS = 5


class _SplitFn(ParallelFn):
    """Odd numbers to one side; a number n gives n % 3 outputs."""

    def __init__(self) -> None:
        super().__init__(2)
        self._outputs = Metrics.counter("tests", "outputs")

    def work(self, element: int) -> Iterator[Any]:
        for copy in range(element % 3):
            yield beam.pvalue.TaggedOutput("odd", (element, copy)) if element % 2 else (element, copy)

    def count(self, output: Any) -> None:
        self._outputs.inc()


class _FailOnFn(ParallelFn):
    def __init__(self, bad: int) -> None:
        super().__init__(2)
        self._bad = bad

    def work(self, element: int) -> Iterator[int]:
        if element == self._bad:
            raise ValueError(f"cannot work on {element}")
        yield element


class _WaitForLastFn(ParallelFn):
    """The first element is done only when the last is."""

    def __init__(self, last: int) -> None:
        super().__init__(2)
        self._last = last

    def setup(self) -> None:
        super().setup()
        self._last_done = threading.Event()

    def work(self, element: int) -> Iterator[tuple[int, bool]]:
        if element == self._last:
            self._last_done.set()
        in_time = element != 0 or self._last_done.wait(WAIT_SECONDS)
        yield element, in_time


class _ThreadFn(ParallelFn):
    def work(self, element: int) -> Iterator[str]:
        time.sleep(0.01)
        yield threading.current_thread().name


def _outputs(count: int, parity: int) -> list[tuple[int, int]]:
    return [(n, copy) for n in range(count) for copy in range(n % 3) if n % 2 == parity]


# Fewer than 4 per thread all come from finish_bundle; with more, some come from process.
@pytest.mark.parametrize("count", [1, 5, 60])
def test_tagged_and_untagged_outputs_all_arrive(count: int) -> None:
    with make_pipeline() as pipeline:
        split = pipeline | beam.Create(range(count), reshuffle=False) | beam.ParDo(_SplitFn()).with_outputs("odd", main="even")
        assert_that(split.even | "GroupEven" >> GroupOnce(), equal_to(_outputs(count, 0)), label="even")
        assert_that(split.odd | "GroupOdd" >> GroupOnce(), equal_to(_outputs(count, 1)), label="odd")


def test_every_output_is_counted_once() -> None:
    pipeline = make_pipeline()
    pipeline | beam.Create(range(60)) | beam.ParDo(_SplitFn()).with_outputs("odd", main="even")

    result = pipeline.run()
    result.wait_until_finish()

    assert count_of(result, "outputs") == len(_outputs(60, 0)) + len(_outputs(60, 1))


@pytest.mark.parametrize("bad", [7, 59], ids=["while processing", "last"])
def test_exception_in_the_work_fails_the_pipeline(bad: int) -> None:
    with pytest.raises(Exception, match=f"cannot work on {bad}"), make_pipeline() as pipeline:
        pipeline | beam.Create(range(60), reshuffle=False) | beam.ParDo(_FailOnFn(bad))


def test_slow_first_element_does_not_hold_up_the_others() -> None:
    with make_pipeline() as pipeline:
        done = pipeline | beam.Create(range(40), reshuffle=False) | beam.ParDo(_WaitForLastFn(39))
        assert_that(done, equal_to([(number, True) for number in range(40)]))


def test_work_is_done_on_as_many_threads_as_asked() -> None:
    fn = _ThreadFn(3)
    fn.setup()
    fn.start_bundle()
    names = [name for number in range(30) for name in fn.process(number)]
    names += [windowed.value for windowed in fn.finish_bundle()]
    fn.teardown()

    assert len(names) == 30
    assert len(set(names)) == 3
    assert threading.current_thread().name not in names


def test_what_waits_is_bounded_by_the_threads() -> None:
    fn = _ThreadFn(2)
    fn.setup()
    fn.start_bundle()
    given = 0
    most = 0
    for number in range(50):
        given += len(list(fn.process(number)))
        most = max(most, number + 1 - given)
    rest = list(fn.finish_bundle())
    fn.teardown()

    assert given + len(rest) == 50
    assert most <= 4 * 2


def test_second_bundle_of_the_same_instance_starts_empty() -> None:
    fn = _FailOnFn(-1)
    fn.setup()
    found = []
    for bundle in ([1, 2], [3]):
        fn.start_bundle()
        outputs = [output for number in bundle for output in fn.process(number)]
        outputs += [windowed.value for windowed in fn.finish_bundle()]
        found.append(sorted(outputs))
    fn.teardown()

    assert found == [[1, 2], [3]]
