"""RecordArchives: what became of each archive -> its row, and the failures that belong to no
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from transforms.catalog.fragments import write_fragment
from transforms.catalog.rows.archives import archive_row
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.stamp import stamped
from transforms.context import JobSettings, RunIdentity, key_hash
from transforms.elements import (
    ArchiveOutcome,
    ArchiveSummary,
    Failure,
    FragmentRef,
    RecordedArchive,
    Row,
    Stage,
    Status,
)
from transforms.engine.run_fn import RunFn
from transforms.media.wall_time import utc_date

FRAGMENTS = "fragments"
_ROWS_PER_FRAGMENT = 500


class RecordArchives(beam.PTransform):
    """Input: `ArchiveSummary`, `ArchiveOutcome`, `Failure`, prior rows of `archives`, `failures`.

    Output: `RecordedArchive` (main) and `FragmentRef` (`fragments`): first those with rows, and for
    an archive that the catalog has under another date one that only removes. Writes rows into
    staging. Groups by archive; memory is a few hundred rows.
    """

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
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
        ],
    ) -> beam.pvalue.DoOutputsTuple:
        summaries, outcomes, failures, prior = inputs
        return (
            {
                "summaries": summaries
                | "KeySummaries" >> beam.Map(lambda summary: (summary.ref.uri, summary)),
                "outcomes": outcomes
                | "KeyOutcomes" >> beam.Map(lambda outcome: (outcome.archive_uri, outcome)),
                "failures": failures
                | "KeepThoseWithoutCall" >> beam.Filter(lambda failure: failure.call is None)
                | "KeyFailures" >> beam.Map(lambda failure: (failure.archive_uri or "", failure)),
                "prior": prior
                | "KeepArchivesOwn" >> beam.Filter(lambda row: row.get("call_session_id") is None)
                | "KeyPrior"
                >> beam.Map(lambda row: (row["archive_uri"], (row["call_date"], row.get("stage")))),
            }
            | "GroupByArchive" >> beam.CoGroupByKey()
            | "Record"
            >> beam.ParDo(_RecordFn(self._job, self._run)).with_outputs(FRAGMENTS, main="archives")
        )


class _RecordFn(RunFn):
    def start_bundle(self) -> None:
        # By date, and whether the archive is recorded as done: of one that is not its row in the
        # catalog stays.
        self._rows: dict[tuple[str, bool], dict[str, list[Row]]] = {}
        self._owners: dict[tuple[str, bool], list[str]] = {}

    def process(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        uri, found = group
        summary: ArchiveSummary | None = next(iter(found["summaries"]), None)
        failures = sorted(found["failures"], key=lambda f: (f.stage, f.member or "", f.message))
        prior = set(found["prior"])
        prior_dates = {call_date for call_date, _ in prior}
        if summary is None and not failures:
            # A folder that could not be listed and now gives archives; else recalled: its row
            # stands.
            if {stage for _, stage in prior} == {Stage.LIST_ARCHIVES}:
                yield from _removals(uri, prior_dates, ("failures",))
            return
        modified = (
            summary.ref.modified_unix_ns if summary else failures[0].archive_modified_unix_ns or 0
        )
        date = utc_date(modified)
        recorded = summary is not None and summary.is_complete
        batch = (date, recorded)
        rows = self._rows.setdefault(
            batch, {"archives": [], "failures": []} if recorded else {"failures": []}
        )
        now = self.run.started_unix_ns
        found_rows = failure_rows(failures, now)
        rows["failures"] += found_rows
        if summary is not None:
            row = archive_row(summary, list(found["outcomes"]), failures, now)
            yield RecordedArchive(
                status=Status(row["status"]),
                bytes_read=summary.bytes_read,
                cpu_ns=summary.cpu_ns,
                failure_count=len(found_rows),
                is_first_time=not summary.ref.is_known_failure,
            )
            if recorded:
                rows["archives"].append(row)
        else:
            # It could not even be looked at. It has no row of its own, but that of its failure.
            yield RecordedArchive(
                status=Status.FAILED,
                bytes_read=0,
                cpu_ns=0,
                failure_count=len(found_rows),
                is_first_time=all(stage != Stage.LIST_ARCHIVES for _, stage in found["prior"]),
            )
        self._owners.setdefault(batch, []).append(uri)
        # Of what is no archive, such as a folder that cannot be listed, only failures are known.
        if recorded or summary is None:
            goes = ("archives", "failures") if recorded else ("failures",)
            yield from _removals(uri, prior_dates - {date}, goes)
        if len(self._owners[batch]) >= _ROWS_PER_FRAGMENT:
            yield beam.pvalue.TaggedOutput(FRAGMENTS, self._flush(batch))

    def finish_bundle(self) -> Iterator[Any]:
        for batch in list(self._owners):
            yield beam.pvalue.TaggedOutput(
                FRAGMENTS, GlobalWindows.windowed_value(self._flush(batch))
            )

    def _flush(self, batch: tuple[str, bool]) -> FragmentRef:
        owners, rows = self._owners.pop(batch), self._rows.pop(batch)
        uri = self.run.staged("rows", f"archives-{key_hash(*owners)}.json")
        by_table = {table: stamped(found, self.job, self.run) for table, found in rows.items()}
        return write_fragment(uri, batch[0], by_table, tuple((owner,) for owner in owners))


def _removals(uri: str, dates: Iterable[str], tables: Sequence[str]) -> Iterator[Any]:
    """Yields what takes an archive's rows out of some dates of some tables."""
    counts = tuple((table, 0) for table in tables)
    for date in sorted(dates):
        removal = FragmentRef(uri="", call_date=date, row_counts=counts, replaced=((uri,),))
        yield beam.pvalue.TaggedOutput(FRAGMENTS, removal)
