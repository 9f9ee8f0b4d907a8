"""All that crosses a shuffle: small values, ids and references; never media, never rows by the
thousand. In the order in which a run makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from transforms.bounds import Bound
from transforms.filters import Filters, TrackNames
from transforms.media.errors import RecordingError
from transforms.media.findings import Finding
from transforms.media.rtp.dump_claims import Conventions
from transforms.media.server_clock import ClockWatch, ServerClock
from transforms.media.values import CallKey, FileTime, OutputType, PartFiles, TrackKey
from transforms.media.wall_time import utc_date

# --- rows on their way ---------------------------------------------------------------------------


Row = dict[str, Any]


ReplacedKey = tuple[str, ...]
"""(call_type, call_id, call_session_id), (archive_uri,) or (run_id,): what rows are sharded and
replaced by.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentRef:
    """Rows of a track, by table, on their way to its call."""

    uri: str
    row_counts: tuple[tuple[str, int], ...]
    """Per table."""

    def count(self, table: str) -> int:
        """Returns how many rows of a table it has."""
        return next((count for name, count in self.row_counts if name == table), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionRef:
    """Rows that replace what one `call_date` of one table has of some calls or archives: a part of
    a bundle.
    """

    table: str
    call_date: str
    uri: str
    """Of the bundle."""
    starts: tuple[int, ...]
    """Where in it the owners begin whose hashes have each value of some leading bits, in order, and
    where the last end.
    """
    row_count: int
    only_removes: bool = False
    """Whether it takes rows away under a date where none take their place."""


def key_hash(*parts: str) -> str:
    """Returns a short name for something that ids stand for; the same in every process and run."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]


# --- archives ------------------------------------------------------------------------------------


class Status(StrEnum):
    """How an archive, track or call ended; docs/catalog.md defines the words."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    EMPTY = "empty"
    WAITING = "waiting"
    """Of an archive that a run left to the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRef:
    """One raw archive as listed: a file, or an unpacked folder."""

    uri: str
    """Absolute path or full URI; a folder's ends in `/`."""
    size_bytes: int
    modified_unix_ns: int
    fingerprint: str
    """Changes whenever the archive's content may have."""
    attempt: int = 1
    """1 for a first try; on another day one more than the catalog counts for this fingerprint."""
    is_known_failure: bool = False
    """Whether this version has left it failed or partial before, as it is: no news."""
    is_waiting: bool = False
    """Whether an earlier run left it to this one."""
    recalled_for: tuple[CallKey, ...] = ()
    """The calls an archive of an earlier run is read again for; empty for an archive of this run,
    which is all wanted.
    """
    link: str = field(default="", repr=False)
    """What opens it, with its signature, where a manifest gave one; empty where the URI does. It
    stands in no message, row, log or file name.
    """
    copy_uri: str = ""
    """Where a copy of it lies (`--copy-raw`), which is read in its place; empty without one."""
    not_copied: str = ""
    """Why it could not be copied; empty where it was, or was not to be."""
    is_unseen: bool = False
    """Whether nothing is known of it but what a manifest and the catalog say."""
    is_dated: bool = False
    """Whether a manifest says when it ended, which counts as its modification then."""

    @property
    def source(self) -> str:
        """What opens the archive itself, wherever a copy lies."""
        return self.link or self.uri

    def without_link(self) -> ArchiveRef:
        """Returns it as it may be kept when the run has ended."""
        return replace(self, link="")


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOffArchive:
    """An archive that the run leaves to the next one."""

    ref: ArchiveRef
    by: Bound | None
    """None for one of a later portion of the same run: it waits in case that never comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPart:
    """One archive's share of a track (or of a session that sent nothing), as it crosses a shuffle:
    small.
    """

    call: CallKey
    participant_id: str
    user_session_id: str
    output_type: OutputType | None
    """None for a session in which nothing was sent."""
    archive_uri: str
    archive_modified_unix_ns: int
    archive_fingerprint: str
    call_start_unix_ns: int | None
    conventions: Conventions = field(default_factory=Conventions)
    """Of the archive."""
    index_uri: str = ""
    has_packets: bool = False
    """Whether its packets lie beside the index; not where nothing was sent, or nothing of it can be
    used.
    """
    media_samples: int = 0
    first_server_unix_ns: int = 0
    last_server_unix_ns: int = 0
    """When its last packet run begins."""
    stop_server_unix_ns: int = 0
    """When the last of its audio ends."""
    allowed_samples: int = 0
    """How much media its archive allows its call, the same in all its parts of it
    (`media/media_hours.py`).
    """
    watch: ClockWatch = field(default_factory=ClockWatch)
    """What it shows of the clock of the server that recorded it."""
    server_clock: ServerClock = field(default_factory=ServerClock)
    """How that differs from the clock of the call; known once its call is planned."""
    track_ids: tuple[str, ...] = ()
    """Published tracks in it that a run was asked for, and some others; empty in a run that was
    asked for none.
    """

    @property
    def packets_uri(self) -> str:
        """The URI of its staged packets, empty where there are none."""
        return self.index_uri.removesuffix(".json") + ".packets" if self.has_packets else ""

    @property
    def files(self) -> PartFiles:
        """Its staged files, as a job is given them."""
        return PartFiles(
            packets=self.packets_uri, index=self.index_uri, server_clock=self.server_clock
        )

    @property
    def track(self) -> TrackKey | None:
        if self.output_type is None:
            return None
        return TrackKey(
            call=self.call,
            participant_id=self.participant_id,
            user_session_id=self.user_session_id,
            output_type=self.output_type,
        )

    @property
    def names(self) -> TrackNames:
        """What it can be asked for by."""
        return TrackNames(
            call_cid=self.call.cid,
            participant_id=self.participant_id,
            user_session_id=self.user_session_id,
            output_type=self.output_type,
            track_ids=self.track_ids,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSummary:
    """What unpacking an archive came to."""

    ref: ArchiveRef
    is_complete: bool
    """Whether all of it is in this run, so that it may be recorded as done."""
    member_count: int | None
    track_count: int
    calls: tuple[CallKey, ...]
    first_failure: Failure | None
    could_read: bool
    bytes_read: int
    cpu_ns: int
    convention: str = ""
    """In what its metadata and its dumps differ alike; empty where they do not."""


# --- calls and tracks ----------------------------------------------------------------------------


TrackIds = tuple[str, str, str]
"""(participant, user session, output type) within a call."""


def track_ids_of(track: TrackKey) -> TrackIds:
    """Returns what names a track within its call."""
    return (track.participant_id, track.user_session_id, str(track.output_type))


FileIds = tuple[str, str | None, str | None, str | None, int]
"""Recording type, participant, user session, output type and part of a file within a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorFile:
    """A file that the catalog has of a call."""

    ids: FileIds
    filename: str | None
    """None, as is the next, where the row does not say."""
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorCall:
    """What the catalog has of a call that is pressed again."""

    timeline_start_unix_ns: int | None
    tracks: tuple[TrackIds, ...] = ()
    files: tuple[TrackIds, ...] = ()
    mix_start_unix_ns: int | None = None
    """Server time of the mix's first sample; None without a mix."""
    first_start_unix_ns: int | None = None
    """Server time of the first sample of any file; None without files."""
    media_uris: tuple[str, ...] = ()
    recordings: tuple[PriorFile, ...] = ()
    """What its files are; empty where nobody is told of what replaces them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSource:
    """One track to extract, from all its parts."""

    track: TrackKey
    parts: tuple[TrackPart, ...]
    """Those with packets, in order of time; at least one."""
    timeline_start_unix_ns: int
    begin_unix_ns: int | None
    """Server time at which its file begins; None for that of its first packet."""
    bare_parts: tuple[TrackPart, ...] = ()
    """Those of archives that have segments of the track, but nothing that can be used."""
    allowed_samples: int | None = None
    """How long its file may be; None for as long as it is."""
    replaces_prior: bool = False
    """Whether the catalog has its call: that is finished once it is planned, since its files are
    being replaced.
    """

    @property
    def media_samples(self) -> int:
        """Length of the audio in its packets."""
        return sum(part.media_samples for part in self.parts)

    @property
    def archive_uris(self) -> tuple[str, ...]:
        """The archives it comes from, sorted."""
        return tuple(sorted({part.archive_uri for part in self.parts}))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """One call session, as all its archives together tell it."""

    call: CallKey
    timeline_start_unix_ns: int
    """Call time zero; once in the catalog it stays."""
    sources: tuple[TrackSource, ...]
    """The tracks to extract."""
    silent_parts: tuple[TrackPart, ...]
    """Parts of tracks that give no audio: nothing was sent, or nothing of it can be used."""
    sessions: tuple[tuple[str, str], ...]
    """(participant, user session) of everybody the metadata speaks of."""
    archive_uris: tuple[str, ...]
    archive_fingerprints: tuple[tuple[str, str], ...]
    """(URI, fingerprint) of those read in this run."""
    is_narrowed: bool
    """Whether the run is about some tracks only."""
    is_whole: bool
    """Whether all archives of the call are here, and all of it is wanted: then its mix is made."""
    has_prior: bool
    """Whether the catalog has the call."""
    prior_tracks: tuple[TrackIds, ...]
    """Tracks with audio that the catalog has."""
    prior_files: tuple[TrackIds, ...]
    """Individual files that the catalog has."""
    has_prior_mix: bool
    """Whether the catalog has a mix of the call."""
    prior_recordings: tuple[PriorFile, ...] = ()
    """What the files are that the catalog has; empty where nobody is told of what replaces them."""
    allowed_samples: int | None = None
    """How much media may be written of it; None for all."""
    allowed_mix_samples: int | None = None
    """How long its mix may be; None for as long as it is."""
    server_clock_steps: int = 0
    """How often the clock of a server of it was set in mid-call."""

    @property
    def call_date(self) -> str:
        return utc_date(self.timeline_start_unix_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedTrack:
    """A track whose files are published; its rows wait in staging. What it was made of, the plan of
    its call has.
    """

    track: TrackKey
    rows: FragmentRef
    file_times: tuple[FileTime, ...]
    """Of its files, one for each lane."""
    archive_uris: tuple[str, ...]
    duration_samples: int
    """Length of its files together: one, but for what sounds at the same time."""
    missing_ms: int
    """Claimed or received, and not in them."""
    file_count: int
    bytes_written: int
    cpu_ns: int
    media_uris: tuple[str, ...] = ()
    """Its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOffTrack:
    """A track that was not extracted, as the run starts no more: its call is put off."""

    track: TrackKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PressedCall:
    """A call whose media is published; its rows wait in staging."""

    call: CallKey
    call_date: str
    """Of its rows."""
    status: Status
    failures: tuple[Failure, ...]
    claimed_ms: int
    """By the metadata of its segments."""
    found_ms: int
    """In their dumps."""
    missing_ms: int
    """Claimed or received, and in no file."""
    replaces_prior: bool
    """Whether the catalog had the call, and a note says that it is being replaced."""
    files_written: int
    media_samples: int
    bytes_written: int
    cpu_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedFile:
    """A media file of which no row is left, or of which none will be."""

    uri: str
    call: CallKey | None = None
    """None for a file of a call that is put off: the catalog has no row of it."""
    call_date: str = ""
    """Of the call's rows."""
    participant_id: str | None = None
    """None, as are the next two, of a mix, and where no row tells any more whose it was."""
    user_session_id: str | None = None
    output_type: OutputType | None = None


# --- what became of archives ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOutcome:
    """What became of an archive's share of one call."""

    archive_uri: str
    made_something: bool
    first_failure: Failure | None
    completed: CallKey | None = None
    """The call, where another archive of it brought a segment that this one lacks; else None."""
    is_put_off: bool = False
    """Whether the call is left to the next run, and with it the archive."""


def put_off(archive_uri: str) -> ArchiveOutcome:
    """Returns what becomes of an archive's share of a call that is left to the next run."""
    return ArchiveOutcome(
        archive_uri=archive_uri, made_something=False, first_failure=None, is_put_off=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedArchive:
    """How an archive ended, for the run's own figures."""

    status: Status
    bytes_read: int
    cpu_ns: int
    failure_count: int
    """Rows of failures that belong to no call."""
    is_first_time: bool
    """Whether this version had not left it failed or partial before, as it is."""
    put_off_by: Bound | None = None
    """What left it to the next run, in part or whole."""


# --- failures ------------------------------------------------------------------------------------


class Stage(StrEnum):
    """The step a failure was met in, as the tables spell it."""

    LIST_ARCHIVES = "ListArchives"
    READ_MANIFESTS = "ReadManifests"
    COPY_ARCHIVES = "CopyArchives"
    UNPACK_ARCHIVES = "UnpackArchives"
    RECALL_ARCHIVES = "RecallArchives"
    """An earlier archive of a call cannot be read any more."""
    PLAN_CALLS = "PlanCalls"
    EXTRACT_TRACKS = "ExtractTracks"
    MIX_CALLS = "MixCalls"
    WRITE_CATALOG = "WriteCatalog"
    """A file without a row cannot be deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The one shape of every dead letter: what could not be done, where, and for whom."""

    stage: Stage
    error_type: str
    message: str
    archive_uri: str | None = None
    archive_modified_unix_ns: int | None = None
    member: str | None = None
    call: CallKey | None = None
    participant_id: str | None = None
    user_session_id: str | None = None
    output_type: OutputType | None = None
    byte_offset: int | None = None
    attempt: int = 1
    retryable: bool = False
    lacks_segment: str | None = None
    """As in `RecordingError`; it is in no table."""


def to_failure(stage: Stage, error: RecordingError, **where: Any) -> Failure:
    """Returns an error as a dead letter.

    Args:
      stage: the transform it was met in.
      error: what went wrong.
      where: fields of `Failure` that say for what archive, call or track.
    """
    return Failure(
        stage=stage,
        error_type=type(error).__name__,
        message=error.message,
        member=error.member,
        byte_offset=error.byte_offset,
        retryable=error.retryable,
        lacks_segment=error.lacks_segment,
        **where,
    )


def finding_to_failure(stage: Stage, finding: Finding, **where: Any) -> Failure:
    """Returns a finding as a dead letter of its owner.

    Args:
      stage: the transform whose work it was found in.
      finding: what is wrong, and whose it is.
      where: fields of `Failure` that say for what archive.
    """
    failure = to_failure(stage, finding.error, **where)
    owner = finding.owner
    if owner is None:
        return failure
    return replace(
        failure,
        call=owner.call,
        participant_id=owner.participant_id,
        user_session_id=owner.user_session_id,
        output_type=owner.output_type if isinstance(owner, TrackKey) else None,
    )


def wants_failure(failure: Failure, filters: Filters) -> bool:
    """Whether a run's filters are about what a failure is about, as far as its names tell: which
    published tracks are in a track, all archives of its call together tell (`is_about_any`).
    """
    if failure.call is None:
        return True
    return (
        filters.wants_call(failure.call)
        and (not filters.participants or failure.participant_id in (None, *filters.participants))
        and failure.participant_id not in filters.excluded_participants
        and (not filters.user_sessions or failure.user_session_id in (None, *filters.user_sessions))
        and (not filters.output_types or failure.output_type in (None, *filters.output_types))
    )


def is_about_any(failure: Failure, tracks: Iterable[TrackKey]) -> bool:
    """Whether a failure is about one of some tracks of its call, or about the whole call."""
    return failure.participant_id is None or any(
        failure.participant_id == track.participant_id
        and failure.user_session_id in (None, track.user_session_id)
        and failure.output_type in (None, track.output_type)
        for track in tracks
    )


def failed_track(failure: Failure) -> tuple[Any, Any, Any]:
    """Returns the ids of the track a failure is about, each None when it is about more."""
    return (failure.participant_id, failure.user_session_id, failure.output_type)


def worst_failure(failures: Iterable[Failure | None]) -> Failure | None:
    """Returns the failure to judge an archive by: one that another try may heal, else the first,
    None without any.
    """
    found = [failure for failure in failures if failure is not None]
    return next((failure for failure in found if failure.retryable), found[0] if found else None)
