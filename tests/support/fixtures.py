"""Fixtures that all tests share: a run's context on a disk, an empty object store."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tenacity

from tests.support import fake_store, kept_codec, quick_beam, schemas
from tests.support.certificates import Authority
from tests.support.cloud_servers import (
    CloudServer,
    client_with_faults,
    running_azurite,
    running_moto,
)
from tests.support.job_run import JobRun
from tests.support.processes import HOST
from tests.support.storage_proxy import Faults
from tests.support.tls_site import Site, running_site
from transforms.codec.pool import POOL
from transforms.context import JobSettings, RunIdentity
from transforms.filters import Filters
from transforms.media.settings import PressSettings
from transforms.storage import retry, secrets, storage_options
from transforms.storage.storage_options import StorageOptions

STARTED_UNIX_NS = 1_767_751_200_000_000_000
"""2026-01-07T02:00:00Z."""


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slots of the machine for these tests alone: they wait for no other run on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_beam() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quick_beam.remember(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def _writers_looked_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        schemas.look_at_writers(patch)
        yield
    schemas.look_at_files(tmp_path_factory.getbasetemp())
    schemas.fail_on_misfits()


@pytest.fixture(autouse=True)
def _fits_its_schema() -> Iterator[None]:
    """Whatever has a schema in `docs/schemas` fits it."""
    yield
    schemas.fail_on_misfits()


@pytest.fixture(autouse=True)
def _own_storage_options() -> Iterator[None]:
    """Has this process reach stores as the environment says, whatever a job before it was told."""
    yield
    storage_options.use(StorageOptions())


@pytest.fixture
def context(tmp_path: Path) -> JobRun:
    return JobRun(
        JobSettings(
            output_uri=str(tmp_path / "pressed"),
            catalog_uri=str(tmp_path / "catalog"),
            settings=PressSettings(),
            filters=Filters(),
            overwrite=False,
            codec_processes=2,
            is_one_process=True,
        ),
        RunIdentity(
            run_id="run-1",
            started_unix_ns=STARTED_UNIX_NS,
            staging_uri=str(tmp_path / "staging" / "run-1"),
        ),
    )


@pytest.fixture
def store() -> Iterator[ModuleType]:
    fake_store.clear()
    yield fake_store
    fake_store.clear()


@pytest.fixture(scope="session", autouse=True)
def _codec_processes(_own_temporary_files: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        kept_codec.keep(patch)
        yield
    POOL.stop()


@pytest.fixture(autouse=True)
def _forgotten_secrets() -> Iterator[None]:
    """No test has what another one's environment or files held."""
    yield
    secrets._kept.clear()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the certificates of servers on this machine."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def _tls_site(authority: Authority) -> Iterator[Site]:
    with running_site(authority.server_context(HOST, "localhost")) as site:
        yield site


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are asked again at once, and no failure of an earlier test is remembered."""
    monkeypatch.setattr(retry, "_BACK_OFF", tenacity.wait_none())
    monkeypatch.setattr(retry, "_health", retry._Health())


@pytest.fixture
def tls_site(
    _tls_site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """A server without pages, whose certificate and address this process and its children accept;
    no proxy is in the way.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_file))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    before = storage_options.current()
    storage_options.use(StorageOptions(named_hosts=frozenset({_tls_site.host_and_port})))
    _tls_site.clear()
    yield _tls_site
    storage_options.use(before)


@pytest.fixture(scope="session")
def moto() -> Iterator[CloudServer]:
    """A server of S3 in a process of its own, with a bucket `calls`."""
    with running_moto() as server:
        server.make_bucket("calls")
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[CloudServer]:
    """A server of Azure's blobs in a process of its own, with a container `calls`."""
    with running_azurite() as server:
        server.make_bucket("calls")
        yield server


@pytest.fixture(params=["moto", "azurite"])
def cloud(request: pytest.FixtureRequest) -> CloudServer:
    """Each of the two servers."""
    server: CloudServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def cloud_faults(cloud: CloudServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """What is wrong between this process and one of the two servers; nothing at first."""
    with client_with_faults(cloud, monkeypatch) as faults:
        yield faults


@pytest.fixture
def cloud_place(cloud: CloudServer, request: pytest.FixtureRequest) -> str:
    """A folder in the bucket `calls` of one of the two servers that is this test's own."""
    return f"{cloud.base}calls/{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}"
