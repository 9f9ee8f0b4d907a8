"""Storage servers in processes of their own, and a client that meets faults on the way to one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tenacity

from tests.support.go_programs import FAKE_GCS_SERVER, go_program
from tests.support.processes import HOST, free_port, running_server
from tests.support.storage_proxy import Faults, proxied
from transforms.storage import credentials, retry


@contextmanager
def running_emulator(bucket: str) -> Iterator[str]:
    """Runs gcp-storage-emulator, which knows no preconditions on uploads.

    Args:
      bucket: a bucket that is there from the start.

    Yields:
      The server's URL.
    """
    port = free_port()
    program = Path(sys.executable).parent / "gcp-storage-emulator"
    arguments = ["start", f"--host={HOST}", f"--port={port}", "--in-memory"]
    with running_server([program, *arguments, f"--default-bucket={bucket}"], port):
        yield f"http://{HOST}:{port}"


@contextmanager
def running_fake_gcs_server() -> Iterator[str]:
    """Runs fake-gcs-server, which honours preconditions on uploads; skips the test without it.

    Yields:
      The server's URL.
    """
    program = go_program(FAKE_GCS_SERVER)
    port = free_port()
    url = f"http://{HOST}:{port}"
    arguments = ["-backend=memory", "-scheme=http", f"-host={HOST}", f"-port={port}"]
    with running_server([program, *arguments, f"-external-url={url}"], port):
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
