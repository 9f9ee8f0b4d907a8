"""Reads an archive once, front to back, and sorts what it holds: timing metadata, session
descriptions, packet dumps.

Metadata and descriptions are parsed as they come. Dumps are copied into a local folder for whoever
works on their packets, or passed over. What is wrong with one member is a finding and costs no
other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from transforms.media import caps
from transforms.media.archive.match_members import MembersByPath
from transforms.media.archive.member import Member, no_memory
from transforms.media.archive.walk import DamagedEndError, walk_archive, walk_folder
from transforms.media.errors import (
    ArchiveError,
    CodecProcessError,
    RecordingError,
    TimingMetadataError,
)
from transforms.media.findings import Findings
from transforms.media.rtp.sdp import RtpMap, parse_sdp
from transforms.media.rtp.timing_metadata import SUFFIX, SessionTiming, parse_timing_metadata
from transforms.media.settings import LimitSettings
from transforms.media.values import SessionKey

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveInput:
    """An archive to be read."""

    name: str
    """What opens it. Of an unpacked folder: what opens a member when its path is put behind."""
    size_bytes: int
    folder_members: tuple[tuple[str, int], ...] | None = None
    """Relative path and size of each file of an unpacked folder; None for a file."""
    local_folder: Path | None = None
    """Where an unpacked folder lies on a local disk; None for a file, and in a store that has no
    links.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A packet dump of the archive."""

    member: str
    """Its name in the archive."""
    path: Path | None
    """Its copy in a local folder; None when it was passed over."""
    size_bytes: int
    """As the archive states it."""
    finding: RecordingError | None
    """Why its copy is shorter than it was; None when it came whole."""


@dataclass(slots=True)
class ArchiveMembers:
    """All members of an archive that matter, sorted by kind."""

    sessions: list[SessionTiming] = field(default_factory=list)
    dumps: MembersByPath[Dump] = field(default_factory=MembersByPath)
    descriptions: MembersByPath[dict[int, RtpMap] | RecordingError] = field(
        default_factory=MembersByPath
    )
    """What each session description maps, or why it cannot be read."""
    member_count: int = 0
    metadata_count: int = 0
    """Members that are timing metadata by their name, readable or not."""
    unread_metadata: RecordingError | None = None
    """What is wrong with the first timing metadata that could not be read."""
    suspect: RecordingError | None = None
    """What is wrong with the first member that must not be looked at: its path leads out of the
    archive, or it is no member, but damage at the end.
    """
    cut_by: str | None = None
    """What ended the archive before its time; None when it was read to its end."""

    def end_early(self, message: str) -> None:
        """Notes what ended the archive before its time."""
        self.cut_by = message


def read_members(
    archive: ArchiveInput,
    open_input: Callable[[str], BinaryIO],
    dump_folder: Path | None,
    limits: LimitSettings,
    findings: Findings,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> ArchiveMembers:
    """Reads an archive front to back.

    Args:
      archive: a file or an unpacked folder.
      open_input: opens an input by name.
      dump_folder: a local folder to copy the dumps into, under numbers and never under their own
        names; None to pass over them.
      limits: bounds on what the archive may cost.
      findings: what is wrong with members is added to them.
      on_bytes: told the size of each block of a dump that was copied.

    Raises:
      ArchiveError: not an archive, or so damaged that nothing came of it.
    """
    reader = _Reader(dump_folder, limits, findings, on_bytes)
    found = reader.members
    try:
        for member in _walk(archive, open_input, limits, found.end_early):
            found.member_count += bool(member.name)
            reader.take(member)
    except DamagedEndError as error:
        damage = ArchiveError(error.message)
        if not found.metadata_count and not found.dumps:
            raise damage from None
        found.suspect = found.suspect or damage
        findings.add(damage)
    except (ArchiveError, CodecProcessError) as error:
        # What came whole before the damage is kept; an archive of which nothing came is no archive.
        if not found.metadata_count and not found.dumps:
            raise
        found.end_early(error.message)
        findings.add(error)
    return found


def check_has_metadata(members: ArchiveMembers, findings: Findings) -> None:
    """Adds to the findings that an archive has no timing metadata, if it was read to its end.

    Raises:
      ArchiveError: the same, where it has no dumps, and nothing else is wrong.
    """
    is_cut = members.cut_by is not None or any(
        members.dumps[path].finding is not None for path in members.dumps
    )
    if members.metadata_count or is_cut:
        return
    nothing = ArchiveError(
        f"no *{SUFFIX} among {members.member_count} members, expected one per participant session"
    )
    if not findings.all() and not members.dumps:
        raise nothing
    findings.add(nothing)


class _Reader:
    """Sorts members as they come, and counts what `LimitSettings` bounds."""

    def __init__(
        self,
        dump_folder: Path | None,
        limits: LimitSettings,
        findings: Findings,
        on_bytes: Callable[[int], None],
    ) -> None:
        self.members = ArchiveMembers()
        self._dump_folder = dump_folder
        self._limits = limits
        self._findings = findings
        self._on_bytes = on_bytes
        self._metadata_bytes = 0
        self._segment_count = 0
        self._sessions: set[SessionKey] = set()

    def take(self, member: Member) -> None:
        """Keeps what a member holds; what is wrong with it is told and costs no other."""
        name = member.name
        path, _, suffix = name.rpartition(".")
        suffix = suffix.lower()
        is_metadata = name.lower().endswith(SUFFIX)
        self.members.metadata_count += is_metadata
        if member.finding is not None:
            if member.is_suspect and self.members.suspect is None:
                self.members.suspect = member.finding
            if member.is_suspect or is_metadata or suffix in ("rtpdump", "sdp"):
                self._tell(member.finding, is_metadata)
            return
        try:
            if is_metadata:
                self._take_metadata(member)
            elif suffix == "rtpdump" and path not in self.members.dumps:
                self.members.dumps.add(path, self._take_dump(member))
            elif suffix == "sdp" and path not in self.members.descriptions:
                self.members.descriptions.add(path, self._take_description(member))
            elif suffix in ("rtpdump", "sdp"):
                raise ArchiveError(
                    f"{name}: a second member of this name, the first was taken", member=name
                )
        except (ArchiveError, TimingMetadataError) as error:
            self._tell(error, is_metadata)
        except MemoryError:
            self._tell(no_memory(name), is_metadata)

    def _tell(self, error: RecordingError, is_metadata: bool) -> None:
        self._findings.add(error)
        if is_metadata and self.members.unread_metadata is None:
            self.members.unread_metadata = error

    def _take_metadata(self, member: Member) -> None:
        limits = self._limits
        text = self._read_small(
            member, limits.max_metadata_member_bytes, " (limits.max_metadata_member_bytes)"
        )
        timing = parse_timing_metadata(text, member.name)
        for error in timing.findings:
            self._findings.add(error, timing.session)
        if timing.session not in self._sessions and len(self._sessions) >= limits.max_sessions:
            raise ArchiveError(
                f"more than {limits.max_sessions} participant sessions (limits.max_sessions)"
            )
        segment_count = self._segment_count + len(timing.audio) + len(timing.video)
        if segment_count > limits.max_members:
            raise ArchiveError(
                f"{member.name}: more than {limits.max_members} segments in the archive's metadata "
                "(limits.max_members)",
                member=member.name,
            )
        self._segment_count = segment_count
        self._sessions.add(timing.session)
        self.members.sessions.append(timing)

    def _take_dump(self, member: Member) -> Dump:
        """Copies a dump to the local folder. What came of it before any damage is whole packets."""
        if self._dump_folder is None:
            return Dump(member=member.name, path=None, size_bytes=member.size_bytes, finding=None)
        path = self._dump_folder / f"{self.members.member_count}.rtpdump"
        finding: RecordingError | None = None
        with path.open("wb") as file:
            try:
                while block := member.stream.read(_COPY_BYTES):
                    file.write(block)
                    self._on_bytes(len(block))
            except (ArchiveError, CodecProcessError) as error:
                finding = error
        return Dump(member=member.name, path=path, size_bytes=member.size_bytes, finding=finding)

    def _take_description(self, member: Member) -> dict[int, RtpMap] | RecordingError:
        """Returns what a session description maps, or why it cannot be read: it is told when a
        segment asks for it.
        """
        try:
            return parse_sdp(self._read_small(member, caps.MAX_SDP_BYTES, ""), member.name)
        except RecordingError as error:
            return error

    def _read_small(self, member: Member, limit_bytes: int, limit_name: str) -> bytes:
        """Returns a small member's bytes, counted. Raises: ArchiveError."""
        what = f"expected at most {limit_bytes} bytes{limit_name}"
        left_bytes = self._limits.max_metadata_bytes - self._metadata_bytes
        if left_bytes < limit_bytes:
            limit_bytes = left_bytes
            what = f"{left_bytes} bytes left for metadata (limits.max_metadata_bytes)"
        text = member.stream.read(limit_bytes + 1)
        if len(text) <= limit_bytes:
            text += member.stream.read(1)  # damage right behind it
        self._metadata_bytes += min(len(text), limit_bytes)
        if len(text) > limit_bytes:
            raise ArchiveError(
                f"{member.name}: metadata past its limit, {what}", member=member.name
            )
        return text


def _walk(
    archive: ArchiveInput,
    open_input: Callable[[str], BinaryIO],
    limits: LimitSettings,
    on_cut: Callable[[str], None],
) -> Iterator[Member]:
    if archive.folder_members is None:
        with open_input(archive.name) as stream:
            yield from walk_archive(stream, limits, on_cut)
        return
    folder = archive.local_folder
    yield from walk_folder(
        archive.folder_members,
        lambda path: open_input(archive.name + path),
        limits,
        lambda path: None if folder is None else _why_no_file(folder, path),
    )


def _why_no_file(folder: Path, path: str) -> str | None:
    """Returns what lies in a local folder instead of a file of its own; None for a file.

    Whoever unpacked an archive there made its links, too.
    """
    member = f"{folder}/{path}"
    if not os.path.lexists(member):  # gone since it was listed: opening it says so
        return None
    if not os.path.realpath(member).startswith(os.path.join(os.path.realpath(folder), "")):
        return "a link out of its folder"
    return None if os.path.isfile(member) else "no regular file"
