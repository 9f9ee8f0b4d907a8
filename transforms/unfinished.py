"""Notes of calls whose media is being replaced while the catalog still has the rows of before.

A run that dies in between leaves files that their rows no longer describe. Its notes stay beside the tables, and the next run
presses the archives they name again, whatever the catalog says of them.

    <catalog>/callpress.unfinished/<call>.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from transforms import storage
from transforms.media.model import CallKey
from transforms.run_context import key_hash

FOLDER = "callpress.unfinished"


def note(catalog_uri: str, call: CallKey, archive_uris: Iterable[str]) -> None:
    """Says that a call is being replaced. Raises: StorageError."""
    text = json.dumps({"call": call.as_tuple(), "archive_uris": sorted(archive_uris)})
    storage.write_bytes(_uri(catalog_uri, call), text.encode())


def forget(catalog_uri: str, call: CallKey) -> None:
    """Says that a call's rows are those of its files again. Raises: StorageError."""
    storage.delete(_uri(catalog_uri, call))


def archives_to_repeat(catalog_uri: str) -> frozenset[str]:
    """Returns the archives of all calls that were not finished. Raises: StorageError."""
    found: set[str] = set()
    for metadata in storage.list_below(storage.join(catalog_uri, FOLDER)):
        if metadata.path.endswith(".json"):
            found.update(json.loads(storage.read_bytes(metadata.path))["archive_uris"])
    return frozenset(found)


def _uri(catalog_uri: str, call: CallKey) -> str:
    return storage.join(catalog_uri, FOLDER, f"{key_hash(*call.as_tuple())}.json")
