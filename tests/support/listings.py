"""Listings of the vendor's, and catalogs whose rows of `archives` are made up: what became of each
recording is known beforehand.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from tests.support.tls_site import signed
from transforms.catalog.parquet_objects import write
from transforms.catalog.schema import SCHEMAS, shard_hash, shard_name
from transforms.context import VERSION
from transforms.elements import Row
from transforms.media.wall_time import to_time, utc_date
from transforms.proof.listing import Listing, read_listing
from transforms.proof.matching import MatchedBy
from transforms.proof.reconcile import State, Terms
from transforms.sources.manifests.reading import ManifestSource

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
NOW_NS = 1_767_880_800 * 10**9
"""2026-01-08T14:00:00Z."""
TERMS = Terms(now_unix_ns=NOW_NS, max_attempts=3)
_LONG_AGO, _TODAY = "20250101T000000Z", "20260108T120000Z"


def recording_of_vendor(
    uri: str, session: str = "", ended_unix_ns: int | None = None, *, is_expired: bool = False
) -> dict[str, Any]:
    """Returns a raw recording as the vendor lists it, behind a signed link."""
    link = signed(uri, "PLANTEDSIGNATURE", _LONG_AGO if is_expired else _TODAY, 86_400)
    return {
        "filename": uri.rpartition("/")[2],
        "url": link,
        "start_time": None if ended_unix_ns is None else ended_unix_ns - HOUR_NS,
        "end_time": ended_unix_ns,
        "session_id": session or None,
        "recording_type": "raw",
    }


def listing_in(path: Path, recordings: Iterable[dict[str, Any]]) -> Listing:
    """Writes the vendor's answer, and reads it."""
    path.write_text(json.dumps({"duration": "1ms", "recordings": list(recordings)}))
    return read_listing([ManifestSource(where=str(path), shown=str(path))])


def row_of(uri: str, sessions: Iterable[str] | None, status: str, **fields: Any) -> Row:
    """Returns a row of `archives`, made an hour ago."""
    made = to_time(NOW_NS - HOUR_NS)
    return {
        "archive_uri": uri,
        "call_session_ids": None if sessions is None else list(sessions),
        "status": status,
        "attempts": 1,
        "error_type": None,
        "error_message": None,
        "copy_uri": None,
        "processed_at": made,
        "created_at": made,
        "callpress_version": VERSION,
        **fields,
    }


def write_archives(catalog: Path, rows: Iterable[tuple[str, Row]], bits: int = 0) -> None:
    """Writes the table of archives. Args: rows: each behind its date. bits: by which a date is in
    shards.
    """
    found: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for date, row in rows:
        found[date, shard_hash((row["archive_uri"],)) >> (32 - bits)].append(row)
    for (date, shard), own in found.items():
        own.sort(key=lambda row: row["archive_uri"])
        uri = f"{catalog}/archives/call_date={date}/{shard_name(bits, shard)}"
        write(uri, pa.Table.from_pylist(own, SCHEMAS["archives"]))


