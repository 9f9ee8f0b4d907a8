"""Settings, and what of them tells whether an archive is pressed again."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import pytest

from transforms.media.settings import (
    FIRST_KEYS,
    KEYS_THAT_CHANGE_NOTHING_MADE,
    LEAST_CODEC_MEMORY_BYTES,
    LONGEST_LEASE_SECONDS,
    BeginWith,
    CompositeSettings,
    IndividualSettings,
    LimitSettings,
    LoudnessTarget,
    Mp3Channels,
    Mp3Mode,
    Mp3Settings,
    PressSettings,
    settings_fingerprint,
)
from transforms.media.values import Container, OutputType

DEFAULT = "294c55414037e74d"
"""Of all that was ever pressed without --config. A change of it presses every archive anew."""
LATER_KEYS: frozenset[str] = frozenset()
"""Keys that came after the first ones: `section.key`, or `key` where there is no section."""


def keys_of(section: Any, prefix: str = "") -> set[str]:
    """Returns the names of all keys of some settings, with their sections."""
    found: set[str] = set()
    for key in fields(section):
        value = getattr(section, key.name)
        if is_dataclass(value):
            found |= keys_of(value, f"{prefix}{key.name}.")
        else:
            found.add(prefix + key.name)
    return found


def changes_nothing_made(key: str) -> bool:
    """Whether a key or its section is marked as changing neither media nor rows."""
    return not KEYS_THAT_CHANGE_NOTHING_MADE.isdisjoint({key, key.partition(".")[0]})


def test_fingerprint_of_the_defaults_is_what_it_always_was() -> None:
    assert settings_fingerprint(PressSettings()) == DEFAULT


def test_fingerprint_of_other_values_is_what_it_always_was() -> None:
    settings = PressSettings(
        mp3=Mp3Settings(mode=Mp3Mode.VBR, channels=1),
        individual=IndividualSettings(
            container=Container.OGG,
            begin_with=BeginWith.MIX,
            output_types=(OutputType.AUDIO_ONLY,),
        ),
        composite=CompositeSettings(target_lufs=-16.0),
    )
    assert settings_fingerprint(settings) == "0e86081dc9fecc90"


@pytest.mark.parametrize(
    "settings",
    [
        PressSettings(mp3=Mp3Settings(mode=Mp3Mode.VBR)),
        PressSettings(mp3=Mp3Settings(bitrate_kbps=64)),
        PressSettings(mp3=Mp3Settings(vbr_quality=3)),
        PressSettings(mp3=Mp3Settings(channels=2)),
        PressSettings(mp3=Mp3Settings(lame_level=5)),
        PressSettings(individual=IndividualSettings(enabled=False)),
        PressSettings(individual=IndividualSettings(container=Container.OGG)),
        PressSettings(individual=IndividualSettings(begin_with=BeginWith.MIX)),
        PressSettings(individual=IndividualSettings(output_types=(OutputType.AUDIO_ONLY,))),
        PressSettings(composite=CompositeSettings(enabled=False)),
        PressSettings(composite=CompositeSettings(screenshare_audio=False)),
        PressSettings(composite=CompositeSettings(target_lufs=-23.0)),
    ],
    ids=lambda settings: str(settings_fingerprint(settings)),
)
def test_every_first_key_is_in_the_fingerprint(settings: PressSettings) -> None:
    assert settings_fingerprint(settings) != DEFAULT


@pytest.mark.parametrize("limit", [key.name for key in fields(LimitSettings)])
def test_no_limit_is_in_the_fingerprint(limit: str) -> None:
    value = LONGEST_LEASE_SECONDS if limit == "lock_seconds" else 1 << 40
    assert settings_fingerprint(PressSettings(limits=LimitSettings(**{limit: value}))) == DEFAULT


def test_lock_of_a_dead_run_holds_for_a_day_at_most() -> None:
    with pytest.raises(ValueError, match="lock_seconds is 86401, expected at most 86400"):
        LimitSettings(lock_seconds=LONGEST_LEASE_SECONDS + 1)


def test_codec_process_needs_some_memory() -> None:
    """Fewer bytes than it starts with would fail every archive of a night."""
    with pytest.raises(ValueError, match="codec_memory_bytes is 1048576, expected at least 134217"):
        LimitSettings(codec_memory_bytes=1 << 20)
    assert LimitSettings(codec_memory_bytes=LEAST_CODEC_MEMORY_BYTES)


def test_ratio_of_failures_is_not_in_the_fingerprint() -> None:
    assert settings_fingerprint(PressSettings(max_failed_ratio=0.5)) == DEFAULT
    assert settings_fingerprint(PressSettings(max_failed_count=5)) == DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownMp3(Mp3Settings):
    """A section with a key of a later version."""

    low_pass_hz: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSection:
    """A section of a later version."""

    enabled: bool = False
    languages: tuple[str, ...] = ("en",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownSettings(PressSettings):
    """Settings of a later version: a section, and a key that stands in none."""

    transcript: NewSection = field(default_factory=NewSection)
    keeps_silence: bool = True


@pytest.mark.parametrize(
    "settings",
    [
        PressSettings(mp3=GrownMp3()),
        GrownSettings(),
        GrownSettings(mp3=GrownMp3(), transcript=NewSection(languages=("en",))),
    ],
    ids=["key", "section", "both"],
)
def test_later_keys_with_their_defaults_leave_the_fingerprint(settings: PressSettings) -> None:
    assert settings_fingerprint(settings) == DEFAULT


@pytest.mark.parametrize(
    "settings",
    [
        PressSettings(mp3=GrownMp3(low_pass_hz=16_000)),
        GrownSettings(transcript=NewSection(enabled=True)),
        GrownSettings(transcript=NewSection(languages=("de",))),
        GrownSettings(keeps_silence=False),
    ],
    ids=["key", "section", "tuple", "no-section"],
)
def test_later_keys_with_other_values_change_the_fingerprint(settings: PressSettings) -> None:
    other = settings_fingerprint(settings)
    assert other != DEFAULT
    assert other == settings_fingerprint(replace(settings, limits=LimitSettings(max_members=7)))


def test_later_keys_that_change_nothing_made_leave_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "transforms.media.settings.KEYS_THAT_CHANGE_NOTHING_MADE",
        KEYS_THAT_CHANGE_NOTHING_MADE | {"transcript", "mp3.low_pass_hz"},
    )
    settings = GrownSettings(
        mp3=GrownMp3(low_pass_hz=16_000), transcript=NewSection(languages=("de",))
    )
    assert settings_fingerprint(settings) == DEFAULT


def test_every_key_is_a_first_one_a_later_one_or_changes_nothing_made() -> None:
    keys = keys_of(PressSettings())
    kinds = [FIRST_KEYS, LATER_KEYS, {key for key in keys if changes_nothing_made(key)}]
    assert set.union(*map(set, kinds)) == keys
    assert sum(map(len, kinds)) == len(keys), "a key is of two kinds"


def test_every_name_that_changes_nothing_made_is_a_key_or_section() -> None:
    keys = keys_of(PressSettings())
    assert keys | {key.partition(".")[0] for key in keys} >= KEYS_THAT_CHANGE_NOTHING_MADE


# --- words and numbers in one key -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "fixed"), [("auto", None), (Mp3Channels.AUTO, None), (1, 1), (2, 2)]
)
def test_channels_are_a_number_or_left_to_the_voices(
    channels: str | int, fixed: int | None
) -> None:
    settings = Mp3Settings(channels=channels)
    assert settings.fixed_channels == fixed
    assert json.dumps(asdict(settings)["channels"]) == json.dumps(channels)


@pytest.mark.parametrize(
    ("target", "wanted"), [("off", None), (LoudnessTarget.OFF, None), (-16.0, -16.0), (-20, -20.0)]
)
def test_loudness_is_a_number_or_off(target: str | float, wanted: float | None) -> None:
    settings = CompositeSettings(target_lufs=target)
    assert settings.wanted_lufs == wanted
    assert json.dumps(asdict(settings)["target_lufs"]) == json.dumps(target)


def test_words_that_stand_for_a_number_are_stored_as_they_always_were() -> None:
    stored = json.dumps(asdict(PressSettings()))
    assert '"channels": "auto"' in stored
    assert '"target_lufs": "off"' in stored


@pytest.mark.parametrize("channels", ["two", "", 0, 3, True])
def test_other_channels_raise(channels: str | int) -> None:
    message = f'channels is {channels!r}, expected "auto", 1 or 2'
    with pytest.raises(ValueError, match=re.escape(message)):
        Mp3Settings(channels=channels)


@pytest.mark.parametrize("target", ["on", "", "-16", -41, -4.9])
def test_other_loudness_raises(target: str | float) -> None:
    message = f'target_lufs is {target!r}, expected "off" or -40 to -5'
    with pytest.raises(ValueError, match=re.escape(message)):
        CompositeSettings(target_lufs=target)
