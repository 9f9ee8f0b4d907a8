"""PlanCalls: the parts of a call session from all its archives -> one plan: time zero, tracks, what
is to be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from transforms.catalog import pending_replacement
from transforms.context import JobSettings
from transforms.elements import (
    PriorCall,
    PriorFile,
    Row,
    Stage,
    Status,
    TrackIds,
    put_off,
)
from transforms.engine import progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.media.wall_time import from_time
from transforms.notices.rows import file_ids
from transforms.pressing.plan_call import plan_call

FAILURES = "failures"
PUT_OFF = "put_off"


class PlanCalls(beam.PTransform):
    """Input: `TrackPart`, prior rows of `calls`, `tracks` and `recordings`, `Failure` of recalled
    archives.

    Output: `CallPlan` (main), `Failure` (`failures`), and where the run was to start no more
    `ArchiveOutcome` (`put_off`) instead. Groups by the call session. Writes the note
    that a call of the catalog is being replaced (`pending_replacement`), the same each time; memory
    grows with the parts of one call, a few hundred bytes each, some thousand where much happened.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, inputs: dict[str, beam.PCollection[Any]]) -> beam.pvalue.DoOutputsTuple:
        keyed = {
            "parts": inputs["parts"]
            | "KeyPartsByCall" >> beam.Map(lambda part: (part.call.as_tuple(), part)),
            "missing": inputs["failures"]
            | "KeepRecalled"
            >> beam.Filter(
                lambda failure: failure.stage == Stage.RECALL_ARCHIVES and failure.call is not None
            )
            | "KeyFailuresByCall"
            >> beam.Map(lambda failure: (failure.call.as_tuple(), failure.archive_uri)),
        }
        for table in ("calls", "tracks", "recordings"):
            keyed[table] = inputs[table] | f"Key{table.title()}ByCall" >> beam.Map(
                lambda row: ((row["call_type"], row["call_id"], row["call_session_id"]), row)
            )
        return (
            keyed
            | "GroupByCall" >> beam.CoGroupByKey()
            | "Plan"
            >> beam.ParDo(_PlanFn(self._job), self._run).with_outputs(
                FAILURES, PUT_OFF, main="plans"
            )
        )


class _PlanFn(RunFn):
    def each(self, group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]]) -> Iterator[Any]:
        _, found = group
        parts = sorted(
            found["parts"], key=lambda part: (part.first_server_unix_ns, part.archive_uri)
        )
        if not parts:
            # A call of the catalog, or of a failure, that no archive of this run speaks of.
            return
        if self.job.bounds.is_over(self.run.started_unix_ns):
            for uri in sorted({part.archive_uri for part in parts}):
                yield beam.pvalue.TaggedOutput(PUT_OFF, put_off(uri))
            return
        missing = tuple(sorted(set(found["missing"])))
        prior = _prior_call(found, is_told=bool(self.job.notify.targets))
        plan, failures = plan_call(parts, prior, missing, self.job.settings, self.job.filters)
        if plan.has_prior:
            pending_replacement.announce(
                self.job.catalog_uri,
                plan.call,
                plan.archive_uris,
                prior.media_uris if prior else (),
            )
        for failure in failures:
            progress.add("failures")
            yield beam.pvalue.TaggedOutput(FAILURES, failure)
        progress.add("calls_found")
        progress.add("samples_found", sum(source.media_samples for source in plan.sources))
        yield plan


def _prior_call(found: dict[str, Iterable[Any]], *, is_told: bool) -> PriorCall | None:
    """Returns what the catalog has of a call, None for nothing. Args: is_told: whether somebody is
    told of what replaces its files: then the rows say what these are.
    """
    row: Row | None = next(iter(found["calls"]), None)
    if row is None:
        return None
    recordings = list(found["recordings"])
    start = row["timeline_start_time"]
    mix_starts = [
        from_time(r["start_time"]) for r in recordings if r["recording_type"] == "composite"
    ]
    return PriorCall(
        timeline_start_unix_ns=None if start is None else from_time(start),
        tracks=tuple(
            sorted({_ids(r) for r in found["tracks"] if r["status"] in (Status.OK, Status.PARTIAL)})
        ),
        files=tuple(sorted({_ids(r) for r in recordings if r["recording_type"] == "individual"})),
        mix_start_unix_ns=mix_starts[0] if mix_starts else None,
        first_start_unix_ns=min((from_time(r["start_time"]) for r in recordings), default=None),
        media_uris=tuple(sorted(r["uri"] for r in recordings)),
        recordings=tuple(map(_prior_file, recordings)) if is_told else (),
    )


def _prior_file(row: Row) -> PriorFile:
    return PriorFile(ids=file_ids(row), filename=row["filename"], sha256=row["sha256"])


def _ids(row: Row) -> TrackIds:
    return (row["participant_id"], row["user_session_id"], row["output_type"])
