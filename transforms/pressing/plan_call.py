"""The parts of a call session from all its archives -> one plan: time zero, tracks, what is to be
written.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from transforms.elements import (
    CallPlan,
    Failure,
    PriorCall,
    Stage,
    TrackPart,
    TrackSource,
    is_about_any,
    to_failure,
    track_ids_of,
)
from transforms.filters import Filters
from transforms.media.errors import ArchiveError, RecordingError, TimelineError
from transforms.media.extract_track import load_parts
from transforms.media.media_hours import TrackReach, divide_call
from transforms.media.settings import BeginWith, PressSettings
from transforms.media.track.timeline import plan_pieces
from transforms.media.units import NS_PER_MS, NS_PER_SECOND
from transforms.media.values import TRACK_TYPE_OF, TrackKey
from transforms.server_clocks import put_on_call_clock
from transforms.storage import objects

_HOUR_NS = 3_600 * NS_PER_SECOND
_DAY_NS = 24 * _HOUR_NS


def plan_call(
    parts: list[TrackPart],
    prior: PriorCall | None,
    missing: tuple[str, ...],
    settings: PressSettings,
    filters: Filters,
) -> tuple[CallPlan, list[Failure]]:
    """Returns what to do about one call, and the tracks that cannot take part.

    Args:
      parts: of one call session, in order of time.
      prior: what the catalog has of it, None when it does not know the call.
      missing: earlier archives of it that cannot be read any more.
      settings: what is to be made, and within which limits.
      filters: which tracks the run is about.
    """
    parts, step_count = put_on_call_clock(parts)
    parts = _with_shared_values(parts)
    tracks = _by_track(parts)
    with_packets = {track: [p for p in found if p.packets_uri] for track, found in tracks.items()}
    with_packets, failures = _drop_far_tracks(
        {track: found for track, found in with_packets.items() if found},
        settings.limits.max_call_hours,
    )
    start_unix_ns = _timeline_start(parts, with_packets, prior)
    wants = {
        track: filters.wants_track(track, {each for part in found for each in part.track_ids})
        for track, found in tracks.items()
    }
    wanted = {track: found for track, found in with_packets.items() if wants[track]}
    if missing and prior is not None:
        for track in [track for track in wanted if track_ids_of(track) in prior.files]:
            failures.extend(_not_in_file(part, missing) for part in wanted.pop(track))
    is_whole = not missing and not filters.narrows_tracks
    begin_unix_ns = None
    if settings.individual.begin_with == BeginWith.MIX:
        try:
            begin_unix_ns = _begin_of_mix(with_packets, None if is_whole else prior)
        except RecordingError as error:  # what was staged cannot be read back
            failures.extend(_track_failure(error, found[0]) for found in wanted.values())
            wanted = {}
    allowed_samples = sum({part.archive_uri: part.allowed_samples for part in parts}.values())
    mix_samples, file_samples = _divide(allowed_samples, with_packets, begin_unix_ns, settings)
    plan = CallPlan(
        call=parts[0].call,
        timeline_start_unix_ns=start_unix_ns,
        sources=tuple(
            TrackSource(
                track=track,
                parts=tuple(wanted[track]),
                bare_parts=tuple(p for p in tracks[track] if not p.packets_uri),
                timeline_start_unix_ns=start_unix_ns,
                begin_unix_ns=begin_unix_ns,
                allowed_samples=file_samples[track],
                replaces_prior=prior is not None,
            )
            for track in sorted(wanted)
        ),
        silent_parts=tuple(
            part
            for track, found in tracks.items()
            for part in found
            if wants[track] and track not in wanted
        ),
        sessions=tuple(sorted({(part.participant_id, part.user_session_id) for part in parts})),
        archive_uris=tuple(sorted({part.archive_uri for part in parts} | set(missing))),
        archive_fingerprints=tuple(
            sorted({(part.archive_uri, part.archive_fingerprint) for part in parts})
        ),
        is_narrowed=filters.narrows_tracks,
        is_whole=is_whole,
        has_prior=prior is not None,
        prior_tracks=prior.tracks if prior else (),
        prior_files=prior.files if prior else (),
        has_prior_mix=prior is not None and prior.mix_start_unix_ns is not None,
        prior_recordings=prior.recordings if prior else (),
        allowed_samples=allowed_samples,
        allowed_mix_samples=mix_samples,
        server_clock_steps=step_count,
    )
    if filters.narrows_tracks:
        tracks_wanted = [track for track, is_wanted in wants.items() if is_wanted]
        failures = [failure for failure in failures if is_about_any(failure, tracks_wanted)]
    return plan, failures


def _divide(
    allowed_samples: int,
    tracks: dict[TrackKey, list[TrackPart]],
    begin_unix_ns: int | None,
    settings: PressSettings,
) -> tuple[int, dict[TrackKey, int]]:
    """Returns how long the mix of a call may be, and the file of each track.

    All tracks have their share, also those that this run is not about.

    Args:
      allowed_samples: what the call's archives allow it.
      tracks: those with packets.
      begin_unix_ns: when all files begin; None for their first packets.
      settings: what is to be made, and within which limits.
    """
    individual, keys = settings.individual, sorted(tracks)
    reaches = [
        TrackReach(
            media_samples=sum(part.media_samples for part in tracks[key]),
            first_server_unix_ns=min(
                part.first_server_unix_ns if begin_unix_ns is None else begin_unix_ns
                for part in tracks[key]
            ),
            stop_server_unix_ns=max(part.stop_server_unix_ns for part in tracks[key]),
        )
        for key in keys
    ]
    mix_samples, file_samples = divide_call(
        allowed_samples,
        reaches,
        settings.limits,
        has_mix=settings.composite.enabled,
        has_file=[
            individual.enabled and key.output_type in individual.output_types for key in keys
        ],
    )
    return mix_samples, dict(zip(keys, file_samples, strict=True))


def _with_shared_values(parts: Iterable[TrackPart]) -> list[TrackPart]:
    """Returns the same parts, with one object for what is equal in them: where their plan crosses a
    shuffle that is written once.
    """
    known: dict[Any, Any] = {}

    def once(value: Any) -> Any:
        return known.setdefault(value, value)

    return [
        replace(
            part,
            call=once(part.call),
            archive_uri=once(part.archive_uri),
            archive_fingerprint=once(part.archive_fingerprint),
            conventions=once(part.conventions),
            server_clock=once(part.server_clock),
        )
        for part in parts
    ]


def _by_track(parts: Iterable[TrackPart]) -> dict[TrackKey, list[TrackPart]]:
    """Returns the parts of each track; those of sessions that sent nothing belong to none."""
    tracks: dict[TrackKey, list[TrackPart]] = {}
    for part in parts:
        if part.track is not None:
            tracks.setdefault(part.track, []).append(part)
    return tracks


def _begin_of_mix(tracks: dict[TrackKey, list[TrackPart]], kept: PriorCall | None) -> int | None:
    """Returns the server time at which all files of a call begin, so that they are in step.

    Args:
      tracks: those with packets.
      kept: what the catalog has, where some of its files stay; None where all are made anew.

    Raises:
      RecordingError: what was staged cannot be read back.
    """
    if kept is not None:
        stays = kept.mix_start_unix_ns
        begin = kept.first_start_unix_ns if stays is None else stays
        if begin is not None:
            return begin
    return _earliest_media(tracks)


def _earliest_media(tracks: dict[TrackKey, list[TrackPart]]) -> int | None:
    """Returns the server time at which a call's mix begins, from the clocks as they will be fitted,
    None without tracks.
    """
    starts = []
    for parts in tracks.values():
        files = [part.files for part in parts]
        starts.append(
            plan_pieces(load_parts(files, objects.open_input))[0].clock.server_start_unix_ns
        )
    return min(starts, default=None)


def _not_in_file(part: TrackPart, missing: tuple[str, ...]) -> Failure:
    error = ArchiveError(
        f"the track's file was kept as it is, without the audio of {part.archive_uri}: "
        f"{', '.join(missing)} that it was "
        "made from cannot be read any more"
    )
    return _track_failure(error, part)


def _track_failure(error: RecordingError, part: TrackPart) -> Failure:
    return to_failure(
        Stage.PLAN_CALLS,
        error,
        archive_uri=part.archive_uri,
        archive_modified_unix_ns=part.archive_modified_unix_ns,
        call=part.call,
        participant_id=part.participant_id,
        user_session_id=part.user_session_id,
        output_type=part.output_type,
    )


def _timeline_start(
    parts: list[TrackPart], tracks: dict[TrackKey, list[TrackPart]], prior: PriorCall | None
) -> int:
    """Call time zero: as the catalog has it, else `call_start_time`, else (missing or a day off)
    the earliest media.
    """
    if prior is not None and prior.timeline_start_unix_ns is not None:
        return prior.timeline_start_unix_ns
    stated = [p.call_start_unix_ns for p in parts if p.call_start_unix_ns is not None]
    earliest = min(
        (p.first_server_unix_ns for found in tracks.values() for p in found), default=None
    )
    if earliest is None:
        return min(stated or [part.archive_modified_unix_ns for part in parts])
    # Files and tables count in ms: a start between two would make every offset a fraction.
    earliest -= earliest % NS_PER_MS
    # One session's wrong word moves nobody else.
    return min((start for start in stated if abs(start - earliest) <= _DAY_NS), default=earliest)


def _drop_far_tracks(
    tracks: dict[TrackKey, list[TrackPart]], max_call_hours: int
) -> tuple[dict[TrackKey, list[TrackPart]], list[Failure]]:
    """Leaves out tracks too far from the median of the call's: their clock is wrong, and hours of
    silence help nobody.
    """
    if not tracks:
        return tracks, []
    median = statistics.median_low(
        sorted(found[0].first_server_unix_ns for found in tracks.values())
    )
    kept, failures = {}, []
    for track, found in tracks.items():
        apart = max(
            abs(found[0].first_server_unix_ns - median), abs(found[-1].last_server_unix_ns - median)
        )
        if apart <= max_call_hours * _HOUR_NS:
            kept[track] = found
            continue
        error = TimelineError(
            f"{track.participant_id}: {TRACK_TYPE_OF[track.output_type]} lies "
            f"{apart / _HOUR_NS:.1f} h from the median of its "
            f"call's tracks, expected at most {max_call_hours} h (limits.max_call_hours)"
        )
        failures.append(_track_failure(error, found[0]))
    return kept, failures
