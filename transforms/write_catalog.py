"""WriteCatalog: staged rows -> the catalog's tables, then what is obsolete goes, then the run's own
row.

media (already published) -> new rows -> old rows under other dates -> old files -> runs
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import partitions, pending_replacement
from transforms.catalog.fragments import write_fragment
from transforms.catalog.lock import check_may_publish
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.schema import TABLES
from transforms.context import VERSION, RunContext
from transforms.elements import FragmentRef, PressedCall, RecordedArchive, ReplacedKey
from transforms.engine import progress
from transforms.media.values import Failure, Status
from transforms.media.wall_time import to_time, utc_date
from transforms.storage import objects

RESULT_FAILURES = 100
Tally = dict[str, int]


class WriteCatalog(beam.PTransform):
    """Input: `FragmentRef`, `PressedCall`, `RecordedArchive`, `Failure`, and counts of archives
    listed and skipped.

    Output: one element, the run's result as written to staging. Merges one partition of a table at
    a time, in parallel over partitions; each object is replaced whole, and merging twice gives the
    same rows. Memory is one shard and its new rows.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, inputs: dict[str, beam.PCollection[Any]]) -> beam.PCollection[dict[str, Any]]:
        context = self._context
        fragments = (
            inputs["fragments"],
            inputs["calls"] | "RowsOfCalls" >> beam.Map(lambda call: call.rows),
        ) | "AllFragments" >> beam.Flatten()
        # An archive's row says that it is done: it comes when the rows of its calls are there.
        of_calls = _merge(
            fragments,
            "Calls",
            lambda table, fragment: fragment.uri and table != "archives",
            None,
            context,
        )
        of_archives = _merge(
            fragments,
            "Archives",
            lambda table, fragment: fragment.uri and table == "archives",
            of_calls,
            context,
        )
        merged = (of_calls, of_archives) | "AllMerged" >> beam.Flatten()
        removed = _merge(fragments, "Old", lambda _, fragment: not fragment.uri, merged, context)
        deleted = (
            merged
            | "DroppedMedia" >> beam.FlatMap(lambda partition: partition.dropped_media)
            | "DeleteOldFiles"
            >> beam.ParDo(_DeleteFn(context.output_uri), beam.pvalue.AsIter(removed))
        )
        forgotten = (
            inputs["calls"]
            | "ReplacedCalls" >> beam.Filter(lambda call: call.replaces_prior)
            | "ForgetNotes" >> beam.ParDo(_ForgetFn(context), beam.pvalue.AsIter(merged))
        )
        tallies = (
            inputs["calls"] | "TallyCalls" >> beam.Map(_tally_call),
            inputs["archives"] | "TallyArchives" >> beam.Map(_tally_archive),
            inputs["listed"] | "TallyListed" >> beam.Map(lambda _: {"archives_listed": 1}),
            inputs["skipped"] | "TallySkipped" >> beam.Map(lambda _: {"archives_skipped": 1}),
        ) | "AllTallies" >> beam.Flatten()
        total = tallies | "SumTallies" >> beam.CombineGlobally(_SumTalliesFn())
        first_failures = inputs["failures"] | "FirstFailures" >> beam.combiners.Top.Smallest(
            RESULT_FAILURES, key=_failure_order
        )
        return (
            inputs["failures"].pipeline
            | "Finish" >> beam.Impulse()
            | "WriteRun"
            >> beam.ParDo(
                _FinishFn(context),
                tally=beam.pvalue.AsSingleton(total),
                failures=beam.pvalue.AsSingleton(first_failures),
                merged=beam.pvalue.AsIter(merged),
                deleted=beam.pvalue.AsIter(deleted),
                forgotten=beam.pvalue.AsIter(forgotten),
            )
        )


def _merge(
    fragments: beam.PCollection[FragmentRef], label: str, keep: Any, after: Any, context: RunContext
) -> beam.PCollection[partitions.MergedPartition]:
    """Merges the tables of fragments that `keep(table, fragment)` is true of, once all of `after`
    is done.

    A fragment comes once per table, and so as no more than that table needs of it.
    """
    grouped = (
        fragments
        | f"KeyByPartition{label}"
        >> beam.FlatMap(
            lambda fragment: [
                ((table, fragment.call_date), (fragment.uri, count, fragment.replaced))
                for table, count in fragment.row_counts
                if keep(table, fragment)
            ]
        )
        | f"GroupByPartition{label}" >> beam.GroupByKey()
    )
    waits = () if after is None else (beam.pvalue.AsIter(after),)
    return grouped | f"Merge{label}" >> beam.ParDo(_MergeFn(context), *waits)


