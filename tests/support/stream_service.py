"""A stand-in for the vendor's API: calls in pages, the recordings of each, and what goes wrong."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CALLS = "/api/v2/video/calls"
_PAGE_CALLS = 2
"""Fewer than are asked for, as the API may."""


@dataclass
class StreamService:
    """What the API has, what goes wrong, and what it was asked."""

    recordings: dict[str, Any] = field(default_factory=dict)
    """Answers by cid: recordings, or a whole answer."""
    failures: dict[str, list[tuple[int, dict[str, str]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By cid, or by `CALLS`: statuses and headers of the next answers, in order."""
    is_silent: threading.Event = field(default_factory=threading.Event)
    """Set until it is to answer at all."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """Paths and bodies."""
    credentials: set[tuple[str, str]] = field(default_factory=set)
    """Keys and tokens that came."""
    url: str = ""
    never_ends: bool = False
    """Whether each page says that there is the same one after it."""

    def answer(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        """Returns status, headers and body."""
        self.asked.append((path, body))
        parts = [unquote(part) for part in path.split("/")]
        cid = CALLS if path == CALLS else ":".join(parts[5:7])
        if self.failures[cid]:
            status, headers = self.failures[cid].pop(0)
            error = {"code": 16, "message": f"failed for {cid}", "StatusCode": status}
            return status, headers, {**error, "duration": "1ms", "details": [], "more_info": ""}
        if path == CALLS:
            return 200, {}, self._page(int(body.get("next") or 0))
        found = self.recordings.get(cid)
        whole = {"duration": "1ms", "recordings": found} if isinstance(found, list) else found
        return 200, {}, whole

    def _page(self, start: int) -> dict[str, Any]:
        cids = list(self.recordings)
        page: dict[str, Any] = {"duration": "1ms", "calls": []}
        for cid in cids[start : start + _PAGE_CALLS]:
            kind, _, name = cid.partition(":")
            call = {"cid": cid, "type": kind, "id": name}
            page["calls"].append({"call": call, "members": [], "own_capabilities": []})
        if self.never_ends or start + _PAGE_CALLS < len(cids):
            page["next"] = "0" if self.never_ends else str(start + _PAGE_CALLS)
        return page


@contextmanager
def running_stream_service() -> Iterator[StreamService]:
    """Runs the stand-in on this machine until the block ends."""
    service = StreamService()
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Any) -> None:
            parts = urlsplit(self.path)
            key = parse_qs(parts.query).get("api_key", [""])[0]
            service.credentials.add((key, self.headers.get("Authorization", "")))
            if service.is_silent.is_set():
                stopping.wait()  # the client gives up meanwhile
                return
            status, headers, answer = service.answer(parts.path, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
