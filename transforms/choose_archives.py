"""ChooseArchives: the archives to press -> those that this run takes on, and those it leaves to the
next. ReadPortions: those of a later portion of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from transforms.bounds import Bound, Bounds
from transforms.context import JobSettings, RunIdentity
from transforms.elements import ArchiveRef, PutOffArchive
from transforms.engine import begun, progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.recovery import portions

PUT_OFF = "put_off"


class Chosen(NamedTuple):
    """The archives to press by whether this run takes them on."""

    todo: beam.PCollection[ArchiveRef]
    put_off: beam.PCollection[PutOffArchive]


class ChooseArchives(beam.PTransform):
    """Input: `ArchiveRef`. Output: `Chosen`.

    One worker puts all of them in order: first what waits since an earlier run, then by
    modification. It holds them all, some hundred bytes each. Where a night is pressed in portions,
    it takes the first, writes lists of the others into staging, the same each time, and lets their
    archives wait: should the run die before, the next begins with them.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> Chosen:
        if not (self._job.bounds.limits_archives or self._job.portion):
            return Chosen(archives, archives.pipeline | "NothingPutOff" >> beam.Create([]))
        chosen = (
            archives.pipeline
            | "Start" >> beam.Impulse()
            | "Choose"
            >> beam.ParDo(
                _ChooseFn(self._job), self._run, beam.pvalue.AsIter(archives)
            ).with_outputs(PUT_OFF, main="todo")
        )
        return Chosen(chosen.todo, chosen[PUT_OFF])


class _ChooseFn(RunFn):
    def each(self, _: bytes, archives: Iterable[ArchiveRef]) -> Iterator[Any]:
        ordered = in_order(archives)
        taken, bound = within(ordered, self.job.bounds)
        first, *later = self._divide(ordered[:taken])
        yield from first
        for portion in later:
            progress.add("archives_found", -len(portion))
            yield from _leave(portion, None)
        progress.add("archives_skipped", len(ordered) - taken)
        yield from _leave(ordered[taken:], bound)

    def _divide(self, archives: Sequence[ArchiveRef]) -> Sequence[Sequence[ArchiveRef]]:
        if self.job.portion is None:
            return [archives]
        divided = portions.divide(archives, self.job.portion)
        if len(divided) > 1:
            portions.write_lists(self.run, divided)
            begun.tell_portions(self.run, len(divided))
        return divided


class ReadPortions(beam.PTransform):
    """Input: the pipeline's beginning. Output: `ArchiveRef`, those of some portions of a run."""

    def __init__(self, job: JobSettings, run: RunIdentity, numbers: range) -> None:
        super().__init__()
        self._job = job
        self._run = run
        self._numbers = numbers

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[ArchiveRef]:
        return (
            begin
            | "Numbers" >> beam.Create(list(self._numbers))
            | "Read" >> beam.ParDo(_ReadFn(self._job), self._run)
        )


class _ReadFn(RunFn):
    def each(self, number: int) -> Iterator[ArchiveRef]:
        for ref in portions.read_list(self.run, number):
            progress.add("archives_found")
            progress.add("bytes_found", ref.size_bytes)
            yield ref


def _leave(archives: Iterable[ArchiveRef], bound: Bound | None) -> Iterator[Any]:
    for ref in archives:
        progress.add("bytes_found", -ref.size_bytes)
        yield beam.pvalue.TaggedOutput(PUT_OFF, PutOffArchive(ref=ref.without_link(), by=bound))


def in_order(archives: Iterable[ArchiveRef]) -> list[ArchiveRef]:
    """Returns archives in the order in which a bounded run takes them."""
    return sorted(archives, key=lambda ref: (not ref.is_waiting, ref.modified_unix_ns, ref.uri))


def within(ordered: Sequence[ArchiveRef], bounds: Bounds) -> tuple[int, Bound | None]:
    """Returns how many archives of a sequence a run takes, and which bound leaves the others; None
    where it takes all. The first is taken whatever its size: it would wait for ever.
    """
    size_bytes = 0
    for number, ref in enumerate(ordered):
        size_bytes += ref.size_bytes
        if bounds.max_archives is not None and number >= bounds.max_archives:
            return number, Bound.MAX_ARCHIVES
        if bounds.max_bytes is not None and number and size_bytes > bounds.max_bytes:
            return number, Bound.MAX_BYTES
    return len(ordered), None
