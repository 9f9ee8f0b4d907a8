"""Listings of any length, object by object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from transforms.media.errors import StorageError
from transforms.storage import objects
from transforms.storage.registry import store_of
from transforms.storage.retry import retried
from transforms.storage.store import ListedObject
from transforms.storage.uris import shown

_AT_A_TIME = 1_000


def each_match(pattern: str) -> Iterator[ListedObject]:
    """Yields the objects that a glob matches, in the order of the store; of a disk sorted by name.

    Of an object store some thousand are held at a time. A listing that breaks off is begun again,
    past what came of it.

    Raises:
      StorageError: it cannot be listed, or is another one when it is begun again.
    """
    if objects.is_on_this_machine(pattern):
        yield from objects.match(pattern)
    else:
        yield from _each(pattern, lambda: store_of(pattern).match(pattern))


def each_below(folder: str) -> Iterator[ListedObject]:
    """As `each_match`, of every object below a folder."""
    if objects.is_on_this_machine(folder):
        yield from objects.list_below(folder)
    else:
        yield from _each(folder, lambda: store_of(folder).list_below(folder))


def _each(uri: str, begin: Callable[[], Iterator[ListedObject]]) -> Iterator[ListedObject]:
    listing: Iterator[ListedObject] | None = None
    count, last = 0, ""

    @retried
    def next_ones(_uri: str) -> list[ListedObject]:
        nonlocal listing
        try:
            if listing is None:
                listing = begin()
                again = next(islice(listing, count - 1, None), None) if count else None
                if count and (again is None or again.path != last):
                    raise StorageError(f"{shown(uri)}: what lies there changed while it was listed")
            return list(islice(listing, _AT_A_TIME))
        except BaseException:
            listing = None
            raise

    while found := next_ones(uri):
        yield from found
        count, last = count + len(found), found[-1].path
