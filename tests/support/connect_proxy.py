"""A proxy that tunnels (RFC 9110 s9.3.6), and notes to where."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.support.processes import HOST


class Proxy:
    """A proxy at work."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 200
        """What it answers to whoever asks."""
        self.heads: list[str] = []
        """What it was asked for, with all header lines."""
        self.leads_to: tuple[str, int] | None = None
        """Where all tunnels lead, in place of where was asked for."""


@contextmanager
def running_proxy() -> Iterator[Proxy]:
    """Runs a proxy until the end of the block."""

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = ""
            while (line := self.rfile.readline().decode("latin-1")).strip():
                head += line
            proxy.heads.append(head)
            self.wfile.write(f"HTTP/1.1 {proxy.status} As told\r\n\r\n".encode())
            if proxy.status == 200:
                host, _, port = head.split()[1].rpartition(":")
                with socket.create_connection(proxy.leads_to or (host, int(port))) as other:
                    _hand_on(self.connection, other)

    server = socketserver.ThreadingTCPServer((HOST, 0), Tunnel)
    server.daemon_threads, server.block_on_close = True, False
    proxy = Proxy(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _hand_on(one: Any, other: Any) -> None:
    """Hands bytes on both ways, until one side has enough."""
    with suppress(OSError):
        while True:
            for ready in select.select([one, other], [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                (other if ready is one else one).sendall(data)
