"""What a catalog adds up to, over shards that are made up here."""

from __future__ import annotations

import hashlib
import math
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT
from transforms.catalog.check_tables import CheckedTables
from transforms.catalog.schema import SCHEMAS, TABLES
from transforms.catalog.shards import Shard
from transforms.proof import accounts as accounts_module
from transforms.proof.accounts import Accounts, total_sha256

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
IDS = {
    "call_type": "default",
    "call_id": "a",
    "call_session_id": "a1",
    "participant_id": "p",
    "user_session_id": "s",
    "output_type": "audio_only",
}


def _add(accounts: Accounts, date: str = "2026-11-22", /, **tables: list[dict[str, Any]]) -> None:
    rows = {
        table: pa.Table.from_pylist(
            [{**dict.fromkeys(schema.names), **row} for row in tables.get(table, [])], schema
        )
        for table, schema in SCHEMAS.items()
    }
    accounts.add(Shard(call_date=date, rows=rows, places={}, unreadable={}))


def _summed(**tables: list[dict[str, Any]]) -> Accounts:
    accounts = Accounts()
    _add(accounts, **tables)
    accounts.end()
    return accounts


def _dump(name: str, claimed_ms: int | None, found: tuple[int, int] | None, **more: Any) -> Any:
    """Returns a row of `dumps`. Args: found: where its packets begin and end, in ms."""
    begin, end = found or (0, 0)
    return {
        **IDS,
        "archive_uri": "/raw/a.tar",
        "base_filename": name,
        "member": f"{name}.rtpdump" if found else None,
        "claimed_start_time": AT,
        "claimed_ms": claimed_ms,
        "found_start_time": AT + timedelta(milliseconds=begin) if found else None,
        "found_end_time": AT + timedelta(milliseconds=end) if found else None,
        "found_ms": end - begin,
        "missing_ms": 0,
        "records": 9 if found else None,
        "records_placed": 9 if found else None,
    } | more


@pytest.mark.parametrize(
    ("dumps", "unaccounted_ms"),
    [
        ([_dump("whole", 10_000, (0, 10_000))], 0),
        ([_dump("as near as clocks are", 10_000, (500, 9_400))], 0),
        ([_dump("told", 10_000, (0, 4_000), missing_ms=6_000)], 0),
        ([_dump("hidden", 10_000, (0, 4_000))], 6_000),
        ([_dump("told in part", 10_000, (0, 4_000), missing_ms=2_000)], 4_000),
        ([_dump("no dump", 10_000, None)], 10_000),
        ([_dump("no dump, told", 10_000, None, missing_ms=10_000)], 0),
        ([_dump("no claim", None, (0, 4_000))], 0),
        # Another archive brings it, under the older spelling of its name; or both a part of it.
        ([_dump("x", 10_000, None), _dump("x.rtpdump", 10_000, (0, 10_000))], 0),
        ([_dump("x", 10_000, (0, 7_000)), _dump("x", 10_000, (4_000, 10_000))], 0),
        ([_dump("x", 10_000, (0, 3_000)), _dump("x", 10_000, (0, 5_000))], 5_000),
        # Told in one of its rows it is told.
        ([_dump("x", 9_000, (0, 4_000), missing_ms=5_000), _dump("x", 9_000, (0, 4_000))], 0),
        # Another segment of the track does not stand in for it.
        ([_dump("x", 10_000, None), _dump("y", 10_000, (0, 10_000))], 10_000),
    ],
)  # fmt: skip
def test_seconds_are_unaccounted_where_claimed_and_neither_found_nor_told(
    dumps: list[dict[str, Any]], unaccounted_ms: int
) -> None:
    summed = _summed(dumps=dumps)
    assert summed.unaccounted_ms == unaccounted_ms
    assert summed.lacking_count == len(summed.lacking) == (unaccounted_ms > 0)
    assert summed.claimed_ms == sum(dump["claimed_ms"] or 0 for dump in dumps)
    assert summed.found_ms == sum(dump["found_ms"] for dump in dumps)
    assert summed.segments_without_claim == sum(dump["claimed_ms"] is None for dump in dumps)
    assert not summed.not_known


