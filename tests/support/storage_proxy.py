"""An HTTP proxy before a storage server that fails as networks and stores do.

Faults are drawn from a seed and counted; the standard library alone is needed.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "content-length",
}


_OF_OTHERS = re.compile(r"^/(?:storage|download|upload|batch|b)/")
"""How paths of Cloud Storage begin."""
_LISTING = re.compile(r"[?&](?:list-type|comp|uploads)\b")


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request, and the store's answer to it."""

    request: str
    """`METHOD /path?query names`."""
    sent: bytes
    received: bytes


@dataclass(kw_only=True)
class Faults:
    """What goes wrong, and how often. A test changes it while the proxy is at work."""

    unavailable_ratio: float = 0.0
    """Of requests that are refused and do nothing."""
    refusal: tuple[int, bytes] = (503, b'{"error": {"code": 503, "message": "try later"}}')
    """Status and body of what is answered to them."""
    lost_answer_ratio: float = 0.0
    """Of requests that change something, are done, and are refused all the same."""
    break_ratio: float = 0.0
    """Of downloads whose connection ends in the middle of the body."""
    short_ratio: float = 0.0
    """Of downloads that give half of the body and a Content-Length that agrees with it: nothing on
    the wire tells.
    """
    only: str = ""
    """Regular expression that `METHOD /path?query names` must match for any of these."""
    dead: bool = False
    """Every connection is closed without an answer."""
    bytes_per_second: float = 0.0
    """Downloads come this slowly; 0: as fast as they can."""
    uploads_end_short: int = 0
    """So many uploads lose their last byte on the way, and the store is none the wiser."""
    retains: str = ""
    """Regular expression: objects whose name it matches can be written once, and then neither be
    replaced nor deleted, as in a bucket with a retention policy.
    """
    before: Callable[[str], None] | None = None
    """Called with `METHOD /path?query names` before a request is passed on."""
    after: Callable[[Exchange], None] | None = None
    """Called with each request that the store has answered."""
    seed: int = 1
    counts: Counter[str] = field(default_factory=Counter)
    """Requests, and faults by kind."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self._retained: set[str] = set()

    def keeps(self, request: str) -> str | None:
        """Returns the name of the object that a request may not change; notes what it writes."""
        found = _CHANGE.match(request)
        name = (found["deleted"] or found["uploaded"] or found["named"]) if found else None
        if found is None or not self.retains or not name or not re.search(self.retains, name):
            return None
        with self._lock:
            if name in self._retained:
                self.counts["retained"] += 1
                return name
            self._retained.update([name] if found["method"] != "DELETE" else [])
        return None

    def kept_in(self, request: str, body: bytes) -> list[str]:
        """Returns the objects that a request would delete together and may not."""
        pattern = next((found for path, found in _TOGETHER.items() if path in request), None)
        if not self.retains or pattern is None:
            return []
        names = [unquote(name) for name in re.findall(pattern, body.decode("latin-1"))]
        with self._lock:
            return [name for name in names if name in self._retained]

    def hit(self, kind: str, ratio: float, request: str) -> bool:
        """Whether this fault befalls this request."""
        if ratio <= 0 or not re.search(self.only, request):
            return False
        with self._lock:
            hit = self._random.random() < ratio
            self.counts[kind] += hit
        return hit


_CHANGE = re.compile(
    r"(?P<method>PUT|POST|DELETE) (?:"
    r"/upload/storage/v1/b/[^/]+/o\?\S* (?P<uploaded>\S+)"
    r"|/storage/v1/b/[^/]+/o/(?P<deleted>[^?\s]+)"
    r"|/(?!upload/|storage/|batch)[^/]+/(?P<named>[^?\s]+))"
)
"""A request that writes or deletes an object: of Cloud Storage, or of S3 and Azure."""


_IN_S3 = (
    "<Code>AccessDenied</Code>"
    "<Message>Access Denied because object protected by object lock.</Message>"
)
_IMMUTABLE = "This operation is not permitted as the blob is immutable due to a policy."
_IN_AZURE = f"<Code>BlobImmutableDueToPolicy</Code><Message>{_IMMUTABLE}</Message>"
_TOGETHER = {"?delete": r"<Key>([^<]+)</Key>", "&comp=batch": r"\nDELETE /[^/]+/(\S+) HTTP"}
"""Of S3 and Azure, a request that deletes objects together, and where it names them."""


@contextmanager
def proxied(upstream: str, faults: Faults) -> Iterator[str]:
    """Runs the proxy before `upstream`, a URL; gives its own."""
    members = {"upstream": urlsplit(upstream).netloc, "faults": faults}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), members))
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on to `upstream`, with `faults`."""

    upstream: str
    faults: Faults
    protocol_version = "HTTP/1.1"
    # head and body leave together: apart, the second waits 40 ms for an acknowledgement of the
    # first
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_expect_100(self) -> bool:
        """Says at once that the body may come: else its sender waits a second before it does."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        return goes_on

    def _pass_on(self) -> None:
        body = self._read_body()
        request = self._describe(body)
        self.faults.counts["requests"] += 1
        if self.faults.before is not None:
            self.faults.before(request)
        if self.faults.dead:
            self._hang_up()
        elif (kept := self.faults.keeps(request)) is not None:
            self._keep(kept)
        elif kept_names := self.faults.kept_in(request, body):
            self._keep_together(kept_names)
        elif self.faults.hit("unavailable", self.faults.unavailable_ratio, request):
            self._refuse()
        else:
            answer, data = self._ask_upstream(body, request)
            if self.faults.after is not None:
                self.faults.after(Exchange(request=request, sent=body, received=data))
            if self._changes_something() and self.faults.hit(
                "lost answer", self.faults.lost_answer_ratio, request
            ):
                self._refuse()
            elif self._is_download(answer, data):
                self._hand_on_download(answer, data, request)
            else:
                self._hand_on(answer, data)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass_on  # noqa: N815

    def _describe(self, body: bytes) -> str:
        """Returns a request as `Faults.only` is matched with it."""
        # The name of an upload in one request stands in its body only.
        names = (
            " ".join(re.findall(r'"name": "([^"]*)"', body[:600].decode("latin-1")))
            if "/upload/" in self.path
            else ""
        )
        return f"{self.command} {unquote(self.path)} {names}"

    def _ask_upstream(self, body: bytes, request: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Returns the store's answer to a request, an upload's last byte lost if that is wanted."""
        is_upload = self.command == "PUT" or (
            self.path.startswith("/upload") and b"\r\n\r\n" in body[:2000]
        )
        if is_upload and self.faults.uploads_end_short > 0 and re.search(self.faults.only, request):
            self.faults.uploads_end_short -= 1
            self.faults.counts["short upload"] += 1
            body = _without_last_byte(body, self.headers)
        if self.path.startswith("/batch/"):
            body = _with_content_ids(body)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP
        }
        if "Content-Range" in headers and is_upload and self.command == "PUT":
            headers["Content-Range"] = re.sub(
                r"^bytes \d+-\d+/\d+$",
                f"bytes 0-{len(body) - 1}/{len(body)}",
                headers["Content-Range"],
            )
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        connection.request(
            self.command,
            self.path,
            body=body,
            headers={**headers, "Content-Length": str(len(body))},
        )
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer, data

    def _changes_something(self) -> bool:
        return self.command in ("PUT", "DELETE") or (
            self.command == "POST" and "uploadType=resumable" not in self.path
        )

    def _is_download(self, answer: http.client.HTTPResponse, data: bytes) -> bool:
        # At S3 and Azure all but listings; at Google objects are told of by the same path.
        is_content = (
            not _LISTING.search(self.path)
            if _OF_OTHERS.search(self.path) is None
            else "alt=media" in self.path
        )
        return (
            self.command == "GET" and is_content and answer.status in (200, 206) and len(data) > 1
        )

    def _hand_on_download(
        self, answer: http.client.HTTPResponse, data: bytes, request: str
    ) -> None:
        faults = self.faults
        if faults.hit("short", faults.short_ratio, request):
            data = data[: len(data) // 2]
        if faults.hit("broken", faults.break_ratio, request):
            self._send_head(answer, len(data))
            self.wfile.write(data[: len(data) // 2])
            self._hang_up()
        elif faults.bytes_per_second:
            self._send_head(answer, len(data))
            step = max(1, int(faults.bytes_per_second / 20))
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self._hand_on(answer, data)

    def _hand_on(self, answer: http.client.HTTPResponse, data: bytes) -> None:
        told = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._send_head(answer, int(told or len(data)))
        self.wfile.write(data)
        self.wfile.flush()

    def _send_head(self, answer: http.client.HTTPResponse, size_bytes: int) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():  # the date, too: that of the store's clock
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self) -> None:
        status, data = self.faults.refusal
        self._answer(status, "application/json", data)

    def _keep(self, name: str) -> None:
        """Answers as the store does of an object under retention."""
        if "/storage/v1/" in self.path:
            message = (
                f"Object 'calls/{name}' is subject to bucket's retention policy or object "
                "retention and cannot be deleted or overwritten until "
                "2027-01-01T00:00:00.000000-08:00"
            )
            error = {
                "code": 403,
                "message": message,
                "errors": [{"reason": "retentionPolicyNotMet"}],
            }
            self._answer(403, "application/json", json.dumps({"error": error}).encode())
        elif "x-ms-version" in self.headers:
            self._answer(409, "application/xml", f"<Error>{_IN_AZURE}</Error>".encode())
        else:
            self._answer(403, "application/xml", f"<Error>{_IN_S3}</Error>".encode())

    def _keep_together(self, names: list[str]) -> None:
        """Answers as the store does of objects under retention that were to be deleted together."""
        if "?delete" in self.path:
            errors = "".join(f"<Error><Key>{name}</Key>{_IN_S3}</Error>" for name in names)
            self._answer(200, "application/xml", f"<DeleteResult>{errors}</DeleteResult>".encode())
            return
        body = f"<Error>{_IN_AZURE}</Error>"
        parts = [
            f"--batch\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
            f"HTTP/1.1 409 {_IMMUTABLE}\r\nContent-Length: {len(body)}\r\n\r\n{body}\r\n"
            for number in range(len(names))
        ]
        self._answer(
            202, "multipart/mixed; boundary=batch", ("".join(parts) + "--batch--\r\n").encode()
        )

    def _answer(self, status: int, content_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _without_last_byte(body: bytes, headers: Message) -> bytes:
    content_type = headers.get("Content-Type", "")
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    if boundary is None:
        return body[:-1]
    end = body.rindex(b"\r\n--" + boundary[1].encode())
    return body[: end - 1] + body[end:]


def _with_content_ids(body: bytes) -> bytes:
    """Returns a batch of requests with a name for each: fake-gcs-server passes over those that have
    none, and Google's client gives none.
    """
    numbers = itertools.count()
    return re.sub(
        rb"(?im)^content-type: application/http\r?\n",
        lambda found: found[0] + b"Content-ID: <%d>\r\n" % next(numbers),
        body,
    )


class HeldRequest:
    """A request that waits on its way to the store."""

    def __init__(self) -> None:
        self.has_come = threading.Event()
        self._may_go = threading.Event()

    def let_go(self) -> None:
        """Passes it on."""
        self._may_go.set()

    def hold(self) -> None:
        """Waits with it; to be called by the proxy."""
        self.has_come.set()
        self._may_go.wait(120)


@contextmanager
def holding(
    faults: Faults, pattern: str, meanwhile: Callable[[], None] | None = None
) -> Iterator[HeldRequest]:
    """Holds back the first request that `METHOD /path?query names` of matches, at most until the
    block ends. Args: meanwhile: what is done before it goes on by itself.
    """
    held = HeldRequest()
    others = faults.before

    def before(request: str) -> None:
        if others is not None:
            others(request)
        if not held.has_come.is_set() and re.search(pattern, request):
            if meanwhile is None:
                held.hold()
            else:
                held.has_come.set()
                meanwhile()

    faults.before = before
    try:
        yield held
    finally:
        held.let_go()
        faults.before = others
