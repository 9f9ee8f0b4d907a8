"""The one order in which a catalog is published: by a run at its end, and by one that takes up what
a dead run had completed.

    media (published already) -> rows of calls -> rows of archives -> old rows under other dates
        -> old files -> notes of replaced calls -> the run's own row

An archive's row says that it is done, so it comes when the rows of its calls are there. Old rows go
before old files: no row ever names a file that is gone. On Beam each arrow is a wait for all
merges before it; a note of a replaced call is settled when everything is merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transforms.catalog import pending_replacement, rivals
from transforms.context import JobSettings, RunIdentity
from transforms.elements import PressedCall, SectionRef
from transforms.locking.lease import lease_of
from transforms.storage import objects


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the merging, begun when all steps before it are done."""

    label: str
    takes: Callable[[SectionRef], bool]
    """Whether a section is merged in this step."""


MERGES = (
    Step("Calls", lambda section: not section.only_removes and section.table != "archives"),
    Step("Archives", lambda section: not section.only_removes and section.table == "archives"),
    Step("Old", lambda section: section.only_removes),
)


def publish_media(job: JobSettings, run: RunIdentity, uri: str, source: Path) -> None:
    """Moves a finished recording to its final name.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: it cannot be written.
    """
    if run.took_over:
        rivals.keep_copy(run, uri, source)
    lease_of(job, run).check(source.stat().st_size)
    objects.publish(uri, source)


def delete_dropped(job: JobSettings, run: RunIdentity, media_uri: str) -> bool:
    """Deletes a file that no row names any more; returns whether it was one of ours.

    Raises:
      LockLostError: another run has the catalog by now, and may have made it anew.
      StorageError: it cannot be deleted.
    """
    lease_of(job, run).check()
    return objects.delete_recording(job.output_uri, media_uri)


def settle(job: JobSettings, run: RunIdentity, call: PressedCall) -> None:
    """Ends the replacement of a call, whose rows are those of its files again.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: reading or deleting fails.
    """
    lease_of(job, run).check()
    pending_replacement.settle(job.catalog_uri, job.output_uri, call.call, call.call_date)
