"""TakeUpCompleted: the run -> what killed runs had completed is in the catalog, and their staging
gone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from transforms.catalog import pending_replacement
from transforms.catalog.bundles import Bundle, DamagedBundleError, WrittenBundle
from transforms.composites.find_prior_rows import FindPriorRows
from transforms.composites.merge_rows import MergeRows
from transforms.composites.sweep_staging import SweepStaging
from transforms.context import JobSettings, RunIdentity
from transforms.elements import PressedCall, Row, Status
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import ParallelRunFn, RunFn
from transforms.media.errors import StorageError
from transforms.media.values import CallKey
from transforms.recovery import completed_work, take_up
from transforms.recovery.take_up import FoundCall, TakenUp

logger = logging.getLogger(__name__)

_BUNDLES = "bundles"
_ARCHIVES = "archives"
_SECTIONS = "sections"
_UNREAD = "unread"
_ARCHIVES_PER_BUNDLE = 500
_CALL = ("call_type", "call_id", "call_session_id")
_Key = tuple[str, ...]


class TakeUpCompleted(beam.PTransform):
    """Input: `RunIdentity`, one, which has the catalog's lock. Output: `TakenUp`, one.

    Publishes the rows of all that dead runs had completed with these settings, in the order of
    `catalog.publish`, and sweeps their staging. A call counts when no later run has written rows of
    it and its note holds (`recovery.take_up`); an archive when all its calls do. Of a call that is
    noted more than once the newest note counts.

    Parallel over bundles, in which files are looked at and hashed; then as `MergeRows` and
    `SweepStaging`. What cannot be read now stays for the next run. Rows are staged again, those
    that count alone. Memory is a bundle, and done again it publishes the same rows.
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(self, runs: beam.PCollection[RunIdentity]) -> beam.PCollection[TakenUp]:
        job, run = self._job, beam.pvalue.AsSingleton(runs)
        dead = runs | "LookForDeadRuns" >> beam.FlatMap(_look, job).with_outputs(
            _BUNDLES, main="folders"
        )
        noted = break_fusion(dead[_BUNDLES], "SpreadBundles", job) | "LookAtCalls" >> beam.ParDo(
            _LookFn(job), run
        ).with_outputs(_ARCHIVES, _UNREAD, main="calls")
        chosen = self._choose(noted.calls)
        calls = (
            chosen
            | "KeyByBundle" >> beam.Map(lambda found: (found.bundle_uri, found))
            | "GroupByBundle" >> beam.GroupByKey()
            | "StageCalls" >> beam.ParDo(_StageFn(job), run).with_outputs(_SECTIONS, main="calls")
        )
        archives = self._take_archives(noted[_ARCHIVES], chosen, run)
        sections = (calls[_SECTIONS], archives[_SECTIONS]) | "AllSections" >> beam.Flatten()
        published = (sections, calls.calls) | "MergeRows" >> MergeRows(job, run)
        done = (
            published.merged | "Merged" >> beam.Map(_nothing),
            published.deleted | "Deleted" >> beam.Map(_nothing),
            published.settled | "Settled" >> beam.Map(_nothing),
            published.kept | "Kept" >> beam.Map(_nothing),
        ) | "AllPublished" >> beam.Flatten()
        swept = (
            dead.folders
            | "WhenPublished" >> beam.Map(_after, beam.pvalue.AsIter(done))
            | "ButUnread"
            >> beam.Filter(
                lambda folder, unread: folder not in unread, beam.pvalue.AsIter(noted[_UNREAD])
            )
            | "SweepStaging" >> SweepStaging(job, run)
        )
        taken = (
            calls.calls | "CountCalls" >> beam.Map(lambda _: TakenUp(1, ())),
            archives.archives | "CountArchives" >> beam.Map(_count_archive),
        ) | "AllTaken" >> beam.Flatten()
        return (
            taken
            | "SumTaken" >> beam.CombineGlobally(_sum)
            | "WhenSwept" >> beam.Map(_after, beam.pvalue.AsIter(swept))
        )

    def _choose(
        self, found: beam.PCollection[tuple[_Key, FoundCall]]
    ) -> beam.PCollection[FoundCall]:
        prior = (
            found
            | "KeysOfCalls" >> beam.Keys()
            | "FindPriorCalls" >> FindPriorRows(self._job, {"calls": (*_CALL, "created_at")}, _CALL)
        )
        keyed = prior["calls"] | "KeyPriorCalls" >> beam.Map(
            lambda row: (tuple(row[name] for name in _CALL), row)
        )
        return (
            {"found": found, "prior": keyed}
            | "GroupByCall" >> beam.CoGroupByKey()
            | "Choose" >> beam.FlatMap(_choose)
        )

    def _take_archives(
        self,
        noted: beam.PCollection[tuple[str, Any]],
        chosen: beam.PCollection[FoundCall],
        run: beam.pvalue.AsSingleton,
    ) -> beam.pvalue.DoOutputsTuple:
        columns = {
            "archives": ("archive_uri", "created_at"),
            "failures": ("archive_uri", "call_session_id"),
        }
        prior = (
            noted
            | "KeysOfArchives" >> beam.Map(lambda each: (each[0],))
            | "FindPriorArchives" >> FindPriorRows(self._job, columns, ("archive_uri",))
        )
        rows = tuple(prior[table] for table in columns) | "PriorArchives" >> beam.Flatten()
        return (
            {
                "noted": noted,
                "shares": chosen | "SharesOfArchives" >> beam.FlatMap(take_up.shares_of),
                "prior": rows
                | "KeyPriorArchives" >> beam.Map(lambda row: (row["archive_uri"], row)),
            }
            | "GroupByArchive" >> beam.CoGroupByKey()
            | "TakeArchives"
            >> beam.ParDo(_TakeArchivesFn(self._job), run).with_outputs(_SECTIONS, main="archives")
        )