class _MergeFn(beam.DoFn):
    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._rows = Metrics.counter(WriteCatalog, "partition_rows")

    def process(
        self,
        group: tuple[tuple[str, str], Iterable[tuple[str, int, tuple[ReplacedKey, ...]]]],
        _after: Any = None,
    ) -> Iterator[partitions.MergedPartition]:
        (table, call_date), found = group
        check_may_publish(self._context)
        ordered = [
            FragmentRef(
                uri=uri, call_date=call_date, row_counts=((table, count),), replaced=replaced
            )
            for uri, count, replaced in sorted(found, key=itemgetter(2, 0))
        ]
        merged = partitions.merge_partition(self._context.catalog_uri, table, call_date, ordered)
        self._rows.inc(merged.row_count)
        progress.report("partitions")
        yield merged


class _DeleteFn(beam.DoFn):
    """Deletes media of which the row is gone, and nothing that is not ours."""

    def __init__(self, output_uri: str) -> None:
        self._output_uri = output_uri

    def process(self, uri: str, _after: Any) -> Iterator[str]:
        if objects.delete_recording(self._output_uri, uri):
            yield uri


class _ForgetFn(beam.DoFn):
    """Takes away the notes that calls are being replaced, once their rows are those of their files
    again.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def process(self, call: PressedCall, _after: Any) -> Iterator[None]:
        pending_replacement.forget(
            self._context.catalog_uri, self._context.output_uri, call.call, call.rows.call_date
        )
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
        "media_samples": call.media_samples,
        "bytes_written": call.bytes_written,
        "cpu_ns": call.cpu_ns,
        "failures": len(failure_rows(call.failures, 0)),
    }


def _tally_archive(archive: RecordedArchive) -> Tally:
    return {
        f"archives_{archive.status}": 1,
        "bytes_read": archive.bytes_read,
        "cpu_ns": archive.cpu_ns,
        "failures": archive.failure_count,
    }


def _failure_order(failure: Failure) -> tuple[str, ...]:
    return (failure.archive_uri or "", failure.stage, failure.member or "", failure.message)


class _FinishFn(beam.DoFn):
    """Writes the `runs` row and leaves the result where the launcher finds it."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def process(
        self,
        _: None,
        *,
        tally: Tally,
        failures: list[Failure],
        merged: Iterable[Any],
        deleted: Iterable[str],
        forgotten: Iterable[None],
    ) -> Iterator[dict[str, Any]]:
        for _done in (*merged, *forgotten):  # what is read here has been done before
            pass
        removed = sum(1 for _uri in deleted)
        context = self._context
        check_may_publish(context)
        status = run_status(tally, context.settings.max_failed_ratio)
        finished = time.time_ns()
        row = context.stamp(
            {
                "started_at": to_time(context.started_unix_ns),
                "finished_at": to_time(finished),
                "status": status,
                "callpress_version": VERSION,
                "settings_json": json.dumps(asdict(context.settings), sort_keys=True),
                **{
                    name: tally.get(name, 0)
                    for name in (
                        "archives_listed", "archives_skipped", "archives_ok", "archives_partial",
                        "archives_failed",
                        "calls_pressed", "bytes_read", "bytes_written",
                    )
                },
                "media_ms": tally.get("media_samples", 0) // 48,
                "cpu_ms": tally.get("cpu_ns", 0) // 1_000_000,
            }
        )  # fmt: skip
        # An archive in which nobody sent anything went as well as one can.
        row["archives_ok"] += tally.get("archives_empty", 0)
        date = utc_date(context.started_unix_ns)
        fragment = write_fragment(
            context.staged("rows", "run.json"), date, {"runs": [row]}, ((context.run_id,),)
        )
        for table in TABLES:
            if table != "runs":
                partitions.ensure_file(context.catalog_uri, table, date)
        partitions.merge_partition(context.catalog_uri, "runs", date, [fragment])
        result = {
            "run_id": context.run_id,
            "status": status,
            "started_at": row["started_at"].isoformat(),
            "finished_at": row["finished_at"].isoformat(),
            "counts": {**tally, "files_removed": removed},
            "failures": [asdict(failure) for failure in failures],
        }
        objects.write_bytes(context.staged("result.json"), json.dumps(result).encode())
        yield result


def run_status(tally: Tally, max_failed_ratio: float) -> Status:
    """Returns how a run went: `failed` when more of its archives than allowed failed or are
    partial.
    """
    bad = tally.get("archives_failed", 0) + tally.get("archives_partial", 0)
    attempted = bad + tally.get("archives_ok", 0) + tally.get("archives_empty", 0)
    if bad and bad / attempted > max_failed_ratio:
        return Status.FAILED
    return Status.PARTIAL if bad else Status.OK
