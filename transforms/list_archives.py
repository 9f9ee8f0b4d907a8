"""ListArchives: patterns -> the archives they match, each once, with what tells whether it
changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.context import JobSettings
from transforms.elements import ArchiveRef, Failure, Stage, to_failure
from transforms.engine import progress
from transforms.media.errors import RecordingError
from transforms.sources import archive_files
from transforms.sources.archive_files import ListedArchive

FAILURES = "failures"


class ListArchives(beam.PTransform):
    """Input: the pipeline's beginning. Output: `ArchiveRef` (main) and `Failure` (`failures`),
    after a fusion break.

    Listing is parallel over patterns, fingerprinting over archives. Writes nothing; memory grows
    with the archives listed.
    """

    def __init__(self, patterns: Sequence[str], job: JobSettings) -> None:
        super().__init__()
        self._patterns = tuple(patterns)
        self._job = job

    def expand(self, begin: beam.pvalue.PBegin) -> beam.pvalue.DoOutputsTuple:
        return (
            begin
            | "Patterns" >> beam.Create(self._patterns)
            | "ListPattern" >> beam.FlatMap(_list_pattern)
            | "KeyByUri" >> beam.Map(lambda listed: (listed.uri, listed))
            | "GroupByUri" >> beam.GroupByKey()
            | "TakeOnce" >> beam.Map(lambda group: next(iter(group[1])))
            | "SpreadArchives" >> beam.Reshuffle()
            | "Fingerprint"
            >> beam.ParDo(_FingerprintFn(self._job)).with_outputs(FAILURES, main="archives")
        )


def _list_pattern(pattern: str) -> Iterable[ListedArchive]:
    return archive_files.list_archives(pattern)


class _FingerprintFn(beam.DoFn):
    def __init__(self, job: JobSettings) -> None:
        self._since = job.filters.since_unix_ns
        self._archives_listed = Metrics.counter(ListArchives, "archives_listed")

    def process(self, listed: ListedArchive) -> Iterator[ArchiveRef | beam.pvalue.TaggedOutput]:
        if self._since is not None and listed.modified_unix_ns <= self._since:
            return
        self._archives_listed.inc()
        progress.add("archives_found")
        try:
            yield ArchiveRef(
                uri=listed.uri,
                size_bytes=listed.size_bytes,
                modified_unix_ns=listed.modified_unix_ns,
                fingerprint=listed.fingerprint or archive_files.fingerprint(listed.uri),
            )
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
