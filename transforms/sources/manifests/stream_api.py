"""Stub."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.sources.manifests.entry import BadEntry, LeftOut, ManifestEntry


def is_stream(where: str) -> bool:
    """Whether."""
    return where.startswith("stream:")


def read_stream(query: str) -> Iterator[ManifestEntry | LeftOut | BadEntry]:
    """Yields."""
    yield from ()
