"""SkipProcessed: archives minus what the catalog has for these settings. FindPriorRows: what the catalog has of some keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import catalog_store, progress
from transforms.media.catalog import Row, utc_date
from transforms.media.values import ArchiveRef, Status
from transforms.run_context import RunContext

SKIPPED = "skipped"
_RETRYABLE = ("StorageError", "CodecProcessError")


class SkipProcessed(beam.PTransform):
    """Input: `ArchiveRef`. Output: `ArchiveRef` to press (main) and those left out (`skipped`).

    Groups by the UTC date of modification, which is where the catalog keeps an archive's row: each group reads one
    partition. Writes nothing; memory grows with the archives of one date.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

    def expand(self, archives: beam.PCollection[ArchiveRef]) -> beam.pvalue.DoOutputsTuple:
        return (
            archives
            | "KeyByDate" >> beam.Map(lambda ref: (utc_date(ref.modified_unix_ns), ref))
            | "GroupByDate" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_CompareFn(self._context)).with_outputs(SKIPPED, main="todo")
        )


class _CompareFn(beam.DoFn):
    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._skipped = Metrics.counter(SkipProcessed, "archives_skipped")

    def process(self, group: tuple[str, Iterable[ArchiveRef]]) -> Iterator[Any]:
        date, refs = group
        listed = {ref.uri: ref for ref in refs}
        keys = {(uri,) for uri in listed}
        rows = catalog_store.read_rows(self._context.catalog_uri, "archives", date, ("archive_uri",), keys)
        known = {row["archive_uri"]: row for row in rows}
        for uri in sorted(listed):
            verdict = judge(listed[uri], known.get(uri), self._context)
            if verdict.todo is not None:
                progress.report("bytes_found", verdict.todo.size_bytes)
                yield verdict.todo
                continue
            self._skipped.inc()
            progress.report("archives_skipped")
            yield beam.pvalue.TaggedOutput(SKIPPED, listed[uri])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a run presses an archive, and why."""

    todo: ArchiveRef | None
    """The archive, with the number of this try; None when it is left out."""
    why: str


def judge(ref: ArchiveRef, row: Row | None, context: RunContext) -> Verdict:
    """Returns what is to be done with an archive of which the catalog has this row of `archives`, or none."""
    if row is None:
        return Verdict(todo=ref, why="new")
    if row["fingerprint"] != ref.fingerprint:
        return Verdict(todo=ref, why="changed")
    if row["settings_fingerprint"] != context.settings_fingerprint:
        return Verdict(todo=ref, why="other settings")
    if context.overwrite:
        return Verdict(todo=ref, why="overwrite")
    if ref.uri in context.repeat_archives:
        return Verdict(todo=ref, why="unfinished")
    if not _may_go_better(row):
        return Verdict(todo=None, why=f"done: {row['status']}")
    tries, most = int(row["attempts"] or 1), context.settings.limits.max_attempts
    if tries >= most:
        return Verdict(todo=None, why=f"{row['status']} {tries} times")
    return Verdict(todo=replace(ref, attempt=tries + 1), why=f"{row['status']} before, try {tries + 1} of {most}")


def _may_go_better(row: Row) -> bool:
    """Whether another try at an unchanged archive may help."""
    if row["status"] == Status.PARTIAL:
        return row["error_type"] in _RETRYABLE
    return row["status"] == Status.FAILED


class FindPriorRows(beam.PTransform):
    """Input: keys, tuples of text. Output: by table, its rows of the catalog with these keys, and their `call_date`.

    Scans each table's key columns once, in parallel over all objects; the keys are a side input. Writes nothing; memory
    holds one object's columns and the keys.
    """

    def __init__(self, context: RunContext, columns: Mapping[str, Sequence[str]], key_columns: Sequence[str]) -> None:
        """Args: columns: those wanted of each table; key_columns: those that a key names, the same in all."""
        super().__init__()
        self._catalog_uri = context.catalog_uri
        self._columns = {table: tuple(names) for table, names in columns.items()}
        self._key_columns = tuple(key_columns)

    def expand(self, keys: beam.PCollection[tuple[str, ...]]) -> beam.pvalue.DoOutputsTuple:
        catalog_uri, columns, key_columns = self._catalog_uri, self._columns, self._key_columns

        def list_files(_: bytes) -> Iterator[tuple[str, catalog_store.CatalogFile]]:
            for table in columns:
                for file in catalog_store.list_files(catalog_uri, table):
                    yield table, file

        def scan(found: tuple[str, catalog_store.CatalogFile], wanted: Iterable[tuple[str, ...]]) -> Iterator[Any]:
            table, file = found
            if keys := set(wanted):
                for row in catalog_store.scan(catalog_uri, table, file, columns[table], key_columns, keys):
                    yield beam.pvalue.TaggedOutput(table, row)

        return (
            keys.pipeline
            | "Start" >> beam.Impulse()
            | "ListFiles" >> beam.FlatMap(list_files)
            | "SpreadFiles" >> beam.Reshuffle()
            | "ScanFile" >> beam.FlatMap(scan, wanted=beam.pvalue.AsIter(keys)).with_outputs(*columns)
        )
