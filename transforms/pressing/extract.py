"""A track, from all its parts -> its individual files and what is in them; more than one file where
sounds of it come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transforms.catalog.output_names import individual_name
from transforms.catalog.rows.dumps import (
    DumpAccount,
    accounts_of,
    missing_failures,
    settle_between_archives,
)
from transforms.catalog.rows.ids import track_ids
from transforms.codec.pool import run_in_codec_process
from transforms.elements import (
    ExtractedTrack,
    Failure,
    FragmentRef,
    Stage,
    TrackSource,
    key_hash,
    to_failure,
)
from transforms.engine import progress
from transforms.media.errors import RecordingError, TimelineError
from transforms.media.extract_track import TrackStats, extract_track, lane_path
from transforms.media.lane_file import LeftOutPauses
from transforms.media.settings import PressSettings
from transforms.media.track.lanes import MOST_LANES, LeftOut
from transforms.media.track.overlaps import LeftOutReason
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ
from transforms.media.values import TRACK_TYPE_OF, FileTime, Tags, TrackKey
from transforms.media.wall_time import utc_date
from transforms.storage import work_folders
from transforms.storage.inputs import STAGED_INPUTS

_HOUR_SAMPLES = 3_600 * SAMPLE_RATE_HZ

Publish = Callable[[str, Path], str]
"""Moves a finished local file to where it belongs, by its name; gives its URI. Raises:
StorageError.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What was made of a track."""

    source: TrackSource
    stats: TrackStats
    places: Mapping[int, str]
    """The URI of the file of each lane; none where none was to be written."""
    accounts: tuple[DumpAccount, ...]
    """Its segments, and what became of their dumps."""
    failures: tuple[Failure, ...]
    """What is missing of it, or left out of its files."""
    cpu_ns: int

    @property
    def lanes(self) -> tuple[TrackStats, ...]:
        """The figures of each of its files."""
        return (self.stats, *self.stats.beside)

    def track(self, rows: FragmentRef) -> ExtractedTrack:
        """Returns it as the mix of its call needs it. Args: rows: where they wait."""
        sizes = [lane.file.size_bytes for lane in self.lanes if lane.file]
        return ExtractedTrack(
            track=self.source.track,
            rows=rows,
            file_times=tuple(_file_time(lane) for lane in self.lanes),
            archive_uris=self.source.archive_uris,
            duration_samples=sum(lane.duration_samples for lane in self.lanes),
            missing_ms=sum(account.shortfall.missing_ms for account in self.accounts),
            file_count=len(sizes),
            bytes_written=sum(sizes),
            cpu_ns=self.cpu_ns,
            media_uris=tuple(self.places[lane.lane] for lane in self.lanes if lane.file),
        )


def extract(
    source: TrackSource, settings: PressSettings, staging_uri: str, publish: Publish | None
) -> Extraction:
    """Makes a track's files, if the settings want them.

    Args:
      source: the track.
      settings: what its files are to be like.
      staging_uri: the folder for files being made.
      publish: takes each finished file; None to write none, whatever the settings say.

    Raises:
      RecordingError: nothing can be made of it.
    """
    track, individual = source.track, settings.individual
    parts = tuple(part.files for part in source.parts)
    with work_folders.work_folder(staging_uri) as folder:
        wants_file = individual.enabled and track.output_type in individual.output_types
        output = folder / "track" if publish is not None and wants_file else None
        stats, cpu_ns = run_in_codec_process(
            settings.limits,
            STAGED_INPUTS,
            lambda samples: progress.add("media_samples", samples),
            extract_track,
            parts,
            output,
            individual.container,
            _tags(source),
            source.begin_unix_ns,
            source.allowed_samples if output is not None else None,
            _uid(track),
        )
        lanes = (stats, *stats.beside)
        places: dict[int, str] = {}
        if publish is not None and output is not None:
            for lane in lanes:
                name = _name_of(source, lane, settings)
                places[lane.lane] = publish(name, lane_path(output, lane.lane))
    accounts = settle_between_archives(
        [
            *(
                DumpAccount(track=track, part=part, dump=dump)
                for part, dumps in zip(source.parts, stats.dumps, strict=True)
                for dump in dumps
            ),
            *accounts_of(source.bare_parts),
        ]
    )
    return Extraction(
        source=source,
        stats=stats,
        places=places,
        accounts=tuple(accounts),
        failures=(
            *missing_failures(Stage.EXTRACT_TRACKS, accounts, settings),
            *(
                _too_many_at_once(source, each)
                for each in stats.left_out
                if each.reason == LeftOutReason.TOO_MANY_AT_ONCE
            ),
            *(
                _leaves_out_pauses(source, lane, lane.pauses_left_out)
                for lane in lanes
                if lane.pauses_left_out is not None
            ),
        ),
        cpu_ns=cpu_ns,
    )


def track_failure(source: TrackSource, error: RecordingError, **where: Any) -> Failure:
    """Returns what is wrong with a track as a dead letter. Args: where: as of `to_failure`."""
    return to_failure(
        Stage.EXTRACT_TRACKS,
        error,
        call=source.track.call,
        participant_id=source.track.participant_id,
        user_session_id=source.track.user_session_id,
        output_type=source.track.output_type,
        **where,
    )


def _too_many_at_once(source: TrackSource, left_out: LeftOut) -> Failure:
    """Returns what is said of packets for which there was no file left."""
    member = f"{left_out.base_filename}.rtpdump"
    error = TimelineError(
        f"{member}: {left_out.packet_count} packets, {left_out.media_samples / SAMPLE_RATE_HZ:.1f} "
        f"s, were left out: {MOST_LANES} other sounds of the track lie at their time, expected "
        f"fewer",
        member=member,
    )
    part = source.parts[left_out.part]
    return track_failure(
        source,
        error,
        archive_uri=part.archive_uri,
        archive_modified_unix_ns=part.archive_modified_unix_ns,
    )


def _leaves_out_pauses(source: TrackSource, lane: TrackStats, pauses: LeftOutPauses) -> Failure:
    """Returns what is said of a file that would have been too long."""
    whole_samples = lane.duration_samples + pauses.samples
    which = f", part {lane.lane}," if lane.lane else ""
    error = TimelineError(
        f"{source.track.participant_id}: the file of {TRACK_TYPE_OF[source.track.output_type]}"
        f"{which} leaves out {pauses.pause_count} pauses of more than "
        f"{pauses.longest_pause_samples / SAMPLE_RATE_HZ:g} s: with them it would be "
        f"{whole_samples / _HOUR_SAMPLES:.2f} h long, expected at most "
        f"{(source.allowed_samples or 0) / _HOUR_SAMPLES:.2f} h (limits.max_media_hours, "
        "max_media_ratio); the table segments has the call time of what is there"
    )
    return track_failure(source, error)


def _file_time(lane: TrackStats) -> FileTime:
    pauses = lane.pauses_left_out
    return FileTime(
        begin_unix_ns=lane.begin_unix_ns,
        longest_pause_samples=None if pauses is None else pauses.longest_pause_samples,
    )


def _name_of(source: TrackSource, lane: TrackStats, settings: PressSettings) -> str:
    """Returns the name of one of a track's files, where it can be replaced."""
    return individual_name(
        source.track,
        source.timeline_start_unix_ns // NS_PER_MS,
        settings.individual.container,
        lane.lane,
    )


def _uid(track: TrackKey) -> int:
    """Returns 64 bits of a track's key, never 0: in every run the same."""
    return int(key_hash(*track_ids(track).values())[:16], 16) or 1


def _tags(source: TrackSource) -> Tags:
    call = source.track.call
    date = utc_date(source.timeline_start_unix_ns)
    return {
        "title": f"{call.cid} {date} {source.track.participant_id}",
        "artist": source.track.participant_id,
        "album": call.cid,
        "date": date,
        "CALL_SESSION_ID": call.call_session_id,
        "USER_SESSION_ID": source.track.user_session_id,
        "TRACK_TYPE": TRACK_TYPE_OF[source.track.output_type],
    }
