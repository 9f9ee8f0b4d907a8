"""WriteCatalog: staged rows -> the catalog's tables, then what is obsolete goes, then who is to be
told is told, then the run's own row. The order is that of `catalog.publish`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import apache_beam as beam

from transforms.catalog import merging, partitions, results
from transforms.catalog.bundles import Bundle, owned
from transforms.catalog.repressing import Repressing
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.runs import run_row
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.schema import TABLES
from transforms.composites.merge_rows import MergeRows
from transforms.composites.sweep_staging import SweepStaging
from transforms.composites.tell_notices import TellNotices
from transforms.context import JobSettings, RunIdentity
from transforms.elements import Failure, PressedCall, RecordedArchive, Row
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.media.errors import RunFailedError, StorageError
from transforms.media.wall_time import utc_date
from transforms.notices.result import in_result
from transforms.notices.tell import Told
from transforms.proof import at_end
from transforms.proof.reconcile import Terms
from transforms.reason import Reason
from transforms.recovery import manifests, named_recordings, portions, take_up

RESULT_FAILURES = 100
Tally = dict[str, int]


class WriteCatalog(beam.PTransform):
    """Input: `SectionRef`, `PressedCall`, `RecordedArchive`, `Failure`, counts of archives listed,
    URIs of those skipped, counts of files of ours left out, with manifests of their entries that
    are passed over and of recordings that they name, what is pressed anew, files of calls that are
    put off, and in a run that names calls or people what of that is nowhere.

    Output: one element, the run's result, which lies in the catalog too (`catalog.results`); when
    it is there, staging is swept and the lock is given back. Rows are merged by `MergeRows`.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, inputs: dict[str, beam.PCollection[Any]]) -> beam.PCollection[dict[str, Any]]:
        job, run = self._job, self._run
        published = (
            inputs["sections"],
            inputs["calls"],
            inputs["unpublished"],
        ) | "MergeRows" >> MergeRows(job, run)
        tallies = (
            inputs["calls"] | "TallyCalls" >> beam.Map(_tally_call),
            inputs["archives"] | "TallyArchives" >> beam.Map(_tally_archive),
            inputs["listed"] | "TallyListed" >> beam.Map(lambda count: {"archives_listed": count}),
            inputs["skipped"]
            | "TallySkipped" >> beam.Map(lambda uris: {"archives_skipped": len(uris)}),
            inputs["left_out"] | "TallyLeftOut" >> beam.Map(lambda count: {"left_out": count}),
            *(
                (inputs["passed_over"] | "TallyPassedOver" >> beam.Map(_tally_passed_over),)
                if "passed_over" in inputs
                else ()
            ),
            *(
                # They are in staging by the time that the run is finished.
                (inputs["named"] | "TallyNamed" >> beam.Map(lambda count: {"named": count}),)
                if "named" in inputs
                else ()
            ),
        ) | "AllTallies" >> beam.Flatten()
        total = tallies | "SumTallies" >> beam.CombineGlobally(_SumTalliesFn())
        first_failures = inputs["failures"] | "FirstFailures" >> beam.combiners.Top.Smallest(
            RESULT_FAILURES, key=_failure_order
        )
        # One side input where two would do: each is a kB of the step.
        done = (
            published.merged,
            published.settled,
            published.kept,
        ) | "AllPublished" >> beam.Flatten()
        told = {}
        if job.notify.targets:
            told["told"] = beam.pvalue.AsIter(
                inputs["failures"].pipeline
                | "Start" >> beam.Impulse()
                | "WhenPublished"
                >> beam.ParDo(
                    _LastPortionFn(job),
                    run,
                    beam.pvalue.AsIter(done),
                    beam.pvalue.AsIter(published.deleted),
                )
                | "TellNotices" >> TellNotices(job, run)
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
                published=beam.pvalue.AsIter(done),
                deleted=beam.pvalue.AsIter(published.deleted),
                repressing=beam.pvalue.AsIter(inputs["repressing"]),
                **(
                    {"unmatched": beam.pvalue.AsIter(inputs["unmatched"])}
                    if "unmatched" in inputs
                    else {}
                ),
                **told,
            )
        )
        swept = (
            finished
            | "StagingOfRun" >> beam.ParDo(_StagingFn(job), run)
            | "SweepStaging" >> SweepStaging(job, run)
        )
        free = finished | "GiveBackLock" >> beam.ParDo(
            _GiveBackFn(job), run, beam.pvalue.AsIter(swept)
        )
        # Behind it nothing is done again: a job that ends as failed does that at the very end.
        return break_fusion(free, "KeepResult", job) | "EndAsItWent" >> beam.Map(
            _end_as_it_went, job
        )


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


def _tally_passed_over(counts: Mapping[str, int]) -> Tally:
    return {f"passed_over_{why}": count for why, count in counts.items()}


def _failure_order(failure: Failure) -> tuple[str, ...]:
    return (failure.archive_uri or "", failure.stage, failure.member or "", failure.message)


