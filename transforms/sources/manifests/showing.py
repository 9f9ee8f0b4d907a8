"""Text of a manifest, made fit to stand in a message: cut, printable, without secrets."""

from __future__ import annotations

import re
from typing import Any

from transforms.media.text import one_line, printable, without_secrets

_MAX_LOOKED_AT = 400
_MAX_SHOWN = 80
_MAX_KEYS = 8
# From here on a link has its signature, also where the whole link is a part of another one.
_QUERY = re.compile(r"(?:[?#&]|%3f|%23|%26).*", re.IGNORECASE | re.DOTALL)
# What is as long as a signature and has no break in it: keys, tokens, base64.
_LONG = re.compile(r"[A-Za-z0-9+=_%~-]{32,}")


def show_text(text: str | bytes) -> str:
    """Returns the beginning of a text in quotes, with `[hidden]` for what could be secret."""
    if isinstance(text, bytes):
        text = text[:_MAX_LOOKED_AT].decode("utf-8", "replace")
    looked_at = text[:_MAX_LOOKED_AT]
    shown = _LONG.sub("[hidden]", without_secrets(_QUERY.sub("[hidden]", looked_at)))
    shown = one_line(printable(shown))
    is_cut = len(shown) > _MAX_SHOWN or len(text) > _MAX_LOOKED_AT
    return f"'{shown[:_MAX_SHOWN]}{'...' if is_cut else ''}'"


def show_value(value: Any) -> str:
    """Returns what a value of JSON is: of an object its keys, of a text its beginning."""
    if isinstance(value, dict):
        if not value:
            return "an object without keys"
        keys = ", ".join(show_text(key)[1:-1] for key in list(value)[:_MAX_KEYS])
        return f"an object with the keys {keys}{', ...' if len(value) > _MAX_KEYS else ''}"
    if isinstance(value, str):
        return f"the text {show_text(value)}"
    return show_kind(value)


def show_kind(value: Any) -> str:
    """Returns what kind of value of JSON it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"
