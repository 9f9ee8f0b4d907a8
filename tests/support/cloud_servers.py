"""Servers that stand in for S3 and Azure, and this process's stores pointed to one of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import cast
from urllib.parse import urlsplit

import pytest
import tenacity

from tests.support.processes import HOST, free_port, running_server
from tests.support.storage_proxy import Faults, proxied
from tests.support.store_programs import azurite_program, moto_environment
from transforms.storage import retry
from transforms.storage.cloud import CloudStore
from transforms.storage.registry import store_of

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""That of every Azurite; it opens nothing else."""


@dataclass(frozen=True)
class CloudServer:
    """A server, and how to get at it."""

    url: str
    base: str
    """As the URIs of its buckets begin: `s3://`, `azfs://account/`."""
    make_bucket: Callable[[str], None]
    """Makes a bucket; one that is there already is no error."""

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Returns what points a process to the server. Args: url: of a proxy before it."""
        if self.base == "s3://":
            return {
                "AWS_ENDPOINT_URL": url or self.url,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1",
            }
        return {
            "AZURE_STORAGE_ACCOUNT": AZURITE_ACCOUNT,
            "AZURE_STORAGE_KEY": AZURITE_KEY,
            "AZURE_STORAGE_SERVICE_ENDPOINT": f"{url or self.url}/{AZURITE_ACCOUNT}",
        }


@contextmanager
def running_moto() -> Iterator[CloudServer]:
    """Runs moto's S3, which honours If-Match and If-None-Match on uploads."""
    port = free_port()
    program = moto_environment() / "bin" / "python"
    command = [str(program), "-m", "moto.server", f"--host={HOST}", f"--port={port}"]

    def make_bucket(name: str) -> None:
        _ask(port, "PUT", f"/{name}", {})

    # Pages of listings that a test can fill.
    with running_server(command, port, env={"MOTO_S3_DEFAULT_MAX_KEYS": "100"}):
        yield CloudServer(f"http://{HOST}:{port}", "s3://", make_bucket)


@contextmanager
def running_azurite() -> Iterator[CloudServer]:
    """Runs Azurite's server of blobs; skips the test without Node."""
    program, port = azurite_program(), free_port()
    arguments = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]

    def make_bucket(name: str) -> None:
        path = f"/{AZURITE_ACCOUNT}/{name}"
        date = formatdate(usegmt=True)
        # The Shared Key scheme of Azure Storage: eleven heads that are not there, then what is.
        signed = (
            "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-12-02\n"
            f"/{AZURITE_ACCOUNT}{path}\nrestype:container"
        )
        digest = hmac.digest(base64.b64decode(AZURITE_KEY), signed.encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        _ask(
            port,
            "PUT",
            f"{path}?restype=container",
            {
                "x-ms-date": date,
                "x-ms-version": "2021-12-02",
                "Content-Length": "0",
                "Authorization": f"SharedKey {AZURITE_ACCOUNT}:{signature}",
            },
        )

    with running_server([*program, f"--blobHost={HOST}", f"--blobPort={port}", *arguments], port):
        yield CloudServer(f"http://{HOST}:{port}", f"azfs://{AZURITE_ACCOUNT}/", make_bucket)


@contextmanager
def client_with_faults(server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Points this process's store to a proxy before the server, with short back-offs.

    Yields:
      What is wrong between the client and the server; nothing at first.
    """
    faults = Faults()
    with proxied(server.url, faults) as url:
        for name, value in server.environment(url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(retry, "_BACK_OFF", tenacity.wait_random(0, 0.02))
        monkeypatch.setattr(retry, "_health", retry._Health())
        forget_clients(server)
        yield faults
    forget_clients(server)


def forget_clients(server: CloudServer) -> None:
    """Has the next call make a client anew, from the environment as it is then."""
    cast(CloudStore, store_of(server.base)).forget_clients()


def _ask(port: int, method: str, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(urlsplit(f"//{HOST}:{port}").netloc, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    # 409: it is there already, and ours.
    assert answer.status in (200, 201, 409), f"{answer.status}: {text}"
