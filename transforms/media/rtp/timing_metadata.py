"""Reads `*_timing_metadata.json`: who was in which call, and which segments were sent. Checks
types, judges nothing else.

Of a key that is there twice the last value counts, as with the JSON readers of every browser and of
Go.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from transforms.media import caps
from transforms.media.errors import RecordingError, TimingMetadataError
from transforms.media.text import utf8_text
from transforms.media.values import CallKey, SessionKey


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
    findings: tuple[RecordingError, ...] = ()
    """Entries that are no segment and were left out."""

    @property
    def session(self) -> SessionKey:
        """Whose it is."""
        return SessionKey(
            call=self.call,
            participant_id=self.participant_id,
            user_session_id=self.user_session_id,
        )


SUFFIX = "_timing_metadata.json"
_MAX_INT = 1 << 63
_UTF16_STARTS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")
# 1971 to 2200. Senders write zeros and year 1 for "not set"; beyond lies what no table could hold.
_EARLIEST_MS = 31_536_000_000
_LATEST_MS = 7_258_118_400_000


def parse_timing_metadata(text: bytes, member: str) -> SessionTiming:
    """Returns one participant session's timing.

    Args:
      text: the member's bytes, UTF-8 with or without a byte-order mark.
      member: its name, for messages.

    Raises:
      TimingMetadataError: not a JSON object, an id is missing, not text or too long, or a list of
        segments is no list. An entry that is no segment is one of the `findings`.
    """
    if text.startswith(_UTF16_STARTS):
        raise TimingMetadataError(
            f"{member}: is UTF-16 text, expected UTF-8", member=member, byte_offset=0
        )
    try:
        data = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TimingMetadataError(
            f"{member}: byte {error.start} is not UTF-8, expected JSON",
            member=member,
            byte_offset=error.start,
        ) from None
    except json.JSONDecodeError as error:
        mark = 3 if text.startswith(codecs.BOM_UTF8) else 0
        position = mark + len(error.doc[: error.pos].encode("utf-8"))
        raise TimingMetadataError(
            f"{member}: {error.msg} at byte {position}, expected JSON",
            member=member,
            byte_offset=position,
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep; an integer of too many digits
        raise TimingMetadataError(f"{member}: unreadable JSON ({error})", member=member) from None
    if not isinstance(data, dict):
        raise TimingMetadataError(
            f"{member}: {_kind(data)} at the top, expected an object", member=member
        )
    segments = data.get("segments") or {}
    if not isinstance(segments, dict):
        raise TimingMetadataError(
            f"{member}: segments is {_kind(segments)}, expected an object", member=member
        )
    findings: list[RecordingError] = []
    return SessionTiming(
        member=member,
        call=CallKey(
            call_type=_text(data, "call_type", member),
            call_id=_text(data, "call_id", member),
            call_session_id=_text(data, "call_session_id", member),
        ),
        call_start_unix_ns=_time(data.get("call_start_time")),
        participant_id=_text(data, "participant_id", member),
        user_session_id=_text(data, "user_session_id", member),
        audio=_segments(segments, "audio", member, findings),
        video=_segments(segments, "video", member, findings),
        findings=tuple(findings),
    )


def _segments(
    segments: dict[str, Any], kind: str, member: str, findings: list[RecordingError]
) -> tuple[SegmentTiming, ...]:
    entries = segments.get(kind) or []
    if not isinstance(entries, list):
        raise TimingMetadataError(
            f"{member}: segments.{kind} is {_kind(entries)}, expected a list", member=member
        )
    found: dict[str, SegmentTiming] = {}
    for number, entry in enumerate(entries):
        where = f"{member}: segments.{kind}[{number}]"
        if not isinstance(entry, dict):
            _add_finding(findings, f"{where} is {_kind(entry)}, expected an object", member)
            continue
        base = entry.get("base_filename")
        if not isinstance(base, str) or not base or len(base) > caps.MAX_TEXT_CHARACTERS:
            found_kind = "empty" if base == "" else _kind(base)
            _add_finding(
                findings, f"{where}.base_filename is {found_kind}, expected a name", member
            )
            continue
        # A segment listed twice is one segment: its dump is there once.
        found.setdefault(
            utf8_text(base),
            SegmentTiming(
                base_filename=utf8_text(base),
                codec=_optional_text(entry, "codec"),
                track_id=_optional_text(entry, "track_id"),
                track_type=_optional_text(entry, "track_type"),
                first_rtp_timestamp=_integer(entry, "first_rtp_rtp_timestamp"),
                last_rtp_timestamp=_integer(entry, "last_rtp_rtp_timestamp"),
                first_rtp_unix_ms=_unix_ms(entry, "first_rtp_unix_timestamp"),
                last_rtp_unix_ms=_unix_ms(entry, "last_rtp_unix_timestamp"),
            ),
        )
    return tuple(sorted(found.values(), key=lambda s: (s.first_rtp_unix_ms or 0, s.base_filename)))


def _add_finding(findings: list[RecordingError], message: str, member: str) -> None:
    if len(findings) < caps.MAX_METADATA_FINDINGS:
        findings.append(TimingMetadataError(f"{message}; it was left out", member=member))


def _text(data: dict[str, Any], name: str, member: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise TimingMetadataError(
            f"{member}: {name} is {_kind(value)}, expected text", member=member
        )
    if len(value) > caps.MAX_TEXT_CHARACTERS:
        raise TimingMetadataError(
            f"{member}: {name} has {len(value)} characters, expected at most "
            f"{caps.MAX_TEXT_CHARACTERS}",
            member=member,
        )
    return utf8_text(value)


def _optional_text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    return utf8_text(value[: caps.MAX_TEXT_CHARACTERS]) if isinstance(value, str) else ""


def _integer(data: dict[str, Any], name: str) -> int | None:
    """A number that JSON writers may have made a float; None when absent, of another type, or
    beyond 64 bits.
    """
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    if not -_MAX_INT < value < _MAX_INT:
        return None
    return int(value)


def _unix_ms(data: dict[str, Any], name: str) -> int | None:
    """A time that a call can have been at; None else."""
    value = _integer(data, name)
    return value if value is not None and _EARLIEST_MS <= value < _LATEST_MS else None


def _time(value: Any) -> int | None:
    """An RFC 3339 time as Unix ns; None when absent, unreadable or the zero time that Go writes for
    "not set".
    """
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    unix_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return unix_us * 1_000 if _EARLIEST_MS <= unix_us // 1_000 < _LATEST_MS else None


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "missing or null" if value is None else names.get(type(value), type(value).__name__)
