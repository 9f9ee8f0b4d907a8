"""A call's plan and its extracted tracks -> the mix, and what the sound of each track is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from transforms.catalog.output_names import composite_name
from transforms.catalog.rows.dumps import DumpAccount, accounts_of
from transforms.codec.pool import POOL
from transforms.codec.process import Terms
from transforms.elements import (
    CallPlan,
    ExtractedTrack,
    Failure,
    TrackPart,
    failed_track,
    track_ids_of,
)
from transforms.engine import progress
from transforms.media.errors import RecordingError, TimelineError
from transforms.media.mix_call import MixedCall, TrackToMix, mix_call
from transforms.media.rtp.dump_claims import SegmentClaim
from transforms.media.settings import PressSettings
from transforms.media.track.staged_packets import load_index
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ
from transforms.media.values import OutputType, Tags, TrackKey, segment_stem
from transforms.pressing.extract import Publish
from transforms.storage import objects, work_folders
from transforms.storage.inputs import STAGED_INPUTS

_MAX_NAMED_ARTISTS = 20
_HOUR_SAMPLES = 3_600 * SAMPLE_RATE_HZ


def tracks_of(plan: CallPlan) -> set[TrackKey]:
    """Returns the tracks that a run is about, also those of which nothing is made."""
    silent = {part.track for part in plan.silent_parts if part.track is not None}
    return {source.track for source in plan.sources} | silent


def silent_accounts(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> list[DumpAccount]:
    """Returns what became of the segments of tracks that were not extracted.

    Raises:
      StorageError: what was staged cannot be read back.
    """
    made = {extracted.track for extracted in tracks}
    failed = [
        part
        for source in plan.sources
        if source.track not in made
        for part in (*source.parts, *source.bare_parts)
    ]
    return accounts_of((*plan.silent_parts, *failed))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixOutcome:
    """What became of a mix."""

    mixed: MixedCall | None = None
    """What was measured, less the mix when that was lost; None when nothing could be decoded."""
    uri: str = ""
    """Where the mix is, if one was made."""
    cpu_ns: int = 0
    lost: RecordingError | None = None
    """Why there is no mix."""


def mix(
    plan: CallPlan,
    tracks: Sequence[ExtractedTrack],
    share: int | None,
    settings: PressSettings,
    staging_uri: str,
    publish: Publish | None,
    *,
    measures: bool = True,
) -> MixOutcome:
    """Measures the tracks, and makes their mix if the settings want one.

    Args:
      plan: of the call.
      tracks: those that were extracted, in order; at least one.
      share: how many cores are its own, if it may use others that are free, too; None for one core.
      settings: what the mix is to be like.
      staging_uri: the folder for files being made.
      publish: takes the finished mix; None to make none, whatever the settings say.
      measures: whether figures of the sound are wanted.
    """
    parts = {source.track: source.parts for source in plan.sources}
    writes = publish is not None and settings.composite.enabled
    progress_told = _ProgressOfMix(plan, tracks, settings, writes=writes)
    terms = Terms(
        inputs=STAGED_INPUTS,
        on_progress=progress_told.advance,
        timeout_seconds=settings.limits.codec_seconds,
        share=share or 1,
    )
    with progress_told, work_folders.work_folder(staging_uri) as folder:
        output = folder / "mix" if writes else None
        try:
            with POOL.lend(settings.limits.codec_memory_bytes) as codec:
                mixed, cpu_ns = codec.run(
                    terms,
                    mix_call,
                    tuple(_to_mix(track, parts[track.track], settings) for track in tracks),
                    output,
                    settings.mp3,
                    settings.composite,
                    _tags(plan, tracks),
                    share is not None,
                    plan.allowed_mix_samples,
                    measures,
                )
        except RecordingError as error:
            return MixOutcome(lost=error)
        try:
            uri = ""
            if publish is not None and output is not None and mixed.mix is not None:
                uri = publish(_name_of(plan), output)
        except RecordingError as error:
            return MixOutcome(mixed=replace(mixed, mix=None), cpu_ns=cpu_ns, lost=error)
    lost = None if mixed.too_long_samples is None else _tell_too_long(plan, mixed.too_long_samples)
    return MixOutcome(mixed=mixed, uri=uri, cpu_ns=cpu_ns, lost=lost)


def _name_of(plan: CallPlan) -> str:
    """Returns the file name of a call's mix."""
    return composite_name(plan.call, plan.timeline_start_unix_ns // NS_PER_MS)


def _tell_too_long(plan: CallPlan, mix_samples: int) -> TimelineError:
    return TimelineError(
        f"{plan.call.cid}: the mix would be {mix_samples / _HOUR_SAMPLES:.2f} h long and is not "
        "written: expected all files of the call to have "
        f"{(plan.allowed_samples or 0) / _HOUR_SAMPLES:.2f} h at most (limits.max_media_hours, "
        "max_media_ratio); its audio is in the individual files"
    )


def _to_mix(
    track: ExtractedTrack, parts: Sequence[TrackPart], settings: PressSettings
) -> TrackToMix:
    is_screenshare = track.track.output_type == OutputType.SCREENSHARE_AUDIO_ONLY
    return TrackToMix(
        parts=tuple(part.files for part in parts),
        file_times=track.file_times,
        is_mixed=settings.composite.screenshare_audio or not is_screenshare,
    )


class _ProgressOfMix:
    """Tells how far a mix is: in media measured, and in media made."""

    def __init__(
        self,
        plan: CallPlan,
        tracks: Sequence[ExtractedTrack],
        settings: PressSettings,
        *,
        writes: bool,
    ) -> None:
        # A mix is as long as its longest track, about, and for a loudness there are two; without
        # one each track is decoded by itself.
        lengths = [track.duration_samples for track in tracks]
        passes = 1 if settings.composite.wanted_lufs is None else 2
        steps = max(lengths) * passes if writes else sum(lengths)
        media_samples = sum(source.media_samples for source in plan.sources)
        self._measured = progress.Portion("samples_measured", media_samples, steps)
        self._made = progress.Portion("media_samples", max(lengths) if writes else 0, steps)

    def advance(self, samples: int) -> None:
        """Takes steps, or takes them back."""
        self._measured.advance(samples)
        self._made.advance(samples)

    def __enter__(self) -> Self:
        self._measured.__enter__()
        self._made.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._made.__exit__(kind, error, trace)
        self._measured.__exit__(kind, error, trace)


def complete(plan: CallPlan, failures: Sequence[Failure]) -> tuple[list[Failure], set[str]]:
    """Takes out the failures about segments that one archive of a call lacks and another brings.

    Returns:
      the others, and the archives whose failures were taken out.
    """
    sources = {track_ids_of(source.track): source for source in plan.sources}
    segments: dict[str, Mapping[str, tuple[SegmentClaim, bool]]] = {}
    left, completed = [], set()
    for failure in failures:
        source = sources.get(failed_track(failure))
        is_brought = False
        if failure.lacks_segment is not None and source is not None:
            parts = (*source.parts, *source.bare_parts)
            for part in parts:
                if part.index_uri not in segments:
                    segments[part.index_uri] = _segments_of(part)
            claims = {
                found[0]
                for part in parts
                if part.archive_uri == failure.archive_uri
                and (found := segments[part.index_uri].get(failure.lacks_segment))
            }
            for part in source.parts:
                if part.archive_uri != failure.archive_uri:
                    other = segments[part.index_uri].get(failure.lacks_segment)
                    # A recorder may use a name again: what is claimed of the segment tells.
                    is_brought |= other is not None and other[1] and other[0] in claims
        if is_brought and failure.archive_uri is not None:
            completed.add(failure.archive_uri)
        else:
            left.append(failure)
    return left, completed


def _segments_of(part: TrackPart) -> Mapping[str, tuple[SegmentClaim, bool]]:
    """Returns what is claimed of each of a part's segments and whether it has packets, by its name
    without suffix; none where staging cannot be read, which whoever needs its packets tells.
    """
    try:
        index = load_index(objects.read_bytes(part.index_uri))
    except RecordingError:
        return {}
    with_packets = {segment_stem(packet_run.base_filename) for packet_run in index.packet_runs}
    return {
        segment_stem(dump.base_filename): (
            dump.claim,
            segment_stem(dump.base_filename) in with_packets,
        )
        for dump in index.dumps
    }


def _tags(plan: CallPlan, tracks: Sequence[ExtractedTrack]) -> Tags:
    date = plan.call_date
    names = list(dict.fromkeys(track.track.participant_id for track in tracks))
    more = f" and {len(names) - _MAX_NAMED_ARTISTS} more" if len(names) > _MAX_NAMED_ARTISTS else ""
    return {
        "title": f"{plan.call.cid} {date}",
        "artist": ", ".join(names[:_MAX_NAMED_ARTISTS]) + more,
        "album": plan.call.cid,
        "date": date,
        "CALL_SESSION_ID": plan.call.call_session_id,
    }
