"""What an archive holds, read once from front to back: metadata, session descriptions, dumps in a
folder, and what is wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from transforms.media import caps
from transforms.media.archive.member import Member
from transforms.media.archive.walk import walk_archive, walk_folder
from transforms.media.errors import (
    ArchiveError,
    CodecProcessError,
    RecordingError,
    TimingMetadataError,
)
from transforms.media.rtp.sdp import RtpMap, parse_sdp
from transforms.media.rtp.timing_metadata import SUFFIX, SessionTiming, parse_timing_metadata
from transforms.media.settings import LimitSettings
from transforms.media.values import ArchiveRef, CallKey, Failure, TrackKey

STAGE = "UnpackArchives"
_COPY_BYTES = 1 << 20

T = TypeVar("T")


class Failures:
    """What is wrong with an archive, each thing told once, and of a flood of one kind the first."""

    def __init__(self, ref: ArchiveRef) -> None:
        self._ref = ref
        self._found: dict[Failure, None] = {}
        self._counts: Counter[str] = Counter()

    def add(
        self,
        error: RecordingError,
        track: TrackKey | None = None,
        session: SessionTiming | None = None,
    ) -> None:
        """Adds a failure. Args: track, session: whose it is, where that is known."""
        kind = type(error).__name__
        failure = Failure(
            stage=STAGE,
            error_type=kind,
            message=error.message,
            archive_uri=self._ref.uri,
            archive_modified_unix_ns=self._ref.modified_unix_ns,
            member=error.member,
            byte_offset=error.byte_offset,
            attempt=self._ref.attempt,
            retryable=error.retryable,
        )
        if track is not None:
            failure = replace(
                failure,
                call=track.call,
                participant_id=track.participant_id,
                user_session_id=track.user_session_id,
                output_type=track.output_type,
            )
        elif session is not None:
            failure = replace(
                failure,
                call=session.call,
                participant_id=session.participant_id,
                user_session_id=session.user_session_id,
            )
        if failure in self._found:
            return
        self._counts[kind] += 1
        if self._counts[kind] <= caps.MAX_FINDINGS_OF_A_KIND:
            self._found[failure] = None

    def all(self) -> tuple[Failure, ...]:
        """Returns the failures, and one more for each kind of which there were too many."""
        more = []
        for kind, count in self._counts.items():
            if count > caps.MAX_FINDINGS_OF_A_KIND:
                first = next(failure for failure in self._found if failure.error_type == kind)
                message = (
                    f"{count - caps.MAX_FINDINGS_OF_A_KIND} more of this kind in the archive, "
                    "not told one by one"
                )
                more.append(
                    replace(
                        first,
                        message=message,
                        member=None,
                        byte_offset=None,
                        call=None,
                        participant_id=None,
                        user_session_id=None,
                        output_type=None,
                    )
                )
        return (*self._found, *more)


class Named(Generic[T]):
    """Members of one kind by their path without the suffix, found by what metadata calls them."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._by_last: dict[str, str | None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, base: str) -> bool:
        return base in self._items

    def __getitem__(self, base: str) -> T:
        return self._items[base]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def add(self, base: str, item: T) -> None:
        """Adds one; a path is there once."""
        self._items[base] = item
        last = base.rpartition("/")[2]
        self._by_last[last] = None if last in self._by_last else base

    def find(self, base_filename: str, metadata_member: str) -> str | None:
        """Finds a segment's member: beside its metadata, at the path it spells, or anywhere if the
        name is there once.
        """
        folder = metadata_member.rpartition("/")[0]
        beside = f"{folder}/{base_filename}" if folder else base_filename
        for name in (beside, base_filename):
            if name in self._items:
                return name
        return self._by_last.get(base_filename)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A packet dump in the local folder."""

    path: Path
    damage: RecordingError | None
    """Why it is shorter than it was; None when it came whole."""


@dataclass(slots=True)
class Contents:
    """All members that matter, sorted by kind; dumps lie in a local folder."""

    sessions: list[SessionTiming] = field(default_factory=list)
    dumps: Named[Dump] = field(default_factory=Named)
    descriptions: Named[dict[int, RtpMap] | RecordingError] = field(default_factory=Named)
    member_count: int = 0
    metadata_count: int = 0
    metadata_bytes: int = 0
    segment_count: int = 0
    session_keys: set[tuple[CallKey, str, str]] = field(default_factory=set)


def read_contents(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    spool: Path,
    limits: LimitSettings,
    failures: Failures,
    on_bytes: Callable[[int], None],
) -> Contents:
    """Reads an archive front to back: metadata and descriptions into memory, dumps into `spool`.

    Args:
      on_bytes: told the size of each block of a dump.

    Raises:
      ArchiveError: not an archive, or nothing in it that could be a recording.
    """
    contents = Contents()
    is_cut = False
    try:
        for member in _members(ref, folder_members, open_input, limits):
            contents.member_count += bool(member.name)
            _take_member(member, contents, spool, limits, failures, on_bytes)
    except (ArchiveError, CodecProcessError) as error:
        # What came whole before the damage is kept; an archive of which nothing came is no archive.
        if not contents.metadata_count and not contents.dumps:
            raise
        failures.add(error)
        is_cut = True
    is_cut = is_cut or any(contents.dumps[base].damage is not None for base in contents.dumps)
    if not contents.metadata_count and not is_cut:
        nothing = ArchiveError(
            f"no *{SUFFIX} among {contents.member_count} members, expected one per participant "
            "session"
        )
        if not failures.all() and not contents.dumps:
            raise nothing
        failures.add(nothing)
    return contents


def _take_member(
    member: Member,
    contents: Contents,
    spool: Path,
    limits: LimitSettings,
    failures: Failures,
    on_bytes: Callable[[int], None],
) -> None:
    """Keeps what a member holds; what is wrong with it is told and costs no other."""
    name = member.name
    base, _, suffix = name.rpartition(".")
    is_metadata = name.lower().endswith(SUFFIX)
    suffix = suffix.lower()
    if member.problem is not None:
        contents.metadata_count += is_metadata
        if member.is_suspect or is_metadata or suffix in ("rtpdump", "sdp"):
            failures.add(member.problem)
        return
    try:
        if is_metadata:
            contents.metadata_count += 1
            _take_metadata(member, contents, limits, failures)
        elif suffix == "rtpdump" and base not in contents.dumps:
            path = spool / f"{contents.member_count}.rtpdump"
            contents.dumps.add(base, Dump(path=path, damage=_spool(member, path, on_bytes)))
        elif suffix == "sdp" and base not in contents.descriptions:
            contents.descriptions.add(base, _read_description(member, contents, limits))
        elif suffix in ("rtpdump", "sdp"):
            raise ArchiveError(
                f"{name}: a second member of this name, the first was taken", member=name
            )
    except (ArchiveError, TimingMetadataError) as error:
        failures.add(error)
    except MemoryError:
        failures.add(no_memory(name))


def no_memory(member: str) -> CodecProcessError:
    """What one member costs too much of is its own failure: the memory it took is free again, its
    neighbours are read.
    """
    return CodecProcessError(
        f"{member}: needs more memory than it may take (limits.codec_memory_bytes)", member=member
    )


def _take_metadata(
    member: Member, contents: Contents, limits: LimitSettings, failures: Failures
) -> None:
    text = _read_metadata(member, contents, limits)
    session = parse_timing_metadata(text, member.name)
    for problem in session.problems:
        failures.add(problem, session=session)
    key = (session.call, session.participant_id, session.user_session_id)
    segment_count = contents.segment_count + len(session.audio) + len(session.video)
    if key not in contents.session_keys and len(contents.session_keys) >= limits.max_sessions:
        raise ArchiveError(
            f"more than {limits.max_sessions} participant sessions (limits.max_sessions)"
        )
    if segment_count > limits.max_members:
        raise ArchiveError(
            f"{member.name}: more than {limits.max_members} segments in the archive's metadata "
            "(limits.max_members)",
            member=member.name,
        )
    contents.segment_count = segment_count
    contents.session_keys.add(key)
    contents.sessions.append(session)


def _spool(member: Member, path: Path, on_bytes: Callable[[int], None]) -> RecordingError | None:
    """Copies a dump to the local folder; returns what cut it short. Packets before that are
    whole.
    """
    with path.open("wb") as file:
        try:
            while block := member.stream.read(_COPY_BYTES):
                file.write(block)
                on_bytes(len(block))
        except (ArchiveError, CodecProcessError) as error:
            return error
    return None


def _read_description(
    member: Member, contents: Contents, limits: LimitSettings
) -> dict[int, RtpMap] | RecordingError:
    """Returns what a session description maps, or why it cannot be read: it is told when a segment
    asks for it.
    """
    try:
        return parse_sdp(_read_metadata(member, contents, limits, caps.MAX_SDP_BYTES), member.name)
    except RecordingError as error:
        return error


def _read_metadata(
    member: Member, contents: Contents, limits: LimitSettings, limit_bytes: int | None = None
) -> bytes:
    """Returns a small member's bytes, counted. Raises: ArchiveError."""
    most, name = (
        (limits.max_metadata_member_bytes, "max_metadata_member_bytes")
        if limit_bytes is None
        else (limit_bytes, "")
    )
    left = limits.max_metadata_bytes - contents.metadata_bytes
    if left < most:
        most, name = left, "max_metadata_bytes"
    text = member.stream.read(most + 1)
    if len(text) <= most:
        text += member.stream.read(1)  # damage right behind it
    contents.metadata_bytes += min(len(text), most)
    if len(text) > most:
        what = (
            f"{most} bytes left for metadata"
            if name == "max_metadata_bytes"
            else f"expected at most {most} bytes"
        )
        limit = f" (limits.{name})" if name else ""
        raise ArchiveError(
            f"{member.name}: metadata past its limit, {what}{limit}", member=member.name
        )
    return text


def _members(
    ref: ArchiveRef,
    folder_members: tuple[tuple[str, int], ...],
    open_input: Callable[[str], BinaryIO],
    limits: LimitSettings,
) -> Iterator[Member]:
    if ref.uri.endswith("/"):
        yield from walk_folder(
            folder_members,
            lambda name: open_input(ref.uri + name),
            limits,
            lambda name: _why_no_file(ref.uri, name),
        )
    else:
        with open_input(ref.uri) as stream:
            yield from walk_archive(stream, limits)


def _why_no_file(folder: str, name: str) -> str | None:
    """Returns what lies in a folder on a disk instead of a file of its own: whoever unpacked an
    archive made its links, too.
    """
    path = folder + name
    if not os.path.lexists(path):  # on an object store, where there is neither; or gone
        return None
    if not os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        return "a link out of its folder"
    return None if os.path.isfile(path) else "no regular file"
