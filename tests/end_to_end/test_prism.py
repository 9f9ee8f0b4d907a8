"""The same on Beam's portable engine Prism, with workers outside of the launcher, on gs://.

All of it is in this one file, so that one process of the suite has the servers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import (
    DTX_STALLS,
    SAMPLE,
    STEREO_STALLS,
    Finished,
    callpress_process,
    query,
)
from tests.support.prism import PrismCluster, running_prism_cluster
from transforms.catalog.schema import SCHEMAS

pytestmark = pytest.mark.slow

BUCKET = "calls"
OF_THE_RUN = {"run_id", "created_at", "processed_at", "failed_at"}
"""Columns that tell one run from another."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrismCluster]:
    with running_prism_cluster(tmp_path_factory.mktemp("prism")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: PrismCluster) -> Iterator[None]:
    yield
    cluster.check_nothing_is_left()


@pytest.fixture(scope="module")
def bucket(cluster: PrismCluster) -> storage.Bucket:
    client = storage.Client(
        project="anonymous",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": cluster.env["STORAGE_EMULATOR_HOST"]},
    )
    return client.create_bucket(BUCKET)


def _talk(frequency_hz: float, start_ms: int = 0) -> Segment:
    return Segment(
        packets=encode_opus(tone(frequency_hz, 3), frame_ms=20),
        start_ms=start_ms,
        ssrc=int(frequency_hz),
        base_filename=f"f{frequency_hz:.0f}_{start_ms}",
    )


def _upload_archives(bucket: storage.Bucket) -> None:
    """Uploads three captures, a call that lies in two archives, and an archive that breaks off."""
    for path in (SAMPLE, DTX_STALLS, STEREO_STALLS):
        bucket.blob(f"raw/{path.name}").upload_from_filename(path)
    bucket.blob("raw/broken.tar.gz").upload_from_string(SAMPLE.read_bytes()[:1000])
    first = [
        Participant(participant_id="alice", segments=[_talk(300)]),
        Participant(participant_id="bob", segments=[_talk(500)]),
    ]
    second = [
        Participant(participant_id="alice", segments=[_talk(300, 5000)]),
        Participant(participant_id="carol", segments=[_talk(700, 4000)]),
    ]
    bucket.blob("raw/first.tar.gz").upload_from_string(make_call_archive(first))
    bucket.blob("raw/second.zip").upload_from_string(make_call_archive(second, kind="zip"))


@dataclass(frozen=True, kw_only=True)
class Pressed:
    """A run that ended, and a copy of what lies under its output."""

    done: Finished
    files: dict[str, Path]
    folder: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        return query(self.folder / "catalog", table)


def _press(
    cluster: PrismCluster, bucket: storage.Bucket, output: str, folder: Path, *flags: str
) -> Pressed:
    """Runs over all archives, and copies down what was made."""
    done = callpress_process(
        *("run", "--input", f"gs://{BUCKET}/raw/*", "--output", f"gs://{BUCKET}/{output}"),
        *("--temp_location", f"gs://{BUCKET}/tmp-{output}", *flags),
        env=cluster.env,
    )
    files = {}
    for blob in bucket.list_blobs(prefix=f"{output}/"):
        name = blob.name.removeprefix(f"{output}/")
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(files[name]))
    return Pressed(done=done, files=files, folder=folder)


@pytest.fixture(scope="module")
def on_prism(
    cluster: PrismCluster, bucket: storage.Bucket, tmp_path_factory: pytest.TempPathFactory
) -> Pressed:
    _upload_archives(bucket)
    folder = tmp_path_factory.mktemp("on-prism")
    return _press(cluster, bucket, "on-prism", folder, *cluster.flags)


@pytest.fixture(scope="module")
def locally(
    cluster: PrismCluster,
    bucket: storage.Bucket,
    on_prism: Pressed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pressed:
    return _press(cluster, bucket, "locally", tmp_path_factory.mktemp("locally"))


def test_run_ends_as_on_the_local_engine(on_prism: Pressed, locally: Pressed) -> None:
    for pressed in (on_prism, locally):
        assert pressed.done.status == 1, pressed.done.err
        assert "Traceback" not in pressed.done.err
        assert "raw/broken.tar.gz" in pressed.done.out
    assert "6 listed, 5 ok, 1 failed" in on_prism.done.out
    assert on_prism.done.err.splitlines()[-1] == locally.done.err.splitlines()[-1]


def test_media_is_the_local_engines_to_the_byte(on_prism: Pressed, locally: Pressed) -> None:
    def hashes(pressed: Pressed) -> dict[str, str]:
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in pressed.files.items()
            if name.startswith("recordings/")
        }

    assert len(hashes(on_prism)) == 15 + 4
    assert hashes(on_prism) == hashes(locally)


@pytest.mark.parametrize("table", sorted(set(SCHEMAS) - {"runs"}))
def test_rows_are_the_local_engines(on_prism: Pressed, locally: Pressed, table: str) -> None:
    def rows(pressed: Pressed, output: str) -> list[dict[str, Any]]:
        return [
            {
                name: str(value).replace(f"gs://{BUCKET}/{output}/", "")
                for name, value in row.items()
                if name not in OF_THE_RUN
            }
            for row in pressed.rows(table)
        ]

    assert rows(on_prism, "on-prism")
    assert rows(on_prism, "on-prism") == rows(locally, "locally")


def test_nothing_is_staged_once_a_run_has_ended(on_prism: Pressed, bucket: storage.Bucket) -> None:
    assert on_prism.done.status == 1
    assert not list(bucket.list_blobs(prefix="tmp-on-prism/"))
    assert {name.split("/")[0] for name in on_prism.files} == {"catalog", "recordings"}


def test_second_run_presses_nothing(
    cluster: PrismCluster, bucket: storage.Bucket, on_prism: Pressed, tmp_path: Path
) -> None:
    again = _press(cluster, bucket, "on-prism", tmp_path, *cluster.flags)

    assert again.done.status == 0, again.done.err
    assert "6 listed, 5 skipped, 1 failed (1 of them failed before)" in again.done.out
    assert "0 recordings" in again.done.out
    assert again.files.keys() == on_prism.files.keys()
    assert len(again.rows("runs")) == 2
