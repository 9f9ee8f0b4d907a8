"""ListArchives: patterns -> the archives they match, each once, with what tells whether it
changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog import partitions
from transforms.catalog.waiting import waiting_archives
from transforms.context import JobSettings
from transforms.elements import ArchiveRef, Failure, Stage, to_failure
from transforms.engine import progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.media.errors import RecordingError
from transforms.sources import archive_files, raw_copies
from transforms.sources.archive_files import FoundArchives, ListedArchive
from transforms.storage import objects, uris

ARCHIVES = "archives"
FAILURES = "failures"
LEFT_OUT = "left_out"


class ListArchives(beam.PTransform):
    """Input: the pipeline's beginning. Output: `ArchiveRef` (main) and `Failure` (`failures`),
    after a fusion break; how many files of ours each pattern matched, which are left out
    (`left_out`).

    Archives that wait since an earlier run pass `--since` whatever their age, but in a run that
    names calls or people: that one is not about the night. Listing is parallel over patterns,
    fingerprinting over archives. Writes nothing; memory grows with the archives listed.
    """

    def __init__(self, patterns: Sequence[str], job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._patterns = tuple(patterns)
        self._job = job
        self._run = run

    def expand(self, begin: beam.pvalue.PBegin) -> dict[str, beam.PCollection[Any]]:
        # As bytes: text that is no UTF-8 cannot be an element.
        patterns = [os.fsencode(pattern) for pattern in self._patterns]
        found = (
            begin
            | "Patterns" >> beam.Create(patterns)
            | "ListPattern" >> beam.ParDo(_ListFn(self._job)).with_outputs(LEFT_OUT, main=ARCHIVES)
        )
        by_uri = found[ARCHIVES] | "KeyByUri" >> beam.Map(
            lambda listed: (listed.uri, _to_tuple(listed))
        )
        filters = self._job.filters
        if filters.since and not filters.is_about_a_part:
            waiting = (
                begin
                | "Start" >> beam.Impulse()
                | "FindWaiting" >> beam.ParDo(_FindWaitingFn(self._job), self._run)
            )
            by_uri = (by_uri, waiting) | "ListedAndWaiting" >> beam.Flatten()
        looked_at = (
            by_uri
            | "GroupByUri" >> beam.GroupByKey()
            | "TakeOnce" >> beam.FlatMapTuple(_take_once)
            | "Fingerprint"
            >> beam.ParDo(_FingerprintFn(self._job), self._run).with_outputs(
                FAILURES, main=ARCHIVES
            )
        )
        return {
            ARCHIVES: looked_at[ARCHIVES],
            FAILURES: looked_at[FAILURES],
            LEFT_OUT: found[LEFT_OUT],
        }


_Listed = tuple[int, int, str, RecordingError | None]
"""What is listed of an archive beside its URI. Plain, since one of each archive of a night crosses
a shuffle and most go no further.
"""


def _to_tuple(listed: ListedArchive) -> _Listed:
    return listed.size_bytes, listed.modified_unix_ns, listed.fingerprint, listed.error


def _to_listed(uri: str, found: _Listed) -> ListedArchive:
    size_bytes, modified_unix_ns, fingerprint, error = found
    return ListedArchive(
        uri=uri,
        size_bytes=size_bytes,
        modified_unix_ns=modified_unix_ns,
        fingerprint=fingerprint,
        error=error,
    )


class _ListFn(beam.DoFn):
    def __init__(self, job: JobSettings) -> None:
        self._job = job

    def process(self, pattern: bytes) -> Iterator[ListedArchive | beam.pvalue.TaggedOutput]:
        found = find_archives(os.fsdecode(pattern), self._job)
        yield from found.archives
        yield beam.pvalue.TaggedOutput(LEFT_OUT, found.own_count)


def find_archives(pattern: str, job: JobSettings) -> FoundArchives:
    """Returns what a pattern stands for, less what runs over this catalog made: a copy of an
    archive (`--copy-raw`) is no other archive. In another catalog it is as good as any file.

    Raises:
      StorageError: it cannot be listed, or the catalog not be read.
    """
    found = archive_files.find_archives(pattern, job.own_uris)
    copies = _copies_among((archive.uri for archive in found.archives), job)
    return FoundArchives(
        archives=tuple(archive for archive in found.archives if archive.uri not in copies),
        own_count=found.own_count + len(copies),
    )


def _copies_among(archive_uris: Iterable[str], job: JobSettings) -> set[str]:
    """Returns which of some files are copies: by their names, and where they lie or what the
    catalog says under the date in the name.
    """
    copies: set[str] = set()
    by_date: dict[str, set[str]] = {}
    for uri in archive_uris:
        if (date := raw_copies.date_of(uri)) is None:
            continue
        if job.copy_raw_uri and uris.is_within(
            objects.resolve(uri), objects.resolve(job.copy_raw_uri)
        ):
            copies.add(uri)
        else:
            by_date.setdefault(date, set()).add(uri)
    for date, named in by_date.items():
        for file in partitions.list_files(job.catalog_uri, "archives", date):
            rows = partitions.read_table(file, "archives", ("copy_uri",))
            copies |= named.intersection(rows.column("copy_uri").to_pylist())
    return copies


class _FindWaitingFn(RunFn):
    def each(self, _: bytes) -> Iterator[tuple[str, None]]:
        for uri in waiting_archives(self.job.catalog_uri):
            yield uri, None


def _take_once(uri: str, found: Iterable[_Listed | None]) -> Iterator[tuple[ListedArchive, bool]]:
    """Yields an archive that was listed, and whether it waits since an earlier run."""
    each = list(found)
    listed = next((one for one in each if one is not None), None)
    if listed is not None:
        yield _to_listed(uri, listed), None in each


class _FingerprintFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._archives_listed = Metrics.counter(ListArchives, "archives_listed")

    def each(
        self, found: tuple[ListedArchive, bool]
    ) -> Iterator[ArchiveRef | beam.pvalue.TaggedOutput]:
        listed, is_waiting = found
        if not is_waiting and not listed.is_after(self.run.since_unix_ns):
            return
        self._archives_listed.inc()
        progress.add("archives_found")
        try:
            yield refer(listed)
        except RecordingError as error:
            progress.add("archives")
            progress.add("failures")
            failure: Failure = to_failure(
                Stage.LIST_ARCHIVES,
                error,
                archive_uri=listed.uri,
                archive_modified_unix_ns=listed.modified_unix_ns,
            )
            yield beam.pvalue.TaggedOutput(FAILURES, failure)


class FoldersAboveFn(beam.DoFn):
    """Input: `ArchiveRef`. Output: the folders it lies in, as the keys that `archive_uri` is; of a
    bundle each once.
    """

    def start_bundle(self) -> None:
        self._told: set[str] = set()

    def process(self, ref: ArchiveRef) -> Iterator[tuple[str]]:
        for folder in archive_files.folders_above(ref.uri):
            if folder in self._told:
                return
            self._told.add(folder)
            yield (folder,)


def refer(listed: ListedArchive) -> ArchiveRef:
    """Returns a listed archive as the steps know it. Raises: RecordingError: it is none, or cannot
    be looked at.
    """
    if listed.error is not None:
        raise listed.error
    return ArchiveRef(
        uri=listed.uri,
        size_bytes=listed.size_bytes,
        modified_unix_ns=listed.modified_unix_ns,
        fingerprint=listed.fingerprint or archive_files.fingerprint(listed.uri),
    )