def test_segment_that_lacks_seconds_is_named() -> None:
    (fault,) = _summed(dumps=[_dump("x", 10_000, (0, 4_000), missing_ms=1_000)]).lacking
    assert fault.uri == "/raw/a.tar"
    assert "'x': of 10000 ms claimed 4000 ms are in its dump and 1000 ms told" in fault.what


def test_records_that_no_fate_has_are_unaccounted() -> None:
    summed = _summed(
        dumps=[
            _dump("a", 0, (0, 0), records=100, records_placed=90, records_control=10),
            _dump("b", 0, (0, 0), records=50, records_placed=40, records_refused=3),
            # It cannot make up for the other one.
            _dump("c", 0, (0, 0), records=5, records_placed=9),
        ]
    )
    assert (summed.records, summed.unaccounted_records) == (155, 7)
    assert (summed.fates["placed"], summed.fates["control"]) == (139, 10)
    assert summed.audio_not_in_files == 3


def test_fate_that_only_a_later_version_knows_counts() -> None:
    accounts = Accounts()
    rows = {table: SCHEMAS[table].empty_table() for table in SCHEMAS}
    found = pa.Table.from_pylist(
        [{**dict.fromkeys(SCHEMAS["dumps"].names), **_dump("a", 0, (0, 0), records=12)}],
        SCHEMAS["dumps"],
    )
    rows["dumps"] = found.append_column("records_reversed", pa.array([3], pa.int64()))
    accounts.add(Shard(call_date="2026-11-22", rows=rows, places={}, unreadable={}))
    assert accounts.unaccounted_records == 0
    assert (accounts.fates["placed"], accounts.fates["other"]) == (9, 3)


@pytest.mark.parametrize(
    ("table", "row", "what"),
    [
        ("dumps", _dump("a", 0, (0, 0), records=None), "dumps"),
        ("dumps", _dump("a", 0, (0, 0), records_placed=None), "dumps"),
        ("dumps", _dump("a", 0, (0, 0), records=-1), "dumps"),
        ("dumps", _dump("a", 0, (0, 0), found_ms=None), "seconds"),
        ("dumps", _dump("a", 0, (0, 0), missing_ms=None), "seconds"),
        ("dumps", _dump("a", 0, (0, 0), missing_ms=1 << 62), "seconds"),
        ("dumps", _dump("a", -1, (0, 0)), "seconds"),
        ("dumps", _dump("a", None, (0, 0), claimed_end_time=AT), "seconds"),
        ("tracks", {**IDS, "status": "ok"}, "tracks"),
        ("segments", {**IDS}, "places"),
        ("segments", {**IDS, "sync_error_ms": math.nan}, "places"),
        ("segments", {**IDS, "sync_error_ms": math.inf}, "places"),
        ("segments", {**IDS, "sync_error_ms": -1.0}, "places"),
        ("archives", {"archive_uri": "/a", "status": None}, "archives"),
        ("archives", {"archive_uri": "/a", "status": "perfect"}, "archives"),
        ("recordings", {"uri": "/a", "size_bytes": 1}, "files"),
        ("recordings", {"uri": "/a", "size_bytes": 1, "sha256": "0" * 63 + "\n"}, "files"),
        ("recordings", {"uri": None, "size_bytes": 1, "sha256": "0" * 64}, "files"),
        ("recordings", {"uri": "/a", "size_bytes": -1, "sha256": "0" * 64}, "files"),
    ],
)
def test_what_a_row_does_not_say_is_not_known(table: str, row: dict[str, Any], what: str) -> None:
    summed = _summed(**{table: [row]})
    assert dict(summed.not_known) == {what: 1}
    assert summed.rows[table] == 1


def test_row_without_its_dump_and_track_without_packets_say_all_there_is() -> None:
    summed = _summed(
        dumps=[_dump("a", 0, None)],
        tracks=[{**IDS, "status": "empty"}, {**IDS, "status": "ok", "found_ms": 0}],
    )
    assert not summed.not_known


