"""Connections for links: certificates, proxies, and which addresses may be connected to.

The address is looked at on the connection itself, before anything is sent: what a name leads to at
one moment says nothing of the next. Behind a proxy it is the proxy that connects, and a host can be
judged only by how it is spelled.
"""

from __future__ import annotations

import functools
import http.client
import logging
import math
import os
import re
import socket
import ssl
import time
import urllib.request
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import make_headers

from transforms.media.text import printable
from transforms.storage import link_terms, public_addresses, storage_options
from transforms.storage.link_terms import Cut, Terms
from transforms.storage.store import StoreBusyError
from transforms.storage.uris import Link, shown

_CONNECTIONS_PER_HOST = 32
_QUERY = re.compile(r"\?[^\s\"']+")
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")


class RefusedLinkError(Exception):
    """What a link leads to is not asked; the message says why, without the link."""


# --- what the library logs ------------------------------------------------------------------------


class _QueryFilter(logging.Filter):
    """Takes query strings out of what urllib3 warns of. What it tells of each request, which is the
    whole path, and each host that a server sends to, is left out.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return False
        record.msg, record.args = _QUERY.sub("?[hidden]", record.getMessage()), ()
        if record.exc_info:  # the text of its errors has them, too
            record.exc_info = None
        return True


def _hide_queries() -> None:
    # A filter of a logger sees what is logged by that very one.
    for name in ("connectionpool", "connection", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_QueryFilter())


_hide_queries()

# --- which hosts ----------------------------------------------------------------------------------


def _may_be_anywhere(host_and_port: str) -> bool:
    options = storage_options.current()
    return options.allow_private_addresses or host_and_port in options.named_hosts


def check_host(link: Link) -> None:
    """Checks a link as far as its spelling tells. Raises: RefusedLinkError."""
    if link.scheme == "http" and not public_addresses.names_this_machine(link.host):
        raise RefusedLinkError("http:// is read from this machine alone, expected https://")
    is_literal = public_addresses.literal_address(link.host) is not None
    if (is_literal or _proxy_of(link)) and not (
        public_addresses.names_public_host(link.host) or _may_be_anywhere(link.host_and_port)
    ):
        raise _private(link.host)


def _check_peer(sock: socket.socket, link: Link) -> None:
    """Checks what a connection leads to. Raises: RefusedLinkError."""
    address = str(sock.getpeername()[0])
    if link.scheme == "http" and not public_addresses.is_loopback(address):
        raise RefusedLinkError(f"http:// leads to {address}, expected an address of this machine")
    if not (public_addresses.is_public(address) or _may_be_anywhere(link.host_and_port)):
        raise _private(address)


def _private(address: str) -> RefusedLinkError:
    return RefusedLinkError(
        f"leads to {address}, which is no public address, expected one "
        "(--allow-private-addresses allows others)"
    )


# --- connections ----------------------------------------------------------------------------------


class _Response(http.client.HTTPResponse):
    """An answer, behind however many come before it that are none yet (RFC 9110 s15.2): the
    standard library passes over those of 100 alone.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        is_interim = 100 < status < 200 and status != http.client.SWITCHING_PROTOCOLS
        return version, http.client.CONTINUE if is_interim else status, reason


class _HttpConnection(HTTPConnection):
    """A connection whose other end is looked at before anything is sent."""

    response_class = _Response
    _scheme = "http"
    _cut: Cut | None = None
    _began = 0.0

    def __init__(self, *args: Any, terms: Terms | None = None, **kwargs: Any) -> None:
        """Args: terms: None for those of links that are read."""
        super().__init__(*args, **kwargs)
        self._own_terms = terms

    @property
    def _terms(self) -> Terms:
        return self._own_terms or link_terms.READING

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        try:
            if self.proxy is None:
                _check_peer(sock, Link(self._scheme, self.host, self.port, "", "", ""))
            taken = time.monotonic() - self._began
            self._cut = Cut(self._terms, self._terms.answer_seconds - taken, sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self) -> None:
        self._began = time.monotonic()
        try:
            super().connect()
        finally:
            self._stop_cut()

    def getresponse(self) -> Any:
        if self.sock is not None:
            # By now it is what is left of the time for all of it.
            left = self.timeout if isinstance(self.timeout, float | int) else math.inf
            seconds = min(left, self._terms.answer_seconds)
            self._cut = Cut(self._terms, seconds, self.sock, stays_open=True)
        try:
            return super().getresponse()
        finally:
            self._stop_cut()

    def _stop_cut(self) -> None:
        cut, self._cut = self._cut, None
        if cut is not None and (error := cut.stop()) is not None:
            raise error


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    """As `_HttpConnection`, encrypted."""

    _scheme = "https"


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def pool_of(link: Link) -> HTTPConnectionPool:
    """Returns the connections to a link's host, by way of the proxy that the environment names.

    Raises:
      RefusedLinkError: the proxy, or the file of certificates, is of no use.
    """
    manager = _manager(
        _proxy_of(link),
        os.environ.get("SSL_CERT_FILE", ""),
        os.environ.get("SSL_CERT_DIR", ""),
        storage_options.current(),
    )
    return manager.connection_from_host(link.host, link.port, link.scheme)


def own_pool(link: Link, terms: Terms, most: int) -> HTTPConnectionPool:
    """Returns as `pool_of`, connections that nobody else has, on terms of their own.

    Args:
      link: to the host.
      terms: theirs.
      most: how many are kept.

    Raises:
      RefusedLinkError: as `pool_of`.
    """
    certificates = os.environ.get("SSL_CERT_FILE", "")
    manager = _new_manager(_proxy_of(link), certificates, terms, most)
    pool = manager.connection_from_host(link.host, link.port, link.scheme)
    pool.conn_kw["terms"] = terms
    return pool


