"""A receiver of notices on a `Site`, which behaves as badly as receivers do; and catalogs with
something to tell.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.tls_site import Exchange, Page, Request, Site
from transforms.catalog import parquet_objects, partitions
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.row_keys import sorted_by_key
from transforms.catalog.schema import to_table
from transforms.elements import Row
from transforms.notices.events import ready_event

DATE = "2026-11-20"
MADE = datetime.now(UTC)
PATH = "/hook"


class Receiver:
    """Takes notices at `PATH`: of each hundred tries so many fail, in one way or another."""

    def __init__(self, site: Site, *, failing_percent: int = 0, seed: int = 17) -> None:
        self.url = site.put(PATH, Page(answers=[self._answer]))
        self.taken: dict[str, list[Request]] = defaultdict(list)
        """What was answered with 200, by event id."""
        self.statuses: Counter[int] = Counter()
        """Of answers; 0 for none."""
        self.hold_after: int | None = None
        """After so many that were taken, nothing more is answered before `let_go`."""
        self._failing_percent = failing_percent
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._held = 0
        self._go = threading.Event()

    def wait_until_holding(self) -> None:
        """Returns when it holds somebody up."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held, timeout=120)

    def let_go(self) -> None:
        """Ends all waits, and answers again. Those who waited get no answer."""
        with self._changed:
            self.hold_after, self._held = None, 0
            go, self._go = self._go, threading.Event()
        go.set()

    def _answer(self, exchange: Exchange) -> None:
        with self._changed:
            is_held = self.hold_after is not None and len(self.taken) >= self.hold_after
            kind = self._random.randrange(100)
            go = self._go
            if is_held:
                self._held += 1
                self._changed.notify_all()
        if is_held or kind * 3 < self._failing_percent:
            self.statuses[0] += 1
            go.wait(30)
            exchange.hang_up()
        elif kind < self._failing_percent:
            status = (500, 502, 503, 429)[kind % 4]
            self.statuses[status] += 1
            exchange.give(status, b"", {"Retry-After": "0"} if status == 429 else None)
        else:
            self.statuses[200] += 1
            self.taken[exchange.asked.headers["webhook-id"]].append(exchange.asked)
            exchange.give(200, b"thanks")


def make_catalog(
    folder: Path, count: int, targets: Iterable[str], date: str = DATE, *, first: int = 0
) -> list[Row]:
    """Writes rows of `recordings` and `notices`, pending, with files beside them; returns the
    latter.

    Args:
      folder: the catalog; media goes below it.
      count: files; four in a call.
      targets: names.
      date: the partition.
      first: the number of the first.
    """
    media = folder / "recordings"
    media.mkdir(parents=True, exist_ok=True)
    recordings = [_recording(media, number) for number in range(first, first + count)]
    rows = [row for each in recordings for row in notice_rows(each, targets)]
    write_table(folder, "recordings", recordings, date)
    write_table(folder, "notices", rows, date)
    return rows


def _recording(media: Path, number: int) -> Row:
    data = b"%d" % number
    path = media / f"{number}.mp3"
    path.write_bytes(data)
    call_id = f"call-{number // 4}"
    return {
        "call_cid": f"default:{call_id}",
        "call_type": "default",
        "call_id": call_id,
        "call_session_id": "s",
        "recording_type": "individual",
        "output_type": "audio_only",
        "participant_id": f"anna-{number % 4}",
        "user_session_id": f"{number}",
        "filename": path.name,
        "uri": str(path),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "start_time": MADE,
        "end_time": MADE,
        "duration_ms": 0,
        "offset_ms": 0,
        "part": 0,
        "run_id": "r",
        "created_at": MADE,
        "settings_fingerprint": "f",
    }


def notice_rows(recording: Row, targets: Iterable[str], **changed: Any) -> list[Row]:
    """Returns the pending rows that tell of a file. Args: changed: columns that are another way."""
    event = ready_event(recording, {}, None, recording["uri"])
    names = ("call_cid", "call_type", "call_id", "call_session_id", "filename", "uri", "sha256")
    return [
        {
            **{name: recording[name] for name in names},
            "event_id": event.event_id,
            "event_type": event.event_type,
            "target": target,
            "state": "pending",
            "attempts": 0,
            "updated_at": MADE,
            "body": event.body,
            "run_id": "r",
            "created_at": MADE,
            "settings_fingerprint": "f",
            **changed,
        }
        for target in targets
    ]


def write_table(
    folder: Path, table: str, rows: Sequence[Row], date: str = DATE, name: str = "part-0"
) -> Path:
    """Writes an object of a table; returns it."""
    path = folder / table / f"call_date={date}" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet_objects.write(str(path), sorted_by_key(table, to_table(table, rows)))
    return path


def read_table(folder: Path, table: str, date: str | None = None) -> list[Row]:
    """Returns the rows of a table."""
    files: list[CatalogFile] = partitions.list_files(str(folder), table, date)
    return [row for file in files for row in partitions.read_table(file, table).to_pylist()]
