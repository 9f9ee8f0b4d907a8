"""Which row of `archives` is of which recording: by its URI, which of a link is host and path; else
by the name of its file within the call session, where copies of recordings were pressed from
another place. A row answers for one recording.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from urllib.parse import unquote

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import CatalogFile
from transforms.elements import Row, Status
from transforms.proof.listing import ListedRecording
from transforms.storage import uris
from transforms.tries import ROW_COLUMNS

_COLUMNS = (
    *("archive_uri", "call_session_ids", "error_message", "callpress_version", "copy_uri"),
    *ROW_COLUMNS,
)
_NAME_COLUMNS = ("archive_uri", "call_session_ids", "status")
_AT_A_TIME = 100_000
"""URIs that are looked for with one reading of the table."""
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


def file_name(uri: str) -> str:
    """Returns the last part of a URI's path; of a link as it is read, not as it is spelled."""
    name = uri.rstrip("/").rpartition("/")[2]
    return unquote(name) if uris.is_link(uri) else name


def match(recordings: Sequence[ListedRecording], files: Sequence[CatalogFile]) -> dict[str, Match]:
    """Returns the rows of recordings, by URI; of a row that stands under two dates the newer one.

    A row of which no call session is known, as of an archive that could not be read or that waits,
    is found by the name of its file alone. Reads the table once for 100,000 recordings, and once or
    twice more where some are not found by URI. Memory is some 500 bytes a recording and one object
    of the table.

    Args:
      recordings: each URI once.
      files: the objects of `archives`.

    Raises:
      StorageError: the table cannot be read.
    """
    found = {
        uri: Match(row=row, by=MatchedBy.URI)
        for uri, row in _newest(files, (each.uri for each in recordings)).items()
    }
    others = sorted(
        (each for each in recordings if each.uri not in found), key=lambda each: each.uri
    )
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for each in others:
        wanted[file_name(each.uri)].add(each.call_session_id)
    wanted.pop("", None)
    if wanted:
        rows = _newest(files, _with_name(files, wanted, found))
        found.update(_assign(others, [row for row in rows.values() if _may_be(row, wanted)]))
    return found


def _newest(files: Iterable[CatalogFile], archive_uris: Iterable[str]) -> dict[str, Row]:
    """Returns the newest row of each of some archives that has any."""
    found: dict[str, Row] = {}
    each_uri = iter(archive_uris)
    while batch := {(uri,) for uri in islice(each_uri, _AT_A_TIME)}:
        wanted = WantedKeys(("archive_uri",), batch)
        for file in files:
            for row in partitions.scan("archives", file, _COLUMNS, wanted):
                known = found.get(row["archive_uri"])
                if known is None or _made(row) >= _made(known):
                    found[row["archive_uri"]] = row
    return found


def _made(row: Row) -> float:
    made: datetime | None = row["created_at"]
    return made.timestamp() if made else 0.0


def _with_name(
    files: Iterable[CatalogFile], wanted: Mapping[str, set[str]], taken: Collection[str]
) -> set[str]:
    """Returns the archives that may be of a recording by the names of their files."""
    found: set[str] = set()
    for file in files:
        column = partitions.read_table(file, "archives", ("archive_uri",)).column("archive_uri")
        named = {
            (uri,)
            for uri in filter(None, column.to_pylist())
            if uri not in taken and file_name(uri) in wanted
        }
        keys = WantedKeys(("archive_uri",), named)
        for row in partitions.scan("archives", file, _NAME_COLUMNS, keys) if named else ():
            if _may_be(row, wanted):
                found.add(row["archive_uri"])
    return found


def _may_be(row: Row, wanted: Mapping[str, set[str]]) -> bool:
    sessions = row["call_session_ids"]
    if not sessions:
        return row["status"] in (Status.FAILED, Status.WAITING)
    return any(each in wanted[file_name(row["archive_uri"])] for each in sessions if each)


def _assign(others: Iterable[ListedRecording], rows: Sequence[Row]) -> dict[str, Match]:
    """Returns the rows of recordings by the names of their files: those of their session before
    those of none, what is pressed before what is not.
    """
    by_name: defaultdict[tuple[str, str | None], deque[Row]] = defaultdict(deque)
    for row in sorted(rows, key=_order):
        for session in row["call_session_ids"] or [None]:
            by_name[file_name(row["archive_uri"]), session].append(row)
    taken: set[str] = set()
    found: dict[str, Match] = {}
    for of_session in (True, False):
        for each in others:
            session = each.call_session_id if of_session else None
            there = by_name[file_name(each.uri), session] if session != "" else deque()
            while there and each.uri not in found:
                row = there.popleft()
                if row["archive_uri"] not in taken:
                    taken.add(row["archive_uri"])
                    found[each.uri] = Match(row=row, by=MatchedBy.FILE_NAME)
    return found


def _order(row: Row) -> tuple[int, float, str]:
    rank = _RANKS.index(row["status"]) if row["status"] in _RANKS else len(_RANKS)
    return rank, -_made(row), row["archive_uri"]
