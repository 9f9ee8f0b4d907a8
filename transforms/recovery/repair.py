"""Asks the next run to press calls anew of which something is wrong: with the notes of
`pending_replacement`, as a run leaves them that was killed while it replaced a call.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from transforms.catalog import partitions, pending_replacement
from transforms.catalog.rows.ids import CALL_COLUMNS
from transforms.elements import Row
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.sources import archive_files
from transforms.storage import uris

_TABLES = ("calls", "recordings", "tracks")
"""Those that name the archives of a call."""

_GONE_SHOWN = 10


@dataclass(slots=True)
class BrokenCalls:
    """Calls to be pressed anew, each once."""

    by_date: dict[str, set[CallKey]] = field(default_factory=lambda: defaultdict(set))

    def add(self, call: CallKey, call_date: str) -> None:
        """Takes a call with rows under a date."""
        self.by_date[call_date].add(call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What the next run was asked for."""

    calls: int = 0
    not_noted: tuple[str, ...] = ()
    """Of each call that cannot be pressed anew, why not."""


def note(catalog_uri: str, broken: BrokenCalls) -> Noted:
    """Leaves a note of each call whose archives are all there. Where one is gone the call keeps
    what it has: pressed from the others it would lose audio.

    The caller holds the catalog's lock. Memory is the rows of one date's calls that are broken.

    Raises:
      StorageError: the catalog cannot be read, or a note not written.
    """
    archives: dict[CallKey, set[str]] = defaultdict(set)
    media: dict[CallKey, set[str]] = defaultdict(set)
    for date, calls in sorted(broken.by_date.items()):
        for table in _TABLES:
            keys = {call.as_tuple() for call in calls}
            for row in _rows(catalog_uri, table, date, keys):
                call = CallKey(**{name: row[name] for name in CALL_COLUMNS})
                archives[call].update(row["archive_uris"] or ())
                media[call].update([row["uri"]] if table == "recordings" else ())
    noted, not_noted = 0, []
    for call in sorted({call for calls in broken.by_date.values() for call in calls}):
        gone = [uri for uri in sorted(archives[call]) if not _is_there(uri)]
        if gone or not archives[call]:
            why = f"archive {gone[0]} is gone" if gone else "no row names an archive of it"
            not_noted.append(f"call {call.cid}, session {call.call_session_id}: {why}")
            continue
        pending_replacement.announce(catalog_uri, call, archives[call], media[call])
        noted += 1
    return Noted(calls=noted, not_noted=tuple(not_noted))


def what_is_repeated(catalog_uri: str) -> list[str]:
    """Returns what a run says at its beginning of the calls that are noted, a line each; nothing
    where there are none. Raises: StorageError.
    """
    there = 0
    lines: list[str] = []
    for call, archives in sorted(pending_replacement.calls_to_repeat(catalog_uri)):
        gone = [uri for uri in archives if not _is_there(uri)]
        there += len(gone) < len(archives)
        if gone and len(lines) < _GONE_SHOWN:
            lines.append(
                f"call {call.cid}, session {call.call_session_id}, was to be pressed anew: archive "
                f"{gone[0]} is gone"
            )
    if there:
        lines.append(
            f"{there} calls are noted to be pressed anew, by verify --repair or a run that was cut "
            "short: this run presses those of which it is given an archive"
        )
    return lines


def _rows(catalog_uri: str, table: str, date: str, keys: set[tuple[str, str, str]]) -> list[Row]:
    """Returns rows of some calls; none where an object cannot be read, which was told before."""
    try:
        return partitions.read_rows(catalog_uri, table, date, CALL_COLUMNS, keys)
    except RecordingError:
        return []


def _is_there(archive_uri: str) -> bool:
    """Whether an archive is there; one that cannot be looked for now, or only by a link that is
    good no longer, is left to the run.
    """
    if uris.is_link(archive_uri):
        return True
    try:
        return archive_files.stat_archive(archive_uri) is not None
    except RecordingError:
        return True
