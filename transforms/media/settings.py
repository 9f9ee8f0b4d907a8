"""What a job profile (TOML) says: how to press, not where or how to run. Frozen, checked when
made.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

from transforms.media.job import CODEC_MEMORY_BYTES
from transforms.media.values import Container, OutputType


class Mp3Mode(StrEnum):
    CBR = "cbr"
    VBR = "vbr"


class Mp3Channels(StrEnum):
    """What stands for a number of channels; else it is 1 or 2."""

    AUTO = "auto"
    """Two when any voice has two."""


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
    channels: str | int = Mp3Channels.AUTO
    """`auto`: stereo when any voice is; else 1 or 2."""
    lame_level: int = 7
    """LAME's algorithm quality: 0 slowest and best, 9 fastest."""

    def __post_init__(self) -> None:
        if self.bitrate_kbps not in MP3_BITRATES_KBPS:
            raise ValueError(
                f"bitrate_kbps is {self.bitrate_kbps}, expected one of {list(MP3_BITRATES_KBPS)}"
            )
        if not 0 <= self.vbr_quality <= 9:
            raise ValueError(
                f"vbr_quality is {self.vbr_quality}, expected 0 (best) to 9 (smallest)"
            )
        if self.channels not in (Mp3Channels.AUTO, 1, 2) or isinstance(self.channels, bool):
            raise ValueError(f'channels is {self.channels!r}, expected "auto", 1 or 2')
        if not 0 <= self.lame_level <= 9:
            raise ValueError(f"lame_level is {self.lame_level}, expected 0 (best) to 9 (fastest)")

    @property
    def fixed_channels(self) -> int | None:
        """1 or 2; None when the voices decide."""
        return None if self.channels == Mp3Channels.AUTO else int(self.channels)


class BeginWith(StrEnum):
    """What individual files begin with."""

    TRACK = "track"
    """Their first packet."""
    MIX = "mix"
    """The earliest media of the call, as the mix does: laid side by side in an editor they are in
    step.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class IndividualSettings:
    """Which individual files are written."""

    enabled: bool = True
    container: Container = Container.MKV
    begin_with: BeginWith = BeginWith.TRACK
    output_types: tuple[OutputType, ...] = tuple(OutputType)

    def __post_init__(self) -> None:
        if not self.output_types:
            raise ValueError(
                "output_types is empty; to write no individual files set enabled = false"
            )


class LoudnessTarget(StrEnum):
    """What stands for a loudness; else it is a number of LUFS."""

    OFF = "off"
    """The mix stays as loud as it was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeSettings:
    """Whether the mix of each call is written, and what goes into it."""

    enabled: bool = True
    screenshare_audio: bool = True
    """Whether the sound of shared screens is mixed in."""
    target_lufs: str | float = LoudnessTarget.OFF
    """`off`: unity gain; else the loudness (EBU R128) the mix is brought to by one gain over its
    whole length.
    """

    def __post_init__(self) -> None:
        if self.target_lufs != LoudnessTarget.OFF and not (
            isinstance(self.target_lufs, int | float) and -40 <= self.target_lufs <= -5
        ):
            raise ValueError(f'target_lufs is {self.target_lufs!r}, expected "off" or -40 to -5')

    @property
    def wanted_lufs(self) -> float | None:
        """The loudness the mix is brought to; None for unity gain."""
        return None if self.target_lufs == LoudnessTarget.OFF else float(self.target_lufs)


LEAST_CODEC_MEMORY_BYTES = 128 << 20
"""Measured: a codec process starts with 80 MiB, and mixes a call of five tracks with 128, but not
with 112.
"""


