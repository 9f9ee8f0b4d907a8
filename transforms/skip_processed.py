"""SkipProcessed: archives minus what the catalog has for these settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import partitions
from transforms.context import JobSettings, RunIdentity, is_older
from transforms.elements import ArchiveRef, Row, Status
from transforms.engine import progress
from transforms.engine.run_fn import RunFn
from transforms.media.wall_time import utc_date

SKIPPED = "skipped"
_RETRYABLE = ("StorageError", "CodecProcessError")


class SkipProcessed(beam.PTransform):
    """Input: `ArchiveRef`. Output: `ArchiveRef` to press (main) and those left out (`skipped`).

    Groups by the UTC date of modification, which is where the catalog keeps an archive's row: each
    group reads one partition. Writes nothing; memory grows with the archives of one date.
    """

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> beam.pvalue.DoOutputsTuple:
        return (
            archives
            | "KeyByDate" >> beam.Map(lambda ref: (utc_date(ref.modified_unix_ns), ref))
            | "GroupByDate" >> beam.GroupByKey()
            | "Compare"
            >> beam.ParDo(_CompareFn(self._job, self._run)).with_outputs(SKIPPED, main="todo")
        )


class _CompareFn(RunFn):
    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        super().__init__(job, run)
        self._skipped = Metrics.counter(SkipProcessed, "archives_skipped")

    def process(self, group: tuple[str, Iterable[ArchiveRef]]) -> Iterator[Any]:
        date, refs = group
        listed = {ref.uri: ref for ref in refs}
        keys = {(uri,) for uri in listed}
        rows = partitions.read_rows(self.job.catalog_uri, "archives", date, ("archive_uri",), keys)
        known = {row["archive_uri"]: row for row in rows}
        for uri in sorted(listed):
            verdict = judge(listed[uri], known.get(uri), self.job, self.run)
            if verdict.todo is not None:
                progress.add("bytes_found", verdict.todo.size_bytes)
                yield verdict.todo
                continue
            self._skipped.inc()
            progress.add("archives_skipped")
            yield beam.pvalue.TaggedOutput(SKIPPED, listed[uri])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a run presses an archive, and why."""

    todo: ArchiveRef | None
    """The archive, with the number of this try; None when it is left out."""
    why: str


def judge(ref: ArchiveRef, row: Row | None, job: JobSettings, run: RunIdentity) -> Verdict:
    """Returns what is to be done with an archive.

    Args:
      ref: the archive.
      row: what the catalog has of it in `archives`; None for nothing.
      job: what was asked for.
      run: when it is, and which archives it is to press whatever the catalog says.
    """
    if row is None:
        return Verdict(todo=ref, why="new")
    if row["fingerprint"] != ref.fingerprint:
        return Verdict(todo=ref, why="changed")
    version = row["callpress_version"]
    is_bad = row["status"] in (Status.FAILED, Status.PARTIAL)
    is_of_older = is_bad and is_older(version)
    ref = replace(ref, is_known_failure=is_bad and not is_of_older)
    if job.overwrite:
        return Verdict(todo=ref, why="overwrite")
    if ref.uri in run.repeat_archives:
        return Verdict(todo=ref, why="unfinished")
    if row["settings_fingerprint"] != job.settings_fingerprint:
        return Verdict(todo=ref, why="other settings")
    tried = int(row["attempts"] or 1)
    # Runs of one day are one try: whatever an operator does before noon, the morrow's run tries.
    attempt = tried + (_day_of(row) != utc_date(run.started_unix_ns))
    if is_of_older:
        why = f"{row['status']} in {f'version {version}' if version else 'an older version'}"
        return Verdict(todo=replace(ref, attempt=attempt), why=why)
    if not _may_go_better(row):
        return Verdict(todo=None, why=f"done: {row['status']}")
    most = job.settings.limits.max_attempts
    if attempt > most:
        return Verdict(todo=None, why=f"{row['status']} {tried} times")
    return Verdict(
        todo=replace(ref, attempt=attempt),
        why=f"{row['status']} before, try {attempt} of {most}",
    )


def _day_of(row: Row) -> str:
    """Returns the UTC date on which an archive was last tried."""
    tried: datetime = row["processed_at"] or row["created_at"]
    return tried.date().isoformat()


def _may_go_better(row: Row) -> bool:
    """Whether another try at an unchanged archive may help."""
    if row["status"] == Status.PARTIAL:
        return row["error_type"] in _RETRYABLE
    return row["status"] == Status.FAILED
