"""URIs however they are spelled: `file://`, capitals, links; what lies within what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transforms.media.errors import ConfigError
from transforms.storage import objects, uris


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///raw/a.tar.gz", "/raw/a.tar.gz"),
        ("file://localhost/raw/", "/raw/"),
        ("FILE:///raw//x/../a", "/raw/a"),
        ("file:/raw/a%20b", "/raw/a%20b"),
        ("file://raw/*.zip", "HERE/raw/*.zip"),
        ("//raw/a", "/raw/a"),
        ("GS://bucket/A", "gs://bucket/A"),
        ("file:a", "HERE/file:a"),
    ],
)
def test_path_may_begin_with_file_and_schemes_with_capitals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)

    assert uris.absolute(uri) == expected.replace("HERE", str(tmp_path))
    assert uris.scheme_of(uri) == ("gs" if "bucket" in uri else "")


def test_folder_has_no_slash_at_the_end() -> None:
    assert uris.folder("gs://bucket/a//") == "gs://bucket/a"
    assert uris.folder("file:///a/") == "/a"
    assert uris.folder("/") == "/"


@pytest.mark.parametrize("uri", ["", "file://", "gs://", "s3:///"])
def test_uri_of_nothing_but_a_scheme_names_nothing(uri: str) -> None:
    assert not uris.is_named(uri)
    assert uris.is_named(f"{uri}a")


def test_place_is_within_itself_and_what_is_above() -> None:
    assert uris.is_within("/a/b", "/a")
    assert uris.is_within("/a/", "/a")
    assert uris.is_within("gs://b/x", "gs://b")
    assert not uris.is_within("/ab", "/a")
    assert not uris.is_within("/a", "/a/b")


def test_places_that_are_one_resolve_to_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place = objects.resolve(f"{tmp_path}/real/x/y")

    assert objects.resolve(f"{tmp_path}/link/x/y") == place
    assert objects.resolve(f"{tmp_path}/link/../real/x/y") == place
    assert objects.resolve(f"{tmp_path}/real/X/y") != place
    assert objects.resolve("gs://bucket/a/../b") == "gs://bucket/a/../b"


def test_places_resolve_to_small_letters_where_a_disk_folds_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Out").mkdir()
    same = os.path.samefile
    monkeypatch.setattr(
        os.path, "samefile", lambda a, b: a.casefold() == b.casefold() or same(a, b)
    )

    assert objects.resolve(f"{tmp_path}/Out/Recordings") == objects.resolve(
        f"{tmp_path}/Out/recordings"
    )


def test_azure_is_spelled_with_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "ours")

    assert uris.absolute("az://raw/a/**.zip") == "azfs://ours/raw/a/**.zip"
    assert uris.folder("AZ://raw/") == "azfs://ours/raw"
    assert uris.absolute("azfs://theirs/raw/a/") == "azfs://theirs/raw/a/"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "az://raw/a",
            "az://raw/a: of which account is not said, expected azfs://ACCOUNT/raw/a or the "
            "variable AZURE_STORAGE_ACCOUNT",
        ),
        (
            "abfss://raw@theirs.dfs.core.windows.net/a/b?sig=abcd",
            "abfss://raw@theirs.dfs.core.windows.net/a/b: expected azfs://theirs/raw/a/b",
        ),
        (
            "wasbs://raw@theirs.blob.core.windows.net",
            "wasbs://raw@theirs.blob.core.windows.net: expected azfs://theirs/raw",
        ),
        (
            "az://raw@theirs.blob.core.windows.net/a",
            "az://raw@theirs.blob.core.windows.net/a: expected azfs://theirs/raw/a",
        ),
        ("abfs://raw/a", "abfs://raw/a: expected azfs://ACCOUNT/CONTAINER/PATH"),
    ],
)
def test_place_in_azure_that_does_not_say_where_is_one_line(
    uri: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)

    with pytest.raises(ConfigError) as refused:
        uris.absolute(uri)

    assert str(refused.value) == message
