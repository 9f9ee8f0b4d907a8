"""POSTs to one endpoint, over connections of its own. What it answers is told by its status alone:
nothing of a body is used, and nobody is sent elsewhere.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from urllib3.connectionpool import HTTPConnectionPool

from transforms.storage.link_connections import (
    RefusedLinkError,
    check_host,
    clean_error,
    own_pool,
)
from transforms.storage.link_requests import LIBRARY_ERRORS, wait_asked
from transforms.storage.link_terms import Cut, Terms
from transforms.storage.uris import split_link

_MOST_BODY_BYTES = 16_384
"""Of an answer that is read so that its connection can be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an endpoint answers."""

    status: int
    after_seconds: float
    """How long it asks to be left alone (Retry-After)."""


class Endpoint:
    """Where to post. Thread-safe."""

    def __init__(self, url: str, *, timeout_seconds: float, at_a_time: int) -> None:
        """Makes no connection yet.

        Args:
          url: the whole one; a user and a password in it are sent as such (RFC 7617).
          timeout_seconds: of a request, from its beginning to the end of what answers it.
          at_a_time: how many connections are kept.

        Raises:
          RefusedLinkError: it cannot be posted to; nothing of the URL is in the message.
        """
        link = split_link(url) if url.isprintable() and "#" not in url else None
        if link is None or link.scheme != "https":
            raise RefusedLinkError("its address is none, expected https://HOST[:PORT]/PATH")
        self._link = link
        self._seconds = timeout_seconds
        self._terms = Terms(
            connect_seconds=timeout_seconds,
            answer_seconds=timeout_seconds,
            read_seconds=timeout_seconds,
            total_seconds=timeout_seconds,
        )
        self._at_a_time = at_a_time
        self._headers = {"User-Agent": "callpress", "Accept-Encoding": "identity"}
        if link.user_info:
            user = base64.b64encode(unquote_to_bytes(link.user_info))
            self._headers["Authorization"] = f"Basic {user.decode('ascii')}"
        self._lock = threading.Lock()
        self._pool: HTTPConnectionPool | None = None

    def post(self, headers: Mapping[str, str], body: bytes) -> Reply:
        """Sends a body, once.

        Raises:
          StoreBusyError: there is no answer; another try may go well.
          RefusedLinkError: no other try will, before somebody changes something.
        """
        problem: Exception
        try:
            return self._post(headers, body)
        except LIBRARY_ERRORS as error:
            problem = clean_error(error, self._terms)
        # Out here nothing of the library's is behind it, which a traceback would print.
        raise problem

    def close(self) -> None:
        """Cuts all connections; whoever waits for an answer is told at once that there is none."""
        self._terms.end()
        if self._pool is not None:
            self._pool.close()

    def _post(self, headers: Mapping[str, str], body: bytes) -> Reply:
        until = time.monotonic() + self._seconds
        answer = self._connections().urlopen(
            "POST",
            (self._link.path or "/") + self._link.query,
            body=body,
            headers={**self._headers, **headers},
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        reply = Reply(status=int(answer.status), after_seconds=wait_asked(answer.headers))
        self._leave(answer, until)
        return reply

    def _connections(self) -> HTTPConnectionPool:
        with self._lock:
            if self._pool is None:
                check_host(self._link)  # what it leads to is asked of each connection
                self._pool = own_pool(self._link, self._terms, self._at_a_time)
            return self._pool

    def _leave(self, answer: Any, until: float) -> None:
        """Reads what is left of an answer, or gives up its connection where that is much, or comes
        slowly. What was answered stands whatever becomes of it.
        """
        if answer.length_remaining == 0:
            answer.drain_conn()
            return
        sock = getattr(answer.connection, "sock", None)
        if sock is None or (answer.length_remaining or 0) > _MOST_BODY_BYTES:
            answer.close()
            return
        if answer.length_remaining is None:
            is_whole = self._read_chunks(answer, until, sock)
        else:
            is_whole = _read_rest(answer, until, sock)
        if not is_whole:
            answer.close()

    def _read_chunks(self, answer: Any, until: float, sock: Any) -> bool:
        """Reads an answer of which it is not known how long it is; returns whether to its end."""
        cut = Cut(self._terms, until - time.monotonic(), sock)
        try:
            is_whole = len(answer.read(_MOST_BODY_BYTES + 1)) <= _MOST_BODY_BYTES
        except LIBRARY_ERRORS:
            is_whole = False
        return cut.stop() is None and is_whole


def _read_rest(answer: Any, until: float, sock: Any) -> bool:
    """Reads an answer of which it is known how long it is, which as a rule is there already;
    returns whether to its end.
    """
    try:
        while answer.length_remaining:
            left = until - time.monotonic()
            if left <= 0:
                return False
            sock.settimeout(left)
            if not answer.read1(answer.length_remaining):
                return False
        answer.drain_conn()  # nothing is left; it gives the connection back
    except LIBRARY_ERRORS:
        return False
    return True
