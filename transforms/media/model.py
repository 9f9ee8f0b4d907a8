"""Frozen values shared by all: keys, references, what each step hands to the next, settings. No behaviour beyond checks.

Wall time is an integer in ns since the Unix epoch, media time an integer in samples at 48 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from transforms.media.errors import RecordingError


class TrackType(StrEnum):
    """The vendor's audio track types; other types are not ours to press."""

    AUDIO = "TRACK_TYPE_AUDIO"
    SCREEN_SHARE_AUDIO = "TRACK_TYPE_SCREEN_SHARE_AUDIO"


class OutputType(StrEnum):
    """The vendor's names of individual files."""

    AUDIO_ONLY = "audio_only"
    SCREENSHARE_AUDIO_ONLY = "screenshare_audio_only"


OUTPUT_TYPE_OF = {
    TrackType.AUDIO: OutputType.AUDIO_ONLY,
    TrackType.SCREEN_SHARE_AUDIO: OutputType.SCREENSHARE_AUDIO_ONLY,
}
TRACK_TYPE_OF = {output: track for track, output in OUTPUT_TYPE_OF.items()}


class Container(StrEnum):
    """Containers for individual files; the packets in them are the same."""

    MKV = "mkv"
    WEBM = "webm"
    OGG = "ogg"


class Status(StrEnum):
    """How an archive, track or call ended; `outputs.md` defines the words."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    EMPTY = "empty"


def utf8_text(text: str) -> str:
    """Returns text that has a UTF-8 form: lone surrogates (JSON can spell them, tar names yield them) become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


# --- keys ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CallKey:
    """One session of one call."""

    call_type: str
    call_id: str
    call_session_id: str

    @property
    def cid(self) -> str:
        """The vendor's call cid, `type:id`."""
        return f"{self.call_type}:{self.call_id}"

    def as_tuple(self) -> tuple[str, str, str]:
        """The grouping key: strings encode the same way on every Beam engine."""
        return (self.call_type, self.call_id, self.call_session_id)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrackKey:
    """One participant session's audio of one type within a call session: what becomes one individual file."""

    call: CallKey
    participant_id: str
    user_session_id: str
    output_type: OutputType


