"""`callpress list-tracks`: the published tracks that the metadata of archives speaks of.

JSON and the lists of ids are in the vendor's shape, by which scripts know them. It reads archives
as a run does, but looks into no packet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import archive_inputs
from pipelines.archive_commands import TracksArguments
from pipelines.archive_inputs import NamedArchive
from transforms.media.archive.read_members import ArchiveMembers, read_members
from transforms.media.errors import RecordingError
from transforms.media.findings import Findings
from transforms.media.rtp.timing_metadata import SUFFIX, SegmentTiming, SessionTiming
from transforms.media.settings import LimitSettings
from transforms.media.text import printable, printable_json, spelled_utf8
from transforms.media.values import OUTPUT_TYPE_OF
from transforms.media.wall_time import spell_time
from transforms.sources import archive_files

_SCREEN_SHARE = "SCREEN_SHARE"
_AUDIO_TYPES = frozenset(map(str, OUTPUT_TYPE_OF))
_CALL_HEADINGS = ("CALL", "CALL SESSION")
_HEADINGS = ("USER ID", "SESSION ID", "TRACK ID", "TYPE", "SCREENSHARE", "CODEC", "SEGMENTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTrack:
    """A published track: all segments of one id in one participant session."""

    session: SessionTiming
    track_id: str
    segments: tuple[SegmentTiming, ...]

    @property
    def kind(self) -> str:
        """`audio` or `video`: by its type, else its codec, else where the metadata lists it."""
        first = self.segments[0]
        if first.track_type in _AUDIO_TYPES or first.is_audio_by_codec:
            return "audio"
        is_video = first.is_video_by_codec or first in self.session.video
        return "video" if is_video else "audio"

    @property
    def is_screenshare(self) -> bool:
        """Whether it is of a shared screen."""
        return _SCREEN_SHARE in self.segments[0].track_type


def list_tracks(arguments: TracksArguments, limits: LimitSettings) -> int:
    """Lists tracks; returns the exit status, 1 when an archive could not be read or none has any.
    Each thing that is wrong is a line on standard error.
    """
    archive_inputs.reach(arguments.archives)
    sessions: list[SessionTiming] = []
    wrong: list[tuple[str, str]] = []
    for pattern in arguments.archives:
        try:
            named = archive_inputs.find(pattern)
        except RecordingError as error:
            wrong.append(("", error.message))
            continue
        for archive in named:
            found, message = _read(archive, limits)
            sessions += found
            if message is not None:
                uri = archive.listed.uri
                wrong.append((uri, message.removeprefix(f"{uri}: ")))
    tracks = [
        track
        for track in _tracks_of(sessions)
        if arguments.kind is None or track.kind == arguments.kind
    ]
    _print(arguments.shape, tracks, sessions, narrows=arguments.kind is not None)
    if not tracks and not wrong:
        wrong.append(("", f"no {arguments.kind or 'track'} in what --input-file names"))
    for uri, message in wrong:
        where = f"{printable(spelled_utf8(uri))}: " if uri else ""
        print(f"callpress: {where}{printable(message)}", file=sys.stderr)
    return 1 if wrong else 0


def _read(archive: NamedArchive, limits: LimitSettings) -> tuple[list[SessionTiming], str | None]:
    """Returns the sessions of an archive, and what is wrong with it; None where nothing is."""
    members = ArchiveMembers()
    try:
        if archive.listed.error is not None:
            raise archive.listed.error
        source = archive_files.archive_input(archive.listed.uri, archive.listed.size_bytes)
        members = read_members(source, archive.inputs.open, None, limits, Findings())
    except RecordingError as unusable:
        return [], unusable.message
    message = archive_inputs.what_is_wrong(members)
    if not members.sessions and message is None:
        message = f"no *{SUFFIX} in it"
    return members.sessions, message


def _tracks_of(sessions: Iterable[SessionTiming]) -> Iterator[ListedTrack]:
    """Yields the tracks of all sessions, each once, in order of their ids."""
    found: dict[tuple[Any, ...], tuple[SessionTiming, dict[str, SegmentTiming]]] = {}
    for session in sessions:
        for segment in (*session.audio, *session.video):
            key = (session.session, segment.track_id)
            # The same metadata may stand in two archives of a call.
            found.setdefault(key, (session, {}))[1].setdefault(segment.base_filename, segment)
    for key in sorted(found):
        session, segments = found[key]
        yield ListedTrack(session=session, track_id=key[1], segments=tuple(segments.values()))


def _print(
    shape: str, tracks: Sequence[ListedTrack], sessions: Sequence[SessionTiming], *, narrows: bool
) -> None:
    """Prints a list. Args: narrows: whether only what has one of these tracks is listed."""
    shown = [track.session for track in tracks] if narrows else sessions
    users = sorted({session.participant_id for session in shown})
    user_sessions = sorted({session.user_session_id for session in shown})
    if shape == "json":
        found = {
            "tracks": [_as_json(track) for track in tracks],
            "userIds": users,
            "sessions": user_sessions,
        }
        print(printable_json(json.dumps(found, indent=2, ensure_ascii=False)))
    elif shape == "table":
        _print_table(_rows_of(tracks))
    else:
        ids = {
            "users": users,
            "sessions": user_sessions,
            "tracks": sorted({track.track_id for track in tracks}),
        }[shape]
        for each in ids:
            print(printable(each))


def _as_json(track: ListedTrack) -> dict[str, Any]:
    """Returns a track under the vendor's names of its fields."""
    session, first = track.session, track.segments[0]
    starts = [each.first_rtp_unix_ms for each in track.segments if each.first_rtp_unix_ms]
    ends = [each.last_rtp_unix_ms for each in track.segments if each.last_rtp_unix_ms]
    return {
        "callType": session.call.call_type,
        "callId": session.call.call_id,
        "callSessionId": session.call.call_session_id,
        "callStartTime": spell_time(session.call_start_unix_ns),
        "userId": session.participant_id,
        "sessionId": session.user_session_id,
        "trackId": track.track_id,
        "trackType": first.track_type,
        "trackKind": track.kind,
        "isScreenshare": track.is_screenshare,
        "codec": first.codec,
        "segmentCount": len(track.segments),
        "trackStartTime": _time(min(starts, default=None)),
        "trackEndTime": _time(max(ends, default=None)),
        "segments": [
            {
                "baseFilename": each.base_filename,
                "startTime": _time(each.first_rtp_unix_ms),
                "endTime": _time(each.last_rtp_unix_ms),
            }
            for each in track.segments
        ],
    }


def _time(unix_ms: int | None) -> str | None:
    return spell_time(None if unix_ms is None else unix_ms * 1_000_000)


def _rows_of(tracks: Sequence[ListedTrack]) -> list[tuple[str, ...]]:
    """Returns a table, its headings first; of several calls it says of which each track is."""
    rows = [_HEADINGS, *map(_cells, tracks)]
    calls = [track.session.call for track in tracks]
    if len(set(calls)) < 2:
        return rows
    whose = [(printable(call.cid), printable(call.call_session_id)) for call in calls]
    return [(*call, *row) for call, row in zip([_CALL_HEADINGS, *whose], rows, strict=True)]


def _cells(track: ListedTrack) -> tuple[str, ...]:
    first = track.segments[0]
    return (
        printable(track.session.participant_id),
        printable(track.session.user_session_id),
        printable(track.track_id),
        printable(first.track_type),
        "Yes" if track.is_screenshare else "No",
        printable(first.codec),
        str(len(track.segments)),
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
