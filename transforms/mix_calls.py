"""MixCalls: a call's plan, tracks and failures -> one MP3, and all the rows of the call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.catalog.fragments import write_fragment
from transforms.catalog.names import call_folder
from transforms.catalog.rows.calls import failed_track, make_call_rows, mix_name
from transforms.codec.pool import run_in_codec_process
from transforms.context import RunContext, key_hash
from transforms.elements import (
    RECALL_STAGE,
    ArchiveOutcome,
    CallPlan,
    ExtractedTrack,
    PressedCall,
    to_failure,
    track_ids_of,
    worst_failure,
)
from transforms.engine import progress
from transforms.engine.parallel import ParallelFn
from transforms.media.errors import ArchiveError, RecordingError
from transforms.media.mix_call import MixedCall, TrackToMix, mix_call
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.values import Failure, OutputType, Status, Tags
from transforms.media.wall_time import to_time
from transforms.recovery import completed_work
from transforms.recovery.completed_work import STAGED_CALL, FinishedCall
from transforms.storage import objects, uris, work_folders
from transforms.storage.inputs import STAGED_INPUTS

STAGE = "MixCalls"
OUTCOMES = "outcomes"
_MAX_NAMED_ARTISTS = 20
_LARGE_SAMPLES = 2 * 3_600 * SAMPLE_RATE_HZ
"""Two hours of media: about 20 s of decoding and mixing."""


class MixCalls(beam.PTransform):
    """Input: `CallPlan`, `ExtractedTrack`, `Failure` with a call. Output: `PressedCall` (main),
    `ArchiveOutcome` (`outcomes`).

    Groups by the call session. Listens to every track (levels, speech, repairs), writes the MP3 (if
    wanted) under a name that comes from ids, and the call's rows into staging: a retried bundle
    writes the same objects again. Parallel over calls; memory is a block of a second and a window
    of packets per track, in a codec process.
    """

    def __init__(self, context: RunContext) -> None:
        super().__init__()
        self._context = context

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
            | "Mix" >> beam.ParDo(_MixFn(self._context)).with_outputs(OUTCOMES, main="calls")
        )


class _MixFn(ParallelFn):
    def __init__(self, context: RunContext) -> None:
        super().__init__(context.threads)
        self._context = context
        self._calls = Metrics.counter(MixCalls, "calls_pressed")
        self._samples = Metrics.counter(MixCalls, "media_samples")

    def count(self, output: Any) -> None:
        if isinstance(output, PressedCall):
            self._calls.inc()
            self._samples.inc(output.media_samples)

    def size(self, group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]]) -> int:
        return sum(source.media_samples for plan in group[1]["plans"] for source in plan.sources)

    def work(self, group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]]) -> Iterator[Any]:
        found = group[1]
        plan: CallPlan | None = next(iter(found["plans"]), None)
        if (
            plan is None
        ):  # an earlier archive of a call that nothing of this run turned out to be about
            return
        tracks = sorted(found["tracks"], key=lambda extracted: extracted.track)
        failures = sorted(
            found["failures"],
            key=lambda f: (f.stage, f.archive_uri or "", f.member or "", f.message),
        )
        left_out = _left_out(plan, tracks)
        failures += [
            failure
            for failure in left_out
            if failed_track(failure) not in set(map(failed_track, failures))
        ]
        heard, cpu_ns = None, 0
        uri = uris.join(
            self._context.output_uri, "recordings", call_folder(plan.call), mix_name(plan)
        )
        # A mix of everybody is never replaced by one of fewer voices.
        loses_voices = bool(left_out) and plan.has_prior_mix
        if tracks:
            try:
                makes_mix = plan.makes_mix and not loses_voices
                # Threads cost some CPU, and a small call is done in seconds.
                cores = self.cores_for(group) if self.size(group) >= _LARGE_SAMPLES else 1
                heard, cpu_ns, lost_mix = self._hear(plan, tracks, uri, cores, makes_mix=makes_mix)
            except RecordingError as error:
                lost_mix = error
            if lost_mix is not None:
                progress.report("failures")
                failures.append(to_failure(STAGE, lost_mix, call=plan.call))
        mixed = heard.mix if heard else None
        rows = make_call_rows(plan, tracks, failures, heard, uri, self._context)
        stamped = {
            table: [row if "run_id" in row else self._context.stamp(row) for row in found_rows]
            for table, found_rows in rows.items()
        }
        staged = self._context.staged("rows", f"call-{key_hash(*plan.call.as_tuple())}.json")
        pressed = PressedCall(
            call=plan.call,
            rows=write_fragment(staged, plan.call_date, stamped, (plan.call.as_tuple(),)),
            status=Status(rows["calls"][0]["status"]),
            failures=tuple(failures),
            # A run about some tracks only does not mend the others, which a dead run may have begun
            # to replace.
            replaces_prior=plan.has_prior
            and not (
                plan.is_narrowed and self._context.repeat_archives.intersection(plan.archive_uris)
            ),
            files_written=sum(1 for track in tracks if track.bytes_written) + (mixed is not None),
            media_samples=(mixed.file.duration_samples if mixed else 0)
            + sum(track.duration_samples for track in tracks if track.bytes_written),
            bytes_written=(mixed.file.size_bytes if mixed else 0)
            + sum(track.bytes_written for track in tracks),
            cpu_ns=cpu_ns + sum(track.cpu_ns for track in tracks),
        )
        outcomes = tuple(_outcome(archive, tracks, failures) for archive in plan.archive_uris)
        record = FinishedCall(
            pressed=pressed,
            outcomes=outcomes,
            fingerprints=plan.archive_fingerprints,
            settings_fingerprint=self._context.settings_fingerprint,
            noted_unix_ns=self._context.started_unix_ns,
        )
        completed_work.leave(self._context, STAGED_CALL, plan.call.as_tuple(), record)
        progress.report("calls")
        yield pressed
        for outcome in outcomes:
            yield beam.pvalue.TaggedOutput(OUTCOMES, outcome)

    def _hear(
        self,
        plan: CallPlan,
        tracks: Sequence[ExtractedTrack],
        uri: str,
        cores: int,
        *,
        makes_mix: bool,
    ) -> tuple[MixedCall, int, RecordingError | None]:
        """Listens to the tracks and publishes their mix, if there is to be one, on so many cores.

        Returns:
          what was heard, the CPU time in ns, and why the mix was lost on the way to its place.
        """
        context, settings = self._context, self._context.settings
        heard = tuple(
            TrackToMix(
                parts=track.parts,
                begin_unix_ns=track.begin_unix_ns,
                is_mixed=settings.composite.screenshare_audio
                or track.track.output_type != OutputType.SCREENSHARE_AUDIO_ONLY,
            )
            for track in tracks
        )
        writes = makes_mix and settings.composite.enabled
        # A mix is as long as its longest track, about, and for a loudness there are two; without
        # one each track is heard.
        lengths = [track.duration_samples for track in tracks]
        steps = (
            max(lengths) * (1 if settings.composite.wanted_lufs is None else 2)
            if writes
            else sum(lengths)
        )
        heard_part = progress.Portion(
            "samples_heard", sum(source.media_samples for source in plan.sources), steps
        )
        made_part = progress.Portion("media_samples", max(lengths) if writes else 0, steps)

        def tell(samples: int) -> None:
            heard_part.advance(samples)
            made_part.advance(samples)

        with (
            heard_part,
            made_part,
            work_folders.work_folder(context.staging_uri) as folder,
        ):
            output = folder / "mix" if writes else None
            facts, cpu_ns = run_in_codec_process(
                settings.limits,
                STAGED_INPUTS,
                tell,
                mix_call,
                heard,
                output,
                settings.mp3,
                settings.composite,
                _tags(plan, tracks),
                cores,
            )
            try:
                if facts.mix is not None:
                    objects.publish(uri, folder / "mix")
            except RecordingError as error:
                return replace(facts, mix=None), cpu_ns, error
        return facts, cpu_ns, None


def _outcome(
    archive_uri: str, tracks: Sequence[ExtractedTrack], failures: Sequence[Failure]
) -> ArchiveOutcome:
    # What an earlier archive lacks is missing from the call, and so for every archive of it
    # something is.
    own = [f for f in failures if f.archive_uri in (None, archive_uri) or f.stage == RECALL_STAGE]
    return ArchiveOutcome(
        archive_uri=archive_uri,
        made_something=any(archive_uri in track.archive_uris for track in tracks),
        first_failure=worst_failure(own),
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
            STAGE,
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


def _tags(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> Tags:
    date = to_time(plan.timeline_start_unix_ns).strftime("%Y-%m-%d")
    names = list(dict.fromkeys(track.track.participant_id for track in tracks))
    more = f" and {len(names) - _MAX_NAMED_ARTISTS} more" if len(names) > _MAX_NAMED_ARTISTS else ""
    return {
        "title": f"{plan.call.cid} {date}",
        "artist": ", ".join(names[:_MAX_NAMED_ARTISTS]) + more,
        "album": plan.call.cid,
        "date": date,
        "CALL_SESSION_ID": plan.call.call_session_id,
    }
