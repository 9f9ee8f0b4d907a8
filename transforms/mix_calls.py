"""MixCalls: a call's plan, tracks and failures -> one MP3, and all the rows of the call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog.bundles import OwnedRows, owned
from transforms.catalog.gathering import Gathered
from transforms.catalog.output_names import call_folder
from transforms.catalog.publish import publish_media
from transforms.catalog.rows.calls import make_call_rows
from transforms.catalog.rows.dumps import (
    missing_failures,
    settle_between_archives,
    sums_of,
)
from transforms.catalog.rows.kept import Rows
from transforms.context import JobSettings, RunIdentity
from transforms.elements import (
    ArchiveOutcome,
    CallPlan,
    DroppedFile,
    ExtractedTrack,
    Failure,
    PressedCall,
    PutOffTrack,
    Stage,
    Status,
    failed_track,
    is_about_any,
    put_off,
    to_failure,
    track_ids_of,
    worst_failure,
)
from transforms.engine import progress
from transforms.engine.run_fn import ParallelRunFn, RunInput
from transforms.media.errors import ArchiveError
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.values import CallKey, OutputType
from transforms.notices.rows import failed_recording_type, pending_rows
from transforms.pressing.mix import MixOutcome, complete, mix, silent_accounts, tracks_of
from transforms.recovery import completed_work
from transforms.storage import uris

OUTCOMES = "outcomes"
UNPUBLISHED = "unpublished"
SECTIONS = "sections"
_HOUR_SAMPLES = 3_600 * SAMPLE_RATE_HZ
_LARGE_SAMPLES = 2 * _HOUR_SAMPLES
"""Two hours of media: about 20 s of decoding and mixing."""

Group = tuple[tuple[str, str, str], dict[str, Iterable[Any]]]
"""A call session's key, and by name the plans, tracks and failures of it."""


