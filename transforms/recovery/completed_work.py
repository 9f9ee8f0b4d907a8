"""Notes of what a run has finished, in its staging folder: should it die before it publishes, the
next one takes that up.

<staging>/finished/<kind>-<key>.json    JSON of a dataclass; half of one is none
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from transforms.context import RunContext, key_hash
from transforms.elements import (
    ArchiveOutcome,
    ArchiveSummary,
    PressedCall,
)
from transforms.media.errors import StorageError
from transforms.media.values import Failure
from transforms.storage import objects, uris

STAGED_CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedCall:
    """A call that is done but for its rows in the catalog, as noted for a later run
    (`transforms.recovery.completed_work`).
    """

    pressed: PressedCall
    outcomes: tuple[ArchiveOutcome, ...]
    fingerprints: tuple[tuple[str, str], ...]
    """(URI, fingerprint) of the archives it was made from."""
    settings_fingerprint: str
    noted_unix_ns: int
    """When the run began that left the note."""


STAGED_ARCHIVE = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedArchive:
    """An archive that was read to its end, as noted for a later run
    (`transforms.recovery.completed_work`).
    """

    summary: ArchiveSummary
    failures: tuple[Failure, ...]
    """Those that belong to no call."""
    settings_fingerprint: str
    noted_unix_ns: int
    """When the run began that left the note."""


logger = logging.getLogger(__name__)
FOLDER = "finished"
T = TypeVar("T")
_adapters: dict[Any, TypeAdapter[Any]] = {}
"""Made once per dataclass: that costs more than using them."""


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return _adapters.setdefault(kind, _adapters.get(kind) or TypeAdapter(kind))


def leave(context: RunContext, kind: str, key: tuple[str, ...], record: Any) -> None:
    """Notes that something is finished; the same note each time.

    A note that cannot be written costs no more than the work it would have saved.

    Args:
      context: of this run.
      kind: `call` or `archive`.
      key: what names it.
      record: a dataclass.
    """
    uri = context.staged(FOLDER, f"{kind}-{key_hash(*key)}.json")
    try:
        objects.write_staged(uri, _adapter(type(record)).dump_json(record))
    except StorageError as error:
        logger.warning("%s", error.message)


def find(staging_uri: str, kind: str, record: type[T]) -> Iterator[T]:
    """Yields what a run has left; what cannot be read was not left by this version and is passed
    over. Raises: StorageError.

    Args:
      staging_uri: that run's staging folder.
      kind: `call` or `archive`.
      record: the dataclass.
    """
    for metadata in objects.list_below(uris.join(staging_uri, FOLDER)):
        name = metadata.path.rsplit("/", 1)[-1]
        if name.startswith(f"{kind}-") and name.endswith(".json"):
            try:
                yield _adapter(record).validate_json(objects.read_bytes(metadata.path))
            except ValidationError:
                continue
