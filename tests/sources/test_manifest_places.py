"""Which objects a place of manifests stands for, and the page about them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType

import pytest

from transforms.media.errors import StorageError
from transforms.sources.manifests.entry import ManifestEntry
from transforms.sources.manifests.places import list_manifests, open_manifest
from transforms.sources.manifests.read_entries import read_entries

PAGE = Path(__file__).parents[2] / "docs" / "manifests.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.json", "b/c.csv", "b/d", ".hidden", "_SUCCESS", "b/_log", "callpress.lock"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / "b" / "empty.json").touch()
    return tmp_path


def test_folder_stands_for_the_manifests_below_it(folder: Path) -> None:
    below = [f"{folder}/{name}" for name in ("a.json", "b/c.csv", "b/d")]

    assert list(list_manifests(f"{folder}/")) == below
    assert list(list_manifests(str(folder))) == below
    assert list(list_manifests(f"file://{folder}")) == below
    assert list(list_manifests(f"{folder}/**")) == below
    assert list(list_manifests(f"{folder}/*.json")) == below[:1]
    assert list(list_manifests(f"{folder}/*.txt")) == []


def test_name_stands_for_itself_whatever_it_is(folder: Path) -> None:
    (folder / "a[1].json").write_text("x")
    for name in (".hidden", "b/empty.json", "not-there.json", "a[1].json"):
        assert list(list_manifests(f"{folder}/{name}")) == [f"{folder}/{name}"]
    link = "https://host/dir/m.json?sig=a*b[c]"
    assert list(list_manifests(link)) == [link]


def test_prefix_of_a_bucket_stands_for_what_lies_below_it(store: ModuleType) -> None:
    for name in ("events/1.json", "events/_2", "events/3/4.json", "events.json"):
        store.put(f"fake://bucket/{name}", b"x")

    below = ["fake://bucket/events/1.json", "fake://bucket/events/3/4.json"]
    assert list(list_manifests("fake://bucket/events/")) == below
    assert list(list_manifests("fake://bucket/events")) == below
    assert list(list_manifests("fake://bucket/events/*.json")) == below[:1]
    assert list(list_manifests("fake://bucket/events.json")) == ["fake://bucket/events.json"]
    assert list(list_manifests("fake://bucket/none")) == ["fake://bucket/none"]


def test_manifest_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        open_manifest(str(tmp_path / "none"))


def test_examples_of_the_page_are_read() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    examples = [text for kind, text in blocks if kind in ("json", "csv", "") and "\\" not in text]
    counts = []
    for example in examples:
        found = list(read_entries("/page", io.BytesIO(example.encode())))
        counts.append(len(found))
        assert all(isinstance(each, ManifestEntry) for each in found)
    assert counts == [1, 1, 2, 3]
