"""LookAtArchives: archives that manifests name -> the same, with what their stores say of them."""

from __future__ import annotations

import queue
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows

from transforms.context import JobSettings
from transforms.elements import ArchiveRef
from transforms.engine import progress
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.media.errors import RecordingError
from transforms.sources import archive_files, raw_copies

TOO_OLD = "too_old"
_AT_A_TIME = 32
"""Archives a worker looks at: each is a request, most of it waiting."""
_OF_A_PLACE = 8
"""Of them, in one bucket or on one host: one that is slow leaves threads to the others."""
_LOOK_AHEAD = 2_000
"""Archives that are held, a kB each."""


class LookAtArchives(beam.PTransform):
    """Input: `ArchiveRef`. Output: the same, of which those that nobody had looked at have
    size, modification and fingerprint now; a number for each that is older than what the run is
    about.

    One that cannot be looked at goes on without size, to fail where it is unpacked. One with a copy
    that is there is taken as the catalog knows it, without a request to its source. Looks at many
    at a time, and not at all of a slow place; memory grows with a bounded number of them.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(
        self, archives: beam.PCollection[ArchiveRef]
    ) -> tuple[beam.PCollection[ArchiveRef], beam.PCollection[int]]:
        spread = break_fusion(archives, "SpreadArchives", self._job)
        looked = spread | "LookAt" >> beam.ParDo(_LookFn(self._job), self._run).with_outputs(
            TOO_OLD, main="archives"
        )
        return looked.archives, looked[TOO_OLD]


@dataclass(slots=True)
class _Place:
    """A bucket or host, and those of its archives that wait to be looked at."""

    waiting: deque[ArchiveRef] = field(default_factory=deque)
    at_work: int = 0


class _LookFn(RunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._looked_at = Metrics.counter(LookAtArchives, "archives_looked_at")

    def setup(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix=type(self).__name__)

    def teardown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start_bundle(self) -> None:
        self._places: defaultdict[str, _Place] = defaultdict(_Place)
        self._with_waiting: dict[str, _Place] = {}
        self._results: queue.SimpleQueue[_Looked | BaseException] = queue.SimpleQueue()
        self._held = self._at_work = 0

    def each(self, ref: ArchiveRef) -> Iterator[Any]:
        if not ref.is_unseen:
            yield ref
            return
        name = _place_of(ref.uri)
        self._places[name].waiting.append(ref)
        self._with_waiting[name] = self._places[name]
        self._held += 1
        self._begin()
        while self._held >= _LOOK_AHEAD or not self._results.empty():
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        while self._held:
            for output in self._next():
                if isinstance(output, beam.pvalue.TaggedOutput):
                    windowed = GlobalWindows.windowed_value(output.value)
                    yield beam.pvalue.TaggedOutput(output.tag, windowed)
                else:
                    yield GlobalWindows.windowed_value(output)

    def _begin(self) -> None:
        """Gives threads to the places that have archives waiting, until none is free."""
        for name, place in list(self._with_waiting.items()):
            while place.waiting and place.at_work < _OF_A_PLACE and self._at_work < _AT_A_TIME:
                place.at_work += 1
                self._at_work += 1
                self._pool.submit(self._look, name, place.waiting.popleft())
            if not place.waiting:
                del self._with_waiting[name]

    def _look(self, place: str, ref: ArchiveRef) -> None:
        try:
            with lease_of(self.job, self.run).at_work():
                self._results.put(_Looked(place, ref, look_at(ref)))
        except BaseException as error:
            self._results.put(error)

    def _next(self) -> Iterator[Any]:
        found = self._results.get()
        self._held -= 1
        self._at_work -= 1
        if isinstance(found, BaseException):
            raise found
        self._places[found.place].at_work -= 1
        self._begin()
        since = self.run.since_unix_ns
        is_wanted_for_long = found.seen.is_waiting and not self.job.filters.is_about_a_part
        if since is not None and found.seen.modified_unix_ns <= since and not is_wanted_for_long:
            progress.add("archives_found", -1)
            progress.add("bytes_found", -found.before.size_bytes)
            yield beam.pvalue.TaggedOutput(TOO_OLD, 1)
            return
        self._looked_at.inc()
        progress.add("bytes_found", found.seen.size_bytes - found.before.size_bytes)
        yield found.seen


@dataclass(frozen=True, slots=True)
class _Looked:
    place: str
    before: ArchiveRef
    seen: ArchiveRef


def look_at(ref: ArchiveRef) -> ArchiveRef:
    """Returns an archive with what its store says of it; without a size where it says nothing."""
    ref = replace(ref, is_unseen=False)
    if ref.copy_uri and not raw_copies.is_gone(ref.copy_uri, ref.size_bytes):
        return ref
    try:
        listed = archive_files.look_at(ref.source)
    except RecordingError:  # it will be told of where it is unpacked
        return replace(ref, size_bytes=0)
    if ref.fingerprint != listed.fingerprint:  # it is news
        ref = replace(ref, attempt=1, is_known_failure=False, copy_uri="")
    return replace(
        ref,
        size_bytes=listed.size_bytes,
        modified_unix_ns=ref.modified_unix_ns if ref.is_dated else listed.modified_unix_ns,
        fingerprint=listed.fingerprint,
    )


def _place_of(uri: str) -> str:
    """Returns the bucket or host that an archive lies in."""
    return "/".join(uri.split("/", 3)[:3])
