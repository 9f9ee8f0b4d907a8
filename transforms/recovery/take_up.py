"""Takes up what a killed run had finished: its calls and archives go into the catalog before this
run looks what is to do.

A run publishes rows at its end. One that is killed before leaves media under final names, their
rows in staging, and a note of each finished call and archive (`completed_work`). Under the
catalog's lock the next run does what the dead one would have done with them, in the same order:
rows of calls, rows of archives, old rows, old files.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from transforms.catalog import partitions, pending_replacement
from transforms.catalog.fragments import read_fragments, write_fragment
from transforms.catalog.rows.archives import archive_row
from transforms.catalog.rows.failures import failure_rows
from transforms.catalog.schema import CALL_TABLES, KEYS
from transforms.context import SCRATCH_FOLDERS, RunContext, key_hash
from transforms.elements import FragmentRef
from transforms.media.errors import RecordingError
from transforms.media.wall_time import from_time, utc_date
from transforms.recovery import completed_work
from transforms.recovery.completed_work import (
    STAGED_ARCHIVE,
    STAGED_CALL,
    FinishedArchive,
    FinishedCall,
)
from transforms.sources import archive_files
from transforms.storage import globs, objects, uris

logger = logging.getLogger(__name__)


def take_up(staging_root: str, context: RunContext) -> int:
    """Publishes the rows of all that dead runs had finished with these settings, and sweeps their
    staging.

    A call counts when no later run has written rows of it, its archives are as they were (or gone:
    then nothing could ever make it again) and each of its files is there with the size and SHA-256
    of its row; an archive when all its calls do.

    Args:
      staging_root: the folder of all runs over this catalog; the caller holds the catalog's lock.
      context: of this run.

    Returns:
      how many calls were taken up.

    Raises:
      StorageError: staging or the catalog cannot be read or written.
    """
    taken = 0
    folders = {
        _run_folder(metadata.path, staging_root) for metadata in objects.list_below(staging_root)
    }
    for folder in sorted(folders - {context.staging_uri}):
        noted = list(completed_work.find(folder, STAGED_CALL, FinishedCall))
        newer = _written_after(
            context, "calls", {call.pressed.call.as_tuple(): call.noted_unix_ns for call in noted}
        )
        calls = [
            call
            for call in noted
            if call.pressed.call.as_tuple() not in newer and _is_usable(call, context)
        ]
        read = list(completed_work.find(folder, STAGED_ARCHIVE, FinishedArchive))
        newer = _written_after(
            context, "archives", {(a.summary.ref.uri,): a.noted_unix_ns for a in read}
        )
        archives = [
            a for a in read if (a.summary.ref.uri,) not in newer and _is_whole(a, calls, context)
        ]
        _publish(calls, archives, context)
        objects.delete_below(folder)
        taken += len(calls)
        logger.info("took up %d calls and %d archives of %s", len(calls), len(archives), folder)
    return taken


def _written_after(
    context: RunContext, table: str, noted_unix_ns: dict[tuple[str, ...], int]
) -> set[tuple[str, ...]]:
    """Returns the keys of which the catalog has a row of a run that began after the one that left
    the note.
    """
    columns = KEYS[table]
    found = set()
    for file in partitions.list_files(context.catalog_uri, table) if noted_unix_ns else ():
        for row in partitions.scan(
            context.catalog_uri, table, file, (*columns, "created_at"), columns, set(noted_unix_ns)
        ):
            key = tuple(row[column] for column in columns)
            if from_time(row["created_at"]) > noted_unix_ns[key]:
                found.add(key)
    return found


def keep_what_is_finished(context: RunContext) -> None:
    """Sweeps the staging of a run that is being stopped, less what the next one can take up.

    Raises:
      StorageError: staging cannot be listed or emptied.
    """
    if any(completed_work.find(context.staging_uri, STAGED_CALL, FinishedCall)):
        for part in SCRATCH_FOLDERS:
            objects.delete_below(context.staged(part))
    else:
        objects.delete_below(context.staging_uri)


def _run_folder(path: str, staging_root: str) -> str:
    return uris.join(staging_root, path[len(staging_root) + 1 :].split("/", 1)[0])


def _is_usable(call: FinishedCall, context: RunContext) -> bool:
    """Whether a call's note holds still; what cannot be found out makes it one to be pressed
    again.
    """
    if call.settings_fingerprint != context.settings_fingerprint:
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
        logger.warning("a finished call is pressed again: %s", error.message)
        return False


def _is_unchanged(uri: str, fingerprint: str) -> bool:
    """Whether an archive is as it was, or gone."""
    return archive_files.stat_archive(uri) is None or archive_files.fingerprint(uri) == fingerprint


def _is_there(uri: str, size_bytes: int, sha256: str) -> bool:
    found = objects.match(globs.quote(uri))
    if not found or int(found[0].size_in_bytes) != size_bytes:
        return False
    with objects.open_input(uri) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest() == sha256


def _is_whole(archive: FinishedArchive, calls: Sequence[FinishedCall], context: RunContext) -> bool:
    ref = archive.summary.ref
    taken = {call.pressed.call for call in calls if (ref.uri, ref.fingerprint) in call.fingerprints}
    if archive.settings_fingerprint != context.settings_fingerprint or not taken.issuperset(
        archive.summary.calls
    ):
        return False
    try:
        return _is_unchanged(ref.uri, ref.fingerprint)
    except RecordingError as error:
        logger.warning("an archive is read again: %s", error.message)
        return False


def _publish(
    calls: Sequence[FinishedCall], archives: Sequence[FinishedArchive], context: RunContext
) -> None:
    dropped = _merge([call.pressed.rows for call in calls], context)
    _merge(_archive_fragments(calls, archives, context), context)
    _merge(_removals(archives, context), context)
    for uri in dropped:
        objects.delete_recording(context.output_uri, uri)
    for call in calls:
        pending_replacement.forget(
            context.catalog_uri, context.output_uri, call.pressed.call, call.pressed.rows.call_date
        )


def _merge(fragments: Sequence[FragmentRef], context: RunContext) -> list[str]:
    """Merges fragments into every table and date they are about; returns files of which the last
    row is gone.
    """
    by_partition: dict[tuple[str, str], list[FragmentRef]] = defaultdict(list)
    for fragment in fragments:
        for table, _ in fragment.row_counts:
            by_partition[table, fragment.call_date].append(fragment)
    dropped: list[str] = []
    for (table, call_date), found in sorted(by_partition.items(), key=lambda item: item[0]):
        dropped += partitions.merge_partition(
            context.catalog_uri, table, call_date, found
        ).dropped_media
    return dropped


def _archive_fragments(
    calls: Sequence[FinishedCall], archives: Sequence[FinishedArchive], context: RunContext
) -> list[FragmentRef]:
    fragments = []
    by_date: dict[str, list[FinishedArchive]] = defaultdict(list)
    for archive in archives:
        by_date[utc_date(archive.summary.ref.modified_unix_ns)].append(archive)
    for date, found in sorted(by_date.items()):
        rows, failures = [], []
        for archive in found:
            uri = archive.summary.ref.uri
            outcomes = [
                outcome for call in calls for outcome in call.outcomes if outcome.archive_uri == uri
            ]
            row = archive_row(
                archive.summary, outcomes, list(archive.failures), context.started_unix_ns
            )
            rows.append(context.stamp(row))
            failures += [
                context.stamp(row)
                for row in failure_rows(archive.failures, context.started_unix_ns)
            ]
        owners = tuple((archive.summary.ref.uri,) for archive in found)
        uri = context.staged(
            "rows", f"taken-{key_hash(date, *(owner for (owner,) in owners))}.json"
        )
        fragments.append(
            write_fragment(uri, date, {"archives": rows, "failures": failures}, owners)
        )
    return fragments


def _removals(archives: Sequence[FinishedArchive], context: RunContext) -> list[FragmentRef]:
    """Returns what takes away the rows that these archives have under other dates."""
    dates = {
        archive.summary.ref.uri: utc_date(archive.summary.ref.modified_unix_ns)
        for archive in archives
    }
    old: dict[tuple[str, str], set[str]] = defaultdict(set)
    keys = {(uri,) for uri in dates}
    for table, columns in (
        ("archives", ("archive_uri",)),
        ("failures", ("archive_uri", "call_session_id")),
    ):
        for file in partitions.list_files(context.catalog_uri, table) if keys else ():
            for row in partitions.scan(
                context.catalog_uri, table, file, columns, ("archive_uri",), keys
            ):
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
