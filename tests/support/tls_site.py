"""An HTTPS server on this machine that gives files by links, well or as badly as servers do."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.processes import HOST

MODIFIED_UNIX_S = 1_767_607_200
"""2026-01-05T10:00:00Z, unless a page says otherwise."""


@dataclass(kw_only=True)
class Page:
    """What is behind a path. A test may change it while the server is at work."""

    data: bytes = b""
    status: int = 200
    """Any other than 200: `data` is the body of an error."""
    has_ranges: bool = True
    is_chunked: bool = False
    """The body comes in chunks, without a Content-Length."""
    headers: dict[str, str | None] = field(default_factory=dict)
    """Set beside or in place of the right ones; None for a header that is left out."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes of its body each of the next answers breaks off."""
    answers: list[Callable[[Exchange], None]] = field(default_factory=list)
    """What the next requests get in place of the right answer; the last one stays."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """By name in small letters."""
    connection: int
    """Counts the connections to the server."""
    body: bytes = b""


class Site:
    """The server, and what it was asked."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        """Args: context: of TLS; None for a server that speaks in the clear."""
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self._server = _Server((HOST, 0), self, context)
        self.port: int = self._server.server_address[1]
        self.scheme = "https" if context else "http"

    @property
    def host_and_port(self) -> str:
        """As operators name it."""
        return f"{HOST}:{self.port}"

    def link(self, path: str, host: str = HOST) -> str:
        """Returns the link of a path, without a signature."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def put(self, path: str, page: Page | bytes) -> str:
        """Puts a page behind a path; returns its link."""
        self.pages[unquote(path)] = Page(data=page) if isinstance(page, bytes) else page
        return self.link(path)

    def clear(self) -> None:
        """Forgets all pages and requests."""
        self.pages.clear()
        self.requests.clear()

    def ranges(self) -> list[str]:
        """Returns the ranges that were asked for."""
        return [request.headers.get("range", "") for request in self.requests]

    def serve(self) -> None:
        """Answers until it is stopped."""
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def running_site(context: ssl.SSLContext | None) -> Iterator[Site]:
    """Runs a server until the end of the block."""
    site = Site(context)
    thread = threading.Thread(target=site.serve, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.stop()
        thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], site: Site, context: ssl.SSLContext | None
    ) -> None:
        self.site = site
        self.context = context
        super().__init__(address, Exchange)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells nothing of clients that hang up, which many tests have them do."""


class Exchange(BaseHTTPRequestHandler):
    """One connection, and the request on it that is being answered."""

    protocol_version = "HTTP/1.1"
    server: _Server
    page: Page
    asked: Request

    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Encrypts the connection, in its own thread: a client that does not holds up nobody."""
        self.server.site.connections += 1
        self.number = self.server.site.connections
        if self.server.context is not None:
            self.request.settimeout(20)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        self._note()
        self._answer()

    def do_POST(self) -> None:
        """Takes what is posted, and answers as for what is fetched."""
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size:  # whoever sent it was killed
            self.hang_up()
            return
        self._note(body)
        self._answer()

    def _answer(self) -> None:
        page = self.server.site.pages.get(unquote(urlsplit(self.path).path))
        if page is None:
            self.give(404, b"nothing here")
            return
        self.page = page
        if page.answers:
            (page.answers.pop(0) if len(page.answers) > 1 else page.answers[0])(self)
        else:
            self.give_page()

    def do_HEAD(self) -> None:
        self._note()
        self.give(403, b"")

    def _note(self, body: bytes = b"") -> None:
        parts = urlsplit(self.path)
        self.asked = Request(
            method=self.command,
            path=parts.path,
            query=parts.query,
            headers={name.lower(): value for name, value in self.headers.items()},
            connection=self.number,
            body=body,
        )
        self.server.site.requests.append(self.asked)

    def give_page(self) -> None:
        """Answers as the page says."""
        page = self.page
        if page.status != 200:
            self.give(page.status, page.data, page.headers)
            return
        headers: dict[str, str | None] = {
            "ETag": '"one"',
            "Last-Modified": formatdate(MODIFIED_UNIX_S, usegmt=True),
            "Content-Type": "application/gzip",
        }
        status, data, size = 200, page.data, len(page.data)
        asked = self.headers.get("Range")
        if page.has_ranges and asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, stop = int(first), min(size, int(last or size) + 1)
            if begin >= size:
                self.give(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status, data = 206, page.data[begin:stop]
            headers["Content-Range"] = f"bytes {begin}-{stop - 1}/{size}"
        self.give(status, data, {**headers, **page.headers}, is_chunked=page.is_chunked)

    def give(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str | None] | None = None,
        *,
        is_chunked: bool = False,
    ) -> None:
        """Sends an answer, cut off where the page says so."""
        length = None if is_chunked else str(len(data))
        told: dict[str, str | None] = {"Content-Length": length, **(headers or {})}
        if is_chunked:
            told["Transfer-Encoding"] = "chunked"
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), **told}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        page = getattr(self, "page", None)
        cut = page.cuts.pop(0) if page is not None and page.cuts else None
        if is_chunked:
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        with suppress(OSError):  # the client has hung up: it wanted no more
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.hang_up()

    def hang_up(self) -> None:
        """Ends the connection in the middle of whatever it was."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are, and hangs up."""
        with suppress(OSError):
            self.wfile.write(data)
        self.hang_up()


def redirect(location: str, status: int = 302) -> Callable[[Exchange], None]:
    """Returns an answer that sends elsewhere."""
    return lambda exchange: exchange.give(status, b"", {"Location": location})


def signed(link: str, signature: str, signed_at: str, seconds: int) -> str:
    """Returns a link with a signature as S3 has it. Args: signed_at: as `20260105T100000Z`."""
    return (
        f"{link}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={signed_at}&X-Amz-Expires={seconds}"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
    )
