"""The one order in which a catalog is published: by a run at its end, and by one that takes up what
a dead run had completed.

    media (published already) -> rows of calls -> rows of archives -> old rows under other dates
        -> old files -> notes of replaced calls -> the run's own row

An archive's row says that it is done, so it comes when the rows of its calls are there. Old rows go
before old files: no row ever names a file that is gone. On Beam each arrow is a wait for all
merges before it; a note of a replaced call is settled when everything is merged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from transforms.catalog import merging, pending_replacement, rivals
from transforms.catalog.merging import MergedPartition
from transforms.context import JobSettings, RunIdentity
from transforms.elements import FragmentRef, PressedCall, ReplacedKey
from transforms.locking.lease import lease_of
from transforms.storage import objects


@dataclass(frozen=True, slots=True)
class Step:
    """Some of the merging, begun when all steps before it are done."""

    label: str
    takes: Callable[[str, FragmentRef], bool]
    """Whether a table of a fragment is merged in this step."""


MERGES = (
    Step("Calls", lambda table, fragment: bool(fragment.uri) and table != "archives"),
    Step("Archives", lambda table, fragment: bool(fragment.uri) and table == "archives"),
    Step("Old", lambda table, fragment: not fragment.uri),
)


Share = tuple[str, int, tuple[ReplacedKey, ...]]
"""What one table needs of a fragment: its URI, how many rows, and whose old rows go. A plain tuple,
since one crosses a shuffle for each table of each fragment.
"""


def by_partition(step: Step, fragment: FragmentRef) -> Iterator[tuple[tuple[str, str], Share]]:
    """Yields what a step merges of a fragment, by table and date."""
    for table, count in fragment.row_counts:
        if step.takes(table, fragment):
            yield (table, fragment.call_date), (fragment.uri, count, fragment.replaced)


def merge(
    job: JobSettings, run: RunIdentity, table: str, call_date: str, shares: Iterable[Share]
) -> MergedPartition:
    """Merges shares of fragments into one date of a table; doing it twice gives the same rows.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: reading or writing fails.
    """
    lease_of(job, run).check()
    ordered = [
        FragmentRef(uri=uri, call_date=call_date, row_counts=((table, count),), replaced=replaced)
        for uri, count, replaced in sorted(shares, key=itemgetter(2, 0))
    ]
    return merging.merge_partition(job.catalog_uri, table, call_date, ordered)


def publish_media(job: JobSettings, run: RunIdentity, uri: str, source: Path) -> None:
    """Moves a finished recording to its final name.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: it cannot be written.
    """
    lease_of(job, run).check(source.stat().st_size)
    if run.took_over:
        rivals.keep_copy(run, uri, source)
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
    pending_replacement.settle(job.catalog_uri, job.output_uri, call.call, call.rows.call_date)


def publish(
    job: JobSettings,
    run: RunIdentity,
    calls: Sequence[PressedCall],
    fragments: Sequence[FragmentRef],
) -> None:
    """Publishes in this process, one step after the other: all but the run's own row.

    Args:
      job, run: for whom.
      calls: whose media is in place.
      fragments: rows of theirs and of archives.

    Raises:
      LockLostError: another run has the catalog by now.
      StorageError: reading or writing fails.
    """
    dropped: list[str] = []
    for step in MERGES:
        shares: dict[tuple[str, str], list[Share]] = defaultdict(list)
        for fragment in fragments:
            for partition, share in by_partition(step, fragment):
                shares[partition].append(share)
        for (table, call_date), found in sorted(shares.items(), key=lambda item: item[0]):
            dropped += merge(job, run, table, call_date, found).dropped_media
    for uri in dropped:
        delete_dropped(job, run, uri)
    for call in calls:
        settle(job, run, call)
