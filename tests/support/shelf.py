"""Catalogs whose recordings are made up: rows of `recordings`, `tracks` and `calls`, and files
where a test wants some.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.beam import CALL_START_UNIX_NS, call_row, recording_row, track_row
from transforms.catalog.parquet_objects import write
from transforms.catalog.row_keys import sorted_by_key
from transforms.catalog.schema import owner_key, shard_hash, shard_name, to_table
from transforms.elements import Row
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time, utc_date

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
EVERYBODY = None
"""Whose the mix is."""


class Shelf:
    """A catalog being filled; written by `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = folder / "catalog"
        self._rows: dict[tuple[str, str], list[Row]] = defaultdict(list)

    def add(
        self,
        call_id: str = "standup",
        *participants: str | None,
        session: str = "session-1",
        day: int = 0,
        at_s: float = 0.0,
        call: dict[str, Any] | None = None,
        track: dict[str, Any] | None = None,
        **fields: Any,
    ) -> list[Row]:
        """Adds a call session; returns its rows of `recordings`.

        Args:
          call_id, session: of the call.
          participants: whose files there are, each beginning a second after the one before.
          day: on which it was, from that of `CALL_START_UNIX_NS`.
          at_s: when in it.
          call: columns of its row in `calls`.
          track: of those in `tracks`.
          fields: of those in `recordings`.
        """
        key = CallKey(call_type="default", call_id=call_id, call_session_id=session)
        begins = CALL_START_UNIX_NS + day * DAY_NS + round(at_s * SECOND_NS)
        date = utc_date(begins)
        found = []
        for number, whose in enumerate(participants):
            kind = "mkv" if whose else "mp3"
            name = f"{whose or 'mix'}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}.{kind}"
            data = f"sound of {whose} in {key}".encode()
            row = recording_row(
                whose,
                f"{self.folder}/recordings/default/c/s/{name}",
                key,
                filename=name,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                start_time=to_time(begins + number * SECOND_NS),
                end_time=to_time(begins + 60 * SECOND_NS),
                duration_ms=60_000 - number * 1_000,
                offset_ms=number * 1_000,
                container=kind,
                part=0 if whose else None,
                **fields,
            )
            found.append(row)
            if whose:
                figures = {"missing_ms": 0, "sync_error_ms": 1.5 + number, "part": 0}
                self._rows["tracks", date].append(track_row(whose, key, **figures, **(track or {})))
        times = {"timeline_start_time": to_time(begins), "missing_ms": 0}
        self._rows["calls", date].append(call_row(key, **{**times, **(call or {})}))
        self._rows["recordings", date] += found
        return found

    def put(self, row: Row) -> Path:
        """Makes the file of a row."""
        key = CallKey(**{name: row[name] for name in ("call_type", "call_id", "call_session_id")})
        path = Path(row["uri"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"sound of {row.get('participant_id')} in {key}".encode())
        return path

    def write(self, bits: int = 0) -> Path:
        """Writes the tables; returns the catalog. Args: bits: that split each date's rows."""
        for (table, date), rows in self._rows.items():
            for shard in range(1 << bits):
                own = [row for row in rows if _shard_of(table, row, bits) == shard]
                write_object(self.catalog, table, date, own, shard_name(bits, shard))
        return self.catalog


def _shard_of(table: str, row: Row, bits: int) -> int:
    return shard_hash(owner_key(table, row)) >> (32 - bits) if bits else 0


def write_object(
    catalog: Path, table: str, date: str, rows: Iterable[Row], name: str = "part-0.parquet"
) -> Path:
    """Writes an object of a table as a run does; returns its path."""
    path = catalog / table / f"call_date={date}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(str(path), sorted_by_key(table, to_table(table, rows)))
    return path
