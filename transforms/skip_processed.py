"""SkipProcessed: archives minus what the catalog has for these settings; those that were listed and
those that manifests name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.repressing import Repressing, weigh
from transforms.composites.find_archive_rows import FindArchiveRows
from transforms.context import JobSettings, RunIdentity, is_older
from transforms.elements import ArchiveRef, Row, Status
from transforms.engine import progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.media.wall_time import from_time, utc_date
from transforms.sources.manifests.entry import ManifestEntry
from transforms.tries import ROW_COLUMNS, next_try

SKIPPED = "skipped"
ANEW = "anew"
REPRESSING = "repressing"
NAMED = "named"
_SKIPPED_AT_A_TIME = 500
_COLUMNS = (
    *("archive_uri", "fingerprint", "settings_fingerprint", "callpress_version", "copy_uri"),
    *ROW_COLUMNS,
)
_ENTRY_COLUMNS = (*_COLUMNS, "size_bytes", "modified_time")


class Compared(NamedTuple):
    """The archives by what is to be done with them."""

    todo: beam.PCollection[ArchiveRef]
    """To press."""
    skipped: beam.PCollection[tuple[str, ...]]
    """The URIs of those left out, some hundreds an element: a night may be all of them."""
    repressing: beam.PCollection[Repressing]
    """One element: what is pressed anew, or would be; none where nothing is."""
    named: beam.PCollection[int] | None = None
    """A number for each archive that manifests name and no pattern; None without manifests."""


class SkipProcessed(beam.PTransform):
    """Input: `ArchiveRef`, with manifests also `ManifestEntry`. Output: `Compared`.

    Groups what was listed by the UTC date of modification, which is where the catalog keeps an
    archive's row: each group reads one partition. Of an archive that a manifest names nothing is
    known but that: it is looked for under all dates, and what the catalog has of it is taken for
    as it is. What would be pressed anew though it is as the catalog has it is counted first, on one
    worker: too much of it is left as it is. Writes nothing; memory grows with the archives of one
    date that were listed, some hundred bytes each, and by four bytes for each that is named.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(
        self,
        inputs: beam.PCollection[ArchiveRef]
        | tuple[beam.PCollection[ArchiveRef], beam.PCollection[ManifestEntry]],
    ) -> Compared:
        job, run = self._job, self._run
        archives, entries = inputs if isinstance(inputs, tuple) else (inputs, None)
        compared = (
            archives
            | "KeyByDate" >> beam.Map(_key_by_date)
            | "GroupByDate" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_CompareFn(job), run).with_outputs(SKIPPED, ANEW, main="todo")
        )
        found, named = [compared], None
        anew = compared[ANEW]
        if entries is not None:
            found.append(self._compare_entries(entries, archives))
            named = found[1][NAMED]
            anew = (anew, found[1][ANEW]) | "AllAnew" >> beam.Flatten()
        weighed = (
            archives.pipeline
            | "Start" >> beam.Impulse()
            | "WeighAnew"
            >> beam.ParDo(_WeighFn(job), run, beam.pvalue.AsIter(anew)).with_outputs(
                SKIPPED, REPRESSING, main="todo"
            )
        )
        found.append(weighed)
        return Compared(
            todo=tuple(each.todo for each in found) | "AllToPress" >> beam.Flatten(),
            skipped=tuple(each[SKIPPED] for each in found) | "AllSkipped" >> beam.Flatten(),
            repressing=weighed[REPRESSING],
            named=named,
        )

    def _compare_entries(
        self,
        entries: beam.PCollection[ManifestEntry],
        archives: beam.PCollection[ArchiveRef],
    ) -> beam.pvalue.DoOutputsTuple:
        by_uri = entries | "KeyEntries" >> beam.Map(
            lambda entry: (entry.uri, (entry.link, entry.ended_unix_ns, entry.issued_unix_ns))
        )
        rows = (
            by_uri
            | "UrisOfEntries" >> beam.Keys()
            | "FindRowsOfEntries" >> FindArchiveRows(self._job, _ENTRY_COLUMNS)
        )
        return (
            {
                "entries": by_uri,
                "listed": archives | "KeyListed" >> beam.Map(lambda ref: (ref.uri, True)),
                "rows": rows | "KeyRows" >> beam.Map(lambda row: (row["archive_uri"], row)),
            }
            | "GroupByUri" >> beam.CoGroupByKey()
            | "CompareEntries"
            >> beam.ParDo(_CompareEntryFn(self._job), self._run).with_outputs(
                SKIPPED, ANEW, NAMED, main="todo"
            )
        )


