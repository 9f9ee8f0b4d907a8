"""URIs as text: their scheme, their one spelling, what lies below what."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
# RFC 8089 s2 and appendix B: `file:///x`, `file://localhost/x`, `file:/x`. As with `gcloud storage`
# what follows is a path as it stands, `%` and all, and need not begin with a slash.
_FILE = re.compile(r"^file:(?://(?:localhost(?=/))?|(?=/))", re.IGNORECASE)


def scheme_of(uri: str) -> str:
    """Returns a URI's scheme in small letters (RFC 3986 s3.1); empty for a path on this machine's
    disks, with or without `file://` before it.
    """
    found = None if _FILE.match(uri) else _SCHEME.match(uri)
    return found[1].lower() if found else ""


def without_file(uri: str) -> str:
    """Returns a path on this machine's disks without `file://` before it; another URI as it is."""
    return _FILE.sub("", uri)


def absolute(uri: str) -> str:
    """Returns the absolute path or full URI, however it was spelled; a slash at the end stays."""
    if scheme := scheme_of(uri):
        return scheme + uri[len(scheme) :]
    stripped = without_file(uri)
    # POSIX lets two slashes at the beginning stand for something else. Here they are one.
    path = re.sub("^/+", "/", os.path.abspath(os.path.expanduser(stripped)))
    return path + "/" if stripped.endswith("/") and path != "/" else path


def folder(uri: str) -> str:
    """Returns the absolute path or full URI of a folder, without a slash at the end."""
    full = absolute(uri)
    return full.rstrip("/") or "/"


def is_named(uri: str) -> bool:
    """Whether something is left of a URI when its scheme is taken off."""
    return bool(_SCHEME.sub("", uri).strip("/") if scheme_of(uri) else without_file(uri))


def is_within(uri: str, other: str) -> bool:
    """Whether a place is another one or lies below it, by their names as they are spelled."""
    return f"{uri.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def join(base: str, *parts: str) -> str:
    """Returns the URI of something below `base`."""
    return "/".join([base.rstrip("/"), *parts])
