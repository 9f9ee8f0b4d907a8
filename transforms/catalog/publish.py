"""The one order in which a catalog is published: by a run at its end, and by one that takes up what
a dead run had completed.

    media (published already) -> what is to be told -> rows of calls -> rows of archives
        -> old rows under other dates -> old files -> notes of replaced calls -> telling
        -> the run's own row

An archive's row says that it is done, so it comes when the rows of its calls are there. Old rows go
before old files: no row ever names a file that is gone. What is to be told comes before all rows:
no file is ever there that nobody will be told of, and what is not there is not told. On Beam each
arrow is a wait for all merges before it; a note of a replaced call is settled when everything is
merged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transforms.catalog import pending_replacement, rivals
from transforms.catalog.output_names import editions
from transforms.catalog.schema import ADDED_TABLES
from transforms.context import JobSettings, RunIdentity
from transforms.elements import DroppedFile, Failure, PressedCall, SectionRef, Stage, to_failure
from transforms.locking.lease import lease_of
from transforms.media.errors import RetainedFileError, StorageError
from transforms.storage import globs, objects


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the merging, begun when all steps before it are done."""

    label: str
    takes: Callable[[SectionRef], bool]
    """Whether a section is merged in this step."""


def merges(job: JobSettings) -> tuple[Step, ...]:
    """Returns the merging, in order. What is to be told has a step of its own where anybody is
    told; where nobody is there may be some that a dead run has left, which goes with its calls.
    """
    is_told = bool(job.notify.targets)

    def is_of_calls(section: SectionRef) -> bool:
        return section.table != "archives" and not (is_told and section.table in ADDED_TABLES)

    return (
        *((Step("Notices", lambda section: section.table in ADDED_TABLES),) if is_told else ()),
        Step("Calls", lambda section: not section.only_removes and is_of_calls(section)),
        Step("Archives", lambda section: not section.only_removes and section.table == "archives"),
        Step("Old", lambda section: section.only_removes),
    )


def publish_media(job: JobSettings, run: RunIdentity, uri: str, source: Path) -> str:
    """Moves a finished recording to its final name; returns that.

    Where the store does not let another file under the name be replaced, that one stays, and this
    gets the next name (`_r2` before its ending, `_r3`). One with the same content that is there
    already is not written again.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: it cannot be written.
    """
    try:
        return _publish(job, run, uri, source)
    except StorageError as error:
        # Where no file is in the way, nothing may be written at all.
        if not objects.was_refused(error) or not objects.match(globs.quote(uri)):
            raise
    size_bytes, sha256 = source.stat().st_size, _sha256_of(source)
    for name in editions(uri):
        if not objects.match(globs.quote(name)):
            return _publish(job, run, name, source)
        if rivals.is_as_told(name, size_bytes, sha256):
            return name
    raise AssertionError("editions have no end")


def _publish(job: JobSettings, run: RunIdentity, uri: str, source: Path) -> str:
    """Moves a finished recording to a name; returns that. Raises: as `publish_media`."""
    if run.took_over:
        rivals.keep_copy(run, uri, source)
    lease_of(job, run).check(source.stat().st_size)
    objects.publish(uri, source)
    return uri


def _sha256_of(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def delete_dropped(job: JobSettings, run: RunIdentity, dropped: DroppedFile) -> bool:
    """Deletes a file that no row names any more; returns whether it was one of ours.

    Raises:
      LockLostError: another run has the catalog by now, and may have made it anew.
      RetainedFileError: its store does not let it be deleted.
      StorageError: it cannot be deleted for another reason.
    """
    lease_of(job, run).check()
    return objects.delete_recording(job.output_uri, dropped.uri)


def kept_failure(dropped: DroppedFile, error: RetainedFileError) -> Failure:
    """Returns what is told of a file that stays though no row names it."""
    return to_failure(
        Stage.WRITE_CATALOG,
        RetainedFileError(error.message, member=dropped.uri.rsplit("/", 1)[-1]),
        call=dropped.call,
        participant_id=dropped.participant_id,
        user_session_id=dropped.user_session_id,
        output_type=dropped.output_type,
    )


def settle(job: JobSettings, run: RunIdentity, call: PressedCall) -> list[Failure]:
    """Ends the replacement of a call, whose rows are those of its files again; returns what is to
    be told of files that stay though no row names them.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: reading or deleting fails.
    """
    lease_of(job, run).check()
    kept = pending_replacement.settle(job.catalog_uri, job.output_uri, call.call, call.call_date)
    return [
        kept_failure(DroppedFile(uri=uri, call=call.call, call_date=call.call_date), error)
        for uri, error in kept
    ]
