"""URIs however they are spelled: `file://`, capitals, links; what lies within what."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "known_by"),
    [
        ("https://host/a/b.tar.gz", "https://host/a/b.tar.gz"),
        ("HTTPS://Host.Example:443/A/B?X-Amz-Signature=SECRET", "https://host.example/A/B"),
        ("https://host:8443/a?x#SECRET", "https://host:8443/a"),
        ("https://me:SECRET@host/a", "https://host/a"),
        ("https://SECRET@host@host2/a", "https://host2/a"),
        ("https://host/a%2Fb//c/../d;x=1?sig=SECRET", "https://host/a%2Fb//c/../d;x=1"),
        ("https://host?sig=SECRET/a", "https://host"),
        ("https://host#SECRET", "https://host"),
        ("https://[2001:DB8::1]:443/a?SECRET", "https://[2001:db8::1]/a"),
        ("http://localhost:80/a", "http://localhost/a"),
        ("https://host:/a?SECRET", "https://host/a"),
        ("https://me:SECRET/x@host/a", "https://[hidden]"),
        ("https://ho st/a?SECRET", "https://[hidden]"),
        ("https:///a?sig=SECRET", "https://[hidden]"),
        ("https://host:99999/a?SECRET", "https://[hidden]"),
        ("https://host\\@other/a?SECRET", "https://other/a"),
        ("/raw/who?.tar.gz", "/raw/who?.tar.gz"),
        ("gs://bucket/who?.tar.gz#1", "gs://bucket/who?.tar.gz#1"),
    ],
)
def test_link_is_known_by_host_and_path(link: str, known_by: str) -> None:
    assert uris.without_signature(link) == known_by
    assert uris.without_signature(known_by) == known_by
    assert uris.shown(link) == known_by
    assert "SECRET" not in repr(uris.split_link(link))


def test_user_and_password_are_shown_of_no_store() -> None:
    assert uris.shown("s3://me:SECRET@bucket/a") == "s3://[hidden]@bucket/a"
    for name in ("gs://bucket/token=abcd/a@b.zip", "/raw/me@home/password=abcd", "a://"):
        assert uris.shown(name) == name


@given(st.text(), st.text())
def test_nothing_behind_the_path_is_ever_shown(before: str, secret: str) -> None:
    for link in (f"https://h/{before}?{secret}PLANTED", f"https://PLANTED{secret}@h/{before}"):
        if uris.split_link(link) is not None or uris.is_link(link):
            shown = uris.shown(link)
            if "PLANTED" in shown:  # a slash ended what would have been the user's name
                assert re.search("[/?#]", secret)


def test_hosts_are_named_with_their_ports() -> None:
    for link, named in [
        ("https://Host/a?x", "host:443"),
        ("http://me@localhost:8080/", "localhost:8080"),
        ("https://[::1]/", "[::1]:443"),
    ]:
        parts = uris.split_link(link)
        assert parts is not None
        assert parts.host_and_port == named


@pytest.mark.parametrize("uri", ["/https://x", "gs://b/https://", "https:/h/a", "httpsx://h", ""])
def test_what_is_no_link(uri: str) -> None:
    assert not uris.is_link(uri)
    assert uris.split_link(uri) is None
