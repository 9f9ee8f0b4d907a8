"""URIs as text: their scheme, their one spelling, what lies below what."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote

from transforms.media.errors import ConfigError
from transforms.media.text import printable

_AZURE = "azfs"
_AZURE_ACCOUNT = "AZURE_STORAGE_ACCOUNT"
"""The variable by which Azure's own tools, too, know the account of a container."""
_OTHERS_OF_AZURE = re.compile(
    r"(?:az|abfss?|wasbs?)://(?P<container>[^/@?#:]+)@(?P<account>[^./?#]+)[^/?#]*(?P<path>[^?#]*)"
)
_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")
# RFC 8089 s2 and appendix B: `file:///x`, `file://localhost/x`, `file:/x`. As with `gcloud storage`
# what follows is a path as it stands, `%` and all, and need not begin with a slash.
_FILE = re.compile(r"^file:(?://(?:localhost(?=/))?|(?=/))", re.IGNORECASE)
# RFC 3986 s3: scheme, authority, path; what follows are the query and the fragment.
_LINK = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?", re.IGNORECASE)
# What is left of an authority when `user:password@` is taken off: a name or an address in brackets,
# and the port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@\[\]\\%\x00-\x20\x7f]+)(?::([0-9]{0,5}))?")
_USER_INFO = re.compile(r"(?<=://)[^/@]*@")
_PASSWORD = re.compile(r"(?<=://)[^/@:]*:[^/@]*@")
"""With its user. Without a password it is a container of Azure's, in other programs' spelling."""
_PORTS = {"http": 80, "https": 443}


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
    """Returns the absolute path or full URI, however it was spelled; a slash at the end stays. What
    is in Azure is spelled with its account: `az://` takes that from the environment.

    Raises:
      ConfigError: it is in Azure, and does not say where; or it is of the working directory, and
        there is none any more.
    """
    if scheme := scheme_of(uri):
        return _in_azure(scheme + uri[len(scheme) :])
    stripped = without_file(uri)
    try:
        full = os.path.abspath(os.path.expanduser(stripped))
    except OSError as error:
        raise ConfigError(
            f"{printable(uri)}: the working directory cannot be told ({error.strerror}), "
            "expected a path that begins with /, or another directory"
        ) from None
    # POSIX lets two slashes at the beginning stand for something else. Here they are one.
    path = re.sub("^/+", "/", full)
    return path + "/" if stripped.endswith("/") and path != "/" else path


def _in_azure(uri: str) -> str:
    """Returns a URI with its account where it is one in Azure that has none; others as they are.
    Raises: ConfigError: as `absolute`.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in ("az", "abfs", "abfss", "wasb", "wasbs"):
        return uri
    shown = printable(_PASSWORD.sub("[hidden]@", re.split("[?#]", uri)[0]))
    if scheme != "az" or "@" in rest.split("/", 1)[0]:
        found = _OTHERS_OF_AZURE.fullmatch(re.split("[?#]", uri)[0])
        spelled = (
            f"{found['account']}/{found['container']}{found['path']}"
            if found
            else "ACCOUNT/CONTAINER/PATH"
        )
        raise ConfigError(f"{shown}: expected {_AZURE}://{printable(spelled)}")
    account = os.environ.get(_AZURE_ACCOUNT)
    if not account:
        raise ConfigError(
            f"{shown}: of which account is not said, expected {_AZURE}://ACCOUNT/{printable(rest)} "
            f"or the variable {_AZURE_ACCOUNT}"
        )
    return f"{_AZURE}://{account}/{rest}"


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


_RECORDING_PARTS = 5
"""`recordings`, the call's type, id and session, and the file."""


def url_of_recording(uri: str, url_base: str = "") -> str:
    """Returns a URL of a recording: below a base its path from `recordings/` on, percent-encoded
    (RFC 3986 s2.1); without a base its own URI, of a path on this machine's disks `file://`.
    """
    if url_base:
        parts = uri.split("/")[-_RECORDING_PARTS:]
        return join(url_base, *(quote(part, safe="", errors="surrogateescape") for part in parts))
    return uri if scheme_of(uri) else f"file://{quote(uri, errors='surrogateescape')}"


class Link(NamedTuple):
    """The parts of a link."""

    scheme: str
    """`http` or `https`."""
    host: str
    """In small letters; an IPv6 address without brackets."""
    port: int
    path: str
    """As it stands, percent signs and all."""
    query: str
    """With its `?`, as it stands: a signature may be in it."""
    user_info: str
    """`user:password`, as it stands; empty for none."""

    @property
    def host_and_port(self) -> str:
        """`host:port`, by which an operator names a host; an IPv6 address is in brackets."""
        return f"{_in_brackets(self.host)}:{self.port}"

    def __repr__(self) -> str:
        return f"Link({_without_query(self)!r})"


def is_link(uri: str) -> bool:
    """Whether a URI is a link: it names one object by host and path, and nothing in it is a
    wildcard.
    """
    return scheme_of(uri) in _PORTS


def split_link(uri: str) -> Link | None:
    """Returns the parts of a link; None for what is none, or names no host."""
    found = _LINK.match(uri)
    if found is None:
        return None
    scheme = found[1].lower()
    user_info, _, authority = found[2].rpartition("@")
    host = _HOST.fullmatch(authority)
    if host is None:
        return None
    port = int(host[2]) if host[2] else _PORTS[scheme]
    if not 0 < port < 1 << 16:
        return None
    name = host[1].strip("[]").lower()
    return Link(scheme, name, port, found[3], found[4] or "", user_info)


def without_signature(uri: str) -> str:
    """Returns what an archive is known by: of a link `https://host[:port]/path`, the host in small
    letters, the default port left out, the path as it stands. Query, fragment, user and password
    are not in it. Any other URI is known by itself.
    """
    if not is_link(uri):
        return uri
    link = split_link(uri)
    return f"{scheme_of(uri)}://[hidden]" if link is None else _without_query(link)


def _without_query(link: Link) -> str:
    port = "" if link.port == _PORTS[link.scheme] else f":{link.port}"
    return f"{link.scheme}://{_in_brackets(link.host)}{port}{link.path}"


def _in_brackets(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def shown(uri: str) -> str:
    """Returns a URI as messages have it: a link without its signature, another one without user and
    password.
    """
    return without_signature(uri) if is_link(uri) else _USER_INFO.sub("[hidden]@", uri)
