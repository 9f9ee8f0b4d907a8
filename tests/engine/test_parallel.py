"""ParallelFn: work on threads, outputs in any order, nothing lost and nothing hidden."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import (
    CALL,
    GroupOnce,
    count_of,
    make_part,
    make_pipeline,
    make_plan,
    make_track,
)
from tests.support.codec import wait_until
from tests.support.job_run import JobRun
from transforms.codec.machine import Machine
from transforms.codec.pool import POOL
from transforms.elements import ArchiveRef, TrackSource
from transforms.engine.parallel import ParallelFn
from transforms.extract_tracks import _ExtractFn
from transforms.mix_calls import _MixFn
from transforms.unpack_archives import _UnpackFn

WAIT_SECONDS = 5


class _TakingFn(ParallelFn):
    def __init__(self, codec_processes: int | None, *, in_one_bundle: bool = True) -> None:
        super().__init__(codec_processes, in_one_bundle=in_one_bundle)

    def process(self, element: Any) -> Iterator[Any]:
        return self.take(element)


class _SplitFn(_TakingFn):
    """Odd numbers to one side; a number n gives n % 3 outputs."""

    def __init__(self) -> None:
        super().__init__(2)
        self._outputs = Metrics.counter("tests", "outputs")

    def work(self, element: int) -> Iterator[Any]:
        for copy in range(element % 3):
            yield (
                beam.pvalue.TaggedOutput("odd", (element, copy)) if element % 2 else (element, copy)
            )

    def count(self, output: Any) -> None:
        self._outputs.inc()


class _FailOnFn(_TakingFn):
    def __init__(self, bad: int) -> None:
        super().__init__(2)
        self._bad = bad

    def work(self, element: int) -> Iterator[int]:
        if element == self._bad:
            raise ValueError(f"cannot work on {element}")
        yield element


class _WaitForLastFn(_TakingFn):
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


class _ThreadFn(_TakingFn):
    def work(self, element: int) -> Iterator[str]:
        time.sleep(0.01)
        yield threading.current_thread().name


def _outputs(count: int, parity: int) -> list[tuple[int, int]]:
    return [(n, copy) for n in range(count) for copy in range(n % 3) if n % 2 == parity]


# Fewer than 4 per thread all come from finish_bundle; with more, some come from process.
@pytest.mark.parametrize("count", [1, 5, 60])
def test_tagged_and_untagged_outputs_all_arrive(count: int) -> None:
    with make_pipeline() as pipeline:
        split = (
            pipeline
            | beam.Create(range(count), reshuffle=False)
            | beam.ParDo(_SplitFn()).with_outputs("odd", main="even")
        )
        assert_that(
            split.even | "GroupEven" >> GroupOnce(), equal_to(_outputs(count, 0)), label="even"
        )
        assert_that(
            split.odd | "GroupOdd" >> GroupOnce(), equal_to(_outputs(count, 1)), label="odd"
        )


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


def test_work_is_done_on_two_threads_a_slot() -> None:
    fn = _ThreadFn(3)
    fn.setup()
    fn.start_bundle()
    names = [name for number in range(30) for name in fn.process(number)]
    names += [windowed.value for windowed in fn.finish_bundle()]
    fn.teardown()

    assert len(names) == 30
    assert len(set(names)) == 6
    assert threading.current_thread().name not in names


class _SizedFn(_TakingFn):
    """Elements are their own size; work begins when `gate` is opened."""

    def __init__(self, slots: int, *, in_one_bundle: bool = True, together: int = 1) -> None:
        """Args: together: how many are begun at a time: all wait for the last of them."""
        super().__init__(slots, in_one_bundle=in_one_bundle)
        self.taken: list[int] = []
        self.begun: list[int] = []
        self.gate = threading.Event()
        self.together = threading.Barrier(together, timeout=WAIT_SECONDS)

    def size(self, element: int) -> int:
        return element

    def work(self, element: int) -> Iterator[int]:
        self.taken.append(element)
        assert self.gate.wait(WAIT_SECONDS)
        self.together.wait()
        self.begun.append(element)
        yield element


def _rounds(fn: _SizedFn) -> list[list[int]]:
    """Returns what was begun, as many at a time as are begun together."""
    size = fn.together.parties
    return [sorted(fn.begun[at : at + size], reverse=True) for at in range(0, len(fn.begun), size)]


def test_largest_of_what_waits_is_worked_on_first() -> None:
    fn = _SizedFn(2, together=4)
    fn.setup()
    fn.start_bundle()
    sizes = [3, 1, *range(10, 600), 7, 5_000, 2, 4]
    assert [
        output for size in sizes for output in fn.process(size)
    ] == []  # nothing of it can be done yet

    fn.gate.set()
    outputs = [windowed.value for windowed in fn.finish_bundle()]
    fn.teardown()

    assert sorted(outputs) == sorted(sizes)
    # Four were begun with when 33 had come.
    first = sorted(sizes[:33], reverse=True)[:4]
    rest = sorted(set(sizes) - set(first), reverse=True)
    assert _rounds(fn) == [first, *(rest[at : at + 4] for at in range(0, len(rest), 4))]


def test_largest_of_a_few_is_begun_with() -> None:
    fn = _SizedFn(2, together=4)
    fn.gate.set()
    fn.setup()
    fn.start_bundle()
    for size in range(1, 21):
        assert list(fn.process(size)) == []
    list(fn.finish_bundle())
    fn.teardown()

    assert _rounds(fn)[0] == [20, 19, 18, 17]


@pytest.mark.parametrize(
    ("slots", "sizes", "expected"),
    [
        (2, [100], {100: 2}),
        (2, [100, 90], {100: 1, 90: 1}),
        (2, [100, 10, 10], {100: 2, 10: 1}),
        (8, [100, 10, 10], {100: 7, 10: 1}),
        (8, [1] * 16, {1: 1}),
        (1, [100, 1], {100: 1, 1: 1}),
        (4, [0, 0], {0: 1}),
    ],
)
def test_piece_of_work_may_keep_its_share_of_the_cores_busy(
    slots: int, sizes: list[int], expected: dict[int, int]
) -> None:
    fn = _SizedFn(slots)
    fn.setup()
    fn.start_bundle()
    for size in sizes:
        assert list(fn.process(size)) == []
    found = {size: fn.share_of(size) for size in sizes}
    fn.gate.set()
    list(fn.finish_bundle())
    fn.teardown()

    assert found == expected


def test_archives_are_sized_by_bytes_and_tracks_and_calls_by_their_audio(
    context: JobRun,
) -> None:
    parts = [
        make_part("alice", media_samples=3),
        make_part("alice", media_samples=4),
        make_part("bob", media_samples=5),
    ]
    alice, bob = (
        TrackSource(track=make_track(name), parts=of, timeline_start_unix_ns=0, begin_unix_ns=None)
        for name, of in (("alice", tuple(parts[:2])), ("bob", tuple(parts[2:])))
    )
    archive = ArchiveRef(uri="/raw/a.tar.gz", size_bytes=9, modified_unix_ns=0, fingerprint="9-0")

    assert _UnpackFn(context.job).size(archive) == 9
    assert [_ExtractFn(context.job).size(source) for source in (alice, bob)] == [7, 5]
    group: dict[str, Any] = {"plans": [make_plan([alice, bob])], "tracks": []}
    assert _MixFn(context.job).size((CALL.as_tuple(), group)) == 12
    assert _MixFn(context.job).size((CALL.as_tuple(), {"plans": [], "tracks": []})) == 0


@pytest.mark.parametrize(
    ("slots", "in_one_bundle", "count"), [(1, True, 3), (3, False, 5)], ids=["one slot", "bundles"]
)
def test_other_work_is_taken_as_it_comes(slots: int, in_one_bundle: bool, count: int) -> None:
    fn = _SizedFn(slots, in_one_bundle=in_one_bundle)
    fn.setup()
    fn.start_bundle()
    for number in range(count):
        assert list(fn.process(number)) == []
        begun = min(number + 1, 2 * slots)
        wait_until(lambda begun=begun: len(fn.taken) == begun)  # type: ignore[misc]
    fn.gate.set()
    list(fn.finish_bundle())
    fn.teardown()

    assert fn.taken == list(range(count))


def test_nothing_of_a_bundle_has_more_than_one_core_of_its_own() -> None:
    fn = _SizedFn(8, in_one_bundle=False)
    fn.setup()
    fn.start_bundle()
    assert list(fn.process(100)) == []
    found = fn.share_of(100)
    fn.gate.set()
    list(fn.finish_bundle())
    fn.teardown()

    assert found == 1


def test_worker_has_slots_for_the_cores_of_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(POOL.governor, "_machine", Machine(proc=Path("/nowhere")))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    fn = pickle.loads(pickle.dumps(_ThreadFn(None)))  # decided there, and not where it was made

    fn.setup()
    fn.start_bundle()
    names = [name for number in range(200) for name in fn.process(number)]
    names += [windowed.value for windowed in fn.finish_bundle()]
    fn.teardown()

    assert len(set(names)) == 10


@pytest.mark.parametrize(
    ("threads", "in_one_bundle", "most"),
    [(1, True, 4), (2, True, 1_000), (1, False, 2), (8, False, 16)],
)
def test_what_waits_is_bounded(threads: int, in_one_bundle: bool, most: int) -> None:
    fn = _SizedFn(threads, in_one_bundle=in_one_bundle)
    fn.gate.set()
    fn.setup()
    fn.start_bundle()
    given = 0
    waited = 0
    for number in range(2_000):
        given += len(list(fn.process(number)))
        waited = max(waited, number + 1 - given)
    rest = list(fn.finish_bundle())
    fn.teardown()

    assert given + len(rest) == 2_000
    assert waited <= most


def test_many_threads_begin_before_too_much_waits() -> None:
    fn = _SizedFn(100)
    fn.gate.set()
    fn.setup()
    fn.start_bundle()
    outputs = [output for number in range(1_500) for output in fn.process(number)]
    outputs += list(fn.finish_bundle())
    fn.teardown()

    assert len(outputs) == 1_500


def test_nothing_more_is_begun_after_an_exception() -> None:
    begun: list[int] = []

    class FailFirstFn(_SizedFn):
        def work(self, element: int) -> Iterator[int]:
            begun.append(element)
            if len(begun) == 3:
                raise ValueError("cannot work on this")
            assert self.gate.wait(WAIT_SECONDS)
            yield element

    fn = FailFirstFn(3)
    fn.setup()
    fn.start_bundle()

    def feed() -> list[Any]:
        outputs = [output for number in range(500) for output in fn.process(number)]
        return outputs + list(fn.finish_bundle())

    with pytest.raises(ValueError, match="cannot work on this"):
        feed()
    fn.gate.set()
    fn.teardown()

    assert len(begun) <= 7


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


class _GatherFn(_TakingFn):
    """Gives out sums of what it gathered: of three, and of the rest."""

    def __init__(self) -> None:
        super().__init__(2)

    def start_bundle(self) -> None:
        super().start_bundle()
        self._kept: list[int] = []

    def work(self, element: int) -> Iterator[int]:
        yield element

    def give(self, outputs: list[int]) -> list[int]:
        self._kept += outputs
        return self.give_rest() if len(self._kept) == 3 else []

    def give_rest(self) -> list[int]:
        kept, self._kept = self._kept, []
        return [len(kept)] if kept else []


@pytest.mark.parametrize(("count", "given"), [(0, []), (2, [2]), (7, [3, 3, 1])])
def test_what_is_gathered_is_given_out_when_it_is_due_and_at_the_end(
    count: int, given: list[int]
) -> None:
    with make_pipeline() as pipeline:
        sums = pipeline | beam.Create(range(count)) | beam.ParDo(_GatherFn())
        assert_that(sums, equal_to(given))


class _HastyFn(_GatherFn):
    """Gives out at once what it has; its second element is done when the first is given out."""

    is_given = threading.Event()

    def patience_seconds(self) -> float | None:
        return 0.0 if self._kept else None

    def work(self, element: int) -> Iterator[int]:
        if element:
            assert self.is_given.wait(WAIT_SECONDS)
        yield element

    def give_rest(self) -> list[int]:
        if self._kept:
            self.is_given.set()
        return super().give_rest()


def test_what_has_waited_for_long_enough_waits_for_no_other() -> None:
    with make_pipeline() as pipeline:
        sums = pipeline | beam.Create([0, 1]) | beam.ParDo(_HastyFn())
        assert_that(sums, equal_to([1, 1]))