class MixCalls(beam.PTransform):
    """Input: `CallPlan`, `ExtractedTrack` or `PutOffTrack`, `Failure` with a call. Output:
    `PressedCall` (main), `ArchiveOutcome` (`outcomes`), and the `SectionRef` (`sections`) of the
    rows of all of them; of a call that is put off, which is one that the catalog does not have, the
    `DroppedFile` of each that was made (`unpublished`).

    Groups by the call session. Decodes and measures every track, writes the MP3 (if
    wanted) under a name that comes from ids, and the call's rows into staging: a retried bundle
    writes the same objects again. Parallel over calls; memory is a block of a second and a window
    of packets per track, in a codec process.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[CallPlan], beam.PCollection[ExtractedTrack], beam.PCollection[Failure]
        ],
    ) -> beam.pvalue.DoOutputsTuple:
        plans, tracks, failures = inputs
        return (
            {
                "plans": plans
                | "KeyPlansByCall" >> beam.Map(lambda plan: (plan.call.as_tuple(), plan)),
                "tracks": tracks
                | "KeyTracksByCall" >> beam.Map(lambda track: (track.track.call.as_tuple(), track)),
                "failures": failures
                | "KeepThoseOfCalls" >> beam.Filter(lambda failure: failure.call is not None)
                | "KeyFailuresByCall"
                >> beam.Map(lambda failure: (failure.call.as_tuple(), failure)),
            }
            | "GroupByCall" >> beam.CoGroupByKey()
            | "Mix"
            >> beam.ParDo(_MixFn(self._job), self._run).with_outputs(
                OUTCOMES, SECTIONS, UNPUBLISHED, main="calls"
            )
        )


class _MixFn(ParallelRunFn):
    def __init__(self, job: JobSettings) -> None:
        super().__init__(job)
        self._calls = Metrics.counter(MixCalls, "calls_pressed")
        self._samples = Metrics.counter(MixCalls, "media_samples")

    def count(self, output: Any) -> None:
        if isinstance(output, PressedCall):
            self._calls.inc()
            self._samples.inc(output.media_samples)

    def size(self, group: Group) -> int:
        return sum(source.media_samples for plan in group[1]["plans"] for source in plan.sources)

    def work(self, group: Group) -> Iterator[Any]:
        found = group[1]
        plan: CallPlan | None = next(iter(found["plans"]), None)
        if plan is None:
            # An earlier archive of a call that nothing of this run turned out to be about.
            return
        extracted = [track for track in found["tracks"] if not isinstance(track, PutOffTrack)]
        is_put_off = len(extracted) < len(list(found["tracks"]))
        if is_put_off or (not plan.has_prior and self.job.bounds.is_over(self.run.started_unix_ns)):
            progress.add("calls")
            yield from _put_off(plan, extracted)
            return
        # Threads cost some CPU, and a small call is done in seconds.
        share = self.share_of(group) if self.size(group) >= _LARGE_SAMPLES else None
        tracks = sorted(extracted, key=lambda extracted: extracted.track)
        failures = sorted(
            found["failures"],
            key=lambda f: (f.stage, f.archive_uri or "", f.member or "", f.message),
        )
        if self.job.filters.track_ids:
            tracks_wanted = tracks_of(plan)
            failures = [failure for failure in failures if is_about_any(failure, tracks_wanted)]
        failures, completed = complete(plan, failures)
        pressed, rows = _press(plan, tracks, failures, share, self.job, self.run)
        outcomes = tuple(
            _outcome(archive, tracks, pressed.failures, plan.call if archive in completed else None)
            for archive in plan.archive_uris
        )
        note = completed_work.note_of_call(
            self.job, self.run, pressed, outcomes, plan.archive_fingerprints
        )
        progress.add("calls")
        yield _CallWithRows(
            rows=owned(plan.call_date, rows, plan.call.as_tuple()),
            note=note,
            outputs=(
                pressed,
                *(beam.pvalue.TaggedOutput(OUTCOMES, outcome) for outcome in outcomes),
            ),
        )

    def start_bundle(self) -> None:
        super().start_bundle()
        self._gathered = Gathered()

    def give(self, outputs: list[Any]) -> Iterable[Any]:
        given = []
        for output in outputs:
            if isinstance(output, _CallWithRows):
                self._gathered.add(output.rows, output.note, output.outputs)
            else:
                given.append(output)
        return [*given, *(self.give_rest() if self._gathered.is_due else ())]

    def give_rest(self) -> Iterable[Any]:
        if self._gathered.is_empty:
            return ()
        # A call is given out when its rows are there.
        sections, outputs = self._gathered.write(self.run.staging_uri)
        return (*(beam.pvalue.TaggedOutput(SECTIONS, each) for each in sections), *outputs)

    def patience_seconds(self) -> float | None:
        return self._gathered.seconds_left


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallWithRows:
    """A call whose rows and note are to be staged with those of others."""

    rows: tuple[OwnedRows, ...]
    note: Mapping[str, bytes]
    outputs: tuple[Any, ...]
    """What waits for them."""


def _put_off(plan: CallPlan, extracted: Sequence[ExtractedTrack]) -> Iterator[Any]:
    """Yields what becomes of a call that is left to the next run."""
    for archive_uri in plan.archive_uris:
        yield beam.pvalue.TaggedOutput(OUTCOMES, put_off(archive_uri))
    for track in extracted:
        for media_uri in track.media_uris:
            yield beam.pvalue.TaggedOutput(UNPUBLISHED, DroppedFile(uri=media_uri))


def _press(
    plan: CallPlan,
    tracks: Sequence[ExtractedTrack],
    failures: Sequence[Failure],
    share: int | None,
    job: JobSettings,
    run: RunIdentity,
) -> tuple[PressedCall, Rows]:
    """Mixes a call; returns it, and its rows by table.

    Args:
      plan: of the call.
      tracks: those that were extracted, in order.
      failures: those known so far.
      share: how many cores are its own, if it is large enough for more than one; then it uses
        others that are free, too.
      job, run: for whom.

    Raises:
      StorageError: rows cannot be read.
    """
    told = {failed_track(failure) for failure in failures}
    left_out = _left_out(plan, tracks)
    failures = [*failures, *(f for f in left_out if failed_track(f) not in told)]

    def publish(name: str, made: Path) -> str:
        uri = uris.join(job.output_uri, "recordings", call_folder(plan.call), name)
        return publish_media(job, run, uri, made)

    # A mix of everybody is never replaced by one of fewer voices.
    makes_mix = plan.is_whole and not (left_out and plan.has_prior_mix)
    done = MixOutcome()
    if tracks:
        done = mix(
            plan, tracks, share, job.settings, run.staging_uri, publish if makes_mix else None
        )
    if done.lost is not None:
        progress.add("failures")
        failures.append(to_failure(Stage.MIX_CALLS, done.lost, call=plan.call))
    silent = settle_between_archives(silent_accounts(plan, tracks))
    missing = missing_failures(Stage.MIX_CALLS, silent, job.settings)
    progress.add("failures", len(missing))
    failures.extend(missing)
    rows = make_call_rows(plan, tracks, silent, failures, done.mixed, done.uri, job, run)
    status = Status(rows["calls"][0]["status"])
    if job.notify.targets:
        failed_as = failed_recording_type(
            status, job.settings, is_narrowed=plan.is_narrowed, has_lost_mix=done.lost is not None
        )
        worst = worst_failure(failures)
        told_of = pending_rows(rows, plan.prior_recordings, failed_as, worst, job.notify)
        rows |= {"notices": told_of} if told_of else {}
    sums = {name: value or 0 for name, value in sums_of(rows["dumps"]).items()}
    if missing_ms := sum(account.shortfall.missing_ms for account in silent):
        progress.add("missing_ms", missing_ms)
    files = [track for track in tracks if track.bytes_written]
    is_repeated = bool(run.repeat_archives.intersection(plan.archive_uris))
    mixed = done.mixed.mix if done.mixed else None
    pressed = PressedCall(
        call=plan.call,
        call_date=plan.call_date,
        status=status,
        failures=tuple(failures),
        **sums,
        # A run about some tracks only does not mend the others, which a dead run may have begun to
        # replace. A noted call may have lost its rows.
        replaces_prior=not plan.is_narrowed if is_repeated else plan.has_prior,
        files_written=sum(track.file_count for track in files) + (mixed is not None),
        media_samples=(mixed.file.duration_samples if mixed else 0)
        + sum(track.duration_samples for track in files),
        bytes_written=(mixed.file.size_bytes if mixed else 0)
        + sum(track.bytes_written for track in files),
        cpu_ns=done.cpu_ns + sum(track.cpu_ns for track in tracks),
    )
    return pressed, rows


def _outcome(
    archive_uri: str,
    tracks: Sequence[ExtractedTrack],
    failures: Sequence[Failure],
    completed: CallKey | None,
) -> ArchiveOutcome:
    # What an earlier archive lacks is missing from the call, and so for every archive of it
    # something is.
    own = [
        f
        for f in failures
        if f.archive_uri in (None, archive_uri) or f.stage == Stage.RECALL_ARCHIVES
    ]
    return ArchiveOutcome(
        archive_uri=archive_uri,
        made_something=completed is not None
        or any(archive_uri in track.archive_uris for track in tracks),
        first_failure=worst_failure(own),
        completed=completed,
    )


def _left_out(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> list[Failure]:
    """Returns a failure for each track that the catalog has and this run, although about the whole
    call, did not make.
    """
    if not plan.is_whole:
        return []
    made = {track_ids_of(track.track) for track in tracks}
    return [
        to_failure(
            Stage.MIX_CALLS,
            ArchiveError(
                "what was made of this track before was kept: no archive of the call gives it any "
                "more"
            ),
            call=plan.call,
            participant_id=ids[0],
            user_session_id=ids[1],
            output_type=OutputType(ids[2]),
        )
        for ids in plan.prior_tracks
        if ids not in made
    ]
