"""Completed work: notes in a run's staging folder of the calls and archives it is done with, but
for their rows in the catalog. Should it die before it publishes them, the next run takes them up.

    <staging>/completed/<call|archive>-<key>.json    JSON of a dataclass; half of one is none
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from transforms.context import VERSION, JobSettings, RunIdentity, key_hash
from transforms.elements import ArchiveOutcome, ArchiveSummary, Failure, PressedCall
from transforms.media.errors import StorageError
from transforms.storage import objects, uris

logger = logging.getLogger(__name__)

FOLDER = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedCall:
    """A call that is done but for its rows in the catalog."""

    pressed: PressedCall
    outcomes: tuple[ArchiveOutcome, ...]
    fingerprints: tuple[tuple[str, str], ...]
    """(URI, fingerprint) of the archives it was made from."""
    settings_fingerprint: str
    noted_unix_ns: int
    """When the run began that left the note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedArchive:
    """An archive that was read to its end."""

    summary: ArchiveSummary
    failures: tuple[Failure, ...]
    """Those that belong to no call."""
    settings_fingerprint: str
    noted_unix_ns: int
    """When the run began that left the note."""
    callpress_version: str | None = None
    """That run's; None in notes of versions that did not say."""


_NAMES: dict[Any, str] = {CompletedCall: "call", CompletedArchive: "archive"}


def note_call(
    job: JobSettings,
    run: RunIdentity,
    pressed: PressedCall,
    outcomes: tuple[ArchiveOutcome, ...],
    fingerprints: tuple[tuple[str, str], ...],
) -> None:
    """Notes that a call is done. Args: fingerprints: (URI, fingerprint) of its archives."""
    work = CompletedCall(
        pressed=pressed,
        outcomes=outcomes,
        fingerprints=fingerprints,
        settings_fingerprint=job.settings_fingerprint,
        noted_unix_ns=run.started_unix_ns,
    )
    _note(run, work, *pressed.call.as_tuple())


def note_archive(
    job: JobSettings, run: RunIdentity, summary: ArchiveSummary, failures: tuple[Failure, ...]
) -> None:
    """Notes that an archive is done. Args: failures: those of it that belong to no call."""
    work = CompletedArchive(
        summary=summary,
        failures=failures,
        settings_fingerprint=job.settings_fingerprint,
        noted_unix_ns=run.started_unix_ns,
        callpress_version=VERSION,
    )
    _note(run, work, summary.ref.uri)


def _note(run: RunIdentity, work: CompletedCall | CompletedArchive, *key: str) -> None:
    """Writes a note, the same each time.

    One that cannot be written costs no more than the work it would have saved.
    """
    kind: Any = type(work)
    try:
        objects.write_staged(
            run.staged(FOLDER, f"{_NAMES[kind]}-{key_hash(*key)}.json"),
            _adapter(kind).dump_json(work),
        )
    except StorageError as error:
        logger.warning("%s", error.message)


def calls_in(staging_uri: str) -> Iterator[CompletedCall]:
    """Yields the calls a run was done with. Raises: StorageError."""
    return _find(staging_uri, CompletedCall)


def archives_in(staging_uri: str) -> Iterator[CompletedArchive]:
    """Yields the archives a run was done with. Raises: StorageError."""
    return _find(staging_uri, CompletedArchive)


def _find(staging_uri: str, kind: Any) -> Iterator[Any]:
    """Yields notes; what cannot be read was not left by this version and is passed over."""
    for listed in objects.list_below(uris.join(staging_uri, FOLDER)):
        name = listed.path.rsplit("/", 1)[-1]
        if name.startswith(f"{_NAMES[kind]}-") and name.endswith(".json"):
            try:
                yield _adapter(kind).validate_json(objects.read_bytes(listed.path))
            except ValidationError:
                continue


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once per dataclass: that costs more than using it."""
    return TypeAdapter(kind)
