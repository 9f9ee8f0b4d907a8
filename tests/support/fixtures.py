"""Fixtures that all tests share: a run's context on a disk, an empty object store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import fake_store, quick_beam
from tests.support.job_run import JobRun
from transforms.codec.pool import POOL
from transforms.context import JobSettings, RunIdentity
from transforms.filters import Filters
from transforms.media.settings import PressSettings
from transforms.storage import storage_options
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


@pytest.fixture(scope="module", autouse=True)
def _codec_processes() -> Iterator[None]:
    POOL.restart()
    yield
    POOL.stop()
    POOL.restart()
