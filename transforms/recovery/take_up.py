"""What of a killed run's work holds still: its calls and archives go into the catalog before the
next run looks what is to do (`take_up_completed`).

A run publishes rows at its end. One that is killed before leaves media under final names; their
rows and a note of each completed call and archive lie in the bundles of its staging
(`completed_work`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from transforms.catalog import rivals
from transforms.catalog.bundles import FOLDER, OwnedRows, WrittenBundle, owned, removed
from transforms.catalog.rows.archives import archive_row
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.stamp import stamped
from transforms.context import JobSettings, RunIdentity
from transforms.elements import ArchiveOutcome, Row, Status
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.media.wall_time import from_time, utc_date
from transforms.recovery import completed_work, manifests, portions
from transforms.recovery.completed_work import CompletedArchive, CompletedCall
from transforms.sources import archive_files
from transforms.storage import globs, objects, uris

logger = logging.getLogger(__name__)

SCRATCH_FOLDERS = ("packets", "work", portions.FOLDER)
"""Folders of a run's staging that are of no use to the next one."""


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What was taken up."""

    calls: int
    archives: tuple[tuple[Status, int], ...]
    """How many archives ended how, of those that the dead runs tried for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCall:
    """A call that a dead run was done with, whose note holds still."""

    bundle_uri: str
    """Where its rows are."""
    completed: CompletedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveShare:
    """An archive's share of a call that is taken up."""

    call: CallKey
    fingerprint: str
    """The archive's, when the call was made."""
    outcomes: tuple[ArchiveOutcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenArchive:
    """An archive that is taken up."""

    rows: tuple[OwnedRows, ...]
    status: Status
    is_first_time: bool


def may_find(staging_root: str) -> bool:
    """Whether any run has left something in staging. Raises: StorageError."""
    return objects.has_match(uris.join(globs.quote(staging_root), "**"))


def look_for_dead_runs(job: JobSettings, run: RunIdentity) -> dict[str, list[str]]:
    """Returns the staging folders of other runs over this catalog, with the bundles in each;
    deletes manifests that were forgotten there. The caller holds the catalog's lock. Raises:
    StorageError: staging cannot be listed.
    """
    found: dict[str, list[str]] = {}
    staged_manifests = []
    for listed in objects.list_below(job.staging_root):
        name, _, below = listed.path[len(job.staging_root) + 1 :].partition("/")
        if name == manifests.FOLDER:
            staged_manifests.append(listed)
            continue
        folder = uris.join(job.staging_root, name)
        if folder != run.staging_uri:
            bundles = found.setdefault(folder, [])
            if below.startswith(f"{FOLDER}/"):
                bundles.append(listed.path)
    manifests.delete_forgotten(job.staging_root, staged_manifests)
    return found


def find_calls(bundle_uri: str, bundle: WrittenBundle, job: JobSettings) -> Iterator[FoundCall]:
    """Yields the calls of a bundle whose archives are as they were (or gone: then nothing could
    ever make them again), and each of whose files is there with the size and SHA-256 of its row.

    Raises:
      StorageError: rows of the bundle are damaged.
    """
    noted = completed_work.calls_in(bundle)
    recordings = bundle.rows("recordings") if noted else {}
    for call in noted:
        if _is_usable(call, recordings.get(call.pressed.call.as_tuple(), ()), job):
            yield FoundCall(bundle_uri=bundle_uri, completed=call)


def choose_call(found: Iterable[FoundCall], prior: Iterable[Row]) -> FoundCall | None:
    """Returns the newest of what dead runs have of a call; None where the catalog has rows of a run
    that began after it. Args: prior: the rows of the call in `calls`.
    """
    newest = max(
        found,
        key=lambda each: (each.completed.noted_unix_ns, each.bundle_uri),
        default=None,
    )
    if newest is None or _is_written_after(newest.completed.noted_unix_ns, prior):
        return None
    return newest


def shares_of(found: FoundCall) -> Iterator[tuple[str, ArchiveShare]]:
    """Yields, by URI, the archives a call was made from."""
    call = found.completed
    for uri, fingerprint in call.fingerprints:
        own = tuple(outcome for outcome in call.outcomes if outcome.archive_uri == uri)
        yield uri, ArchiveShare(call=call.pressed.call, fingerprint=fingerprint, outcomes=own)


def take_archive(
    noted: Sequence[CompletedArchive],
    shares: Sequence[ArchiveShare],
    prior: Sequence[Row],
    job: JobSettings,
    run: RunIdentity,
) -> TakenArchive | None:
    """Returns the rows of an archive of which every call is taken up, and what takes those away
    that it has under other dates; None for any other.

    Args:
      noted: what dead runs noted of it.
      shares: of the calls that are taken up.
      prior: its rows in `archives`, and the keys of its failures.
      job, run: for whom.
    """
    archive = max(noted, key=lambda each: each.noted_unix_ns, default=None)
    own_prior = [row for row in prior if row.get("call_session_id") is None]
    if (
        archive is None
        or _is_written_after(
            archive.noted_unix_ns, [row for row in own_prior if "created_at" in row]
        )
        or not _is_whole(archive, shares, job)
    ):
        return None
    ref = archive.summary.ref
    date = utc_date(ref.modified_unix_ns)
    own = list(archive.failures)
    outcomes = [outcome for share in shares for outcome in share.outcomes]
    row = archive_row(archive.summary, outcomes, own, run.started_unix_ns)
    row["callpress_version"] = archive.callpress_version
    by_table = {
        "archives": stamped([row], job, run),
        "failures": stamped(failure_rows(own, run.started_unix_ns), job, run),
    }
    elsewhere = sorted({each["call_date"] for each in own_prior} - {date})
    return TakenArchive(
        rows=(
            *owned(date, by_table, (ref.uri,)),
            *(each for old in elsewhere for each in removed(old, tuple(by_table), (ref.uri,))),
        ),
        status=Status(row["status"]),
        is_first_time=not ref.is_known_failure,
    )


def _is_written_after(noted_unix_ns: int, prior: Iterable[Row]) -> bool:
    """Whether any row is of a run that began after the one that left a note."""
    made: list[datetime] = [row["created_at"] for row in prior if row["created_at"]]
    return any(from_time(each) > noted_unix_ns for each in made)


def keep_completed_work(job: JobSettings, run: RunIdentity) -> None:
    """Sweeps the staging of a run that is being stopped, less what the next one can take up.

    Raises:
      StorageError: staging cannot be listed or emptied.
    """
    bundles = completed_work.bundles_of(run.staging_uri)
    if any(completed_work.calls_in(WrittenBundle(uri)) for uri in bundles):
        for folder in SCRATCH_FOLDERS:
            objects.delete_below(run.staged(folder))
    else:
        sweep(job, run)


def sweep(job: JobSettings, run: RunIdentity) -> None:
    """Deletes a run's staging. Raises: StorageError."""
    objects.delete_below(run.staging_uri)
    leave_no_folders(job)


def leave_no_folders(job: JobSettings) -> None:
    """Deletes the folders that runs stage in, unless others do so."""
    if objects.delete_empty_folder(job.staging_root):
        objects.delete_empty_folder(os.path.dirname(job.staging_root))


def _is_usable(call: CompletedCall, recordings: Sequence[Row], job: JobSettings) -> bool:
    """Whether a call's note holds still; what cannot be found out makes it one to be pressed
    again.
    """
    if call.settings_fingerprint != job.settings_fingerprint:
        return False
    try:
        return all(_is_unchanged(uri, fingerprint) for uri, fingerprint in call.fingerprints) and (
            all(
                rivals.is_as_told(row["uri"], row["size_bytes"], row["sha256"])
                for row in recordings
            )
        )
    except RecordingError as error:
        logger.warning("a completed call is pressed again: %s", error.message)
        return False


def _is_unchanged(uri: str, fingerprint: str) -> bool:
    """Whether an archive is as it was, or gone. What a link opens is taken for unchanged."""
    return (
        uris.is_link(uri)
        or archive_files.stat_archive(uri) is None
        or archive_files.fingerprint(uri) == fingerprint
    )


def _is_whole(archive: CompletedArchive, shares: Sequence[ArchiveShare], job: JobSettings) -> bool:
    ref = archive.summary.ref
    taken = {share.call for share in shares if share.fingerprint == ref.fingerprint}
    if archive.settings_fingerprint != job.settings_fingerprint or not taken.issuperset(
        archive.summary.calls
    ):
        return False
    try:
        return _is_unchanged(ref.uri, ref.fingerprint)
    except RecordingError as error:
        logger.warning("an archive is read again: %s", error.message)
        return False