class MadeUpRows:
    """Rows of archives in memory, which cost a trial nothing."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = list(rows)

    def of(self, archive_uris: Collection[str]) -> Iterator[Row]:
        wanted = set(archive_uris)
        return (row for row in self._rows if row["archive_uri"] in wanted)

    def uris(self) -> Iterator[list[str]]:
        for row in self._rows:
            yield [row["archive_uri"]]


@dataclass(slots=True)
class World:
    """A listing, a catalog, and what is so of each recording."""

    recordings: list[dict[str, Any]] = field(default_factory=list)
    rows: list[tuple[str, Row]] = field(default_factory=list)
    truth: dict[str, tuple[State, bool, MatchedBy | None]] = field(default_factory=dict)
    """By URI what became of it, whether it is missing, and by what it is found."""
    bits: int = 0

    def add(self, row: Row, ended_unix_ns: int) -> None:
        """Takes a row under the date of its archive."""
        self.rows.append((utc_date(ended_unix_ns), row))


_Fate = Callable[[str, str, int, World], tuple[State, bool, MatchedBy | None]]
"""What becomes of a recording (URI, call session, end): rows in the world, and the truth."""
_URI, _NAME = MatchedBy.URI, MatchedBy.FILE_NAME


def _copy_of(uri: str) -> str:
    return f"gs://own-bucket/kept/{uri.split('/')[-2]}/{unquote(uri.rpartition('/')[2])}"


def _pressed(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [session], "ok"), ended)
    return State.PRESSED, False, _URI


def _silent(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, ["another", session], "empty"), ended)
    return State.PRESSED, False, _URI


def _pressed_from_a_copy(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(_copy_of(uri), [session], "ok"), ended + DAY_NS)
    return State.PRESSED, False, _NAME


def _failed_then_pressed(uri: str, session: str, ended: int, world: World) -> Any:
    before = to_time(NOW_NS - 2 * DAY_NS)
    failed = row_of(uri, None, "failed", attempts=3, created_at=before, processed_at=before)
    world.add(failed, ended + DAY_NS)
    world.add(row_of(uri, [session], "ok"), ended)
    return State.PRESSED, False, _URI


def _pressed_then_failed(uri: str, session: str, ended: int, world: World) -> Any:
    before = to_time(NOW_NS - 2 * DAY_NS)
    world.add(row_of(uri, [session], "ok", created_at=before, processed_at=before), ended)
    world.add(row_of(uri, [session], "failed", attempts=3), ended + DAY_NS)
    return State.FAILED, True, _URI


def _withheld(uri: str, session: str, ended: int, world: World) -> Any:
    return State.ABSENT, NOW_NS - ended >= TERMS.grace_ns, None


def _of_another_session(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(_copy_of(uri), [f"{session}-2"], "ok"), ended)
    return _withheld(uri, session, ended, world)


def _is_soon(ended: int) -> bool:
    return ended + TERMS.kept_ns - NOW_NS <= TERMS.soon_ns


def _put_off(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, None, "waiting", attempts=0, processed_at=None), ended)
    return State.WAITING, _is_soon(ended), _URI


def _put_off_with_a_copy(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, None, "waiting", processed_at=None, copy_uri="gs://raw/copy"), ended)
    return State.WAITING, False, _URI


def _broken(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [], "failed", error_type="ArchiveError", error_message="cut"), ended)
    return State.FAILED, True, _URI


def _not_given_by_its_store(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [], "failed", error_type="StorageError", error_message="gone"), ended)
    return State.WAITING, _is_soon(ended), _URI


def _broken_elsewhere(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(_copy_of(uri), [], "failed"), ended)
    return State.FAILED, NOW_NS - ended >= TERMS.grace_ns, _NAME


def _given_up(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [], "failed", attempts=3, error_type="StorageError"), ended)
    return State.FAILED, True, _URI


def _expired(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [], "failed", attempts=7, error_type="LinkExpiredError"), ended)
    # Another link of the listing may be good: the last recording of this fate has one.
    world.recordings[-1]["url"] = recording_of_vendor(uri, is_expired=True)["url"]
    return State.FAILED, True, _URI


def _expired_with_newer_link(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [], "failed", attempts=7, error_type="LinkExpiredError"), ended)
    return State.WAITING, _is_soon(ended), _URI


def _cut(uri: str, session: str, ended: int, world: World) -> Any:
    world.add(row_of(uri, [session], "partial", error_type="ArchiveError"), ended)
    return State.PARTIAL, _is_soon(ended), _URI


FATES: tuple[_Fate, ...] = (
    *(_pressed, _silent, _pressed_from_a_copy, _failed_then_pressed, _pressed_then_failed),
    *(_withheld, _of_another_session, _put_off, _put_off_with_a_copy, _broken, _broken_elsewhere),
    _not_given_by_its_store,
    *(_given_up, _expired, _expired_with_newer_link, _cut),
)


def make_world(seed: int) -> World:
    """Returns a night of up to 25 recordings; some of several sessions have one file name, others
    stand in the listing twice, and the catalog has archives that nobody lists.
    """
    chance = random.Random(seed)
    world = World(bits=chance.choice((0, 0, 1, 3)))
    for number in range(chance.randrange(1, 26)):
        session = f"session-{number}"
        fate = chance.choice(FATES)
        names = (f"rtp_{number}.tar.gz", f"a%20b_{number}.zip", "recording.tar.gz")
        name = chance.choice(names[:2] if fate is _broken_elsewhere else names)
        uri = f"https://{chance.choice(('one', 'two'))}.test/raw/{session}/{name}"
        age_ns = chance.choice((1, 5, 7, 30, 200, 11 * 24 - 1, 11 * 24 + 1, 20 * 24)) * HOUR_NS
        ended = NOW_NS - age_ns
        world.recordings.append(recording_of_vendor(uri, session, ended))
        world.truth[uri] = fate(uri, session, ended, world)
        if chance.random() < 0.2:
            bare = recording_of_vendor(uri, is_expired=True)  # an older listing, which says less
            world.recordings.insert(chance.randrange(len(world.recordings)), bare)
    for number in range(chance.randrange(4)):
        world.add(row_of(f"gs://other/{number}/recording.tar.gz", [f"o-{number}"], "ok"), NOW_NS)
    chance.shuffle(world.rows)
    return world
