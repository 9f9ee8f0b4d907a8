"""ReadManifests: listings of recordings -> what they name, each archive once, by its newest link.
KeepLinks, ReadLinks: these links, also for later portions of a run. KeepNamed: what is named, for
the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from transforms.context import JobSettings, RunIdentity
from transforms.elements import Failure, Stage, to_failure
from transforms.engine import progress
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn, RunInput
from transforms.filters import Filters
from transforms.media.errors import ArchiveError, RecordingError, StorageError
from transforms.proof.listing import ListedRecording, recording_of
from transforms.recovery import named_recordings, portions
from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.reading import (
    ManifestObject,
    ManifestSource,
    newness,
    objects_of,
    read_object,
)

ENTRIES = "entries"
FAILURES = "failures"
LEFT_OUT = "left_out"
UNWANTED = "unwanted"
READ = "read"
NOT_READ = "not_read"
"""Beside the words of `LeftOut`: of manifests that a store or service does not give, or not to
their end.
"""
_LINKS_AT_A_TIME = 10_000
_UNWANTED_TOLD = 1_000
"""Cids of a bundle: from them is told what there is in place of what was named."""


class ReadManifests(beam.PTransform):
    """Input: the pipeline's beginning. Output: `ManifestEntry`, one of each archive that is named
    and wanted (`entries`); `Failure` of entries, and manifests, that cannot be read (`failures`);
    how many entries were passed over, by why, and manifests not read (`left_out`); some cids of
    calls that are not wanted (`unwanted`); what was read, as the keys that `archive_uri` is
    (`read`).

    Of links to one archive that one counts which expires last by what it shows, else that of the
    newest event, else the last. Parallel over the objects of a manifest; groups by URI. Writes
    nothing; memory is what one entry takes, and the reading of it.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, begin: beam.pvalue.PBegin) -> dict[str, beam.PCollection[Any]]:
        job = self._job
        listed = (
            begin
            | "Manifests" >> beam.Create(list(enumerate(job.manifests)))
            | "List"
            >> beam.ParDo(_ListFn(job), self._run).with_outputs(FAILURES, LEFT_OUT, main="objects")
        )
        spread = break_fusion(listed.objects, "SpreadObjects", job)
        read = spread | "Read" >> beam.ParDo(_ReadFn(job), self._run).with_outputs(
            FAILURES, LEFT_OUT, UNWANTED, READ, main=ENTRIES
        )
        entries = (
            read[ENTRIES]
            | "TakeNewest" >> beam.CombinePerKey(_NewestFn())
            | "WithoutRank" >> beam.MapTuple(_to_entry)
        )
        return {
            ENTRIES: entries,
            FAILURES: (listed[FAILURES], read[FAILURES]) | "AllFailures" >> beam.Flatten(),
            LEFT_OUT: (listed[LEFT_OUT], read[LEFT_OUT]) | "AllLeftOut" >> beam.Flatten(),
            **{name: read[name] for name in (UNWANTED, READ)},
        }


class KeepLinks(beam.PTransform):
    """Input: `ManifestEntry`. Output: URIs of archives, each with the link that opens it, where
    that is another. Where a night is pressed in portions they are written into staging, too: the
    manifests are not read again, as they may be others by then. Memory is some thousand links.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, entries: beam.PCollection[ManifestEntry]) -> beam.PCollection[tuple[str, str]]:
        links = (
            entries
            | "KeepThoseWithLink" >> beam.Filter(lambda entry: bool(entry.link))
            | "LinkByUri" >> beam.Map(lambda entry: (entry.uri, entry.link))
        )
        if self._job.portion is None:
            return links
        return links | "Keep" >> beam.ParDo(_KeepFn(self._job), self._run)


class ReadLinks(beam.PTransform):
    """Input: the pipeline's beginning, that of a later portion. Output: as `KeepLinks`."""

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[tuple[str, str]]:
        return (
            begin
            | "Start" >> beam.Impulse()
            | "Read" >> beam.ParDo(_ReadLinksFn(self._job), self._run)
        )


