"""Values that all of `media` shares: the vendor's words for tracks and files, and the keys of calls
and tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from transforms.media.server_clock import ServerClock


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


class Codec(StrEnum):
    """The vendor's words for what a track's packets are; with any other word they are not read."""

    OPUS = "audio/opus"
    RED = "audio/red"
    """Opus with redundant copies of packets before it (RFC 2198)."""


# --- keys -----------------------------------------------------------------------------------------


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
class SessionKey:
    """One participant session: one participant's stay in a call session."""

    call: CallKey
    participant_id: str
    user_session_id: str

    def track(self, output_type: OutputType) -> TrackKey:
        """Returns the session's track of a type."""
        return TrackKey(
            call=self.call,
            participant_id=self.participant_id,
            user_session_id=self.user_session_id,
            output_type=output_type,
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TrackKey:
    """One participant session's audio of one type within a call session: what becomes one
    individual file.
    """

    call: CallKey
    participant_id: str
    user_session_id: str
    output_type: OutputType


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFiles:
    """Names of a part's two staged files, for the job's host to open, and how to read its times."""

    packets: str
    index: str
    server_clock: ServerClock = field(default_factory=ServerClock)
    """That of the server that recorded it."""


_DUMP_SUFFIX = ".rtpdump"


def segment_stem(base_filename: str) -> str:
    """Returns a segment's `base_filename` without `.rtpdump`, which the first recorders wrote into
    it.
    """
    stem = base_filename[: -len(_DUMP_SUFFIX)]
    has_suffix = base_filename.lower().endswith(_DUMP_SUFFIX) and stem.rpartition("/")[2] != ""
    return stem if has_suffix else base_filename


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTime:
    """How an individual file lies in time."""

    begin_unix_ns: int | None = None
    """Server time at which it begins; None for that of its first packet."""
    longest_pause_samples: int | None = None
    """Longer ones it leaves out; None where it leaves out none."""


Tags = Mapping[str, str]
"""Container tags by FFmpeg's generic names: title, artist, album, date, and our own in capitals."""
