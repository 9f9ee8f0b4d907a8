"""URIs as text: what is a path on this machine, what is below what."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


def is_local(uri: str) -> bool:
    """Whether a name is a path on this machine's disks."""
    return not _SCHEME.match(uri)


def absolute(uri: str) -> str:
    """Returns the absolute path or full URI, however it was spelled; a slash at the end stays."""
    if not is_local(uri):
        return uri
    path = os.path.abspath(os.path.expanduser(uri))
    return path + "/" if uri.endswith("/") and path != "/" else path


def join(base: str, *parts: str) -> str:
    """Returns the URI of something below `base`."""
    return "/".join([base.rstrip("/"), *parts])
