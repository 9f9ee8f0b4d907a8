"""The main job: raw archives -> MKV per participant, MP3 per call, Parquet catalogs.

    callpress run --input 'raw/*.tar.gz' --output ./pressed
    callpress run --input 'gs://bucket/raw/**' --output gs://bucket/pressed \
        --runner=DataflowRunner --project=my-project --region=europe-west1 \
        --temp_location=gs://bucket/tmp --setup_file=./setup.py

`build` wires the transforms; `pipelines.run` checks the arguments and runs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam

from transforms import (
    extract_tracks,
    list_archives,
    mix_calls,
    plan_calls,
    record_archives,
    unpack_archives,
)
from transforms.begin_run import BeginRun, LookBack
from transforms.choose_archives import ChooseArchives
from transforms.composites.find_prior_rows import FindPriorRows
from transforms.context import JobSettings
from transforms.extract_tracks import ExtractTracks
from transforms.list_archives import ListArchives
from transforms.match_filters import MatchFilters
from transforms.mix_calls import MixCalls
from transforms.plan_calls import PlanCalls
from transforms.recall_archives import RecallArchives
from transforms.record_archives import RecordArchives
from transforms.skip_processed import SkipProcessed
from transforms.take_up_completed import TakeUpCompleted
from transforms.unpack_archives import UnpackArchives
from transforms.write_catalog import WriteCatalog

_CALL_COLUMNS = ("call_type", "call_id", "call_session_id")
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
    taken = locked | "TakeUpCompleted" >> TakeUpCompleted(job)
    run = beam.pvalue.AsSingleton((locked, taken) | "LookBack" >> LookBack(job))
    listed = pipeline | "ListArchives" >> ListArchives(patterns, job, run)
    compared = listed[list_archives.ARCHIVES] | "SkipProcessed" >> SkipProcessed(job, run)
    chosen = compared.todo | "ChooseArchives" >> ChooseArchives(job, run)
    unpacked = chosen.todo | "UnpackArchives" >> UnpackArchives(job, run)

    touched = (
        unpacked.parts
        | "TouchedCalls" >> beam.Map(lambda part: part.call.as_tuple())
        | "EachCallOnce" >> beam.Distinct()
    )
    wanted = {
        "calls": (*_CALL_COLUMNS, "timeline_start_time", "archive_uris"),
        "tracks": (*_TRACK_COLUMNS, "status"),
        "recordings": (*_TRACK_COLUMNS, "recording_type", "start_time", "uri"),
    }
    prior = touched | "FindPriorRows" >> FindPriorRows(job, wanted, _CALL_COLUMNS)
    earlier = (unpacked.parts, prior["calls"]) | "RecallArchives" >> RecallArchives()
    recalled = earlier | "UnpackRecalled" >> UnpackArchives(job, run)

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
        listed[list_archives.FAILURES],
        unpacked[unpack_archives.FAILURES],
        recalled[unpack_archives.FAILURES],
        planned[plan_calls.FAILURES],
        extracted[extract_tracks.FAILURES],
    ) | "FailuresSoFar" >> beam.Flatten()
    mixed = (planned.plans, extracted.tracks, before_mix) | "MixCalls" >> MixCalls(job, run)

    touched_archives = (
        (compared.todo, earlier)
        | "OfNowAndEarlier" >> beam.Flatten()
        | "TouchedArchives" >> beam.Map(lambda ref: (ref.uri,)),
        listed[list_archives.FAILURES]
        | "NotToBeRead" >> beam.Map(lambda failure: (failure.archive_uri,)),
        # What an earlier run said of a folder it could not list holds no more.
        # All that lies in it may be done, and nothing else of it come this way.
        listed[list_archives.ARCHIVES]
        | "FoldersAbove" >> beam.ParDo(list_archives.FoldersAboveFn()),
    ) | "KeysOfArchives" >> beam.Flatten()
    of_them = {
        "archives": ("archive_uri", "fingerprint"),
        "failures": ("archive_uri", *_CALL_COLUMNS, "stage"),
    }
    of_archives = touched_archives | "FindPriorArchives" >> FindPriorRows(
        job, of_them, ("archive_uri",)
    )
    prior_archives = (
        tuple(of_archives[table] for table in of_them) | "PriorArchives" >> beam.Flatten()
    )
    recorded = (
        unpacked[unpack_archives.ARCHIVES],
        (mixed[mix_calls.OUTCOMES], planned[plan_calls.PUT_OFF]) | "AllOutcomes" >> beam.Flatten(),
        before_mix,
        prior_archives,
        (chosen.put_off, unpacked[unpack_archives.PUT_OFF]) | "AllPutOff" >> beam.Flatten(),
    ) | "RecordArchives" >> RecordArchives(job, run)

    failures = (
        before_mix | "WithoutCall" >> beam.Filter(lambda failure: failure.call is None),
        mixed.calls | "OfCalls" >> beam.FlatMap(lambda call: call.failures),
    ) | "AllFailures" >> beam.Flatten()
    # Those too that could not be looked at: what becomes of them is counted with the others.
    matched = (
        listed[list_archives.ARCHIVES] | "CountArchives" >> beam.Map(lambda _: 1),
        listed[list_archives.FAILURES] | "CountOthers" >> beam.Map(lambda _: 1),
    ) | "AllListed" >> beam.Flatten()
    named = {}
    if job.filters.named:
        named["unmatched"] = (
            (unpacked.parts, recalled.parts) | "PartsToMatch" >> beam.Flatten(),
            unpacked[unpack_archives.ARCHIVES],
            compared.skipped,
        ) | "MatchFilters" >> MatchFilters(job)
    return {
        **named,
        "sections": (mixed[mix_calls.SECTIONS], recorded[record_archives.SECTIONS])
        | "AllSections" >> beam.Flatten(),
        "calls": mixed.calls,
        "unpublished": mixed[mix_calls.UNPUBLISHED],
        "archives": recorded.archives,
        "failures": failures,
        "listed": matched,
        "left_out": listed[list_archives.LEFT_OUT],
        "repressing": compared.repressing,
        "skipped": compared.skipped,
    } | "WriteCatalog" >> WriteCatalog(job, run)
