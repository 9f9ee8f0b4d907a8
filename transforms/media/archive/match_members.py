"""Members of an archive by their names, exactly as they are spelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class MembersByPath(Generic[T]):
    """Members of one kind by their path without the suffix, found by what metadata calls them."""

    def __init__(self) -> None:
        self._items: dict[str, T] = {}
        self._by_last_name: dict[str, str | None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, path: str) -> bool:
        return path in self._items

    def __getitem__(self, path: str) -> T:
        return self._items[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def add(self, path: str, item: T) -> None:
        """Adds a member; its path, without the suffix, must be new."""
        self._items[path] = item
        last_name = path.rpartition("/")[2]
        self._by_last_name[last_name] = None if last_name in self._by_last_name else path

    def find(self, name: str, folder: str) -> str | None:
        """Returns the path of a segment's member, None when there is none or it is not clear which.

        It lies beside its metadata, or at the path that the metadata spells, or anywhere if the
        archive has its name once.

        Args:
          name: as the metadata spells it, without the suffix.
          folder: where the metadata lies; empty for the top.
        """
        beside = f"{folder}/{name}" if folder else name
        for path in (beside, name):
            if path in self._items:
                return path
        return self._by_last_name.get(name)