# --- what an archive is and holds ------------------------------------------------------------------------------------


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
    """1 for a first try; one more than the catalog counts for this fingerprint."""
    recalled_for: tuple[CallKey, ...] = ()
    """The calls an archive of an earlier run is read again for; empty for an archive of this run, which is all wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTiming:
    """One segment as its timing metadata states it; every number is as found, None where absent."""

    base_filename: str
    codec: str
    track_id: str
    track_type: str
    first_rtp_timestamp: int | None
    last_rtp_timestamp: int | None
    first_rtp_unix_ms: int | None
    last_rtp_unix_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTiming:
    """One `*_timing_metadata.json`: one participant session of one call session."""

    member: str
    call: CallKey
    call_start_unix_ns: int | None
    """None when the metadata has no readable `call_start_time`."""
    participant_id: str
    user_session_id: str
    audio: tuple[SegmentTiming, ...]
    video: tuple[SegmentTiming, ...]
    problems: tuple[RecordingError, ...] = ()
    """Entries that are no segment and were left out."""


class StepEvidence(StrEnum):
    """What sender reports say of a lasting step between media time and arrivals."""

    NONE = "none"
    """There is no step: a run begins."""
    CONFIRMED = "confirmed"
    """The sender's own clock shows it: its capture stood still."""
    DENIED = "denied"
    """The sender's own clock went on: the network took another path."""
    UNKNOWN = "unknown"
    """No usable reports on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """A stretch of a run between lasting steps: its least delays, and enough to fit a line under all of them."""

    media_start_sample: int
    media_stop_sample: int
    point_count: int
    """Least delays looked at, one per quarter second."""
    mean_media_ns: int
    mean_delay_ns: int
    spread_media_ns: int
    """Standard deviation of the points in media time."""
    hull: tuple[tuple[int, int], ...]
    """Their lower convex hull: (media time of a packet's end in ns, delay above the run's base in ns)."""
    evidence: StepEvidence
    """Of the step before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClock:
    """What one run's arrivals and sender reports tell of its sender's clock, before a line is fitted."""

    base_unix_ns: int
    """Server time of media time 0 if the first packet had come with the least delay."""
    plateaus: tuple[Plateau, ...]
    method: str
    """`arrival_envelope`, or `metadata` where the dump has no usable arrivals."""

    @property
    def first_server_unix_ns(self) -> int:
        """About when the run begins, at the nominal rate."""
        return self.base_unix_ns + min(y for _, y in self.plateaus[0].hull)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockPiece:
    """A stretch of one media clock that maps to server time by one straight line."""

    media_start_sample: int
    """First sample, counted from the run's first packet."""
    server_start_unix_ns: int
    """Server time of that sample, codec look-ahead not yet taken off (the containers' pre-skip does that)."""
    skew_ppm: float
    """How much faster the sender's clock runs than the server's; 0 at the nominal rate."""
    is_fitted: bool
    """False where the nominal rate was taken because the skew cannot be known."""
    sync_error_ns: int
    """Bound on the error of server times in the piece."""

    @property
    def stretch(self) -> float:
        """Server seconds in a second of media."""
        return 1 / (1 + self.skew_ppm * 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIndex:
    """An unbroken run of one SSRC's time stamps within a segment, and where its packets are staged."""

    base_filename: str
    track_id: str
    ssrc: int
    packet_count: int
    packets_lost: int
    media_stop_sample: int
    """End of the last packet, counted from the run's first."""
    file_offset_bytes: int
    """Where the run's first window begins in the staged packet file."""
    clock: RunClock


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCounts:
    """What became of a track's packets. Foreign payloads and padding-only packets count as received."""

    expected: int = 0
    received: int = 0
    lost: int = 0
    duplicate: int = 0
    reordered: int = 0
    invalid: int = 0
    recovered_red: int = 0

    def __add__(self, other: PacketCounts) -> PacketCounts:
        return PacketCounts(
            expected=self.expected + other.expected,
            received=self.received + other.received,
            lost=self.lost + other.lost,
            duplicate=self.duplicate + other.duplicate,
            reordered=self.reordered + other.reordered,
            invalid=self.invalid + other.invalid,
            recovered_red=self.recovered_red + other.recovered_red,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartIndex:
    """What one archive holds of one track: the index beside its staged packets."""

    archive_uri: str
    channels: int
    codec: str
    segment_count: int
    counts: PacketCounts
    jitter_ms: float | None
    runs: tuple[RunIndex, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPart:
    """One archive's share of a track (or of a session that sent nothing), as it crosses a shuffle: small."""

    call: CallKey
    participant_id: str
    user_session_id: str
    output_type: OutputType | None
    """None for a session in which nothing was sent."""
    archive_uri: str
    archive_modified_unix_ns: int
    archive_fingerprint: str
    call_start_unix_ns: int | None
    packets_uri: str = ""
    index_uri: str = ""
    media_samples: int = 0
    first_server_unix_ns: int = 0
    last_server_unix_ns: int = 0

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


# --- failures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The one shape of every dead letter: what could not be done, where, and for whom."""

    stage: str
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


# --- settings --------------------------------------------------------------------------------------------------------


class Mp3Mode(StrEnum):
    CBR = "cbr"
    VBR = "vbr"


MP3_BITRATES_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""MPEG-1 layer III (ISO/IEC 11172-3): what a constant bit rate at 48 kHz can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp3Settings:
    """How the mix is encoded."""

    mode: Mp3Mode = Mp3Mode.CBR
    bitrate_kbps: int = 128
    """Used by `cbr`."""
    vbr_quality: int = 2
    """Used by `vbr`: 0 best to 9 smallest, LAME's -V and FFmpeg's -qscale:a."""
    channels: str | int = "auto"
    """`auto`: stereo when any voice is; else 1 or 2."""
    lame_level: int = 7
    """LAME's algorithm quality: 0 slowest and best, 9 fastest."""

    def __post_init__(self) -> None:
        if self.bitrate_kbps not in MP3_BITRATES_KBPS:
            raise ValueError(f"bitrate_kbps is {self.bitrate_kbps}, expected one of {list(MP3_BITRATES_KBPS)}")
        if not 0 <= self.vbr_quality <= 9:
            raise ValueError(f"vbr_quality is {self.vbr_quality}, expected 0 (best) to 9 (smallest)")
        if self.channels not in ("auto", 1, 2) or isinstance(self.channels, bool):
            raise ValueError(f'channels is {self.channels!r}, expected "auto", 1 or 2')
        if not 0 <= self.lame_level <= 9:
            raise ValueError(f"lame_level is {self.lame_level}, expected 0 (best) to 9 (fastest)")


class BeginWith(StrEnum):
    """What individual files begin with."""

    TRACK = "track"
    """Their first packet."""
    MIX = "mix"
    """The earliest media of the call, as the mix does: laid side by side in an editor they are in step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndividualSettings:
    """Which individual files are written."""

    enabled: bool = True
    container: Container = Container.MKV
    begin_with: BeginWith = BeginWith.TRACK
    output_types: tuple[OutputType, ...] = tuple(OutputType)

    def __post_init__(self) -> None:
        if not self.output_types:
            raise ValueError("output_types is empty; to write no individual files set enabled = false")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeSettings:
    """Whether the mix of each call is written, and what goes into it."""

    enabled: bool = True
    screenshare_audio: bool = True
    """Whether the sound of shared screens is heard in it."""
    target_lufs: str | float = "off"
    """`off`: unity gain; else the loudness (EBU R128) the mix is brought to by one gain over its whole length."""

    def __post_init__(self) -> None:
        if self.target_lufs != "off" and not (isinstance(self.target_lufs, int | float) and -40 <= self.target_lufs <= -5):
            raise ValueError(f'target_lufs is {self.target_lufs!r}, expected "off" or -40 to -5')


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds on what one archive or call may cost; they change no media."""

    max_archive_bytes: int = 64 << 30
    """Expanded bytes of one archive, as they come and not as it states them; the disk a worker needs for it."""
    max_expansion_ratio: int = 100
    """Expanded by compressed bytes; looked at past 64 MiB only, so that no small archive trips it."""
    max_members: int = 100_000
    """Entries of one archive, folders and links counted; also the segments its metadata may list."""
    max_member_name_bytes: int = 1_024
    max_metadata_bytes: int = 64 << 20
    """All timing metadata and session descriptions of one archive."""
    max_metadata_member_bytes: int = 8 << 20
    """One timing metadata file."""
    max_sessions: int = 10_000
    """Participant sessions of one archive."""
    max_segment_packets: int = 4_500_000
    """Records of one dump; 24 h at 20 ms are 4.3 million."""
    max_archive_seconds: int = 2 * 3600
    """Time to unpack one archive; what is not reached by then is told and tried again in the next run."""
    max_call_hours: int = 24
    """A track further from its call's median than this takes no part, nor do packets of a track this far from its others."""
    max_attempts: int = 3
    """Tries at one unchanged archive that keeps failing, one per run."""
    codec_memory_bytes: int = 1 << 30
    codec_seconds: int = 6 * 3600
    """Time one archive, track or mix may take in a codec process."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class PressSettings:
    """What a config file says: how to process, not where or how to run."""

    mp3: Mp3Settings = field(default_factory=Mp3Settings)
    individual: IndividualSettings = field(default_factory=IndividualSettings)
    composite: CompositeSettings = field(default_factory=CompositeSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    max_failed_ratio: float = 0.05
    """Failed or partial archives by those attempted, above which the run exits with 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_ratio <= 1:
            raise ValueError(f"max_failed_ratio is {self.max_failed_ratio}, expected 0 to 1")
        if not (self.individual.enabled or self.composite.enabled):
            raise ValueError("individual.enabled and composite.enabled are both false: nothing would be made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What part of the input a run is about; empty tuples do not filter."""

    calls: tuple[str, ...] = ()
    """Call cids, `type:id`."""
    participants: tuple[str, ...] = ()
    user_sessions: tuple[str, ...] = ()
    output_types: tuple[OutputType, ...] = ()
    since_unix_ns: int | None = None

    @property
    def narrows_tracks(self) -> bool:
        """Whether only some files of a call are wanted: then no mix is made or replaced."""
        return bool(self.participants or self.user_sessions or self.output_types)

    def wants_call(self, call: CallKey) -> bool:
        return not self.calls or call.cid in self.calls

    def wants_track(self, track: TrackKey) -> bool:
        return (
            self.wants_call(track.call)
            and (not self.participants or track.participant_id in self.participants)
            and (not self.user_sessions or track.user_session_id in self.user_sessions)
            and (not self.output_types or track.output_type in self.output_types)
        )


Tags = Mapping[str, str]
"""Container tags by FFmpeg's generic names: title, artist, album, date, and our own in capitals."""
