"""RecordArchives: what became of each archive -> its row, and the failures that belong to no
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from transforms.bounds import Bound
from transforms.catalog import partitions
from transforms.catalog.bundles import Bundle, owned, removed
from transforms.catalog.rows.archives import archive_row, waiting_row
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.stamp import stamped
from transforms.context import JobSettings
from transforms.elements import (
    ArchiveOutcome,
    ArchiveSummary,
    Failure,
    PutOffArchive,
    RecordedArchive,
    Row,
    Stage,
    Status,
)
from transforms.engine.run_fn import RunFn, RunInput
from transforms.media.wall_time import utc_date

SECTIONS = "sections"
_OF_LISTINGS = (Stage.LIST_ARCHIVES, Stage.READ_MANIFESTS)
"""Where a failure is of what could not be looked at: a folder, a file, a manifest."""
_ARCHIVES_PER_BUNDLE = 500


class RecordArchives(beam.PTransform):
    """Input: `ArchiveSummary`, `ArchiveOutcome`, `Failure`, prior rows of `archives`, `failures`,
    and `PutOffArchive`.

    Output: `RecordedArchive` (main) and `SectionRef` (`sections`): those with rows, and for
    an archive that the catalog has under another date one that only removes. An archive of an
    earlier run gets its row anew when all that it lacked has come with others. One that is left to
    the next run, or has a call that is, gets a row that says so; of one that the catalog knows as
    it is the row stays, with its attempts, and so do all rows of calls. Writes rows into
    staging. Groups by archive; memory is a few hundred rows, and the keys of one archive's
    failures.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ArchiveSummary],
            beam.PCollection[ArchiveOutcome],
            beam.PCollection[Failure],
            beam.PCollection[Row],
            beam.PCollection[PutOffArchive],
        ],
    ) -> beam.pvalue.DoOutputsTuple:
        summaries, outcomes, failures, prior, put_off = inputs
        return (
            {
                "summaries": summaries
                | "KeySummaries" >> beam.Map(lambda summary: (summary.ref.uri, summary)),
                "outcomes": outcomes
                | "KeyOutcomes" >> beam.Map(lambda outcome: (outcome.archive_uri, outcome)),
                "failures": failures
                | "KeepThoseWithoutCall" >> beam.Filter(lambda failure: failure.call is None)
                | "KeyFailures" >> beam.Map(lambda failure: (failure.archive_uri or "", failure)),
                "prior": prior | "KeyPrior" >> beam.Map(lambda row: (row["archive_uri"], row)),
                "put_off": put_off
                | "KeyPutOff" >> beam.Map(lambda archive: (archive.ref.uri, archive)),
            }
            | "GroupByArchive" >> beam.CoGroupByKey()
            | "Record"
            >> beam.ParDo(_RecordFn(self._job), self._run).with_outputs(SECTIONS, main="archives")
        )


