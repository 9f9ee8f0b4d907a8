"""MergeRows: sections of bundles -> the tables of the catalog, and what is obsolete goes, in the
order of `catalog.publish`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import merging, publish, rivals
from transforms.catalog.merging import ShardMerge
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.stamp import stamped
from transforms.context import JobSettings
from transforms.elements import DroppedFile, Failure, PressedCall, SectionRef
from transforms.engine import progress
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.media.errors import RetainedFileError
from transforms.media.values import CallKey

logger = logging.getLogger(__name__)

_DROPPED = "dropped"
_KEPT = "kept"
_Partition = tuple[str, str]
"""Table and date."""
_Section = tuple[str, tuple[int, ...], int, bool]
"""A section less its table and date. Plain, since one crosses a shuffle for each table of each
bundle.
"""


class MergedRows(NamedTuple):
    """What was published."""

    merged: beam.PCollection[_Partition]
    """Each date of a table that was merged."""
    deleted: beam.PCollection[str]
    """URIs of files that no row names any more."""
    settled: beam.PCollection[None]
    """One for each call that had been replaced."""
    kept: beam.PCollection[Failure]
    """What the catalog says of files that no row names any more and that their store keeps."""


class MergeRows(beam.PTransform):
    """Input: `SectionRef`, the `PressedCall` of which they have the rows, and where there are any
    `DroppedFile` of those that will have none. Output: `MergedRows`.

    Plans each date of a table, then merges its shards in parallel; each object is replaced whole,
    and merging twice gives the same rows. When all is merged, files without a row are deleted, and
    notes of replaced calls settled. Memory is one shard and its new rows; it does not grow with the
    number of bundles, but for 100 bytes each. Files that cannot be deleted, as their store keeps
    them, become rows of `failures`, a date at a time.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, inputs: tuple[beam.PCollection[Any], ...]) -> MergedRows:
        sections, pressed, *unpublished = inputs
        *of_notices, of_calls, of_archives, of_old = publish.merges(self._job)
        told = [self._merge(step, sections, None)[0] for step in of_notices]
        calls, dropped = self._merge(of_calls, sections, next(iter(told), None))
        archives, _ = self._merge(of_archives, sections, calls)
        stands = (*told, calls, archives) | "NewRowsStand" >> beam.Flatten()
        removed, _ = self._merge(of_old, sections, stands)
        merged = (stands, removed) | "AllMerged" >> beam.Flatten()
        deleted = (
            (dropped, *unpublished)
            | "MediaWithoutRows" >> beam.Flatten()
            | "DeleteOldFiles"
            >> beam.ParDo(_DeleteFn(self._job), self._run, beam.pvalue.AsIter(merged)).with_outputs(
                _KEPT, main="deleted"
            )
        )
        settled = (
            pressed
            | "ReplacedCalls" >> beam.Filter(lambda call: call.replaces_prior)
            | "SettleCalls"
            >> beam.ParDo(_SettleFn(self._job), self._run, beam.pvalue.AsIter(merged)).with_outputs(
                _KEPT, main="settled"
            )
        )
        kept = (
            (deleted[_KEPT], settled[_KEPT])
            | "FilesThatStay" >> beam.Flatten()
            | "GroupByDate" >> beam.GroupByKey()
            | "TellOfThem" >> beam.ParDo(_TellKeptFn(self._job), self._run)
        )
        return MergedRows(
            merged=merged, deleted=deleted.deleted, settled=settled.settled, kept=kept
        )

    def _merge(
        self,
        step: publish.Step,
        sections: beam.PCollection[SectionRef],
        after: beam.PCollection[_Partition] | None,
    ) -> tuple[beam.PCollection[_Partition], beam.PCollection[DroppedFile]]:
        """Does one step of the merging, once all of `after` is done."""
        waits = () if after is None else (beam.pvalue.AsIter(after),)
        label = step.label
        planned = (
            sections
            | f"Take{label}" >> beam.Filter(step.takes)
            | f"KeyByPartition{label}" >> beam.Map(_key_by_partition)
            | f"GroupByPartition{label}" >> beam.GroupByKey()
            | f"Plan{label}" >> beam.ParDo(_PlanFn(self._job), self._run, *waits)
        )
        shards = break_fusion(planned, f"Spread{label}", self._job) | f"Merge{label}" >> beam.ParDo(
            _MergeFn(self._job), self._run
        ).with_outputs(_DROPPED, main="merged")
        done = (
            shards.merged
            | f"GroupShards{label}" >> beam.GroupByKey()
            | f"TakeAway{label}" >> beam.ParDo(_TakeAwayFn(self._job), self._run)
        )
        return done, shards[_DROPPED]


