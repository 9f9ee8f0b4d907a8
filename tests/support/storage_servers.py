"""Storage servers in processes of their own, and a client that meets faults on the way to one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import tenacity

from tests.support.storage_proxy import Faults, proxied
from transforms.storage import credentials, retry

_HOST = "127.0.0.1"


@contextmanager
def running_emulator(bucket: str) -> Iterator[str]:
    """Runs gcp-storage-emulator, which knows no preconditions on uploads.

    Args:
      bucket: a bucket that is there from the start.

    Yields:
      The server's URL.
    """
    port = _free_port()
    program = Path(sys.executable).parent / "gcp-storage-emulator"
    arguments = ["start", f"--host={_HOST}", f"--port={port}", "--in-memory"]
    with _running([str(program), *arguments, f"--default-bucket={bucket}"], port):
        yield f"http://{_HOST}:{port}"


@contextmanager
def running_fake_gcs_server() -> Iterator[str]:
    """Runs fake-gcs-server, which honours preconditions on uploads; skips the test without it.

    Yields:
      The server's URL.
    """
    beside = Path(sys.executable).parent / "fake-gcs-server"
    program = str(beside) if beside.exists() else shutil.which("fake-gcs-server")
    if program is None:
        pytest.skip(
            "needs fake-gcs-server: install Go (https://go.dev/dl), then scripts/test gets it by "
            "itself"
        )
    port = _free_port()
    url = f"http://{_HOST}:{port}"
    arguments = ["-backend=memory", "-scheme=http", f"-host={_HOST}", f"-port={port}"]
    with _running([program, *arguments, f"-external-url={url}"], port):
        yield url


@contextmanager
def client_with_faults(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Points this process's storage client to a proxy before the server, with short back-offs.

    Yields:
      What is wrong between the client and the server; nothing at first.
    """
    faults = Faults()
    with proxied(server, faults) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setattr(retry, "_BACK_OFF", tenacity.wait_random(0, 0.02))
        forget_clients()
        yield faults
    forget_clients()


def forget_clients() -> None:
    """Has the next call make a client anew, from the environment as it is then."""
    credentials.have_credentials.cache_clear()
    credentials.storage_client.cache_clear()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    """Runs a server from when it listens on the port until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((_HOST, port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the storage server ended by itself"
                assert time.monotonic() < deadline, "the storage server did not come up"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