class _RecordFn(RunFn):
    def start_bundle(self) -> None:
        self._bundle = Bundle()

    def each(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        uri, found = group
        summary: ArchiveSummary | None = next(iter(found["summaries"]), None)
        failures = sorted(found["failures"], key=lambda f: (f.stage, f.member or "", f.message))
        prior: list[Row] = list(found["prior"])
        if (put_off := _put_off(found)) is not None:
            yield from self._put_off(put_off, summary, prior)
            return
        waits = [row for row in prior if "fingerprint" in row]
        own = [row for row in prior if row.get("call_session_id") is None]
        own_dates = {row["call_date"] for row in own}
        was_listed = all(row.get("stage") not in _OF_LISTINGS for row in own)
        if summary is None and not failures:
            if own and all(row.get("stage") in _OF_LISTINGS for row in own):
                # A folder that could not be listed, or a manifest with entries that could not be
                # read, and now gives archives.
                self._remove(uri, own_dates, ("failures",))
            elif _is_completed(prior, list(found["outcomes"])):
                for old_date in sorted({row["call_date"] for row in prior}):
                    self._complete(uri, old_date)
            return  # else recalled: its row stands
        modified = (
            summary.ref.modified_unix_ns if summary else failures[0].archive_modified_unix_ns or 0
        )
        date = utc_date(modified)
        recorded = summary is not None and summary.is_complete
        now = self.run.started_unix_ns
        found_rows = failure_rows(failures, now)
        rows: dict[str, list[Row]] = {"failures": found_rows}
        if summary is not None:
            row = archive_row(summary, list(found["outcomes"]), failures, now)
            yield RecordedArchive(
                status=Status(row["status"]),
                bytes_read=summary.bytes_read,
                cpu_ns=summary.cpu_ns,
                failure_count=len(found_rows),
                is_first_time=not summary.ref.is_known_failure,
            )
            if recorded:  # of one that is not its row in the catalog stays
                rows["archives"] = [row]
            elif summary.ref.is_waiting and not self.job.filters.is_about_a_part:
                # All but the calls that are left out is done: it would wait for ever.
                self._remove(uri, {row["call_date"] for row in waits}, ("archives",))
        else:
            # It could not even be looked at. It has no row of its own, but that of its failure.
            # Those of a manifest are of an archive each.
            is_manifest = all(failure.stage == Stage.READ_MANIFESTS for failure in failures)
            for number in range(len(found_rows) if is_manifest else 1):
                yield RecordedArchive(
                    status=Status.FAILED,
                    bytes_read=0,
                    cpu_ns=0,
                    failure_count=0 if number else len(found_rows),
                    is_first_time=was_listed,
                )
        # Of what is no archive, such as a folder that cannot be listed, only failures are known.
        if recorded or summary is None:
            goes = ("archives", "failures") if recorded else ("failures",)
            self._remove(uri, own_dates - {date}, goes)
        self._add(uri, date, rows)
        if self._bundle.count >= _ARCHIVES_PER_BUNDLE:
            yield from self._flush()

    def _put_off(
        self, archive: PutOffArchive, summary: ArchiveSummary | None, prior: Sequence[Row]
    ) -> Iterator[RecordedArchive]:
        """Says of an archive that it waits for the next run.

        Args:
          archive: which.
          summary: what unpacking it came to; None where it was not unpacked.
          prior: what the catalog has of it.
        """
        ref = archive.ref
        if archive.by is not None:
            yield RecordedArchive(
                status=Status.WAITING,
                bytes_read=summary.bytes_read if summary else 0,
                cpu_ns=summary.cpu_ns if summary else 0,
                failure_count=0,
                is_first_time=False,
                put_off_by=archive.by,
            )
        rows = [row for row in prior if "fingerprint" in row]
        if self.job.filters.is_about_a_part or any(
            row["fingerprint"] == ref.fingerprint for row in rows
        ):
            return
        date = utc_date(ref.modified_unix_ns)
        self._remove(ref.uri, {row["call_date"] for row in rows} - {date}, ("archives",))
        self._add(ref.uri, date, {"archives": [waiting_row(ref)]})

    def _complete(self, uri: str, date: str) -> None:
        """Says of an archive's row in the catalog that nothing is missing any more, unless the
        archive waits: what else is in it nobody has pressed.
        """
        read = partitions.read_rows(
            self.job.catalog_uri, "archives", date, ("archive_uri",), {(uri,)}
        )
        healed = {"status": Status.OK, "error_type": None, "error_message": None}
        if rows := [{**row, **healed} for row in read if row["status"] != Status.WAITING]:
            self._add(uri, date, {"archives": rows})

    def _add(self, uri: str, date: str, rows: dict[str, list[Row]]) -> None:
        """Adds an archive's rows; of these tables what the catalog has of it goes."""
        by_table = {table: stamped(found, self.job, self.run) for table, found in rows.items()}
        self._bundle.add(owned(date, by_table, (uri,)))

    def _remove(self, uri: str, dates: Iterable[str], tables: Sequence[str]) -> None:
        """Takes an archive's rows out of some dates of some tables."""
        for date in sorted(dates):
            self._bundle.add(removed(date, tables, (uri,)))

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._flush():
            yield beam.pvalue.TaggedOutput(output.tag, GlobalWindows.windowed_value(output.value))

    def _flush(self) -> Iterator[beam.pvalue.TaggedOutput]:
        bundle, self._bundle = self._bundle, Bundle()
        if bundle.count:
            for section in bundle.write(self.run.staging_uri):
                yield beam.pvalue.TaggedOutput(SECTIONS, section)


def _put_off(found: dict[str, Iterable[Any]]) -> PutOffArchive | None:
    """Returns an archive that is left to the next run, or of which a call is; None for any other.

    A row of an earlier archive of such a call stands as it is.
    """
    put_off: PutOffArchive | None = next(iter(found["put_off"]), None)
    if put_off is not None:
        return put_off
    for summary in found["summaries"]:
        if any(outcome.is_put_off for outcome in found["outcomes"]):
            return PutOffArchive(ref=summary.ref, by=Bound.STOP_AFTER)
    return None


def _is_completed(prior: Sequence[Row], outcomes: Sequence[ArchiveOutcome]) -> bool:
    """Whether an archive of an earlier run lacks nothing any more, now that others have come.

    Args:
      prior: the keys of all failures that the catalog has of it, among other rows.
      outcomes: what became of its share of calls in this run.
    """
    completed = {outcome.completed.as_tuple() for outcome in outcomes if outcome.completed}
    if not completed:
        return False
    failed = {
        (row["call_type"], row["call_id"], row["call_session_id"])
        for row in prior
        if "call_session_id" in row
    }
    return failed <= completed and all(outcome.first_failure is None for outcome in outcomes)