class KeepNamed(beam.PTransform):
    """Input: `ManifestEntry`. Output: numbers of recordings that were written into staging, without
    their links, for the last step of the run. What is written twice is told once. Memory is some
    thousand recordings.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, entries: beam.PCollection[ManifestEntry]) -> beam.PCollection[int]:
        return entries | "Keep" >> beam.ParDo(_KeepNamedFn(self._job), self._run)


class _KeepNamedFn(RunFn):
    def start_bundle(self) -> None:
        self._named: list[ListedRecording] = []

    def each(self, entry: ManifestEntry) -> Iterator[int]:
        self._named.append(recording_of(entry, self.run.started_unix_ns))
        if len(self._named) >= _LINKS_AT_A_TIME:
            yield self._write()

    def finish_bundle(self) -> Iterator[Any]:
        if self._named:
            yield GlobalWindows.windowed_value(self._write())

    def _write(self) -> int:
        named, self._named = self._named, []
        named_recordings.write(self.run, named)
        return len(named)


class _KeepFn(RunFn):
    def start_bundle(self) -> None:
        self._links: dict[str, str] = {}

    def each(self, link: tuple[str, str]) -> Iterator[tuple[str, str]]:
        self._links[link[0]] = link[1]
        if len(self._links) >= _LINKS_AT_A_TIME:
            self.finish_bundle()
        yield link

    def finish_bundle(self) -> None:
        links, self._links = self._links, {}
        if links:
            portions.write_links(self.run, links)


class _ReadLinksFn(RunFn):
    def each(self, _: bytes) -> Iterator[tuple[str, str]]:
        for uri in portions.list_links(self.run):
            yield from portions.read_links(uri)


_Ranked = tuple[int, int, int, int, int, str, str, str, int | None]
"""When an entry's link expires, when its event was made, the numbers of its manifest, of an object
of that, and of itself; link, cid, call session and end. Plain, since one of each entry of a night
crosses a shuffle.
"""


def _to_tuple(entry: ManifestEntry, order: tuple[int, int], number: int) -> _Ranked:
    return (
        *newness(entry),
        *order,
        number,
        entry.link,
        entry.call_cid,
        entry.call_session_id,
        entry.ended_unix_ns,
    )


def _to_entry(uri: str, found: _Ranked) -> ManifestEntry:
    _, issued_unix_ns, _, _, _, link, call_cid, call_session_id, ended_unix_ns = found
    return ManifestEntry(
        uri=uri,
        link=link,
        call_cid=call_cid,
        call_session_id=call_session_id,
        ended_unix_ns=ended_unix_ns,
        issued_unix_ns=issued_unix_ns or None,
    )


class _NewestFn(beam.CombineFn):
    def create_accumulator(self) -> _Ranked | None:
        return None

    def add_input(self, newest: _Ranked | None, found: _Ranked) -> _Ranked:
        return found if newest is None or found > newest else newest

    def merge_accumulators(self, accumulators: Iterable[_Ranked | None]) -> _Ranked | None:
        return max((found for found in accumulators if found is not None), default=None)

    def extract_output(self, newest: _Ranked | None) -> _Ranked | None:
        return newest


_Numbered = tuple[tuple[int, int], ManifestObject]
"""An object to be read, behind the number of its manifest and its own in that."""


class _ListFn(RunFn):
    def each(self, numbered: tuple[int, ManifestSource]) -> Iterator[Any]:
        number, source = numbered
        try:
            for own_number, found in enumerate(objects_of(source)):
                yield (number, own_number), found
        except RecordingError as error:
            yield from _not_read(source.shown, error, self.run)


class _ReadFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._entries = Metrics.counter(ReadManifests, "entries")
        self._failures = Metrics.counter(ReadManifests, "failures")

    def start_bundle(self) -> None:
        self._told: set[str] = set()

    def each(self, numbered: _Numbered) -> Iterator[Any]:
        order, found = numbered
        yield beam.pvalue.TaggedOutput(READ, (found.shown,))
        left_out: dict[str, int] = {}
        try:
            for number, each in enumerate(read_object(found)):
                if isinstance(each, LeftOut):
                    left_out[each] = left_out.get(each, 0) + 1
                elif isinstance(each, BadEntry):
                    self._failures.inc()
                    yield _failed(found.shown, to_error(each, found.shown), self.run)
                else:
                    yield from self._take(each, order, number)
        except RecordingError as error:
            self._failures.inc()
            yield from _not_read(found.shown, error, self.run)
        if left_out:
            yield beam.pvalue.TaggedOutput(LEFT_OUT, left_out)

    def _take(self, entry: ManifestEntry, order: tuple[int, int], number: int) -> Iterator[Any]:
        if not wants_entry(entry, self.job.filters):
            if entry.call_cid not in self._told and len(self._told) < _UNWANTED_TOLD:
                self._told.add(entry.call_cid)
                yield beam.pvalue.TaggedOutput(UNWANTED, entry.call_cid)
            return
        self._entries.inc()
        yield entry.uri, _to_tuple(entry, order, number)


def wants_entry(entry: ManifestEntry, filters: Filters) -> bool:
    """Whether an entry may be of a call that is wanted: by its manifest, where that says."""
    return not entry.call_cid or filters.wants_cid(entry.call_cid)


def to_error(entry: BadEntry, shown: str) -> ArchiveError:
    """Returns an entry that cannot be read as the error that its failure is of."""
    where = ": ".join(filter(None, (shown, entry.position)))
    return ArchiveError(f"{where}: {entry.why}", member=entry.position or None)


def _not_read(
    shown: str, error: RecordingError, run: RunIdentity
) -> Iterator[beam.pvalue.TaggedOutput]:
    """Yields the failure of a manifest as a whole. Where it is the store's or the service's, nobody
    knows what else it names: that ends the run with 1, each night anew.
    """
    yield _failed(shown, error, run)
    if isinstance(error, StorageError):
        yield beam.pvalue.TaggedOutput(LEFT_OUT, {NOT_READ: 1})


def _failed(shown: str, error: RecordingError, run: RunIdentity) -> beam.pvalue.TaggedOutput:
    progress.add("archives")
    progress.add("failures")
    failure: Failure = to_failure(
        Stage.READ_MANIFESTS,
        error,
        archive_uri=shown,
        archive_modified_unix_ns=run.started_unix_ns,  # a manifest is not known by its date
    )
    return beam.pvalue.TaggedOutput(FAILURES, failure)
