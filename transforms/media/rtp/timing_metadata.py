"""Reads `*_timing_metadata.json`: who was in which call, and which segments were sent. Checks
types, judges nothing else.

Keys are matched as Go's encoding/json does, with which the vendor's tools read: in any case, of
keys that are equal so the last value counts, however each is spelled, and null changes nothing.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import Any

from transforms.media import caps
from transforms.media.errors import RecordingError, TimingMetadataError
from transforms.media.rfc3339 import parse_time
from transforms.media.text import utf8_text
from transforms.media.values import CallKey, SessionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTime:
    """The pair of times of a sender report (RFC 3550 s6.4.1), as timing metadata states it."""

    rtp_timestamp: int
    """32 bits."""
    sender_unix_ms: int
    """The sender's wall clock."""


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
    first_report: ReportedTime | None = None
    """The first sender report that came, None where none did."""
    last_report: ReportedTime | None = None

    @property
    def times(self) -> tuple[int | None, int | None, int | None, int | None]:
        """When its first and its last packet came, by RTP time and by the server's clock."""
        return (
            self.first_rtp_timestamp,
            self.last_rtp_timestamp,
            self.first_rtp_unix_ms,
            self.last_rtp_unix_ms,
        )

    @property
    def codec_type(self) -> str:
        """The codec in lower case, without parameters (RFC 2045 s5.1): `audio/opus`."""
        return self.codec.partition(";")[0].strip().lower()

    @property
    def is_audio_by_codec(self) -> bool:
        """Whether the codec is one of audio."""
        return self.codec_type.startswith("audio/")

    @property
    def is_video_by_codec(self) -> bool:
        """Whether the codec is one of video."""
        return self.codec_type.startswith("video/")


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
_RTP_TIMESTAMPS = 1 << 32
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
        data = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object)
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
            # The first recorders did not write it.
            call_type="" if data.get("call_type") is None else _text(data, "call_type", member),
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
    found: dict[tuple[str, str], SegmentTiming] = {}
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
        segment = SegmentTiming(
            base_filename=utf8_text(base),
            codec=_optional_text(entry, "codec"),
            track_id=_optional_text(entry, "track_id"),
            track_type=_optional_text(entry, "track_type"),
            first_rtp_timestamp=_integer(entry, "first_rtp_rtp_timestamp"),
            last_rtp_timestamp=_integer(entry, "last_rtp_rtp_timestamp"),
            first_rtp_unix_ms=_unix_ms(entry, "first_rtp_unix_timestamp"),
            last_rtp_unix_ms=_unix_ms(entry, "last_rtp_unix_timestamp"),
            first_report=_reported_time(entry, "first"),
            last_report=_reported_time(entry, "last"),
        )
        # Listed twice as the same, it is one segment: its dump is there once.
        found.setdefault((segment.base_filename, segment.track_type), segment)
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


def _reported_time(data: dict[str, Any], which: str) -> ReportedTime | None:
    """The pair of the first or last sender report; None where no report came, or it cannot be one.

    Go leaves out fields that are 0. So a wall clock that is absent or 0 means that none came, and
    beside one that is there an absent RTP time stamp is the value 0.
    """
    name = f"{which}_rtcp_rtp_timestamp"
    timestamp = 0 if data.get(name) is None else _integer(data, name)
    sender_unix_ms = _integer(data, f"{which}_rtcp_ntp_timestamp")
    if timestamp is None or not 0 <= timestamp < _RTP_TIMESTAMPS:
        return None
    # A sender's wall clock may be wrong by decades, but it is in the range of tables.
    if sender_unix_ms is None or not 0 < sender_unix_ms < _LATEST_MS:
        return None
    return ReportedTime(rtp_timestamp=timestamp, sender_unix_ms=sender_unix_ms)


def _time(value: Any) -> int | None:
    """An RFC 3339 time as Unix ns; None when absent, unreadable or the zero time that Go writes for
    "not set".
    """
    unix_ns = parse_time(value) if isinstance(value, str) else None
    if unix_ns is None or not _EARLIEST_MS <= unix_ns // 1_000_000 < _LATEST_MS:
        return None
    return unix_ns


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object with its keys in lower case; objects under one key are joined."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        # Two letters beyond ASCII are for Go the same as ASCII ones: the sign of Kelvin, and the
        # long s, which `lower` leaves.
        name = key.replace("\u017f", "s").lower()
        before = found.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            before.update(value)
        elif value is not None or before is None:
            found[name] = value
    return found


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