class _CompareFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._skipped = Metrics.counter(SkipProcessed, "archives_skipped")

    def each(self, group: tuple[str, Iterable[_Listed]]) -> Iterator[Any]:
        date, found = group
        listed = {each[0]: each for each in found}
        judged: dict[str, tuple[datetime | None, Verdict]] = {}
        for row in recorded(self.job.catalog_uri, date, listed):
            uri, made = row["archive_uri"], row["created_at"]
            if uri not in judged or is_newer(made, judged[uri][0]):
                verdict = judge(_refer(listed[uri]), row, self.job, self.run)
                judged[uri] = made, verdict
        skipped: list[str] = []
        for uri in sorted(listed):
            verdict = (
                judged[uri][1]
                if uri in judged
                else judge(_refer(listed[uri]), None, self.job, self.run)
            )
            if verdict.todo is None:
                skipped.append(uri)
            elif verdict.is_anew:
                yield beam.pvalue.TaggedOutput(ANEW, verdict.todo)
            else:
                progress.add("bytes_found", verdict.todo.size_bytes)
                yield verdict.todo
        yield from _leave_out(skipped, self._skipped)


class _CompareEntryFn(RunFn):
    """Takes an archive that a manifest names, unless a pattern has matched it, too."""

    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._listed = Metrics.counter(SkipProcessed, "archives_named")
        self._skipped = Metrics.counter(SkipProcessed, "archives_skipped")

    def start_bundle(self) -> None:
        self._to_skip: list[str] = []

    def each(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        uri, found = group
        named = next(iter(found["entries"]), None)
        if named is None or any(found["listed"]):
            return
        link, ended_unix_ns, issued_unix_ns = named
        entry = ManifestEntry(
            uri=uri, link=link, ended_unix_ns=ended_unix_ns, issued_unix_ns=issued_unix_ns
        )
        row = newest(found["rows"])
        ref = refer_to_entry(entry, row, self.run)
        verdict = judge(ref, row, self.job, self.run)
        is_waiting = verdict.todo is not None and verdict.todo.is_waiting
        if not (is_waiting and not self.job.filters.is_about_a_part) and is_before(entry, self.run):
            return
        self._listed.inc()
        progress.add("archives_found")
        yield beam.pvalue.TaggedOutput(NAMED, 1)
        if verdict.todo is None:
            self._to_skip.append(uri)
            if len(self._to_skip) >= _SKIPPED_AT_A_TIME:
                yield from self._leave_out()
        elif verdict.is_anew:
            yield beam.pvalue.TaggedOutput(ANEW, verdict.todo)
        else:
            progress.add("bytes_found", verdict.todo.size_bytes)
            yield verdict.todo

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._leave_out():
            yield beam.pvalue.TaggedOutput(output.tag, GlobalWindows.windowed_value(output.value))

    def _leave_out(self) -> Iterator[beam.pvalue.TaggedOutput]:
        uris, self._to_skip = self._to_skip, []
        yield from _leave_out(uris, self._skipped)


def newest(rows: Iterable[Row]) -> Row | None:
    """Returns that of some rows of one archive which counts; None without any."""
    found: Row | None = None
    for row in rows:
        if found is None or is_newer(row["created_at"], found["created_at"]):
            found = row
    return found


def refer_to_entry(entry: ManifestEntry, row: Row | None, run: RunIdentity) -> ArchiveRef:
    """Returns an archive that a manifest names as the catalog knows it. Args: row: of `archives`;
    None for one that it does not know.
    """
    modified_unix_ns = entry.ended_unix_ns
    if modified_unix_ns is None and row is not None and row["modified_time"] is not None:
        modified_unix_ns = from_time(row["modified_time"])
    if modified_unix_ns is None:  # until it is looked at
        modified_unix_ns = entry.issued_unix_ns or run.started_unix_ns
    return ArchiveRef(
        uri=entry.uri,
        size_bytes=(row["size_bytes"] or 0) if row else 0,
        modified_unix_ns=modified_unix_ns,
        fingerprint=(row["fingerprint"] or "") if row else "",
        link=entry.link,
        is_unseen=True,
        is_dated=entry.ended_unix_ns is not None,
    )


def is_before(entry: ManifestEntry, run: RunIdentity) -> bool:
    """Whether a manifest says that a recording had ended before what the run is about."""
    since = run.since_unix_ns
    return since is not None and entry.ended_unix_ns is not None and entry.ended_unix_ns <= since


def _leave_out(uris: Sequence[str], counter: Any) -> Iterator[beam.pvalue.TaggedOutput]:
    counter.inc(len(uris))
    progress.add("archives_skipped", len(uris))
    for start in range(0, len(uris), _SKIPPED_AT_A_TIME):
        batch = tuple(uris[start : start + _SKIPPED_AT_A_TIME])
        yield beam.pvalue.TaggedOutput(SKIPPED, batch)


_Listed = tuple[str, int, int, str]
"""The URI, size, modification and fingerprint of an archive. Plain, since one of each archive of a
night crosses a shuffle and most go no further.
"""


def _key_by_date(ref: ArchiveRef) -> tuple[str, _Listed]:
    listed = (ref.uri, ref.size_bytes, ref.modified_unix_ns, ref.fingerprint)
    return utc_date(ref.modified_unix_ns), listed


def _refer(listed: _Listed) -> ArchiveRef:
    uri, size_bytes, modified_unix_ns, fingerprint = listed
    return ArchiveRef(
        uri=uri,
        size_bytes=size_bytes,
        modified_unix_ns=modified_unix_ns,
        fingerprint=fingerprint,
    )


class _WeighFn(RunFn):
    """Passes on what is to be pressed anew, or leaves all of it out."""

    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._skipped = Metrics.counter(SkipProcessed, "archives_skipped")

    def each(self, _: bytes, anew: Iterable[ArchiveRef]) -> Iterator[Any]:
        archives = size_bytes = 0
        for ref in anew:
            archives += 1
            size_bytes += ref.size_bytes
        if not archives:
            return
        repressing = weigh(self.job.catalog_uri, archives, size_bytes, is_wanted=self.job.repress)
        yield beam.pvalue.TaggedOutput(REPRESSING, repressing)
        if repressing.is_refused:
            yield from _leave_out([ref.uri for ref in anew], self._skipped)
            return
        for ref in anew:
            progress.add("bytes_found", ref.size_bytes)
            yield ref


def recorded(catalog_uri: str, date: str, uris: Collection[str]) -> Iterator[Row]:
    """Yields what `judge` needs of the rows of `archives` of some archives under a date; where a
    run was killed while it split a shard, more than one of an archive, of which the newest counts.

    Raises:
      StorageError: the catalog cannot be read.
    """
    wanted = WantedKeys(("archive_uri",), {(uri,) for uri in uris})
    for file in partitions.list_files(catalog_uri, "archives", date):
        yield from partitions.scan("archives", file, _COLUMNS, wanted)


def recorded_anywhere(catalog_uri: str, uris: Collection[str]) -> Iterator[Row]:
    """As `recorded`, under all dates, with what tells of an archive nobody has looked at."""
    wanted = WantedKeys(("archive_uri",), {(uri,) for uri in uris})
    for file in partitions.list_files(catalog_uri, "archives"):
        yield from partitions.scan("archives", file, _ENTRY_COLUMNS, wanted)


def is_newer(made: datetime | None, other: datetime | None) -> bool:
    """Whether a row was made after another, or at the same time."""
    return other is None or (made is not None and made >= other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a run presses an archive, and why."""

    todo: ArchiveRef | None
    """The archive, with the number of this try; None when it is left out."""
    why: str
    is_anew: bool = False
    """Whether it is as the catalog has it, and nothing but other settings or a newer version has it
    pressed.
    """


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
    ref = replace(ref, is_waiting=row["status"] == Status.WAITING)
    if (row["fingerprint"] or "") != ref.fingerprint:
        return Verdict(todo=ref, why="changed")
    ref = replace(ref, copy_uri=row["copy_uri"] or "")
    if ref.is_waiting:
        return Verdict(todo=ref, why="waiting")
    version = row["callpress_version"]
    is_bad = row["status"] in (Status.FAILED, Status.PARTIAL)
    is_of_older = is_bad and is_older(version)
    ref = replace(ref, is_known_failure=is_bad and not is_of_older)
    if job.overwrite:
        return Verdict(todo=ref, why="overwrite")
    if ref.uri in run.repeat_archives:
        return Verdict(todo=ref, why="unfinished")
    if row["settings_fingerprint"] != job.settings_fingerprint:
        return Verdict(todo=ref, why="other settings", is_anew=True)
    most = job.settings.limits.max_attempts
    another = next_try(row, run.started_unix_ns, most)
    if is_of_older:
        why = f"{row['status']} in {f'version {version}' if version else 'an older version'}"
        # What is due for another try by any version needs nobody's leave.
        return Verdict(
            todo=replace(ref, attempt=another.attempt), why=why, is_anew=not another.is_due
        )
    if not another.may_help:
        return Verdict(todo=None, why=f"done: {row['status']}")
    if another.is_past_last:
        return Verdict(todo=None, why=f"{row['status']} {int(row['attempts'] or 1)} times")
    return Verdict(
        todo=replace(ref, attempt=another.attempt),
        why=f"{row['status']} before, try {another.attempt} of {max(another.attempt, most)}",
    )
