"""A stand-in for Dataflow's service: it answers what it is told to, over HTTP as that would."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class DataflowService:
    """What it answers, and what it was asked."""

    endpoint: str
    """For `--dataflow_endpoint`; Beam speaks HTTP to one on localhost, gRPC to others."""
    status: int = 200
    message: str = ""
    asked: list[str] = field(default_factory=list)
    """`METHOD /path` of each request."""


@contextmanager
def running_dataflow_service() -> Iterator[DataflowService]:
    """Runs it in a thread of this process."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            service.asked.append(f"{self.command} {self.path.split('?')[0]}")
            error = {"code": service.status, "message": service.message}
            body = json.dumps({"error": error} if service.status >= 400 else {}).encode()
            self.send_response(service.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = DataflowService(endpoint=f"http://localhost:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield service
    server.shutdown()
    thread.join()
    server.server_close()