def _key_by_partition(section: SectionRef) -> tuple[_Partition, _Section]:
    rest = (section.uri, section.starts, section.row_count, section.only_removes)
    return (section.table, section.call_date), rest


class _PlanFn(RunFn):
    def each(
        self, group: tuple[_Partition, Iterable[_Section]], _after: Any = None
    ) -> Iterator[ShardMerge]:
        (table, call_date), found = group
        sections = [
            SectionRef(
                table=table,
                call_date=call_date,
                uri=uri,
                starts=starts,
                row_count=row_count,
                only_removes=only_removes,
            )
            for uri, starts, row_count, only_removes in found
        ]
        yield from merging.plan_partition(self.job.catalog_uri, table, call_date, sections)


class _MergeFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._rows = Metrics.counter(MergeRows, "partition_rows")

    def each(self, merge: ShardMerge) -> Iterator[Any]:
        # Asked for once all is read: that may take longer than a look at the lock holds good.
        check = lease_of(self.job, self.run).check
        make_sure = None
        if self.run.took_over and merge.table == "recordings":
            make_sure = functools.partial(rivals.make_again, self.run, check)
        merged = merging.merge_shard(self.job.catalog_uri, merge, make_sure, check)
        self._rows.inc(merged.row_count)
        for file in merged.dropped:
            yield beam.pvalue.TaggedOutput(_DROPPED, file)
        yield (merge.table, merge.call_date), merge.bits


class _TakeAwayFn(RunFn):
    """Deletes what is split into finer shards, once all of them are there."""

    def each(self, group: tuple[_Partition, Iterable[int]]) -> Iterator[_Partition]:
        (table, call_date), bits = group
        lease_of(self.job, self.run).check()
        finest = next(iter(bits))
        if finest:
            merging.take_superseded_away(self.job.catalog_uri, table, call_date, finest)
        progress.add("partitions")
        yield table, call_date


class _DeleteFn(RunFn):
    """Deletes media of which the row is gone, and nothing that is not ours."""

    def each(self, dropped: DroppedFile, _after: Any) -> Iterator[Any]:
        try:
            if publish.delete_dropped(self.job, self.run, dropped):
                yield dropped.uri
        except RetainedFileError as error:
            failure = publish.kept_failure(dropped, error)
            yield beam.pvalue.TaggedOutput(_KEPT, (dropped.call_date, failure))


class _SettleFn(RunFn):
    """Takes away the notes that calls are being replaced, once their rows are those of their files
    again.
    """

    def each(self, call: PressedCall, _after: Any) -> Iterator[Any]:
        for failure in publish.settle(self.job, self.run, call):
            yield beam.pvalue.TaggedOutput(_KEPT, (call.call_date, failure))
        yield None


class _TellKeptFn(RunFn):
    """Adds to the failures of a date those of files that stay, each once; a file of a call that is
    put off is named by a row soon, and has none here.
    """

    def each(self, group: tuple[str, Iterable[Failure]]) -> Iterator[Failure]:
        call_date, found = group
        told: dict[tuple[CallKey | None, str | None], Failure] = {}
        # Who knows whose it was tells more than the note of its call.
        for failure in sorted(found, key=lambda failure: failure.output_type is None):
            told.setdefault((failure.call, failure.member), failure)
            logger.warning("%s", failure.message)
        rows = failure_rows(
            (failure for failure in told.values() if failure.call), self.run.started_unix_ns
        )
        if rows:
            merging.add_rows(
                self.job.catalog_uri,
                "failures",
                call_date,
                stamped(rows, self.job, self.run),
                lease_of(self.job, self.run).check,
            )
        yield from told.values()
