"""Output names from ids alone: safe on every file system and in URLs, and no two ids share one."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence

from transforms.media.values import CallKey, Container, TrackKey

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")
_MAX_ID_BYTES = 40
_HASHED = re.compile(r"-[0-9a-f]{8}$")
_EDITION = re.compile(r"_r\d{1,3}(?=\.[a-z0-9]+$)")
_ESCAPE_CUT = re.compile(r"~[0-9a-f]?$")


def call_folder(call: CallKey) -> str:
    """Returns a call session's folder below `recordings/`, without a slash at the end."""
    return "/".join(_stem(escape_id(part), [part], [part]) for part in call.as_tuple())


def composite_name(call: CallKey, start_ms: int) -> str:
    """Returns the file name of a call's mix. Args: start_ms: `timeline_start_time` in Unix ms."""
    ids = [call.call_type, call.call_id]
    stem = f"composite_{'_'.join(map(escape_id, ids))}_audio_{start_ms}"
    return _stem(stem, ids, [*ids, call.call_session_id]) + ".mp3"


def individual_name(track: TrackKey, start_ms: int, container: Container, part: int = 0) -> str:
    """Returns the file name of a track.

    Args:
      track: whose.
      start_ms: `timeline_start_time` in Unix ms.
      container: of the file.
      part: which of the track's files; 0 is the first, and is not in the name.
    """
    return _track_stem("individual", track, start_ms, part) + f".{container}"


def editions(uri: str) -> Iterator[str]:
    """Yields the names that a recording may have, in order: its own, and those with `_r2`, `_r3`
    and so on before their ending, where a store does not let the one before be replaced.
    """
    yield uri
    stem, dot, ending = uri.rpartition(".")
    for number in itertools.count(2):
        yield f"{stem}_r{number}{dot}{ending}"


def first_edition(uri: str) -> str:
    """Returns the name that a recording has where it can be replaced."""
    return _EDITION.sub("", uri)


def clock_drawing_name(track: TrackKey, start_ms: int, part: int = 0) -> str:
    """Returns the file name of the drawing of a track's clock.

    Args:
      track: whose.
      start_ms: when its first packet was sent, in Unix ms of the server.
      part: how many drawings have this name already; 0 for the first, and is not in the name.
    """
    return _track_stem("clock", track, start_ms, part) + ".svg"


def _track_stem(kind: str, track: TrackKey, start_ms: int, part: int) -> str:
    ids = [track.call.call_type, track.call.call_id, track.participant_id, track.user_session_id]
    stem = f"{kind}_{'_'.join(map(escape_id, ids))}_{track.output_type}_{start_ms}"
    if part:
        stem += f"_part{part}"
    return _stem(stem, ids, [*ids, track.call.call_session_id])


def escape_id(text: str) -> str:
    """Returns an id with every unsafe UTF-8 byte as `~` and two hex digits, cut to 40 bytes, never
    inside an escape.
    """
    whole = _escape(text)
    return _ESCAPE_CUT.sub("", whole[:_MAX_ID_BYTES]) if len(whole) > _MAX_ID_BYTES else whole


def _escape(text: str) -> str:
    return "".join(chr(byte) if byte in _SAFE else f"~{byte:02x}" for byte in text.encode("utf-8"))


def _stem(stem: str, ids: Sequence[str], hashed: Sequence[str]) -> str:
    """Adds a hash when the ids cannot be read back from the name, or would collide where case is
    folded.
    """
    if not any(_is_ambiguous(text) for text in ids):
        return stem
    array = json.dumps(list(hashed), ensure_ascii=False, separators=(",", ":"))
    return f"{stem}-{hashlib.sha256(array.encode('utf-8')).hexdigest()[:8]}"


def _is_ambiguous(text: str) -> bool:
    escaped = _escape(text)
    unreadable = "_" in text or "~" in escaped or text != text.lower()
    # The last of these could be what another id becomes.
    return (
        unreadable
        or len(escaped) > _MAX_ID_BYTES
        or not text.strip(".")
        or _HASHED.search(text) is not None
    )
