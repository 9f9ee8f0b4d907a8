"""The main job: raw archives -> MKV per participant, MP3 per call, Parquet catalogs.

    callpress run --input 'raw/*.tar.gz' --output ./pressed
    callpress run --input 'gs://bucket/raw/**' --output gs://bucket/pressed \
        --runner=DataflowRunner --project=my-project --region=europe-west1 \
        --temp_location=gs://bucket/tmp --setup_file=./setup.py

`build` wires the transforms; `pipelines.run` checks the arguments and runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam

from transforms import (
    extract_tracks,
    list_archives,
    mix_calls,
    plan_calls,
    read_manifests,
    record_archives,
    unpack_archives,
)
from transforms.begin_run import BeginRun, LookBack
from transforms.choose_archives import ChooseArchives, ReadPortions
from transforms.composites.find_prior_rows import FindPriorRows
from transforms.context import JobSettings, RunIdentity
from transforms.copy_archives import CopyArchives
from transforms.elements import ArchiveRef, Failure, PutOffArchive
from transforms.engine.run_fn import RunInput
from transforms.extract_tracks import ExtractTracks
from transforms.list_archives import ListArchives
from transforms.look_at_archives import LookAtArchives
from transforms.match_filters import MatchFilters
from transforms.mix_calls import MixCalls
from transforms.plan_calls import PlanCalls
from transforms.proof import at_end
from transforms.read_manifests import KeepLinks, KeepNamed, ReadLinks, ReadManifests
from transforms.recall_archives import FindRecalled, RecallArchives
from transforms.record_archives import RecordArchives
from transforms.recovery.take_up import TakenUp
from transforms.skip_processed import SkipProcessed
from transforms.take_up_completed import TakeUpCompleted
from transforms.unpack_archives import UnpackArchives
from transforms.write_catalog import WriteCatalog

_CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
_TOLD_COLUMNS = ("part", "filename", "sha256")
"""By which a file that is replaced is known to those who are told."""
_TRACK_COLUMNS = (*_CALL_COLUMNS, "participant_id", "user_session_id", "output_type")


def build(
    pipeline: beam.Pipeline, patterns: Sequence[str], job: JobSettings
) -> beam.PCollection[dict[str, object]]:
    """Wires one run into `pipeline`; returns the collection that holds its result, one element.

    Args:
      pipeline: empty.
      patterns: what to press: files, folders, globs.
      job: where to and how.
    """
    locked = pipeline | "BeginRun" >> BeginRun(job)
    taken = (
        locked | "TakeUpCompleted" >> TakeUpCompleted(job)
        if job.takes_up
        else pipeline | "NothingToTakeUp" >> beam.Create([TakenUp(0, ())])
    )
    run = beam.pvalue.AsSingleton((locked, taken) | "LookBack" >> LookBack(job))
    listed = pipeline | "ListArchives" >> ListArchives(patterns, job, run)
    found = listed[list_archives.ARCHIVES]
    failures = listed[list_archives.FAILURES]
    named = pipeline | "ReadManifests" >> ReadManifests(job, run) if job.manifests else None
    compared = (
        found if named is None else (found, named[read_manifests.ENTRIES])
    ) | "SkipProcessed" >> SkipProcessed(job, run)
    todo = compared.todo
    of_manifests: dict[str, beam.PCollection[Any]] = {}
    told = {"left_out": listed[list_archives.LEFT_OUT], "repressing": compared.repressing}
    counts = [found | "CountArchives" >> beam.Map(lambda _: 1)]
    if named is not None:
        todo, too_old = todo | "LookAtArchives" >> LookAtArchives(job, run)
        failures = (failures, named[read_manifests.FAILURES]) | "AllNotToBeRead" >> beam.Flatten()
        counts += [compared.named, too_old | "CountTooOld" >> beam.Map(lambda _: -1)]
        told["passed_over"] = named[read_manifests.LEFT_OUT]
        if at_end.is_told(job.filters):
            told["named"] = named[read_manifests.ENTRIES] | "KeepNamed" >> KeepNamed(job, run)
        of_manifests = {
            "links": named[read_manifests.ENTRIES] | "KeepLinks" >> KeepLinks(job, run),
            "unwanted": named[read_manifests.UNWANTED],
            "read": named[read_manifests.READ],
        }
    chosen = todo | "ChooseArchives" >> ChooseArchives(job, run)
    touched = (
        todo | "TouchedArchives" >> beam.Map(lambda ref: (ref.uri,)),
        failures | "NotToBeRead" >> beam.Map(lambda failure: (failure.archive_uri,)),
        *((of_manifests.pop("read"),) if of_manifests else ()),
        # What an earlier run said of a folder it could not list holds no more.
        # All that lies in it may be done, and nothing else of it come this way.
        found | "FoldersAbove" >> beam.ParDo(list_archives.FoldersAboveFn()),
    ) | "TouchedByListing" >> beam.Flatten()
    # Those too that could not be looked at: what becomes of them is counted with the others.
    counts.append(failures | "CountOthers" >> beam.Map(lambda _: 1))
    told["listed"] = tuple(counts) | "AllListed" >> beam.Flatten()
    work = _Work(
        todo=chosen.todo,
        put_off=chosen.put_off,
        touched=touched,
        failures=failures,
        skipped=compared.skipped,
        **of_manifests,
    )
    return _press(work, told, job, run)


def build_portions(
    pipeline: beam.Pipeline, job: JobSettings, run: RunIdentity, numbers: range
) -> beam.PCollection[dict[str, object]]:
    """Wires later portions of a run into `pipeline`, to be pressed together; returns the collection
    that holds the run's result when they are the last, nothing else.

    Args:
      pipeline: empty.
      job: where to and how.
      run: the one that is at work.
      numbers: of the portions.
    """
    todo = pipeline | "ReadPortions" >> ReadPortions(job, run, numbers)

    def nothing(name: str) -> beam.PCollection[Any]:
        return pipeline | f"No{name}" >> beam.Create([])

    work = _Work(
        todo=todo,
        put_off=nothing("PutOff"),
        touched=todo | "TouchedArchives" >> beam.Map(lambda ref: (ref.uri,)),
        failures=nothing("Failures"),
        skipped=nothing("Skipped"),
        links=pipeline | "ReadLinks" >> ReadLinks(job, run) if job.manifests else None,
    )
    told = {
        "listed": nothing("Listed"),
        "left_out": nothing("LeftOut"),
        "repressing": nothing("Repressing"),
    }
    return _press(work, told, job, replace(run, portion_number=numbers[-1]))


class _Work(NamedTuple):
    """What is to be pressed, and what else is known before."""

    todo: beam.PCollection[ArchiveRef]
    put_off: beam.PCollection[PutOffArchive]
    touched: beam.PCollection[tuple[str]]
    """As keys: the archives, and what else has rows to be looked at."""
    failures: beam.PCollection[Failure]
    skipped: beam.PCollection[tuple[str, ...]]
    links: beam.PCollection[tuple[str, str]] | None = None
    """With manifests, by the URI of an archive what opens it."""
    unwanted: beam.PCollection[str] | None = None
    """With manifests, cids of calls that are not wanted."""


def _press(
    work: _Work, told: dict[str, beam.PCollection[Any]], job: JobSettings, run: RunInput
) -> beam.PCollection[dict[str, object]]:
    """Wires all that follows once it is known what to press.

    Args:
      work: that.
      told: what only the result tells.
      job, run: for whom.
    """
    todo = work.todo
    if job.copy_raw_uri:
        todo = todo | "CopyArchives" >> CopyArchives(job, run)
    unpacked = todo | "UnpackArchives" >> _with_memory(UnpackArchives(job, run), job)

    touched = (
        unpacked.parts
        | "TouchedCalls" >> beam.Map(lambda part: part.call.as_tuple())
        | "EachCallOnce" >> beam.Distinct()
    )
    wanted = {
        "calls": (*_CALL_COLUMNS, "timeline_start_time", "archive_uris"),
        "tracks": (*_TRACK_COLUMNS, "status"),
        "recordings": (
            *(*_TRACK_COLUMNS, "recording_type", "start_time", "uri"),
            *(_TOLD_COLUMNS if job.notify.targets else ()),
        ),
    }
    prior = touched | "FindPriorRows" >> FindPriorRows(job, wanted, _CALL_COLUMNS)
    wanted_again = (unpacked.parts, prior["calls"]) | "RecallArchives" >> RecallArchives()
    touched_archives = (
        work.touched,
        wanted_again | "EarlierArchives" >> beam.Map(lambda recalled: (recalled[0],)),
    ) | "KeysOfArchives" >> beam.Flatten()
    of_them = {
        "archives": ("archive_uri", "fingerprint", "size_bytes", "modified_time", "copy_uri"),
        "failures": ("archive_uri", *_CALL_COLUMNS, "stage"),
    }
    of_archives = touched_archives | "FindPriorArchives" >> FindPriorRows(
        job, of_them, ("archive_uri",)
    )
    earlier = {
        "wanted": wanted_again,
        "rows": of_archives["archives"],
        **({"links": work.links} if work.links is not None else {}),
    } | "FindRecalled" >> FindRecalled(job)
    recalled = earlier | "UnpackRecalled" >> _with_memory(UnpackArchives(job, run), job)

    planned = {
        "parts": (unpacked.parts, recalled.parts) | "AllParts" >> beam.Flatten(),
        **{table: prior[table] for table in wanted},
        "failures": recalled[unpack_archives.FAILURES],
    } | "PlanCalls" >> PlanCalls(job, run)
    extracted = (
        planned.plans
        | "TracksOfPlan" >> beam.FlatMap(lambda plan: plan.sources)
        | "ExtractTracks" >> ExtractTracks(job, run)
    )
    before_mix = (
        work.failures,
        unpacked[unpack_archives.FAILURES],
        recalled[unpack_archives.FAILURES],
        planned[plan_calls.FAILURES],
        extracted[extract_tracks.FAILURES],
    ) | "FailuresSoFar" >> beam.Flatten()
    mixed = (planned.plans, extracted.tracks, before_mix) | "MixCalls" >> _with_memory(
        MixCalls(job, run), job
    )

    prior_archives = (
        tuple(of_archives[table] for table in of_them) | "PriorArchives" >> beam.Flatten()
    )
    recorded = (
        unpacked[unpack_archives.ARCHIVES],
        (mixed[mix_calls.OUTCOMES], planned[plan_calls.PUT_OFF]) | "AllOutcomes" >> beam.Flatten(),
        before_mix,
        prior_archives,
        (work.put_off, unpacked[unpack_archives.PUT_OFF]) | "AllPutOff" >> beam.Flatten(),
    ) | "RecordArchives" >> RecordArchives(job, run)

    failures = (
        before_mix | "WithoutCall" >> beam.Filter(lambda failure: failure.call is None),
        mixed.calls | "OfCalls" >> beam.FlatMap(lambda call: call.failures),
    ) | "AllFailures" >> beam.Flatten()
    named = {}
    if job.filters.named:
        named["unmatched"] = (
            (unpacked.parts, recalled.parts) | "PartsToMatch" >> beam.Flatten(),
            unpacked[unpack_archives.ARCHIVES],
            work.skipped,
            *((work.unwanted,) if work.unwanted is not None else ()),
        ) | "MatchFilters" >> MatchFilters(job)
    return {
        **named,
        "sections": (mixed[mix_calls.SECTIONS], recorded[record_archives.SECTIONS])
        | "AllSections" >> beam.Flatten(),
        "calls": mixed.calls,
        "unpublished": mixed[mix_calls.UNPUBLISHED],
        "archives": recorded.archives,
        "failures": failures,
        "skipped": work.skipped,
        **told,
    } | "WriteCatalog" >> WriteCatalog(job, run)


def _with_memory(transform: beam.PTransform, job: JobSettings) -> beam.PTransform:
    """Returns a transform whose steps ask for machines of so much memory as the job says."""
    if job.worker_memory_bytes is None:
        return transform
    return transform.with_resource_hints(min_ram=f"{job.worker_memory_bytes}B")