def _proxy_of(link: Link) -> str:
    """Returns the URL of the proxy for a link as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say;
    empty for none. This machine itself is not asked by a proxy for what is sent in the clear.
    """
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all") or ""
    if link.scheme == "http" or not proxy or urllib.request.proxy_bypass(link.host_and_port):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


@functools.lru_cache(maxsize=8)
def _manager(
    proxy: str, certificates: str, _folder: str, _options: storage_options.StorageOptions
) -> urllib3.PoolManager:
    """Returns connections that were all made under the same conditions."""
    return _new_manager(proxy, certificates, link_terms.READING, _CONNECTIONS_PER_HOST)


def _new_manager(proxy: str, certificates: str, terms: Terms, most: int) -> urllib3.PoolManager:
    try:
        if certificates:
            open(certificates, "rb").close()
        context = ssl.create_default_context()
    except OSError as error:
        raise RefusedLinkError(
            f"SSL_CERT_FILE {printable(certificates)}: {error.strerror}"
        ) from None
    settings: dict[str, Any] = {
        "ssl_context": context,
        "maxsize": most,
        "retries": False,
        "timeout": terms.time_out,
    }
    manager = _proxied(proxy, settings) if proxy else urllib3.PoolManager(64, **settings)
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return manager


def _proxied(proxy: str, settings: dict[str, Any]) -> urllib3.PoolManager:
    found = re.fullmatch(r"(https?://)(?:([^/]*)@)?([^/@]+)/?", proxy, re.IGNORECASE)
    if found is None:
        raise RefusedLinkError(
            f"HTTPS_PROXY {printable(shown(proxy))}: expected http://HOST:PORT or https://HOST:PORT"
        )
    headers = make_headers(proxy_basic_auth=unquote(found[2])) if found[2] else None
    return urllib3.ProxyManager(f"{found[1]}{found[3]}", 64, proxy_headers=headers, **settings)


# --- what went wrong ------------------------------------------------------------------------------

_NO_SUCH_NAME = {
    code
    for name in ("EAI_NONAME", "EAI_NODATA")
    if (code := getattr(socket, name, None)) is not None
}


def clean_error(error: BaseException, terms: Terms | None = None) -> Exception:
    """Returns an error of urllib3, or of what lies below it, without what it tells of the request.

    Args:
      error: what was raised.
      terms: of the connection; None for those of links that are read.

    Returns:
      StoreBusyError: it may pass.
      RefusedLinkError: it does not.
    """
    terms = terms or link_terms.READING
    if isinstance(error, RefusedLinkError):
        return error
    if isinstance(error, urllib3_errors.SSLError | ssl.SSLError):
        return _of_encryption(error)
    if isinstance(error, urllib3_errors.ProxyError):
        refused = _TUNNEL_STATUS.search(str(error.original_error))
        if refused is None:
            inner = clean_error(error.original_error, terms)
            return type(inner)(f"by the proxy: {inner}")
        why = f"the proxy answers HTTP status {refused[1]}"
        return (RefusedLinkError if refused[1].startswith("4") else StoreBusyError)(why)
    if isinstance(error, urllib3_errors.NameResolutionError):
        cause = error.__cause__
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME:
            return RefusedLinkError("there is no such host")
        return StoreBusyError("its host cannot be looked up")
    if isinstance(error, urllib3_errors.NewConnectionError):  # also one of its time-outs
        return _busy(error, "no connection came about")
    if isinstance(error, urllib3_errors.ConnectTimeoutError):
        return StoreBusyError(f"no connection within {terms.connect_seconds:g} s")
    if isinstance(error, urllib3_errors.LocationValueError | UnicodeError):
        return RefusedLinkError("its host is no name")
    if any(
        isinstance(each, urllib3_errors.TimeoutError | TimeoutError)
        for each in (error, *error.args)
    ):
        return StoreBusyError(f"no answer within {terms.answer_seconds:g} s")
    return _busy(error, "the connection broke off")


def _busy(error: BaseException, otherwise: str) -> StoreBusyError:
    """Returns what the system says, of an error or of one that it was made of. Its number is kept,
    by which it is told that this machine has run out of something.
    """
    for each in (error, error.__cause__, *error.args):
        if isinstance(each, OSError) and each.strerror:
            busy = StoreBusyError(each.strerror)
            busy.errno = each.errno
            return busy
    return StoreBusyError(otherwise)


_UNKNOWN_AUTHORITY = (18, 19, 20)
"""OpenSSL's X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, ..._SELF_SIGNED_CERT_IN_CHAIN and
..._UNABLE_TO_GET_ISSUER_CERT_LOCALLY."""


def _of_encryption(error: BaseException) -> Exception:
    inner = next((arg for arg in error.args if isinstance(arg, ssl.SSLError)), error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        is_of_stranger = inner.verify_code in _UNKNOWN_AUTHORITY
        hint = " (SSL_CERT_FILE names authorities to believe)" if is_of_stranger else ""
        return RefusedLinkError(f"its certificate is not accepted: {inner.verify_message}{hint}")
    if isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return StoreBusyError("the connection broke off")
    reason = getattr(inner, "reason", None)
    if reason is None or "TIMED" in reason or "TIMEOUT" in reason:
        return StoreBusyError("no encrypted connection came about")
    return RefusedLinkError(f"no encrypted connection: {str(reason).replace('_', ' ').lower()}")
