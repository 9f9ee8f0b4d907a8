"""Which row of `archives` is of which recording: by its URI, which of a link is host and path; else
by the name of its file within the call session, where copies of recordings were pressed from
another place. A row answers for one recording.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from urllib.parse import unquote

from transforms.elements import Row, Status
from transforms.proof.archive_rows import ArchiveRows
from transforms.proof.listing import ListedRecording
from transforms.storage import uris

_AT_A_TIME = 100_000
"""URIs that are looked for with one reading of the table."""
_OF_PRESSED = ("archive_uri", "status", "call_session_ids", "created_at", "copy_uri")
_RANKS = (Status.OK, Status.EMPTY, Status.PARTIAL, Status.WAITING, Status.FAILED)


class MatchedBy(StrEnum):
    """By what a row is known to be of a recording."""

    URI = "uri"
    FILE_NAME = "file_name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The row of a recording, and by what it was found."""

    row: Row
    by: MatchedBy

    @property
    def is_certain(self) -> bool:
        """Whether no other recording can be meant, as one could by the name of a file alone."""
        return self.by is MatchedBy.URI or bool(self.row["call_session_ids"])


def file_name(uri: str) -> str:
    """Returns the last part of a URI's path; of a link as it is read, not as it is spelled."""
    name = uri.rstrip("/").rpartition("/")[2]
    return unquote(name) if uris.is_link(uri) else name


def match(recordings: Sequence[ListedRecording], rows: ArchiveRows) -> dict[str, Match]:
    """Returns the rows of recordings, by URI; of a row that stands under two dates the newer one.

    A row of which no call session is known, as of an archive that could not be read or that waits,
    is found by the name of its file alone, where no other row and no other recording has it. Goes
    through the table once for 100,000 recordings, and two times more where some are not found by
    URI. Memory is about a kB a recording.

    Args:
      recordings: each URI once.
      rows: of a catalog.

    Raises:
      StorageError: these cannot be read.
    """
    by_uri = _newest(rows, (each.uri for each in recordings))
    found = {uri: Match(row=row, by=MatchedBy.URI) for uri, row in by_uri.items()}
    others = sorted(
        (each for each in recordings if each.uri not in found), key=lambda each: each.uri
    )
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for each in others:
        wanted[file_name(each.uri)].add(each.call_session_id)
    wanted.pop("", None)
    if wanted:
        named = _newest(rows, _with_name(rows, wanted, by_uri))
        found.update(_assign(others, [row for row in named.values() if _may_be(row, wanted)]))
    return found


def _newest(rows: ArchiveRows, archive_uris: Iterable[str]) -> dict[str, Row]:
    """Returns the newest row of each of some archives that has any."""
    found: dict[str, Row] = {}
    each_uri = iter(archive_uris)
    while batch := {uri: uri for uri in islice(each_uri, _AT_A_TIME)}:
        for row in rows.of(batch):
            uri = batch[row["archive_uri"]]
            known = found.get(uri)
            if known is None or _made(row) >= _made(known):
                found[uri] = _kept(row, uri)
    return found


def _kept(row: Row, uri: str) -> Row:
    """Returns what is needed of a row: of one that is pressed, as most are, less, and no URI that
    is held already.
    """
    is_pressed = row["status"] in (Status.OK, Status.EMPTY)
    kept = {name: row[name] for name in _OF_PRESSED} if is_pressed else row
    return {**kept, "archive_uri": uri}


def _made(row: Row) -> float:
    made: datetime | None = row["created_at"]
    return made.timestamp() if made else 0.0


def _with_name(
    rows: ArchiveRows, wanted: Mapping[str, set[str]], taken: Collection[str]
) -> set[str]:
    """Returns the archives that may be of a recording by the names of their files, in any of their
    rows.
    """
    found: set[str] = set()
    for archive_uris in rows.uris():
        named = [uri for uri in archive_uris if uri not in taken and file_name(uri) in wanted]
        if named:
            found.update(row["archive_uri"] for row in rows.of(named) if _may_be(row, wanted))
    return found


def _may_be(row: Row, wanted: Mapping[str, set[str]]) -> bool:
    sessions = row["call_session_ids"]
    if not sessions:
        return row["status"] in (Status.FAILED, Status.WAITING)
    return any(each in wanted[file_name(row["archive_uri"])] for each in sessions if each)


def _assign(others: Sequence[ListedRecording], rows: Iterable[Row]) -> dict[str, Match]:
    """Returns the rows of recordings by the names of their files: within their session what is
    pressed before what is not; then those of no session.
    """
    by_session: defaultdict[tuple[str, str], deque[Row]] = defaultdict(deque)
    bare: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=_order):
        name = file_name(row["archive_uri"])
        for session in row["call_session_ids"] or ():
            by_session[name, session].append(row)
        if not row["call_session_ids"]:
            bare[name].append(row)
    taken: set[str] = set()
    found: dict[str, Row] = {}
    for each in others:
        there = by_session.get((file_name(each.uri), each.call_session_id))
        while there and each.call_session_id and each.uri not in found:
            row = there.popleft()
            if row["archive_uri"] not in taken:
                taken.add(row["archive_uri"])
                found[each.uri] = row
    left = [each for each in others if each.uri not in found]
    names = Counter(file_name(each.uri) for each in left)
    for each in left:
        name = file_name(each.uri)
        if names[name] == 1 and len(bare.get(name, ())) == 1:
            found[each.uri] = bare[name][0]
    return {uri: Match(row=row, by=MatchedBy.FILE_NAME) for uri, row in found.items()}


def _order(row: Row) -> tuple[int, float, str]:
    rank = _RANKS.index(row["status"]) if row["status"] in _RANKS else len(_RANKS)
    return rank, -_made(row), row["archive_uri"]
