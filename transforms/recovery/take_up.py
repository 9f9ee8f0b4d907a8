"""Takes up what a killed run had completed: its calls and archives go into the catalog before this
run looks what is to do.

A run publishes rows at its end. One that is killed before leaves media under final names, their
rows in staging, and a note of each completed call and archive (`completed_work`). Under the
catalog's lock the next run does what the dead one would have done with them, in the order of
`catalog.publish`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from transforms.catalog import partitions, publish
from transforms.catalog.fragments import read_fragments, write_fragment
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.rows.archives import archive_row
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.rows.stamp import stamped
from transforms.catalog.schema import CALL_TABLES, KEYS
from transforms.context import JobSettings, RunIdentity, key_hash
from transforms.elements import FragmentRef, Status
from transforms.media.errors import RecordingError
from transforms.media.wall_time import from_time, utc_date
from transforms.recovery import completed_work
from transforms.recovery.completed_work import CompletedArchive, CompletedCall
from transforms.sources import archive_files
from transforms.storage import globs, objects, uris

logger = logging.getLogger(__name__)

SCRATCH_FOLDERS = ("packets", "work")
"""Folders of a run's staging that are of no use to the next one."""


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What was taken up."""

    calls: int
    archives: tuple[tuple[Status, int], ...]
    """How many archives ended how, of those that the dead runs tried for the first time."""


def take_up(staging_root: str, job: JobSettings, run: RunIdentity) -> TakenUp:
    """Publishes the rows of all that dead runs had completed with these settings, and sweeps their
    staging.

    A call counts when no later run has written rows of it, its archives are as they were (or gone:
    then nothing could ever make it again) and each of its files is there with the size and SHA-256
    of its row; an archive when all its calls do.

    Args:
      staging_root: the folder of all runs over this catalog; the caller holds the catalog's lock.
      job, run: for whom.

    Raises:
      StorageError: staging or the catalog cannot be read or written.
    """
    taken = 0
    first_time: Counter[Status] = Counter()
    folders = {
        _run_folder(listed.path, staging_root) for listed in objects.list_below(staging_root)
    }
    for folder in sorted(folders - {run.staging_uri}):
        calls = _usable_calls(folder, job)
        archives = _whole_archives(folder, calls, job)
        fragments = [
            *(call.pressed.rows for call in calls),
            *_archive_fragments(calls, archives, job, run, first_time),
            *_removals(archives, job),
        ]
        publish.publish(job, run, [call.pressed for call in calls], fragments)
        objects.delete_below(folder)
        taken += len(calls)
        logger.info("took up %d calls and %d archives of %s", len(calls), len(archives), folder)
    return TakenUp(taken, tuple(sorted(first_time.items())))


def _usable_calls(folder: str, job: JobSettings) -> list[CompletedCall]:
    """Returns the calls of a dead run that hold still."""
    noted = list(completed_work.calls_in(folder))
    noted_unix_ns: dict[tuple[str, ...], int] = {
        call.pressed.call.as_tuple(): call.noted_unix_ns for call in noted
    }
    newer = _written_after(job, "calls", noted_unix_ns)
    return [
        call
        for call in noted
        if call.pressed.call.as_tuple() not in newer and _is_usable(call, job)
    ]


def _whole_archives(
    folder: str, calls: Sequence[CompletedCall], job: JobSettings
) -> list[CompletedArchive]:
    """Returns the archives of a dead run of which every call is among `calls`."""
    noted = list(completed_work.archives_in(folder))
    newer = _written_after(job, "archives", {(a.summary.ref.uri,): a.noted_unix_ns for a in noted})
    return [a for a in noted if (a.summary.ref.uri,) not in newer and _is_whole(a, calls, job)]


def _written_after(
    job: JobSettings, table: str, noted_unix_ns: dict[tuple[str, ...], int]
) -> set[tuple[str, ...]]:
    """Returns the keys of which the catalog has a row of a run that began after the one that left
    the note.
    """
    columns = KEYS[table]
    wanted = WantedKeys(columns, set(noted_unix_ns))
    found = set()
    for file in partitions.list_files(job.catalog_uri, table) if noted_unix_ns else ():
        for row in partitions.scan(table, file, (*columns, "created_at"), wanted):
            key = tuple(row[column] for column in columns)
            if from_time(row["created_at"]) > noted_unix_ns[key]:
                found.add(key)
    return found


def keep_completed_work(job: JobSettings, run: RunIdentity) -> None:
    """Sweeps the staging of a run that is being stopped, less what the next one can take up.

    Raises:
      StorageError: staging cannot be listed or emptied.
    """
    if any(completed_work.calls_in(run.staging_uri)):
        for folder in SCRATCH_FOLDERS:
            objects.delete_below(run.staged(folder))
    else:
        sweep(job, run)


def sweep(job: JobSettings, run: RunIdentity) -> None:
    """Deletes a run's staging, and the folders it is in unless others stage there. Raises:
    StorageError.
    """
    objects.delete_below(run.staging_uri)
    if objects.delete_empty_folder(job.staging_root):
        objects.delete_empty_folder(os.path.dirname(job.staging_root))


def _run_folder(path: str, staging_root: str) -> str:
    return uris.join(staging_root, path[len(staging_root) + 1 :].split("/", 1)[0])


def _is_usable(call: CompletedCall, job: JobSettings) -> bool:
    """Whether a call's note holds still; what cannot be found out makes it one to be pressed
    again.
    """
    if call.settings_fingerprint != job.settings_fingerprint:
        return False
    try:
        if not all(_is_unchanged(uri, fingerprint) for uri, fingerprint in call.fingerprints):
            return False
        # All its rows, since a power cut may have left a part of them.
        rows = read_fragments(call.pressed.rows, CALL_TABLES)
        return all(
            _is_there(row["uri"], row["size_bytes"], row["sha256"]) for row in rows["recordings"]
        )
    except RecordingError as error:
        logger.warning("a completed call is pressed again: %s", error.message)
        return False


def _is_unchanged(uri: str, fingerprint: str) -> bool:
    """Whether an archive is as it was, or gone."""
    return archive_files.stat_archive(uri) is None or archive_files.fingerprint(uri) == fingerprint


def _is_there(uri: str, size_bytes: int, sha256: str) -> bool:
    found = objects.match(globs.quote(uri))
    if not found or found[0].size_bytes != size_bytes:
        return False
    with objects.open_input(uri) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest() == sha256


def _is_whole(archive: CompletedArchive, calls: Sequence[CompletedCall], job: JobSettings) -> bool:
    ref = archive.summary.ref
    taken = {call.pressed.call for call in calls if (ref.uri, ref.fingerprint) in call.fingerprints}
    if archive.settings_fingerprint != job.settings_fingerprint or not taken.issuperset(
        archive.summary.calls
    ):
        return False
    try:
        return _is_unchanged(ref.uri, ref.fingerprint)
    except RecordingError as error:
        logger.warning("an archive is read again: %s", error.message)
        return False


def _archive_fragments(
    calls: Sequence[CompletedCall],
    archives: Sequence[CompletedArchive],
    job: JobSettings,
    run: RunIdentity,
    first_time: Counter[Status],
) -> list[FragmentRef]:
    """Writes the rows of archives, a fragment for each date; counts in `first_time` how they
    ended.
    """
    fragments = []
    by_date: dict[str, list[CompletedArchive]] = defaultdict(list)
    for archive in archives:
        by_date[utc_date(archive.summary.ref.modified_unix_ns)].append(archive)
    for date, found in sorted(by_date.items()):
        rows, failures = [], []
        for archive in found:
            uri = archive.summary.ref.uri
            outcomes = [
                outcome for call in calls for outcome in call.outcomes if outcome.archive_uri == uri
            ]
            own = list(archive.failures)
            row = archive_row(archive.summary, outcomes, own, run.started_unix_ns)
            rows.append({**row, "callpress_version": archive.callpress_version})
            if not archive.summary.ref.is_known_failure:
                first_time[Status(row["status"])] += 1
            failures += failure_rows(own, run.started_unix_ns)
        owners = tuple((archive.summary.ref.uri,) for archive in found)
        uri = run.staged("rows", f"taken-{key_hash(date, *(owner for (owner,) in owners))}.json")
        by_table = {
            "archives": stamped(rows, job, run),
            "failures": stamped(failures, job, run),
        }
        fragments.append(write_fragment(uri, date, by_table, owners))
    return fragments


def _removals(archives: Sequence[CompletedArchive], job: JobSettings) -> list[FragmentRef]:
    """Returns what takes away the rows that these archives have under other dates."""
    dates = {
        archive.summary.ref.uri: utc_date(archive.summary.ref.modified_unix_ns)
        for archive in archives
    }
    old: dict[tuple[str, str], set[str]] = defaultdict(set)
    wanted = WantedKeys(("archive_uri",), {(uri,) for uri in dates})
    for table, columns in (
        ("archives", ("archive_uri",)),
        ("failures", ("archive_uri", "call_session_id")),
    ):
        for file in partitions.list_files(job.catalog_uri, table) if dates else ():
            for row in partitions.scan(table, file, columns, wanted):
                if (
                    row.get("call_session_id") is None
                    and file.call_date != dates[row["archive_uri"]]
                ):
                    old[table, file.call_date].add(row["archive_uri"])
    return [
        FragmentRef(
            uri="",
            call_date=date,
            row_counts=((table, 0),),
            replaced=tuple((uri,) for uri in sorted(found)),
        )
        for (table, date), found in sorted(old.items())
    ]
