"""URIs as text: their scheme, their one spelling, what lies below what."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")


def scheme_of(uri: str) -> str:
    """Returns a URI's scheme as it is spelled; empty for a path on this machine's disks."""
    found = _SCHEME.match(uri)
    return found[1] if found else ""


def absolute(uri: str) -> str:
    """Returns the absolute path or full URI, however it was spelled; a slash at the end stays."""
    if scheme_of(uri):
        return uri
    path = os.path.abspath(os.path.expanduser(uri))
    return path + "/" if uri.endswith("/") and path != "/" else path


def join(base: str, *parts: str) -> str:
    """Returns the URI of something below `base`."""
    return "/".join([base.rstrip("/"), *parts])
