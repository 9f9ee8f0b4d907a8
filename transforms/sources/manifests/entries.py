"""Tells what a value of JSON from a manifest is: a recording of the vendor's list, an event, an
envelope around one, or a list of such.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from transforms.media import caps
from transforms.media.text import utf8_text
from transforms.sources.manifests import bounds
from transforms.sources.manifests.entry import LeftOut, ManifestEntry
from transforms.sources.manifests.gunzip import GunzipError, gunzip_base64, is_base64_gzip
from transforms.sources.manifests.showing import show_kind, show_text, show_value
from transforms.sources.manifests.times import read_time
from transforms.storage.named import name_object

_READY = "call.recording_ready"
RAW = "raw"
LEFT_OUT = {"composite": LeftOut.COMPOSITE, "individual": LeftOut.INDIVIDUAL}
"""By `recording_type`."""
LIST_KEYS = ("recordings", "Messages")
"""What lists stand under: recordings in the vendor's answer, messages in that of SQS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """An entry that cannot be read."""

    position: str
    why: str
    is_known: bool = False
    """Whether it is of a known shape for all that: then so is the manifest."""


Found = ManifestEntry | LeftOut | Unread


def read_json(text: str | bytes, position: str, *, wraps: int = 0) -> Iterator[Found]:
    """Yields what one document of JSON names. Args: wraps: how many were taken off around it."""
    try:
        value = parse_json(text)
    except UnicodeDecodeError as error:
        yield Unread(position=position, why=f"byte {error.start + 1} of it is no UTF-8")
    except json.JSONDecodeError as error:
        what = error.msg.lower().removesuffix(" at")
        why = f"no JSON: {what} at character {error.pos + 1}"
        yield Unread(position=position, why=why)
    except _ConstantError as error:
        yield Unread(position=position, why=f"no JSON: {error} in it")
    except RecursionError:
        yield Unread(position=position, why="nested too deep")
    except ValueError:
        yield Unread(position=position, why="a number in it has too many digits")
    else:
        yield from read_value(value, position, wraps=wraps)


class _ConstantError(ValueError):
    """NaN or an infinity, which Python takes for numbers of JSON."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(text: str | bytes) -> Any:
    """Returns a value of JSON. Raises: ValueError, RecursionError: it is none, or is no UTF-8."""
    return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))


def read_value(value: Any, position: str, *, wraps: int = 0) -> Iterator[Found]:
    """Yields what a value of JSON names."""
    if wraps > bounds.MAX_WRAPS:
        yield Unread(position=position, why="wrapped too often", is_known=True)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from read_value(each, f"{position}[{number}]", wraps=wraps + 1)
    elif isinstance(value, str):
        yield from read_text(value, position, wraps=wraps + 1)
    elif not isinstance(value, dict):
        yield Unread(position=position, why=f"{show_kind(value)}, expected an object")
    elif (key := _list_key(value)) is not None:
        yield from read_value(value[key] or [], _below(position, key), wraps=wraps + 1)
    elif isinstance(value.get("Body"), str):
        yield from read_text(value["Body"], _below(position, "Body"), wraps=wraps + 1)
    elif isinstance(value.get("Type"), str) and isinstance(value.get("Message"), str):
        if value["Type"] == "Notification":
            yield from read_text(value["Message"], _below(position, "Message"), wraps=wraps + 1)
        else:  # that somebody subscribes, or no longer
            yield LeftOut.OTHER_EVENT
    else:
        yield _read_object(value, position)


def _below(position: str, key: str) -> str:
    return f"{position}, {key}" if position else key


def _list_key(value: dict[str, Any]) -> str | None:
    for key in LIST_KEYS:
        if key in value and (value[key] is None or isinstance(value[key], list)):
            return key
    return None


def is_document(text: str) -> bool:
    """Whether a text begins as JSON does, or base64 of gzip."""
    return text.startswith(("{", "[", '"')) or is_base64_gzip(text)


def read_text(text: str, position: str, *, wraps: int = 0) -> Iterator[Found]:
    """Yields what a line or the body of a message names: JSON, or base64 of gzip of it."""
    text = text.strip()
    if is_base64_gzip(text):
        try:
            yield from read_json(gunzip_base64(text), position, wraps=wraps)
        except GunzipError as error:
            yield Unread(position=position, why=str(error))
    elif is_document(text):
        yield from read_json(text, position, wraps=wraps)
    else:
        why = f"the text {show_text(text)}, expected JSON or base64 of gzip"
        yield Unread(position=position, why=why)


def _read_object(value: dict[str, Any], position: str) -> Found:
    kind = value.get("type")
    recording: Any = value
    event: dict[str, Any] = {}
    if isinstance(kind, str) and ("created_at" in value or "." in kind):
        if kind != _READY:
            return LeftOut.OTHER_EVENT
        event, recording = value, value.get("call_recording")
        if not isinstance(recording, dict):
            # A recording that is not pressed need not be told.
            if isinstance(left_out := value.get("recording_type"), str) and left_out in LEFT_OUT:
                return LEFT_OUT[left_out]
            why = f"call_recording is {_kind(recording)}, expected an object"
            return Unread(position=position, why=why, is_known=True)
    elif "url" not in value and "recording_type" not in value:
        why = f"{show_value(value)}, expected a recording or an event"
        return Unread(position=position, why=why)
    try:
        return _read_recording(recording, event)
    except ValueError as error:
        return Unread(position=position, why=str(error), is_known=True)


def _read_recording(recording: dict[str, Any], event: dict[str, Any]) -> Found:
    kind = event.get("recording_type") or recording.get("recording_type")
    if not isinstance(kind, str):
        raise ValueError(f"recording_type is {_kind(kind)}, expected raw")
    if kind in LEFT_OUT:
        return LEFT_OUT[kind]
    if kind != RAW:
        raise ValueError(wrong_kind(kind))
    url = recording.get("url")
    if not isinstance(url, str):
        raise ValueError(f"url is {_kind(url)}, expected a link")
    return make_entry(
        url,
        link_only=True,
        call_cid=event.get("call_cid"),
        call_session_id=recording.get("session_id"),
        start_time=recording.get("start_time"),
        end_time=recording.get("end_time"),
        created_at=event.get("created_at"),
    )


def wrong_kind(kind: str) -> str:
    """Returns what is wrong with a `recording_type`."""
    return f"recording_type is {show_text(kind)}, expected raw, composite or individual"


def _kind(value: Any) -> str:
    return "missing" if value is None else show_kind(value)


def make_entry(
    url: str,
    *,
    link_only: bool = False,
    call_cid: Any = None,
    call_session_id: Any = None,
    start_time: Any = None,
    end_time: Any = None,
    created_at: Any = None,
) -> ManifestEntry:
    """Returns an entry, of what a manifest says in its own types. Raises: ValueError: what is wrong
    with which value.
    """
    named = _checked("url", name_object, url.strip(), link_only=link_only)
    _checked("start_time", read_time, start_time)
    return ManifestEntry(
        uri=named.uri,
        link=named.link,
        call_cid=_checked("call_cid", _read_id, call_cid),
        call_session_id=_checked("session_id", _read_id, call_session_id),
        ended_unix_ns=_checked("end_time", read_time, end_time),
        issued_unix_ns=_checked("created_at", read_time, created_at),
    )


def _checked(name: str, read: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return read(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _read_id(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"is {show_kind(value)}, expected text")
    if len(value) > caps.MAX_TEXT_CHARACTERS:
        raise ValueError(
            f"has {len(value):,} characters, expected at most {caps.MAX_TEXT_CHARACTERS:,}"
        )
    return utf8_text(value)
