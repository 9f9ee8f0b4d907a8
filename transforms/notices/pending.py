"""What of `notices` is to be sent: where it is, by the footers of objects alone, and whether it is
still true when it is next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.compute as pc

from transforms.catalog import parquet_objects, partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.rows.ids import CALL_COLUMNS, call_columns
from transforms.catalog.schema import KEYS, shard_hash
from transforms.elements import Row
from transforms.media.errors import CallpressError
from transforms.media.text import printable
from transforms.media.values import CallKey
from transforms.notices.events import READY
from transforms.notices.sender import NoticeState
from transforms.storage import globs, objects, uris

TABLE = "notices"
_COLUMNS = (
    *KEYS[TABLE], "event_type", "uri", "sha256", "state", "attempts", "message", "body",
    "created_at",
)  # fmt: skip
_FILE_COLUMNS = (*CALL_COLUMNS, "uri", "sha256", "size_bytes", "created_at")
_LONGEST_WAIT = timedelta(days=7)
"""For the rows of a file: what a dead run had made may yet be taken up. For a target that answers
as if it were to be mended: then the event is lost.
"""
_MOST_BODY_BYTES = 20_000
"""As Standard Webhooks has it; ours have 4,096 at most, those of later versions perhaps more."""
_MOST_ATTEMPTS = 1 << 31
"""More than any row of ours can have."""
Key = tuple[Any, ...]
"""Of a row, by `KEYS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingShard:
    """An object of `notices` in which something is pending."""

    file: CatalogFile
    finer: tuple[CatalogFile, ...]
    """Objects that have some of its rows anew: a run was killed while it split it."""
    counts: Mapping[str, int]
    """Pending notices by target."""
    fewest_tries: Mapping[str, int]
    """By target, of any of these."""

    @property
    def name(self) -> str:
        """Its date and number, such as `2026-11-20_part-0`."""
        return _name_of(self.file)

    def holds(self, row: Row) -> bool:
        """Whether a row counts here, and in no finer object."""
        if not self.finer:
            return True
        hashed = shard_hash(call_columns(row))
        return not any(file.may_hold(hashed) for file in self.finer)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingNotice:
    """A notice that is to be sent, or why it is not."""

    shard: PendingShard
    key: Key
    event_id: str
    event_type: str
    call: CallKey
    body: str
    made: datetime
    attempts: int
    """How often it was sent in runs before."""
    uri: str = ""
    """The file it tells of, which is to be there; empty for none."""
    size_bytes: int | None = None
    """Of that, as its row says."""
    message: str | None = None
    """As the row has it."""
    state: NoticeState = NoticeState.PENDING
    """Another where it is not to be sent any more."""
    why: str = ""
    """Why it is not to be sent, ever or now; empty for one that is."""

    @property
    def order(self) -> tuple[CallKey, datetime, str]:
        """What of a call is sent first: what was made first."""
        return self.call, self.made, self.event_id


def list_shards(catalog_uri: str) -> list[PendingShard]:
    """Returns the objects of `notices`, of which nothing is known yet. Raises: StorageError."""
    files = partitions.list_files(catalog_uri, TABLE)
    return [
        PendingShard(
            file=file,
            finer=tuple(
                other
                for other in files
                if other.call_date == file.call_date
                and other.bits > file.bits
                and other.shard >> (other.bits - file.bits) == file.shard
            ),
            counts={},
            fewest_tries={},
        )
        for file in files
    ]


def counted(shard: PendingShard, targets: Collection[str]) -> PendingShard:
    """Returns an object with what is pending in it for some targets; where nothing is, its footer
    alone is read, as a rule. Raises: StorageError.
    """
    if not parquet_objects.may_hold_text(shard.file.uri, "state", NoticeState.PENDING):
        return shard
    wanted = WantedKeys(("state", "target"), {(NoticeState.PENDING, name) for name in targets})
    columns = ("state", "target", "attempts", *(CALL_COLUMNS if shard.finer else ()))
    counts: Counter[str] = Counter()
    fewest: dict[str, int] = {}
    for row in partitions.scan(TABLE, shard.file, columns, wanted):
        if shard.holds(row):
            target, tries = row["target"], _tries(row)
            counts[target] += 1
            fewest[target] = min(tries, fewest.get(target, tries))
    return replace(shard, counts=counts, fewest_tries=fewest)


def read(shard: PendingShard, target: str, *, tried_last: bool) -> Iterator[Row]:
    """Yields the rows of an object that are pending for a target. All that is read of it is read
    before the first.

    Args:
      shard, target: the object, and whose notices.
      tried_last: whether what was tried least comes first; else they come as they lie.

    Raises:
      StorageError: it cannot be read.
    """
    wanted = WantedKeys(("state", "target"), {(NoticeState.PENDING, target)})
    if not partitions.may_hold_any(shard.file, TABLE, wanted):
        return
    found = partitions.read_table(shard.file, TABLE, _COLUMNS, wanted)
    if tried_last:
        found = found.take(pc.sort_indices(found, sort_keys=[("attempts", "ascending")]))
    for row in partitions.spelled(shard.file, found):
        if shard.holds(row):
            yield row


def judged(catalog_uri: str, shard: PendingShard, rows: Sequence[Row]) -> list[PendingNotice]:
    """Returns what is to become of some notices, by what the catalog says now. Whether files are
    there is not asked. Raises: StorageError.
    """
    files = _Files(catalog_uri, shard.file.call_date, rows)
    return [_judged(shard, row, files) for row in rows]


def has_waited_long(made: datetime) -> bool:
    """Whether an event that was made then has waited for seven days."""
    return datetime.now(UTC) - made >= _LONGEST_WAIT


def why_not_there(notice: PendingNotice) -> str:
    """Returns why a file that is to be told of cannot be opened; empty where it can."""
    if not notice.uri:
        return ""
    name = printable(uris.shown(notice.uri))
    try:
        found = objects.match(globs.quote(notice.uri))
    except CallpressError as error:
        return printable(str(error))
    if not found:
        return f"{name} is not there"
    if found[0].unreadable or found[0].special_mode:
        return f"{name} is no file that can be read"
    if notice.size_bytes not in (None, found[0].size_bytes):
        return f"{name} has {found[0].size_bytes} bytes, expected {notice.size_bytes} by its row"
    return ""


class _Files:
    """The files that some calls have in the catalog, and which of the calls it knows."""

    def __init__(self, catalog_uri: str, call_date: str, rows: Sequence[Row]) -> None:
        """Args: rows: of `notices`. Raises: StorageError."""

        def found(table: str, columns: Sequence[str], calls: Collection[Key]) -> Iterator[Row]:
            wanted = WantedKeys(CALL_COLUMNS, calls)
            for file in partitions.list_files(catalog_uri, table, call_date) if calls else ():
                yield from partitions.scan(table, file, columns, wanted)

        self._by_uri: dict[str, Row] = {}
        self._calls: set[Key] = set()
        for row in found("recordings", _FILE_COLUMNS, _calls_of(rows)):
            before = self._by_uri.get(row["uri"])
            # A run that was killed while it split an object leaves rows twice.
            if before is None or _made(row) >= _made(before):
                self._by_uri[row["uri"]] = row
            self._calls.add(call_columns(row))
        without_file = _calls_of(row for row in rows if row["event_type"] != READY)
        self._known = {call_columns(row) for row in found("calls", CALL_COLUMNS, without_file)}

    def of(self, uri: str | None) -> Row | None:
        """Returns the row of a file; None for one that no row names."""
        return None if uri is None else self._by_uri.get(uri)

    def has_any(self, call: Key) -> bool:
        """Whether a call has a file."""
        return call in self._calls

    def knows(self, call: Key) -> bool:
        """Whether the catalog has the call, of those of which no file was made."""
        return call in self._known


def _judged(shard: PendingShard, row: Row, files: _Files) -> PendingNotice:
    call = call_columns(row)
    told: dict[str, Any] = {}
    if None in call or not row["event_id"] or not row["body"]:
        told = _never("its row has no call, id or body")
    elif len(row["body"].encode()) > _MOST_BODY_BYTES:
        told = _never(f"its body is longer than {_MOST_BODY_BYTES} bytes")
    elif row["event_type"] != READY:
        if files.has_any(call):
            told = _never("its call has recordings by now")
        elif not files.knows(call):
            told = _not_there(row, "call")
    elif (recording := files.of(row["uri"])) is None:
        told = _not_there(row, "file")
    elif recording["sha256"] != row["sha256"]:
        told = _never("replaced before it was sent")
    else:
        told = {"uri": row["uri"], "size_bytes": recording["size_bytes"]}
    return PendingNotice(
        shard=shard,
        key=tuple(row[name] for name in KEYS[TABLE]),
        event_id=row["event_id"] or "",
        event_type=row["event_type"] or "",
        call=CallKey(**{name: row[name] or "" for name in CALL_COLUMNS}),
        body=row["body"] or "",
        made=_made(row),
        attempts=_tries(row),
        message=row["message"],
        **told,
    )


def _not_there(row: Row, what: str) -> dict[str, Any]:
    if not has_waited_long(_made(row)):
        return {"why": f"no row names its {what} yet"}
    return _never("removed before it was sent")


def _never(why: str) -> dict[str, Any]:
    return {"state": NoticeState.FAILED, "why": why}


def _calls_of(rows: Iterable[Row]) -> set[Key]:
    return {call for call in map(call_columns, rows) if None not in call}


def _tries(row: Row) -> int:
    return min(max(row["attempts"] or 0, 0), _MOST_ATTEMPTS)


def _made(row: Row) -> datetime:
    return row["created_at"] or datetime.min.replace(tzinfo=UTC)


def _name_of(file: CatalogFile) -> str:
    stem = file.uri.rpartition("/")[2].removesuffix(".parquet")
    return f"{file.call_date}_{stem}"
