"""Text made fit to be stored and shown: valid UTF-8, one line, without secrets, nothing that a
terminal would obey.
"""

from __future__ import annotations

import json
import re
import unicodedata


def one_line(text: str) -> str:
    """Returns text that is safe to show on a terminal and in a log: one line, nothing hidden.

    Names and ids are chosen by whoever made an archive: what moves a cursor, begins a line or turns
    the writing direction is spelled out as an escape.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def utf8_text(text: str) -> str:
    """Returns text that has a UTF-8 form: lone surrogates (JSON can spell them, tar names yield
    them) become `?`.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


_LONE = re.compile("[\ud800-\udfff]")


def has_utf8(text: str) -> bool:
    """Whether text has a UTF-8 form. Names of files that are none have lone surrogates in it."""
    return _LONE.search(text) is None


def spelled_utf8(name: str) -> str:
    """Returns the name of a file in UTF-8: bytes of it that are none are spelled out, as in
    `\\xe9`.
    """
    return _LONE.sub(_spell_lone, name)


def _spell_lone(found: re.Match[str]) -> str:
    byte = ord(found[0]) - 0xDC00  # PEP 383
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{ord(found[0]):04x}"


_HIDDEN = "[hidden]"
# Query strings carry signatures and upload ids. urllib3 names a path alone: "Max retries exceeded
# with url: /b/o?...", "GET /b/o?...".
_QUERY = re.compile(
    r"(\b(?:https?:/|url: |(?:GET|HEAD|PUT|POST|PATCH|DELETE) )/[^\s?\"'<>]*)\?[^\s\"'<>]*",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE)
_HEADER = re.compile(
    r"(\b(?:proxy-)?authorization\b['\"]?\s*[:=]\s*['\"]?)(?:(?:bearer|basic|token)\s+)?[^\s'\",}]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
# Named values: `name=value` anywhere, `"name": "value"` in JSON.
_NAMED = re.compile(
    r"(\b(?:[\w-]*(?:secret|token|password|passwd|signature|credential|private_key|api_?key|access_?key|accessid|upload_id)[\w-]*|sig)"
    r"(?:\s*=\s*|['\"]\s*:\s*)['\"]?)(?!\[hidden\])[^\s&'\",;}]{4,}",
    re.IGNORECASE,
)
_GOOGLE_TOKEN = re.compile(r"\bya29\.[\w.-]+")
# Del and C1 controls, bidi marks, zero widths and line ends beyond ASCII. JSON spells the other
# controls by itself.
_UNSEEN = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200c\u200e-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL
)


def without_secrets(text: str) -> str:
    """Returns text in which query strings, tokens, passwords and keys read `[hidden]`."""
    text = _PRIVATE_KEY.sub(_HIDDEN, text)
    text = _QUERY.sub(rf"\1?{_HIDDEN}", text)
    text = _USER_INFO.sub(rf"\1{_HIDDEN}@", text)
    text = _HEADER.sub(rf"\1{_HIDDEN}", text)
    text = _BEARER.sub(rf"\1{_HIDDEN}", text)
    text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    return _GOOGLE_TOKEN.sub(_HIDDEN, text)


def printable(text: str) -> str:
    """Returns text in which control characters, bidi marks and other unseen ones are spelled out,
    as in `\\x1b`.

    Ids and names come from archives: they must not move the cursor, change colours or turn a line
    around.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_spell, text))


def printable_json(text: str) -> str:
    """Returns JSON in which such characters are spelled as JSON spells them; it means the same."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _spell(character: str) -> str:
    # Cc controls, Cf formats (bidi, zero width; the joiner of emoji stays), Zl and Zp line ends, Cs
    # half characters.
    if (
        unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")
        and character != "\u200d"
    ):
        return character.encode("unicode_escape").decode("ascii")
    return character
