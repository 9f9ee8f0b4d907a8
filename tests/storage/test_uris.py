"""URIs however they are spelled: `file://`, capitals, links; what lies within what."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
