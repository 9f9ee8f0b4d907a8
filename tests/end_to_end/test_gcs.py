"""The same on gs://, against a storage emulator in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.command import (
    SAMPLE,
    STEREO_STALLS,
    callpress_process,
    decode_with_ffmpeg,
    query,
)

BUCKET = "calls"


@pytest.fixture
def bucket(gcs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> storage.Bucket:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs["STORAGE_EMULATOR_HOST"])
    client = storage.Client(project="anonymous", credentials=AnonymousCredentials())
    return client.bucket(BUCKET)


def _copy_down(bucket: storage.Bucket, prefix: str, folder: Path) -> dict[str, Path]:
    found = {}
    for blob in bucket.list_blobs(prefix=prefix):
        path = folder / blob.name.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(path))
        found[f"gs://{BUCKET}/{blob.name}"] = path
    return found


@pytest.fixture
def metadata_server() -> Iterator[socket.socket]:
    """Stands where a machine of Google's asks for its credentials; answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.slow
def test_two_captures_and_a_broken_archive_on_cloud_storage(
    gcs: dict[str, str], bucket: storage.Bucket, metadata_server: socket.socket, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{metadata_server.getsockname()[1]}"
    env = {**gcs, "GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}
    bucket.blob("raw/sync.tar.gz").upload_from_filename(SAMPLE)
    bucket.blob("raw/deep/er/music.tar.gz").upload_from_filename(STEREO_STALLS)
    bucket.blob("raw/broken.tar.gz").upload_from_string(SAMPLE.read_bytes()[:1000])
    run = ("run", "--input", f"gs://{BUCKET}/raw/**.tar.gz", "--output", f"gs://{BUCKET}/pressed")
    first = callpress_process(*run, env=env)
    # One archive of three is broken: the rest is made, and the exit status says that something is
    # wrong.
    assert first.status == 1, first.err
    assert "1 failed" in first.out
    assert "raw/broken.tar.gz" in first.out
    assert "Traceback" not in first.err + first.out
    with pytest.raises(BlockingIOError):  # nobody asked for credentials: an emulator wants none
        metadata_server.accept()
    files = _copy_down(bucket, "pressed/", tmp_path / "one")
    catalog = tmp_path / "one" / "catalog"
    recordings = query(catalog, "recordings")
    assert len(recordings) == 5 + 3 + 2
    for row in recordings:
        assert files[row["uri"]].stat().st_size == row["size_bytes"]
        assert (
            len(decode_with_ffmpeg(files[row["uri"]], row["channels"])) == row["duration_samples"]
        )
    (failure,) = query(catalog, "failures")
    assert failure["archive_uri"] == f"gs://{BUCKET}/raw/broken.tar.gz"
    assert failure["error_type"] == "ArchiveError"
    assert {row["status"] for row in query(catalog, "archives")} == {"ok", "failed"}
    # Nothing but recordings, tables, the lock, the result and the archives: no staging, no
    # temporary names.
    assert {name.split("/")[3] for name in files} == {"pressed"}
    assert {name.split("/")[4] for name in files} == {"catalog", "recordings"}
    (result,) = [name for name in files if "/catalog/results/" in name]
    assert json.loads(files[result].read_bytes())["counts"]["recordings"] == 10
    others = files.keys() - {result}
    assert all(name.endswith((".parquet", ".mkv", ".mp3", "/callpress.lock")) for name in others)

    # Again: the good ones are skipped, the broken one is replaced by a good one and pressed.
    bucket.blob("raw/broken.tar.gz").delete()
    bucket.blob("raw/broken.tar.gz").upload_from_filename(SAMPLE)
    second = callpress_process(*run, env=gcs)
    assert second.status == 0, second.err + second.out
    assert "2 skipped" in second.out
    shutil.rmtree(tmp_path / "one")
    _copy_down(bucket, "pressed/", tmp_path / "two")
    catalog = tmp_path / "two" / "catalog"
    assert query(catalog, "failures") == []
    assert {row["status"] for row in query(catalog, "archives")} == {"ok"}
    calls = {row["call_id"]: row for row in query(catalog, "calls")}
    assert len(calls["weekly-sync"]["archive_uris"]) == 2  # the same call in two archives
    assert len(query(catalog, "recordings")) == 10
    assert len(query(catalog, "runs")) == 2


@pytest.mark.slow
def test_input_and_output_may_lie_in_different_places(
    gcs: dict[str, str], bucket: storage.Bucket, tmp_path: Path
) -> None:
    bucket.blob("mixed/sync.tar.gz").upload_from_filename(SAMPLE)
    done = callpress_process(
        "run", "--input", f"gs://{BUCKET}/mixed/sync.tar.gz", "--output", tmp_path / "out",
        "--catalog", f"gs://{BUCKET}/tables", "--summary-json", tmp_path / "summary.json", env=gcs,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert len(list((tmp_path / "out").rglob("*.mkv"))) == 5
    assert not (tmp_path / "out" / "catalog").exists()
    _copy_down(bucket, "tables/", tmp_path / "tables")
    rows = query(tmp_path / "tables", "recordings")
    assert all(Path(row["uri"]).stat().st_size == row["size_bytes"] for row in rows)
    assert (tmp_path / "summary.json").exists()


def test_a_bucket_that_is_not_there_is_one_clear_line(gcs: dict[str, str]) -> None:
    done = callpress_process(
        "run", "--input", "gs://nowhere/raw/*", "--output", "gs://nowhere/out", env=gcs
    )
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "nowhere" in done.err
    assert "Traceback" not in done.err


def test_emulator_is_real(gcs: dict[str, str]) -> None:
    with urllib.request.urlopen(
        gcs["STORAGE_EMULATOR_HOST"] + "/storage/v1/b?project=x", timeout=5
    ) as answer:
        assert answer.status == 200
    assert "STORAGE_EMULATOR_HOST" not in os.environ
