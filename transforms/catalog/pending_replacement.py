"""Pending replacements: notes of calls whose files are being replaced while the catalog still has
the rows of before.

A run that dies in between leaves files that their rows no longer describe. Its notes stay beside
the tables, and the next run presses the archives they name again, whatever the catalog says of
them. `verify --repair` leaves the same notes of calls of which something is wrong.

    <catalog>/callpress.unfinished/<call>.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from transforms.catalog import partitions
from transforms.catalog.rows.ids import CALL_COLUMNS
from transforms.elements import key_hash
from transforms.media.errors import RetainedFileError
from transforms.media.values import CallKey
from transforms.storage import globs, objects, uris

FOLDER = "callpress.unfinished"


def announce(
    catalog_uri: str, call: CallKey, archive_uris: Iterable[str], media_uris: Iterable[str]
) -> None:
    """Notes that a call is being replaced; the same note each time. Raises: StorageError.

    Args:
      catalog_uri: root of the catalog.
      call: which.
      archive_uris: what it is pressed from.
      media_uris: files that the catalog names now; those of a note that is there already stay
        noted.
    """
    before = _read(_uri(catalog_uri, call)) or {}
    data = {
        "call": call.as_tuple(),
        "archive_uris": sorted(archive_uris),
        "media_uris": sorted({*media_uris, *before.get("media_uris", ())}),
    }
    objects.write_bytes(_uri(catalog_uri, call), json.dumps(data).encode())


def settle(
    catalog_uri: str, output_uri: str, call: CallKey, call_date: str
) -> list[tuple[str, RetainedFileError]]:
    """Takes a call's note away, whose rows are those of its files again, and deletes what is left
    of files that no row names any more. Returns those that their store does not let go, each with
    why.

    Args:
      catalog_uri: root of the catalog.
      output_uri: root of the output; nothing outside its recordings is deleted.
      call: which.
      call_date: where its rows are.

    Raises:
      StorageError: the note or the rows cannot be read, or a file not deleted.
    """
    found = _read(_uri(catalog_uri, call))
    if found is None:
        return []
    kept: list[tuple[str, RetainedFileError]] = []
    key = {call.as_tuple()}
    rows = partitions.read_rows(catalog_uri, "recordings", call_date, CALL_COLUMNS, key)
    for uri in sorted(set(found.get("media_uris", ())) - {row["uri"] for row in rows}):
        try:
            objects.delete_recording(output_uri, uri)
        except RetainedFileError as error:
            kept.append((uri, error))
    objects.delete(_uri(catalog_uri, call))
    return kept


def _read(uri: str) -> dict[str, Any] | None:
    if not objects.match(globs.quote(uri)):
        return None
    found: dict[str, Any] = json.loads(objects.read_bytes(uri))
    return found


def archives_to_repeat(catalog_uri: str) -> frozenset[str]:
    """Returns the archives of all calls with a replacement not done. Raises: StorageError."""
    return frozenset(uri for _, found in calls_to_repeat(catalog_uri) for uri in found)


def calls_to_repeat(catalog_uri: str) -> list[tuple[CallKey, tuple[str, ...]]]:
    """Returns the calls with a replacement not done, each with its archives. Raises:
    StorageError.
    """
    found = []
    for listed in objects.list_below(uris.join(catalog_uri, FOLDER)):
        if listed.path.endswith(".json"):
            note = json.loads(objects.read_bytes(listed.path))
            call = dict(zip(CALL_COLUMNS, note["call"], strict=True))
            found.append((CallKey(**call), tuple(note["archive_uris"])))
    return found


def _uri(catalog_uri: str, call: CallKey) -> str:
    return uris.join(catalog_uri, FOLDER, f"{key_hash(*call.as_tuple())}.json")
