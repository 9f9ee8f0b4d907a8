"""WriteCatalog: staged rows -> the catalog's tables, then what is obsolete goes, then the run's own
row. The order is that of `catalog.publish`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import merging, partitions, publish, results
from transforms.catalog.fragments import write_fragment
from transforms.catalog.merging import MergedPartition
from transforms.catalog.repressing import Repressing
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.runs import run_row
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.schema import TABLES
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Failure, FragmentRef, PressedCall, RecordedArchive, Row
from transforms.engine import progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.media.errors import RunFailedError
from transforms.media.wall_time import utc_date
from transforms.reason import Reason
from transforms.recovery import take_up

RESULT_FAILURES = 100
Tally = dict[str, int]


class WriteCatalog(beam.PTransform):
    """Input: `FragmentRef`, `PressedCall`, `RecordedArchive`, `Failure`, counts of archives listed,
    URIs of those skipped, counts of files of ours left out, what is pressed anew, files of calls
    that are put off, and in a run that names calls or people what of that is nowhere.

    Output: one element, the run's result, which lies in the catalog too (`catalog.results`); when
    it is there, staging is swept and the lock is given back. Merges one partition of a table at
    a time, in parallel over partitions; each object is replaced whole, and merging twice gives the
    same rows. Memory is one shard and its new rows.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, inputs: dict[str, beam.PCollection[Any]]) -> beam.PCollection[dict[str, Any]]:
        job, run = self._job, self._run
        fragments = (
            inputs["fragments"],
            inputs["calls"] | "RowsOfCalls" >> beam.Map(lambda call: call.rows),
        ) | "AllFragments" >> beam.Flatten()
        of_calls, of_archives, of_old = publish.MERGES
        calls = _merge(of_calls, fragments, None, job, run)
        archives = _merge(of_archives, fragments, calls, job, run)
        merged = (calls, archives) | "AllMerged" >> beam.Flatten()
        removed = _merge(of_old, fragments, merged, job, run)
        deleted = (
            (
                merged | "DroppedMedia" >> beam.FlatMap(lambda partition: partition.dropped_media),
                inputs["unpublished"],
            )
            | "MediaWithoutRows" >> beam.Flatten()
            | "DeleteOldFiles" >> beam.ParDo(_DeleteFn(job), run, beam.pvalue.AsIter(removed))
        )
        settled = (
            inputs["calls"]
            | "ReplacedCalls" >> beam.Filter(lambda call: call.replaces_prior)
            | "SettleCalls" >> beam.ParDo(_SettleFn(job), run, beam.pvalue.AsIter(merged))
        )
        tallies = (
            inputs["calls"] | "TallyCalls" >> beam.Map(_tally_call),
            inputs["archives"] | "TallyArchives" >> beam.Map(_tally_archive),
            inputs["listed"] | "TallyListed" >> beam.Map(lambda count: {"archives_listed": count}),
            inputs["skipped"]
            | "TallySkipped" >> beam.Map(lambda uris: {"archives_skipped": len(uris)}),
            inputs["left_out"] | "TallyLeftOut" >> beam.Map(lambda count: {"left_out": count}),
        ) | "AllTallies" >> beam.Flatten()
        total = tallies | "SumTallies" >> beam.CombineGlobally(_SumTalliesFn())
        first_failures = inputs["failures"] | "FirstFailures" >> beam.combiners.Top.Smallest(
            RESULT_FAILURES, key=_failure_order
        )
        finished = (
            inputs["failures"].pipeline
            | "Finish" >> beam.Impulse()
            | "WriteRun"
            >> beam.ParDo(
                _FinishFn(job),
                run,
                tally=beam.pvalue.AsSingleton(total),
                failures=beam.pvalue.AsSingleton(first_failures),
                merged=beam.pvalue.AsIter(merged),
                deleted=beam.pvalue.AsIter(deleted),
                settled=beam.pvalue.AsIter(settled),
                repressing=beam.pvalue.AsIter(inputs["repressing"]),
                **(
                    {"unmatched": beam.pvalue.AsIter(inputs["unmatched"])}
                    if "unmatched" in inputs
                    else {}
                ),
            )
        )
        return (
            finished
            | "SweepStaging" >> beam.ParDo(_SweepFn(job), run)
            | "GiveBackLock" >> beam.ParDo(_GiveBackFn(job), run)
            # Behind it nothing is done again: a job that ends as failed does that at the very end.
            | "KeepResult" >> beam.Reshuffle()
            | "EndAsItWent" >> beam.Map(_end_as_it_went, job)
        )


def _merge(
    step: publish.Step,
    fragments: beam.PCollection[FragmentRef],
    after: beam.PCollection[MergedPartition] | None,
    job: JobSettings,
    run: RunInput,
) -> beam.PCollection[MergedPartition]:
    """Does one step of the merging, once all of `after` is done."""
    waits = () if after is None else (beam.pvalue.AsIter(after),)
    return (
        fragments
        | f"KeyByPartition{step.label}"
        >> beam.FlatMap(lambda fragment: publish.by_partition(step, fragment))
        | f"GroupByPartition{step.label}" >> beam.GroupByKey()
        | f"Merge{step.label}" >> beam.ParDo(_MergeFn(job), run, *waits)
    )


class _MergeFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._rows = Metrics.counter(WriteCatalog, "partition_rows")

    def each(
        self, group: tuple[tuple[str, str], Iterable[publish.Share]], _after: Any = None
    ) -> Iterator[MergedPartition]:
        (table, call_date), shares = group
        merged = publish.merge(self.job, self.run, table, call_date, shares)
        self._rows.inc(merged.row_count)
        progress.add("partitions")
        yield merged


