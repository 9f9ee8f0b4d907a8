"""`callpress inspect`: lists who is in an archive, with which tracks, codecs, segments and times.

It reads archives as a run does, but looks into no packet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.options import InspectArguments
from transforms.media.archive.match_members import MembersByPath
from transforms.media.archive.read_members import ArchiveMembers, Dump, read_members
from transforms.media.errors import ArchiveError, RecordingError
from transforms.media.findings import Findings
from transforms.media.rtp.timing_metadata import SUFFIX, SegmentTiming, SessionTiming
from transforms.media.settings import LimitSettings, PressSettings
from transforms.media.text import printable, printable_json, spelled_utf8
from transforms.sources import archive_files
from transforms.sources.archive_files import ListedArchive
from transforms.storage import objects, uris


def inspect(arguments: InspectArguments, settings: PressSettings) -> int:
    """Lists what archives hold, as a table or JSON; returns the exit status, 1 when one could not
    be read.
    """
    objects.find_credentials(map(uris.absolute, arguments.archives))
    found: list[dict[str, Any]] = []
    for pattern in arguments.archives:
        listed = archive_files.find_archives(pattern).archives
        if not listed:
            found.append(
                {
                    "uri": spelled_utf8(pattern),
                    "error": archive_files.why_nothing_matches(pattern),
                    "sessions": [],
                }
            )
        found.extend(describe_archive(archive, settings.limits) for archive in listed)
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


def describe_archive(archive: ListedArchive, limits: LimitSettings) -> dict[str, Any]:
    """Returns an archive's sessions as plain values; `error` says what could not be read, null when
    all could.

    It is read as a run reads it, within the same limits, but for the packets.
    """
    members, message = ArchiveMembers(), None
    try:
        if archive.error is not None:
            raise archive.error
        source = archive_files.archive_input(archive.uri, archive.size_bytes)
        members = read_members(source, objects.open_input, None, limits, Findings())
    except RecordingError as unusable:
        message = unusable.message.removeprefix(f"{archive.uri}: ")
    else:
        error = members.suspect or members.unread_metadata or _damaged_description(members)
        message = members.cut_by or (None if error is None else error.message)
    if not members.sessions and message is None:
        message = f"no *{SUFFIX} in it"
    timings = sorted(members.sessions, key=lambda timing: timing.session)
    return {
        "uri": archive.uri,
        "error": message,
        "sessions": [_session(timing, members.dumps) for timing in timings],
    }


def _damaged_description(members: ArchiveMembers) -> ArchiveError | None:
    """Returns what is wrong with the archive where a session description lies in it."""
    found = (members.descriptions[path] for path in members.descriptions)
    return next((error for error in found if isinstance(error, ArchiveError)), None)


def _session(session: SessionTiming, dumps: MembersByPath[Dump]) -> dict[str, Any]:
    by_type: dict[str, list[SegmentTiming]] = {}
    for segment in (*session.audio, *session.video):
        by_type.setdefault(segment.track_type, []).append(segment)
    return {
        "call_cid": session.call.cid,
        "call_type": session.call.call_type,
        "call_id": session.call.call_id,
        "call_session_id": session.call.call_session_id,
        "call_start_time": _iso(session.call_start_unix_ns),
        "participant_id": session.participant_id,
        "user_session_id": session.user_session_id,
        "tracks": [
            _track(kind, segments, session.member, dumps)
            for kind, segments in sorted(by_type.items())
        ],
    }


def _track(
    kind: str, segments: list[SegmentTiming], metadata_member: str, dumps: MembersByPath[Dump]
) -> dict[str, Any]:
    return {
        "track_type": kind,
        "track_ids": list(dict.fromkeys(segment.track_id for segment in segments)),
        "codecs": sorted({segment.codec for segment in segments}),
        "segment_count": len(segments),
        "start_time": _iso(
            _ns(min((s.first_rtp_unix_ms for s in segments if s.first_rtp_unix_ms), default=None))
        ),
        "end_time": _iso(
            _ns(max((s.last_rtp_unix_ms for s in segments if s.last_rtp_unix_ms), default=None))
        ),
        "segments": [
            {
                "base_filename": segment.base_filename,
                "codec": segment.codec,
                "start_time": _iso(_ns(segment.first_rtp_unix_ms)),
                "end_time": _iso(_ns(segment.last_rtp_unix_ms)),
                "dump_bytes": _dump_bytes(segment, metadata_member, dumps),
            }
            for segment in segments
        ],
    }


def _dump_bytes(
    segment: SegmentTiming, metadata_member: str, dumps: MembersByPath[Dump]
) -> int | None:
    """Returns the size of a segment's dump; None when the archive does not have it."""
    path = dumps.find(segment.base_filename, metadata_member)
    return None if path is None else dumps[path].size_bytes


def _ns(unix_ms: int | None) -> int | None:
    return None if unix_ms is None else unix_ms * 1_000_000


def _iso(unix_ns: int | None) -> str | None:
    """An RFC 3339 time with milliseconds; None for one that no calendar has."""
    if unix_ns is None:
        return None
    try:
        moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).replace(
            microsecond=unix_ns // 1_000 % 1_000_000
        )
    except (ValueError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
