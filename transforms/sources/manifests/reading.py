"""Reads manifests where they lie: single ones, all of a folder, or the vendor's answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry
from transforms.sources.manifests.places import list_manifests, open_manifest
from transforms.sources.manifests.read_entries import read_entries
from transforms.sources.manifests.stream_api import is_stream, read_stream
from transforms.storage import objects
from transforms.storage.link_expiry import expiry_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSource:
    """Where a job reads a manifest."""

    where: str
    """A file, a folder of such, or a query of the vendor's API (`stream:...`)."""
    shown: str
    """How people know it: what was asked for, where a copy in staging is read."""
    is_staged: bool = False
    """Whether it lies in staging, and goes when the run has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestObject:
    """An object to be read, or a query of the vendor's API."""

    where: str
    shown: str
    """How people know it."""


def objects_of(source: ManifestSource) -> Iterator[ManifestObject]:
    """Yields the objects that a manifest is made of. Raises: StorageError: not all are listed."""
    for where in _list(source):
        # Of a folder that was copied into staging people know the files by their own names.
        shown = source.shown + where.removeprefix(source.where) if source.is_staged else where
        yield ManifestObject(where=where, shown=shown)


def _list(source: ManifestSource) -> Iterator[str]:
    if source.is_staged and source.where.endswith("/"):
        for listed in objects.list_below(source.where.rstrip("/")):
            yield listed.path
    elif source.is_staged or is_stream(source.where):
        yield source.where
    else:
        yield from list_manifests(source.where)


def read_object(found: ManifestObject) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    """Yields what an object names. Raises: RecordingError: it cannot be read, or not to its end."""
    if is_stream(found.where):
        yield from read_stream(found.where)
        return
    with contextlib.closing(open_manifest(found.where)) as file:
        yield from read_entries(found.shown, file)


def read_source(
    source: ManifestSource,
) -> Iterator[tuple[str, ManifestEntry | LeftOut | BadEntry]]:
    """Yields all that a manifest names, and how the object is shown that it stands in. Raises:
    RecordingError: it cannot be read, or not to its end.
    """
    for found in objects_of(source):
        for each in read_object(found):
            yield found.shown, each


def newness(entry: ManifestEntry) -> tuple[int, int]:
    """Returns what is greater the newer an entry's link is: when it expires, by what it shows, then
    when its event was made. A listing does not say when it was made, its links do.
    """
    return expiry_of(entry.link) or 0, entry.issued_unix_ns or 0