LONGEST_LEASE_SECONDS = 24 * 3600
"""A run that died keeps the next night's out for no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds on what one archive or call may cost; they change nothing of what is within them."""

    max_archive_bytes: int = 64 << 30
    """Expanded bytes of one archive, as they come and not as it states them; the disk a worker
    needs for it.
    """
    max_expansion_ratio: int = 100
    """Expanded by compressed bytes; looked at past 64 MiB only, so that no small archive trips
    it.
    """
    max_members: int = 100_000
    """Entries of one archive, folders and links counted; also the segments its metadata may
    list.
    """
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
    """Time to unpack one archive; what is not reached by then is told and tried again in the next
    run.
    """
    max_call_hours: int = 24
    """A track further from its call's median than this takes no part, nor do packets of a track
    this far from its others.
    """
    max_media_hours: int = 25
    """Hours of media that may be written of an archive, whatever its packets hold: enough for the
    mix of a silent day.
    """
    max_media_ratio: int = 100
    """Hours that may be written besides for each hour that its packets hold. Past both, individual
    files leave out long pauses, and a mix is not written.
    """
    max_attempts: int = 3
    """Tries at one unchanged archive that keeps failing: days (UTC) on which runs try it. A newer
    version tries it once more whatever their number.
    """
    codec_memory_bytes: int = CODEC_MEMORY_BYTES
    """Private memory of a codec process, at least `LEAST_CODEC_MEMORY_BYTES`."""
    codec_seconds: int = 6 * 3600
    """Time one archive, track or mix may take in a codec process."""
    lock_seconds: int = 15 * 60
    """How long the catalog's lock holds where nobody of the run renews it."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if self.lock_seconds > LONGEST_LEASE_SECONDS:
            raise ValueError(
                f"lock_seconds is {self.lock_seconds}, expected at most {LONGEST_LEASE_SECONDS}: "
                "so long a run that died would keep others out"
            )
        if self.codec_memory_bytes < LEAST_CODEC_MEMORY_BYTES:
            raise ValueError(
                f"codec_memory_bytes is {self.codec_memory_bytes}, expected at least "
                f"{LEAST_CODEC_MEMORY_BYTES}: with less a codec process cannot mix a small call"
            )


class FailedCount(StrEnum):
    """What stands for a number of failed archives; else it is one."""

    OFF = "off"
    """No number is too many by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PressSettings:
    """What a config file says: how to process, not where or how to run."""

    mp3: Mp3Settings = field(default_factory=Mp3Settings)
    individual: IndividualSettings = field(default_factory=IndividualSettings)
    composite: CompositeSettings = field(default_factory=CompositeSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    max_failed_ratio: float = 0.05
    """Failed or partial archives by those attempted, both for the first time in this version, above
    which the run exits with 1.
    """
    max_failed_count: str | int = FailedCount.OFF
    """The number of such archives above which it does, whatever their ratio; or `off`."""
    max_missing_ms: int = 100
    """Audio of a track that is missing for one reason: from this much on a failure tells it, and
    the track is `partial`.
    """
    max_missing_packets: int = 5
    """The same in packets."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed_ratio <= 1:
            raise ValueError(f"max_failed_ratio is {self.max_failed_ratio}, expected 0 to 1")
        for name in ("max_missing_ms", "max_missing_packets"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        count = self.max_failed_count
        if count != FailedCount.OFF and (
            not isinstance(count, int) or isinstance(count, bool) or count < 0
        ):
            raise ValueError(f'max_failed_count is {count!r}, expected "off" or 0 or more')
        if not (self.individual.enabled or self.composite.enabled):
            raise ValueError(
                "individual.enabled and composite.enabled are both false: nothing would be made"
            )

    @property
    def most_failed(self) -> int | None:
        """The number of archives that may fail; None for any."""
        return None if self.max_failed_count == FailedCount.OFF else int(self.max_failed_count)


FIRST_KEYS = frozenset(
    {
        "mp3.mode",
        "mp3.bitrate_kbps",
        "mp3.vbr_quality",
        "mp3.channels",
        "mp3.lame_level",
        "individual.enabled",
        "individual.container",
        "individual.begin_with",
        "individual.output_types",
        "composite.enabled",
        "composite.screenshare_audio",
        "composite.target_lufs",
    }
)
"""Keys that the fingerprint has always held, whatever their values. Never to grow: a key added here
would change the fingerprint of every profile, and each archive would be pressed anew.
"""
KEYS_THAT_CHANGE_NOTHING_MADE = frozenset(
    {"limits", "max_failed_ratio", "max_failed_count", "max_missing_ms", "max_missing_packets"}
)
"""Sections and keys that change neither media nor rows, and so are never in the fingerprint."""


def settings_fingerprint(settings: PressSettings) -> str:
    """Returns a short hash of the settings that change media or rows: an archive pressed with
    another one is pressed again.

    Settings may grow without that: a key that is not of `FIRST_KEYS` counts only where it differs
    from its default. So the default of such a key must not change either: archives pressed with
    the old one could not be told from those pressed with the new one.
    """
    text = json.dumps(_fingerprinted(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprinted(section: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    default = type(section)()
    for key in fields(section):
        name, value = prefix + key.name, getattr(section, key.name)
        if name in KEYS_THAT_CHANGE_NOTHING_MADE:
            continue
        if is_dataclass(value):
            if part := _fingerprinted(value, f"{name}."):
                found[key.name] = part
        elif name in FIRST_KEYS or value != getattr(default, key.name):
            found[key.name] = value
    return found