def _look(run: RunIdentity, job: JobSettings) -> Iterator[Any]:
    for folder, bundles in sorted(take_up.look_for_dead_runs(job, run).items()):
        yield folder
        for uri in bundles:
            yield beam.pvalue.TaggedOutput(_BUNDLES, uri)


class _LookFn(ParallelRunFn):
    """Reads a bundle, and looks what of its notes holds."""

    def work(self, bundle_uri: str) -> Iterator[Any]:
        try:
            bundle = WrittenBundle(bundle_uri)
            found = list(take_up.find_calls(bundle_uri, bundle, self.job))
        except DamagedBundleError as error:
            logger.warning("what a run had completed is pressed again: %s", error.message)
            return
        except StorageError as error:
            # Of calls whose archives are gone by now it is all there is.
            logger.warning("what a run had completed is left to the next run: %s", error.message)
            yield beam.pvalue.TaggedOutput(_UNREAD, bundle_uri.rsplit("/", 2)[0])
            return
        for call in found:
            yield call.completed.pressed.call.as_tuple(), call
        for archive in completed_work.archives_in(bundle):
            yield beam.pvalue.TaggedOutput(_ARCHIVES, (archive.summary.ref.uri, archive))


def _choose(group: tuple[_Key, dict[str, Iterable[Any]]]) -> Iterator[FoundCall]:
    _, by_name = group
    prior: list[Row] = list(by_name["prior"])
    if (chosen := take_up.choose_call(by_name["found"], prior)) is not None:
        yield chosen


class _StageFn(RunFn):
    """Stages the rows of the chosen calls of a bundle."""

    def start_bundle(self) -> None:
        self._noted: set[CallKey] | None = None

    def each(self, group: tuple[str, Iterable[FoundCall]]) -> Iterator[Any]:
        bundle_uri, found = group
        calls: dict[_Key, PressedCall] = {
            each.completed.pressed.call.as_tuple(): each.completed.pressed for each in found
        }
        bundle = Bundle()
        for rows in WrittenBundle(bundle_uri).owned_by(calls).values():
            bundle.add(rows)
        for section in bundle.write(self.run.staging_uri):
            yield beam.pvalue.TaggedOutput(_SECTIONS, section)
        if self._noted is None:
            notes = pending_replacement.calls_to_repeat(self.job.catalog_uri)
            self._noted = {call for call, _ in notes}
        for pressed in calls.values():
            # verify --repair may have asked for it since.
            yield replace(pressed, replaces_prior=pressed.call in self._noted)


class _TakeArchivesFn(RunFn):
    """Stages the rows of archives of which all calls are taken up."""

    def start_bundle(self) -> None:
        self._bundle = Bundle()

    def each(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        _, found = group
        noted, shares, prior = (list(found[name]) for name in ("noted", "shares", "prior"))
        taken = take_up.take_archive(noted, shares, prior, self.job, self.run)
        if taken is None:
            return
        self._bundle.add(taken.rows)
        if self._bundle.count >= _ARCHIVES_PER_BUNDLE:
            yield from self._flush()
        yield taken.status, taken.is_first_time

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._flush():
            yield beam.pvalue.TaggedOutput(output.tag, GlobalWindows.windowed_value(output.value))

    def _flush(self) -> Iterator[beam.pvalue.TaggedOutput]:
        bundle, self._bundle = self._bundle, Bundle()
        if bundle.count:
            for section in bundle.write(self.run.staging_uri):
                yield beam.pvalue.TaggedOutput(_SECTIONS, section)


def _nothing(_: Any) -> None:
    return None


def _after(element: Any, _done: Iterable[Any]) -> Any:
    """Returns the element, once all of another collection is there."""
    return element


def _count_archive(archive: tuple[Status, bool]) -> TakenUp:
    status, is_first_time = archive
    return TakenUp(0, ((status, 1),) if is_first_time else ())


def _sum(found: Iterable[TakenUp]) -> TakenUp:
    calls = 0
    archives: Counter[Status] = Counter()
    for each in found:
        calls += each.calls
        archives.update(dict(each.archives))
    return TakenUp(calls, tuple(sorted(archives.items())))