def _plain_failure_order(failure: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(failure[name] or "" for name in ("archive_uri", "stage", "member", "message"))


class _LastPortionFn(RunFn):
    """Gives an element, once all is published; none before the last portion of a run."""

    def each(
        self, start: bytes, _published: Iterable[Any], _deleted: Iterable[str]
    ) -> Iterator[bytes]:
        if portions.is_last(self.job, self.run):
            yield start


class _FinishFn(RunFn):
    """Writes the `runs` row and the run's result, of all its portions once the last one is
    published; before that it keeps what came of the one at work, and gives none. Done once more, it
    gives the result that is there.
    """

    is_after_all = True

    def each(
        self,
        _: None,
        *,
        tally: Tally,
        failures: list[Failure],
        published: Iterable[Any],
        deleted: Iterable[str],
        repressing: Iterable[Repressing],
        unmatched: Iterable[Any] = (),
        told: Iterable[Told | str] = (),
    ) -> Iterator[results.Result]:
        job, run = self.job, self.run
        if (done_before := results.read(job.catalog_uri, run.run_id)) is not None:
            yield done_before
            return
        # What is read here has been done before. Failures are of files that stay.
        stays = sorted(
            (done for done in published if isinstance(done, Failure)), key=_failure_order
        )
        failures = sorted([*failures, *stays], key=_failure_order)[:RESULT_FAILURES]
        found: portions.Found = {
            "counts": {
                **tally,
                "files_removed": sum(1 for _uri in deleted),
                "files_kept": len(stays),
                "failures": tally.get("failures", 0) + len(stays),
            },
            "repress": next((asdict(found) for found in repressing), None),
            "unmatched": [asdict(found) for found in unmatched],
            "failures": [asdict(failure) for failure in failures],
        }
        if not portions.is_last(job, run):
            _ensure_files(job, run)
            portions.keep(run, found)
            return
        found = portions.total(run, found, _plain_failure_order, RESULT_FAILURES)
        tally = found["counts"]
        for how, count in run.taken_up:
            tally = {**tally, f"first_time_{how}": tally.get(f"first_time_{how}", 0) + count}
        if job.is_one_process:  # the codec processes' is counted by the steps
            tally = {**tally, "cpu_ns": tally.get("cpu_ns", 0) + time.process_time_ns()}
        finished_unix_ns = max(time.time_ns(), run.started_unix_ns)  # by another worker's clock
        row = run_row(tally, results.run_status(tally, job.settings), finished_unix_ns, job, run)
        found = {
            **found,
            "run_id": run.run_id,
            "started_at": row["started_at"].isoformat(),
            "finished_at": row["finished_at"].isoformat(),
            "counts": tally,
        }
        with lease_of(job, run).at_work():
            reconciled, not_known = _reconcile(job, run)
            reason, lines = results.judge(found, job, run)
            notices, of_notices = in_result(told)
            result = results.summarise(
                {**found, "reconcile": reconciled, "notices": notices},
                *(0 if reason is Reason.OK else 1, reason, [*lines, *not_known, *of_notices]),
            )
            lease_of(job, run).check()
            _write_run(row, job, run)
            results.write(job.catalog_uri, result)
        yield result


def _reconcile(job: JobSettings, run: RunIdentity) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns what became of the recordings that manifests name, None for a run that does not tell;
    and a line where that cannot be found out. It ends no run: what is published stands.
    """
    if not (job.manifests and at_end.is_told(job.filters)):
        return None, []
    terms = Terms(now_unix_ns=time.time_ns(), max_attempts=job.settings.limits.max_attempts)
    try:
        named = named_recordings.read(run)
        return at_end.reconcile_at_end(
            named, job.catalog_uri, terms, job.filters, run.since_unix_ns
        ), []
    except StorageError as error:
        return None, [f"what became of the recordings of the listing is not known: {error}"]


class _StagingFn(RunFn):
    """Gives the run's staging, to be swept, unless another run has taken over: that one does."""

    is_after_all = True

    def each(self, _: results.Result) -> Iterator[str]:
        if lease_of(self.job, self.run).is_held():
            yield self.run.staging_uri


class _GiveBackFn(RunFn):
    """Gives the catalog's lock back, once staging is swept."""

    is_after_all = True

    def each(self, result: results.Result, swept: Iterable[str]) -> Iterator[results.Result]:
        manifests.delete_staged(self.job)
        if any(swept):
            take_up.leave_no_folders(self.job)
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
    bundle = Bundle()
    bundle.add(owned(date, {"runs": stamped([row], job, run)}, (run.run_id,)))
    sections = bundle.write(run.staging_uri)
    _ensure_files(job, run)
    merging.merge_partition(job.catalog_uri, "runs", date, sections)


def _ensure_files(job: JobSettings, run: RunIdentity) -> None:
    """Gives each table but `runs` a file at least."""
    for table in TABLES:
        if table != "runs":
            partitions.ensure_file(job.catalog_uri, table, utc_date(run.started_unix_ns))
