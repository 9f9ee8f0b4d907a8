"""What a manifest names, as text: checked, and told from its signature."""

from __future__ import annotations

import re
from typing import NamedTuple

from transforms.media.errors import ConfigError
from transforms.media.text import has_utf8, printable
from transforms.storage import uris
from transforms.storage.registry import store_of

MAX_URI_CHARACTERS = 8_192
"""Signed links have some hundred characters, with a session's token two thousand."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILE = re.compile(r"file:", re.IGNORECASE)
# RFC 3986 s3, of which hosts are held to what has an address: names (s3.2.2) and literals. A path
# that ends in a slash is no file.
_LINK = re.compile(
    r"https?://(?:[^\s/?#@\\]*@)?(?:[^\s/?#@:\\%<>\"^`{|}\[\]]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    r"/[^\s?#]*(?<!/)(?:[?#]\S*)?",
    re.IGNORECASE,
)

# A signed link whose question mark was lost or encoded, or that was taken for a URI of a store: its
# signature would be a part of the name, and stand in tables.
_SIGNATURE = re.compile(
    r"(?:x-(?:amz|goog)-(?:signature|credential|security-token)"
    r"|(?:(?<![a-z0-9])|(?<=%[23][0-9a-f]))(?:signature|sig))"
    r"(?:=|%3d)",
    re.IGNORECASE,
)


class NamedObject(NamedTuple):
    """What a text names in a store, on a disk or behind a link."""

    uri: str
    """What it is known by: of a link host and path, else the full URI or absolute path."""
    link: str
    """The link with its signature; empty where the URI itself opens it."""


def has_scheme(text: str) -> bool:
    """Whether a text is meant as a URI, whatever its scheme."""
    return bool(uris.scheme_of(text) or _FILE.match(text))


def shown(text: str) -> str:
    """Returns a URI or path as it may be shown: without query, fragment and password."""
    return printable(uris.shown(text if uris.is_link(text) else uris.absolute(text)))


def name_object(text: str, *, link_only: bool = False) -> NamedObject:
    """Returns what a text names.

    Args:
      text: a link, a URI of a store, or an absolute path, with or without `file://` before it.
      link_only: whether it must be an `https://` link.

    Raises:
      ValueError: it names nothing that can be opened. The message follows the name of the thing,
        as in `is no link`, and holds nothing of it that could be secret.
    """
    named = _name(text, link_only=link_only)
    if _SIGNATURE.search(named.uri):
        raise ValueError("has a signature in its path, expected it behind a question mark")
    return named


def _name(text: str, *, link_only: bool) -> NamedObject:
    if not text:
        raise ValueError("is empty")
    if len(text) > MAX_URI_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters, expected at most {MAX_URI_CHARACTERS:,}")
    if _CONTROL.search(text) or not has_utf8(text):
        raise ValueError("has characters in it that no name has")
    scheme = uris.scheme_of(text)
    if link_only and scheme != "https":
        raise ValueError("is no https:// link")
    if uris.is_link(text):
        return _name_link(text)
    if not scheme:
        return NamedObject(_name_file(text), "")
    try:
        uri = uris.absolute(text)
    except ConfigError:
        raise ValueError(
            "is of no account that is known, expected azfs://account/container/path"
        ) from None
    try:
        store_of(uri)
    except ConfigError:
        raise ValueError(f"has the unknown scheme {scheme[:20]}://") from None
    bucket, _, name = text[len(scheme) + 3 :].partition("/")
    if not (bucket and name):
        raise ValueError("names a bucket at most, expected an object in one")
    if "@" in bucket:
        raise ValueError("has a user in it, which no store takes")
    return NamedObject(uri, "")


def _name_link(text: str) -> NamedObject:
    if not _LINK.fullmatch(text) or uris.split_link(text) is None:
        raise ValueError("is no link, expected https://host/path")
    uri = uris.without_signature(text)
    return NamedObject(uri, "" if text == uri else text)


def _name_file(text: str) -> str:
    if _FILE.match(text):
        path = uris.without_file(text)
        if not path.startswith("/"):
            raise ValueError("names a file of another host, expected one of this machine's")
        text = path
    if not text.startswith("/"):
        raise ValueError("is neither a link, a URI nor an absolute path")
    return uris.absolute(text)
