"""`callpress inspect`: lists who is in an archive, with which tracks, codecs, segments and times.

It reads archives as a run does, but looks into no packet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines import archive_inputs
from pipelines.archive_commands import InspectArguments
from transforms.media.archive.assign_members import Assignment, assign_members, name_of
from transforms.media.archive.match_members import MembersByPath
from transforms.media.archive.read_members import ArchiveMembers, Dump, read_members
from transforms.media.errors import RecordingError
from transforms.media.findings import Findings
from transforms.media.rtp.participant_sessions import (
    ListedSegment,
    call_start_unix_ns,
    group_by_session,
    list_segments,
    segments_by_output,
)
from transforms.media.rtp.timing_metadata import SUFFIX, SessionTiming
from transforms.media.settings import LimitSettings, PressSettings
from transforms.media.text import printable, printable_json, spelled_utf8
from transforms.media.values import OUTPUT_TYPE_OF, TRACK_TYPE_OF, TrackKey
from transforms.media.wall_time import spell_time
from transforms.sources import archive_files
from transforms.sources.archive_files import ListedArchive
from transforms.storage import uris
from transforms.storage.inputs import ARCHIVE_INPUTS, Inputs

if TYPE_CHECKING:
    from pipelines.inspect_clocks import ClockInspector

_OUTPUT_TYPES = {str(kind): output for kind, output in OUTPUT_TYPE_OF.items()}


def inspect(arguments: InspectArguments, settings: PressSettings) -> int:
    """Lists what archives hold, as a table or JSON; returns the exit status, 1 when one could not
    be read.
    """
    archive_inputs.reach(arguments.archives, *filter(None, [arguments.clock_output]))
    clocks = None
    if arguments.clock:
        # Late: it needs numpy, without which a plain list answers at once.
        from pipelines.inspect_clocks import ClockInspector

        clocks = ClockInspector(arguments.clock_output)
    found: list[dict[str, Any]] = []
    for pattern in arguments.archives:
        try:
            named = archive_inputs.find(pattern)
        except RecordingError as error:
            shown = spelled_utf8(uris.shown(pattern))
            message = error.message.removeprefix(f"{shown}: ")
            found.append({"uri": shown, "error": message, "sessions": []})
            continue
        for each in named:
            found.append(describe_archive(each.listed, settings.limits, clocks, each.inputs))
    if arguments.as_json:
        print(printable_json(json.dumps({"archives": found}, indent=2, ensure_ascii=False)))
    else:
        _print_tables(found)
    for archive in found:
        if archive["error"]:
            print(
                f"callpress: {printable(archive['uri'])}: {printable(archive['error'])}",
                file=sys.stderr,
            )
    return 1 if any(archive["error"] for archive in found) else 0


def describe_archive(
    archive: ListedArchive,
    limits: LimitSettings,
    clocks: ClockInspector | None = None,
    inputs: Inputs = ARCHIVE_INPUTS,
) -> dict[str, Any]:
    """Returns an archive's sessions as plain values; `error` says what could not be read, null when
    all could.

    It is read as a run reads it, within the same limits; packets are looked into only for clocks.
    """
    members, message = ArchiveMembers(), None
    of_track: dict[TrackKey, dict[str, Any]] = {}
    findings: list[str] = []
    try:
        if archive.error is not None:
            raise archive.error
        source = archive_files.archive_input(archive.uri, archive.size_bytes)
        if clocks is None:
            members = read_members(source, inputs.open, None, limits, Findings())
        else:
            read = clocks.read(source, limits, inputs)
            members, of_track, findings = read.members, read.of_track, read.findings
            if read.error is not None:
                raise read.error
    except RecordingError as unusable:
        message = unusable.message.removeprefix(f"{archive.uri}: ")
    else:
        message = archive_inputs.what_is_wrong(members)
    if not members.sessions and message is None:
        message = f"no *{SUFFIX} in it"
    assigned = assign_members(list_segments(members.sessions), members.dumps)
    sessions = sorted(group_by_session(members.sessions).items())
    described = [(key, _session(timings, members.dumps, assigned)) for key, timings in sessions]
    found = {
        "uri": archive.uri,
        "error": message,
        "sessions": [session for _, session in described],
    }
    if clocks is None:
        return found
    for key, session in described:
        for track in session["tracks"]:
            output_type = _OUTPUT_TYPES.get(track["track_type"])
            track["clock"] = output_type and of_track.get(key.track(output_type))
    return {**found, "findings": findings}


def _session(
    timings: Sequence[SessionTiming], dumps: MembersByPath[Dump], assigned: Assignment
) -> dict[str, Any]:
    """Returns a participant session by all metadata of it, its segments by what a run makes of
    them.
    """
    session, findings = timings[0], Findings()
    by_output, others = segments_by_output(timings, findings)
    by_type = {str(TRACK_TYPE_OF[output]): segments for output, segments in by_output.items()}
    for segment in others:
        by_type.setdefault(segment.timing.track_type, []).append(segment)
    return {
        "call_cid": session.call.cid,
        "call_type": session.call.call_type,
        "call_id": session.call.call_id,
        "call_session_id": session.call.call_session_id,
        "call_start_time": spell_time(call_start_unix_ns(timings, findings)),
        "participant_id": session.participant_id,
        "user_session_id": session.user_session_id,
        "tracks": [
            _track(kind, segments, dumps, assigned) for kind, segments in sorted(by_type.items())
        ],
    }


def _track(
    kind: str,
    segments: Sequence[ListedSegment],
    dumps: MembersByPath[Dump],
    assigned: Assignment,
) -> dict[str, Any]:
    timings = [segment.timing for segment in segments]
    return {
        "track_type": kind,
        "track_ids": list(dict.fromkeys(timing.track_id for timing in timings)),
        "codecs": sorted({timing.codec for timing in timings}),
        "segment_count": len(segments),
        "start_time": spell_time(
            _ns(min((t.first_rtp_unix_ms for t in timings if t.first_rtp_unix_ms), default=None))
        ),
        "end_time": spell_time(
            _ns(max((t.last_rtp_unix_ms for t in timings if t.last_rtp_unix_ms), default=None))
        ),
        "segments": [
            {
                "base_filename": segment.base_filename,
                "codec": segment.timing.codec,
                "start_time": spell_time(_ns(segment.timing.first_rtp_unix_ms)),
                "end_time": spell_time(_ns(segment.timing.last_rtp_unix_ms)),
                "dump_bytes": _dump_bytes(segment, dumps, assigned),
            }
            for segment in segments
        ],
    }


def _dump_bytes(
    segment: ListedSegment, dumps: MembersByPath[Dump], assigned: Assignment
) -> int | None:
    """Returns the size of a segment's dump; None when the archive does not have it."""
    path = assigned.paths.get(name_of(segment))
    return None if path is None else dumps[path].size_bytes


