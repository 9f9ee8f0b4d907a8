"""Completed work: notes of the calls and archives a run is done with, but for their rows in the
catalog. They lie with the rows, in the bundles of its staging folder. Should it die before it
publishes them, the next run takes them up.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from transforms.catalog.bundles import FOLDER, WrittenBundle
from transforms.context import VERSION, JobSettings, RunIdentity
from transforms.elements import ArchiveOutcome, ArchiveSummary, Failure, PressedCall
from transforms.storage import objects, uris


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


CALL = "call"
ARCHIVE = "archive"


def note_of_call(
    job: JobSettings,
    run: RunIdentity,
    pressed: PressedCall,
    outcomes: tuple[ArchiveOutcome, ...],
    fingerprints: tuple[tuple[str, str], ...],
) -> Mapping[str, bytes]:
    """Returns the note that a call is done, as it goes into a bundle. Args: fingerprints: (URI,
    fingerprint) of its archives.
    """
    work = CompletedCall(
        pressed=pressed,
        outcomes=outcomes,
        fingerprints=fingerprints,
        settings_fingerprint=job.settings_fingerprint,
        noted_unix_ns=run.started_unix_ns,
    )
    return {CALL: _adapter(CompletedCall).dump_json(work)}


def note_of_archive(
    job: JobSettings, run: RunIdentity, summary: ArchiveSummary, failures: tuple[Failure, ...]
) -> Mapping[str, bytes]:
    """Returns the note that an archive is done, as it goes into a bundle. Args: failures: those of
    it that belong to no call.
    """
    work = CompletedArchive(
        summary=summary,
        failures=failures,
        settings_fingerprint=job.settings_fingerprint,
        noted_unix_ns=run.started_unix_ns,
        callpress_version=VERSION,
    )
    return {ARCHIVE: _adapter(CompletedArchive).dump_json(work)}


def calls_in(bundle: WrittenBundle) -> list[CompletedCall]:
    """Returns the calls that are noted in a bundle."""
    return _parse(bundle.notes(CALL), CompletedCall)


def archives_in(bundle: WrittenBundle) -> list[CompletedArchive]:
    """Returns the archives that are noted in a bundle."""
    return _parse(bundle.notes(ARCHIVE), CompletedArchive)


def _parse(notes: Iterable[bytes], kind: Any) -> list[Any]:
    """Returns notes; what cannot be read was not left by this version and is passed over."""
    found = []
    for note in notes:
        with contextlib.suppress(ValidationError):
            found.append(_adapter(kind).validate_json(note))
    return found


def bundles_of(staging_uri: str) -> list[str]:
    """Returns the bundles in a run's staging. Raises: StorageError."""
    return [listed.path for listed in objects.list_below(uris.join(staging_uri, FOLDER))]


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once per dataclass: that costs more than using it."""
    return TypeAdapter(kind)