class _DeleteFn(RunFn):
    """Deletes media of which the row is gone, and nothing that is not ours."""

    def each(self, media_uri: str, _after: Any) -> Iterator[str]:
        if publish.delete_dropped(self.job, self.run, media_uri):
            yield media_uri


class _SettleFn(RunFn):
    """Takes away the notes that calls are being replaced, once their rows are those of their files
    again.
    """

    def each(self, call: PressedCall, _after: Any) -> Iterator[None]:
        publish.settle(self.job, self.run, call)
        yield None


class _SumTalliesFn(beam.CombineFn):
    def create_accumulator(self) -> Tally:
        return {}

    def add_input(self, total: Tally, element: Tally) -> Tally:
        for name, count in element.items():
            total[name] = total.get(name, 0) + count
        return total

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        merged: Tally = {}
        for accumulator in accumulators:
            self.add_input(merged, accumulator)
        return merged

    def extract_output(self, total: Tally) -> Tally:
        return total


def _tally_call(call: PressedCall) -> Tally:
    return {
        "calls_pressed": 1,
        f"calls_{call.status}": 1,
        "files_written": call.files_written,
        "claimed_ms": call.claimed_ms,
        "found_ms": call.found_ms,
        "missing_ms": call.missing_ms,
        "media_samples": call.media_samples,
        "bytes_written": call.bytes_written,
        "cpu_ns": call.cpu_ns,
        "failures": len(failure_rows(call.failures, 0)),
    }


def _tally_archive(archive: RecordedArchive) -> Tally:
    first_time = {f"first_time_{archive.status}": 1} if archive.is_first_time else {}
    return {
        f"archives_{archive.status}": 1,
        **first_time,
        **({f"put_off_{archive.put_off_by}": 1} if archive.put_off_by else {}),
        "bytes_read": archive.bytes_read,
        "cpu_ns": archive.cpu_ns,
        "failures": archive.failure_count,
    }


def _failure_order(failure: Failure) -> tuple[str, ...]:
    return (failure.archive_uri or "", failure.stage, failure.member or "", failure.message)


class _FinishFn(RunFn):
    """Writes the `runs` row and the run's result. Done once more, it gives the result that is
    there.
    """

    is_after_all = True

    def each(
        self,
        _: None,
        *,
        tally: Tally,
        failures: list[Failure],
        merged: Iterable[Any],
        deleted: Iterable[str],
        settled: Iterable[None],
        repressing: Iterable[Repressing],
        unmatched: Iterable[Any] = (),
    ) -> Iterator[results.Result]:
        job, run = self.job, self.run
        if (done_before := results.read(job.catalog_uri, run.run_id)) is not None:
            yield done_before
            return
        for _done in (*merged, *settled):  # what is read here has been done before
            pass
        removed = sum(1 for _uri in deleted)
        for how, count in run.taken_up:
            tally = {**tally, f"first_time_{how}": tally.get(f"first_time_{how}", 0) + count}
        if job.is_one_process:  # the codec processes' is counted by the steps
            tally = {**tally, "cpu_ns": tally.get("cpu_ns", 0) + time.process_time_ns()}
        finished_unix_ns = max(time.time_ns(), run.started_unix_ns)  # by another worker's clock
        row = run_row(tally, results.run_status(tally, job.settings), finished_unix_ns, job, run)
        found = {
            "run_id": run.run_id,
            "started_at": row["started_at"].isoformat(),
            "finished_at": row["finished_at"].isoformat(),
            "counts": {**tally, "files_removed": removed},
            "repress": next((asdict(found) for found in repressing), None),
            "unmatched": [asdict(found) for found in unmatched],
            "failures": [asdict(failure) for failure in failures],
        }
        reason, told = results.judge(found, job, run)
        result = results.summarise(found, 0 if reason is Reason.OK else 1, reason, told)
        with lease_of(job, run).at_work():
            lease_of(job, run).check()
            _write_run(row, job, run)
            results.write(job.catalog_uri, result)
        yield result


class _SweepFn(RunFn):
    """Deletes the run's staging, unless another run has taken over: that one does."""

    is_after_all = True

    def each(self, result: results.Result) -> Iterator[results.Result]:
        lease = lease_of(self.job, self.run)
        if lease.is_held():
            with lease.at_work():
                take_up.sweep(self.job, self.run)
        yield result


class _GiveBackFn(RunFn):
    """Gives the catalog's lock back."""

    is_after_all = True

    def each(self, result: results.Result) -> Iterator[results.Result]:
        lease_of(self.job, self.run).give_back()
        yield result


def _end_as_it_went(result: results.Result, job: JobSettings) -> results.Result:
    """Raises: RunFailedError: the result says so, and nobody may be waiting who would read it."""
    if result["exit_status"] and job.fails_unattended:
        raise RunFailedError(f"run {result['run_id']} failed: {'; '.join(result['told'])}")
    return result


def _write_run(row: Row, job: JobSettings, run: RunIdentity) -> None:
    """Writes the run's own row, once every other table has a file at least."""
    date = utc_date(run.started_unix_ns)
    rows = {"runs": stamped([row], job, run)}
    fragment = write_fragment(run.staged("rows", "run.json"), date, rows, ((run.run_id,),))
    for table in TABLES:
        if table != "runs":
            partitions.ensure_file(job.catalog_uri, table, date)
    merging.merge_partition(job.catalog_uri, "runs", date, [fragment])
