"""What every store does alike, and compare-and-swap on a disk."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.storage import objects, uris
from transforms.storage.local import LocalStore
from transforms.storage.registry import store_of
from transforms.storage.store import SwapRead, SwapUnsupportedError


@pytest.mark.parametrize(
    ("uri", "name", "can_be_down"),
    [
        ("/raw/a.tar.gz", "LocalStore", False),
        ("raw/**", "LocalStore", False),
        ("gs://bucket/raw/*", "GcsStore", True),
        ("https://host/a.tar.gz?x", "HttpsStore", False),
        ("HTTP://localhost/a", "HttpsStore", False),
        ("s3://bucket/raw", "S3Store", True),
        ("azfs://account/container/raw", "AzureStore", True),
        ("hdfs://server/raw", "BeamStore", True),
    ],
)
def test_store_goes_by_the_scheme(uri: str, name: str, can_be_down: bool) -> None:
    store = store_of(uri)

    assert type(store).__name__ == name
    assert store is store_of(uri)
    assert store.can_be_down is can_be_down


@pytest.mark.parametrize("uri", ["s4://bucket/raw", "ftp://host/a.tar.gz", "callpress://x"])
def test_scheme_that_nobody_knows_is_told_with_those_known(uri: str) -> None:
    scheme = uri.split(":", 1)[0]

    with pytest.raises(ConfigError) as told:
        store_of(uri)

    assert str(told.value).startswith(f"{uri}: unknown scheme {scheme}://, expected a path or one")
    for known in ("azfs://", "file://", "gs://", "https://", "s3://"):
        assert known in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("place", ["s3://KEY:PLANTED@bucket", "azfs://KEY:PLANTED@account/box"])
def test_credentials_in_a_uri_are_refused_and_not_told(place: str) -> None:
    """As `s3n://KEY:SECRET@bucket`, which some tools take."""
    asks: list[Callable[[str], object]] = [
        objects.read_bytes,
        objects.match,
        objects.list_below,
        lambda uri: objects.find_credentials([uri]),
    ]
    for ask in asks:
        with pytest.raises(CallpressError, match="has a user in it, expected none") as refused:
            ask(f"{place}/a")

        assert "PLANTED" not in "".join(traceback.format_exception(refused.value))


def test_azure_in_another_spelling_is_told_without_a_password() -> None:
    with pytest.raises(ConfigError, match="expected azfs://ACCOUNT/CONTAINER/PATH") as refused:
        uris.absolute("az://KEY:PLANTED@account/box/a")

    assert "PLANTED" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["gs:///raw/*", "gs://*/raw", "gs://-/raw", "s3:///raw/*", "s3://*/raw", "s3://b/raw",
     "azfs:///raw/*", "azfs://Account/calls/raw", "azfs://account", "azfs://account/*/raw"],
)  # fmt: skip
def test_bucket_that_cannot_be_is_a_storage_error(uri: str) -> None:
    with pytest.raises(StorageError, match=r"is no name of a (bucket|storage account|container)"):
        objects.match(uri)


def test_object_store_has_no_folders(tmp_path: Path) -> None:
    for uri in ("gs://bucket/a", "s3://bucket/a", "azfs://account/calls/a", "hdfs://server/a"):
        assert not objects.is_folder(uri)
        assert not objects.exists_literally(uri)
        objects.prepare_folder(uri)
        assert not objects.delete_empty_folder(uri)
        assert store_of(uri).local_path(uri) is None
        assert Path(objects.default_staging(uri, "x")).is_absolute()
    assert objects.default_staging(f"{tmp_path}/out", "x") == f"{tmp_path}/out/.staging/x"


def test_only_an_empty_folder_is_deleted(tmp_path: Path) -> None:
    objects.prepare_folder(f"{tmp_path}/a/b")

    assert not objects.delete_empty_folder(f"{tmp_path}/a")
    assert objects.delete_empty_folder(f"{tmp_path}/a/b")
    assert objects.delete_empty_folder(f"{tmp_path}/a")
    assert not objects.delete_empty_folder(f"{tmp_path}/a")
    assert list(tmp_path.iterdir()) == []


# --- compare and swap -----------------------------------------------------------------------------


def test_swap_makes_what_is_not_there_and_replaces_what_was_read(tmp_path: Path) -> None:
    uri = f"{tmp_path}/deep/x"
    assert objects.read_for_swap(uri) == SwapRead()
    assert not (tmp_path / "deep").exists()  # reading makes nothing

    first = objects.compare_and_swap(uri, None, b"longer than the second")
    second = objects.compare_and_swap(uri, first, b"second")

    assert None not in (first, second)
    assert first != second
    assert objects.read_for_swap(uri)[:2] == (b"second", second)
    assert objects.read_bytes(uri) == b"second"


@pytest.mark.parametrize("expected", ["stale", "none", "gone"])
def test_swap_of_what_is_another_by_now_writes_nothing(tmp_path: Path, expected: str) -> None:
    uri = f"{tmp_path}/x"
    stale = objects.compare_and_swap(uri, None, b"one")
    objects.write_bytes(uri, b"two")
    if expected == "gone":
        objects.delete(uri)

    for store in (objects, LocalStore()):
        token = None if expected == "none" else stale
        assert store.compare_and_swap(uri, token, b"three") is None

    assert [found.size_bytes for found in objects.match(uri)] == [3] * (expected != "gone")


def test_file_without_content_counts_as_none(tmp_path: Path) -> None:
    """As a process leaves it that is killed between making and writing it."""
    (tmp_path / "x").touch()

    assert objects.read_for_swap(f"{tmp_path}/x")[:2] == (b"", None)
    assert objects.compare_and_swap(f"{tmp_path}/x", None, b"one") is not None


def test_content_that_is_there_already_counts_as_written_by_us(tmp_path: Path) -> None:
    """It is, when the answer to an earlier try was lost."""
    token = objects.compare_and_swap(f"{tmp_path}/x", None, b"one")

    assert objects.compare_and_swap(f"{tmp_path}/x", None, b"one") == token


def test_no_swap_of_many_processes_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")

    def count() -> None:
        for _ in range(50):
            while True:
                found = objects.read_for_swap(f"{tmp_path}/x")
                following = b"%04d" % (int(found.data or b"0") + 1)
                if LocalStore().compare_and_swap(f"{tmp_path}/x", found.token, following):
                    break

    processes = [context.Process(target=count) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert objects.read_bytes(f"{tmp_path}/x") == b"0200"


@pytest.mark.parametrize("wrong_by", [-3_600, 3_600])
def test_age_is_by_the_clock_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    (tmp_path / "x").write_bytes(b"one")
    true_now = time.time()
    os.utime(tmp_path / "x", (true_now - 500, true_now - 500))
    monkeypatch.setattr(time, "time", lambda: true_now + wrong_by)

    age_seconds = objects.read_for_swap(f"{tmp_path}/x").age_seconds

    assert 499 < age_seconds < 510
    assert [path.name for path in tmp_path.iterdir()] == ["x"]  # nothing is left of finding it out


def test_age_and_content_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the lock of one who has just taken over would seem as old as what he took."""
    (tmp_path / "x").write_bytes(b"old")
    os.utime(tmp_path / "x", (0, 0))
    flock = fcntl.flock

    def overtaken(file: int, how: int) -> None:
        if how == fcntl.LOCK_SH:
            assert LocalStore().compare_and_swap(
                f"{tmp_path}/x", hashlib.sha256(b"old").hexdigest(), b"new"
            )
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", overtaken)

    found = LocalStore().read_for_swap(f"{tmp_path}/x")

    assert (found.data, found.age_seconds < 60) == (b"new", True)


def test_writer_waits_for_who_reads(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with (tmp_path / "x").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        writer = multiprocessing.get_context("fork").Process(
            target=LocalStore().compare_and_swap,
            args=(f"{tmp_path}/x", hashlib.sha256(b"old").hexdigest(), b"new"),
        )
        writer.start()
        writer.join(0.2)
        assert (tmp_path / "x").read_bytes() == b"old"
        fcntl.flock(reader, fcntl.LOCK_UN)
    writer.join(10)

    assert (tmp_path / "x").read_bytes() == b"new"


def test_store_of_beam_cannot_swap() -> None:
    with pytest.raises(SwapUnsupportedError):
        objects.read_for_swap("hdfs://server/x")
    with pytest.raises(SwapUnsupportedError):
        objects.compare_and_swap("hdfs://server/x", None, b"one")
