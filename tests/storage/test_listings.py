"""Listings that are not held as a whole, and what becomes of one that breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import tenacity

from transforms.media.errors import StorageError
from transforms.storage import listings, retry
from transforms.storage.beam import BeamStore
from transforms.storage.listings import each_below, each_match
from transforms.storage.store import ListedObject

NAMES = [f"fake://bucket/m/{number:02}" for number in range(12)]


@pytest.fixture(autouse=True)
def _few_at_a_time(store: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "_AT_A_TIME", 3)
    monkeypatch.setattr(retry, "_BACK_OFF", tenacity.wait_none())
    for name in NAMES:
        store.put(name, b"x")


def test_listing_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [2, 7, 0]

    def list_below(self: BeamStore, folder: str) -> Iterator[ListedObject]:
        stop = broken.pop(0) if broken else 99
        for number, listed in enumerate(self.match(f"{folder}/**")):
            if number == stop:
                raise ConnectionResetError
            yield listed

    monkeypatch.setattr(BeamStore, "list_below", list_below)

    assert [each.path for each in each_below("fake://bucket/m")] == NAMES
    assert not broken


def test_listing_that_is_another_one_by_then_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    listings_begun = []

    def match(_: BeamStore, pattern: str) -> Iterator[ListedObject]:
        listings_begun.append(pattern)
        for number, name in enumerate(NAMES[len(listings_begun) - 1 :]):
            if number == 5:
                raise ConnectionResetError
            yield ListedObject(path=name, size_bytes=1, modified_unix_s=0)

    monkeypatch.setattr(BeamStore, "match", match)
    found = each_match("fake://bucket/m/*")

    assert [next(found).path for _ in range(3)] == NAMES[:3]
    with pytest.raises(StorageError, match="fake://bucket/m/\\*: what lies there changed while"):
        next(found)
    assert len(listings_begun) == 2