def test_catalog_of_an_earlier_version_is_not_known() -> None:
    accounts = Accounts()
    kept = ROOT / "tests" / "data" / "catalog_3a91846"
    assert list(CheckedTables(str(kept)).problems(accounts.add)) == []
    accounts.end()
    assert dict(accounts.not_known) == {"tracks": 5}


def test_bound_of_times_is_the_largest_and_that_of_half_of_the_time() -> None:
    lengths = {0.25: 1_000, 2.0: 3_000, 4.71: 10_000, 90.5: 900}
    rows = [
        {**IDS, "sync_error_ms": error, "file_start_ms": 5, "file_end_ms": 5 + length}
        for error, length in lengths.items()
    ]
    summed = _summed(segments=rows)
    assert (summed.largest_error_us, summed.typical_error_us) == (90_500, 4_800)
    assert _summed(segments=rows[:1]).typical_error_us == 250  # never above the largest
    assert _summed().typical_error_us == 0


def test_archives_that_are_not_whole_are_named_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accounts_module, "MOST_NAMED", 3)
    rows = [
        {"archive_uri": f"/raw/{number}\x1b[2J{'x' * 9_000}", "status": "failed"}
        for number in range(5)
    ]
    summed = _summed(archives=[*rows, {"archive_uri": "/raw/ok", "status": "ok"}])
    assert (summed.archives["failed"], summed.whole, len(summed.named)) == (5, 1, 3)
    for named in summed.named:
        assert named.archive_uri.isprintable()
        assert len(named.archive_uri) < 500


# --- digests over files ---------------------------------------------------------------------------


def _file(path: Path, at: datetime = AT) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "uri": str(path),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "created_at": at,
    }


def test_digest_of_a_date_is_that_of_sorted_lines_of_sha256sum(tmp_path: Path) -> None:
    names = ("plain", "ü", "\ufb01\U0001f600", "a\\b", "a\nb", " blank", "a\\nb")
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]) * number)
    files = [_file(path) for path in tmp_path.iterdir()]
    accounts = Accounts()
    _add(accounts, recordings=files[:3])  # two shards of a date
    _add(accounts, recordings=files[3:])
    _add(accounts, "2026-11-23", recordings=files[:1])
    _add(accounts, "2026-11-24", runs=[{"run_id": "quiet"}])
    accounts.end()

    lines = subprocess.run(
        ["sha256sum", *(row["uri"] for row in files)], capture_output=True, check=True
    ).stdout.splitlines(keepends=True)
    digest = hashlib.sha256(b"".join(sorted(lines))).hexdigest()
    first, second = accounts.files
    assert (first.call_date, first.count, first.sha256) == ("2026-11-22", len(names), digest)
    assert first.size_bytes == sum(row["size_bytes"] for row in files)
    assert (second.call_date, second.count) == ("2026-11-23", 1)
    over_all = f"2026-11-22 {digest}\n2026-11-23 {second.sha256}\n"
    assert total_sha256((day.call_date, day.sha256) for day in accounts.files) == (
        hashlib.sha256(over_all.encode()).hexdigest()
    )


def test_rows_made_after_a_moment_are_told_apart(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"x")
        rows.append(_file(tmp_path / str(number), AT + timedelta(seconds=number)))
    at_us = int(AT.timestamp()) * 1_000_000
    accounts = Accounts(since_unix_us={"2026-11-22": at_us + 1_000_000})
    _add(accounts, recordings=rows)
    accounts.end()
    assert accounts.newer == {"2026-11-22": [rows[2]["uri"]]}
    assert accounts.newer_counts["2026-11-22"] == 1
    assert accounts.files[0].newest_unix_us == at_us + 2_000_000


def test_tables_are_shown_with_all_their_rows(tmp_path: Path) -> None:
    catalog = Path(shutil.copytree(ROOT / "tests" / "data" / "catalog_3a91846", tmp_path / "c"))
    accounts = Accounts()
    list(CheckedTables(str(catalog)).problems(accounts.add))
    counts = {
        table: sum(pq.read_metadata(path).num_rows for path in (catalog / table).rglob("*.parquet"))
        for table in TABLES
    }
    assert dict(accounts.rows) == counts