def _ns(unix_ms: int | None) -> int | None:
    return None if unix_ms is None else unix_ms * 1_000_000


def _print_tables(archives: Iterable[dict[str, Any]]) -> None:
    # A pipe has no width to keep to.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for archive in archives:
        if not archive["sessions"]:
            continue
        console.print(Text(printable(archive["uri"]), style="bold"))
        calls: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for session in archive["sessions"]:
            calls.setdefault((session["call_cid"], session["call_session_id"]), []).append(session)
        for (cid, call_session), sessions in calls.items():
            started = sessions[0]["call_start_time"] or "unknown"
            console.print(
                Text(f"call {printable(cid)}  session {printable(call_session)}  started {started}")
            )
            table = Table()
            for heading in (
                "participant",
                "user session",
                "track",
                "codec",
                "segments",
                "first packet",
                "length",
            ):
                table.add_column(
                    heading,
                    justify="right" if heading in ("segments", "length") else "left",
                    overflow="fold",
                )
            for session in sessions:
                for track in session["tracks"] or [None]:
                    table.add_row(*(Text(printable(cell)) for cell in _cells(session, track)))
            console.print(table)
        if "findings" in archive:
            _print_clocks(archive)


def _cells(session: dict[str, Any], track: dict[str, Any] | None) -> tuple[str, ...]:
    who = (session["participant_id"], session["user_session_id"])
    if track is None:
        return (*who, "nothing sent", "", "0", "", "")
    missing = sum(1 for segment in track["segments"] if segment["dump_bytes"] is None)
    count = f"{track['segment_count']}" + (f" ({missing} without dump)" if missing else "")
    kind = track["track_type"].removeprefix("TRACK_TYPE_").lower()
    if track["start_time"] is None or track["end_time"] is None:
        return (*who, kind, ", ".join(track["codecs"]), count, "unknown", "unknown")
    start, end = (datetime.fromisoformat(track[name]) for name in ("start_time", "end_time"))
    times = (start.strftime("%H:%M:%S.%f")[:-3], f"{(end - start).total_seconds():.2f} s")
    return (*who, kind, ", ".join(track["codecs"]), count, *times)


def _print_clocks(archive: dict[str, Any]) -> None:
    from pipelines.inspect_clocks import clock_lines

    for session in archive["sessions"]:
        for track in session["tracks"]:
            if track["track_type"] in _OUTPUT_TYPES:
                who, user_session, kind, *_ = _cells(session, track)
                print(printable(f"{who}  {user_session}  {kind}"))
                for line in clock_lines(track):
                    print(printable(line))
    for message in archive["findings"]:
        print(printable(f"wrong: {message}"))
