"""The catalog's objects: merging replaces what it should, keeps the rest, and may be done twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.beam import (
    CALL_COLUMNS,
    CALL_DATE,
    CALL_START_UNIX_NS,
    call_row,
    list_files,
    list_parquet,
    read_catalog,
    recording_row,
    stamp,
    track_row,
    write_new,
    write_removal,
    write_rows,
)
from tests.support.job_run import JobRun
from transforms.catalog import partitions
from transforms.catalog.merging import MergedShard, merge_partition
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import ensure_file, read_rows, scan
from transforms.catalog.schema import SCHEMAS, TABLES, owner_key, shard_hash, to_table
from transforms.elements import Row
from transforms.media.errors import StorageError
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time

LATER_NS = CALL_START_UNIX_NS + 1_000_000_000


def _call(number: int) -> CallKey:
    return CallKey(call_type="default", call_id="standup", call_session_id=f"session-{number:03d}")


def _merge(
    context: JobRun,
    table: str,
    rows: Sequence[Row],
    *,
    shard_rows: int = 100,
    removed: Sequence[CallKey] = (),
) -> MergedShard:
    sections = [each for row in rows for each in write_new(context, table, [row])]
    sections += write_removal(context, [call.as_tuple() for call in removed], table)
    return merge_partition(context.catalog_uri, table, CALL_DATE, sections, shard_rows)


def _write_file(
    context: JobRun, table: str, name: str, rows: Sequence[Row], schema: pa.Schema | None = None
) -> Path:
    """Puts an object where an earlier run left it."""
    path = Path(context.catalog_uri, table, f"call_date={CALL_DATE}", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = to_table(table, rows)
    pq.write_table(found.select(schema.names).cast(schema) if schema else found, path)
    return path


def _sessions(rows: Sequence[Row]) -> list[str]:
    return [row["call_session_id"] for row in rows]


def _names(context: JobRun, table: str) -> list[str]:
    return [path.name for path in list_parquet(context, table)]


# --- what is replaced -----------------------------------------------------------------------------


def test_first_merge_makes_one_typed_file_sorted_by_key(context: JobRun) -> None:
    merged = _merge(context, "calls", [call_row(_call(2)), call_row(_call(1))])

    (path,) = list_parquet(context, "calls")
    assert list_files(context.catalog_uri) == [f"calls/call_date={CALL_DATE}/part-0.parquet"]
    assert _sessions(read_catalog(context, "calls")) == ["session-001", "session-002"]
    assert pq.read_schema(path).remove_metadata().equals(SCHEMAS["calls"].remove_metadata())
    assert (merged.row_count, merged.dropped_media) == (2, ())


def test_rows_are_ordered_by_their_keys_with_nulls_first(context: JobRun) -> None:
    write_rows(
        context, "recordings", [recording_row(who, f"/out/{who}") for who in ("bob", None, "alice")]
    )

    assert [row["participant_id"] for row in read_catalog(context, "recordings")] == [
        None,
        "alice",
        "bob",
    ]


def test_only_rows_of_the_given_owners_are_replaced(context: JobRun) -> None:
    old = [track_row(name, _call(number)) for number in (1, 2) for name in ("alice", "bob")]
    write_rows(context, "tracks", old)

    write_rows(context, "tracks", [track_row("alice", _call(1), status="partial")])

    rows = read_catalog(context, "tracks")
    assert [(row["call_session_id"], row["participant_id"], row["status"]) for row in rows] == [
        ("session-001", "alice", "partial"),
        ("session-002", "alice", "ok"),
        ("session-002", "bob", "ok"),
    ]


def test_owner_given_without_rows_loses_them(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1)), call_row(_call(2))])

    merged = _merge(context, "calls", [], removed=[_call(1)])

    assert _sessions(read_catalog(context, "calls")) == ["session-002"]
    assert merged.row_count == 1


def test_last_owner_gone_leaves_an_empty_typed_file(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1))])

    _merge(context, "calls", [], removed=[_call(1)])

    (path,) = list_parquet(context, "calls")
    assert pq.read_metadata(path).num_rows == 0


def test_removal_in_a_date_without_files_makes_none(context: JobRun) -> None:
    _merge(context, "calls", [], removed=[_call(1)])

    assert list_parquet(context, "calls") == []


def test_other_dates_and_tables_are_left_alone(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1))], "2026-01-04")
    write_rows(context, "tracks", [track_row("alice", _call(1))])

    _merge(context, "calls", [call_row(_call(1), status="partial")])

    assert [(row["call_date"], row["status"]) for row in read_catalog(context, "calls")] == [
        ("2026-01-04", "ok"),
        ("2026-01-05", "partial"),
    ]
    assert len(read_catalog(context, "tracks")) == 1


def test_failures_belong_to_their_call_or_else_to_their_archive(context: JobRun) -> None:
    ids = {"call_type": "default", "call_id": "standup", "call_session_id": "session-001"}
    base = {"stage": "UnpackArchives", "archive_uri": "/raw/a.tar.gz", "error_type": "ArchiveError"}
    of_call = stamp({**base, **ids, "message": "of the call"})
    of_archive = stamp({**base, **dict.fromkeys(ids), "message": "of the archive"})
    write_rows(context, "failures", [of_call, of_archive])

    write_rows(context, "failures", [{**of_archive, "message": "anew"}])

    assert sorted(row["message"] for row in read_catalog(context, "failures")) == [
        "anew",
        "of the call",
    ]


@pytest.mark.parametrize(
    ("table", "row"),
    [("archives", {"archive_uri": "/raw/a.tar.gz"}), ("runs", {"run_id": "run-1"})],
    ids=["archives", "runs"],
)
def test_archives_and_runs_own_themselves(context: JobRun, table: str, row: Row) -> None:
    other = {**row, next(iter(row)): "other"}
    write_rows(context, table, [{**row, "status": "failed"}, {**other, "status": "ok"}])

    write_rows(context, table, [{**row, "status": "ok"}])

    assert [found["status"] for found in read_catalog(context, table)] == ["ok", "ok"]


# --- twice, and after a killed run ----------------------------------------------------------------


def test_merging_twice_gives_equal_bytes(context: JobRun) -> None:
    write_rows(context, "tracks", [track_row("zoe", _call(9))])
    sections = [
        section
        for number in (1, 2)
        for section in write_new(context, "tracks", [track_row("alice", _call(number))])
    ]
    contents = []
    for _ in range(2):
        merge_partition(context.catalog_uri, "tracks", CALL_DATE, sections)
        contents.append([path.read_bytes() for path in list_parquet(context, "tracks")])

    assert contents[0] == contents[1]
    assert len(read_catalog(context, "tracks")) == 3


def test_order_of_the_fragments_does_not_matter(context: JobRun) -> None:
    sections = [
        section
        for number in range(5)
        for section in write_new(context, "calls", [call_row(_call(number))])
    ]
    merge_partition(context.catalog_uri, "calls", CALL_DATE, sections)
    (path,) = list_parquet(context, "calls")
    first = path.read_bytes()

    merge_partition(context.catalog_uri, "calls", CALL_DATE, sections[::-1])

    assert path.read_bytes() == first


def test_merging_the_same_rows_again_does_not_split(context: JobRun) -> None:
    """Six rows that replace six are six: no more shards than before."""
    rows = [call_row(_call(number)) for number in range(6)]
    for _ in range(3):
        _merge(context, "calls", rows, shard_rows=10)

    assert _names(context, "calls") == ["part-0.parquet"]
    assert len(read_catalog(context, "calls")) == 6


def test_of_a_row_left_twice_the_newest_stays(context: JobRun) -> None:
    older = call_row(_call(1), status="failed")
    newer = {**older, "status": "ok", "created_at": to_time(LATER_NS)}
    _write_file(context, "calls", "part-0.parquet", [older])
    bits = shard_hash(_call(1).as_tuple()) >> 31
    _write_file(context, "calls", f"part-1-{bits}.parquet", [newer])

    (read,) = read_rows(
        context.catalog_uri, "calls", CALL_DATE, CALL_COLUMNS, {_call(1).as_tuple()}
    )
    assert read["status"] == "ok"
    _merge(context, "calls", [call_row(_call(2))])

    assert sorted(
        (row["call_session_id"], row["status"]) for row in read_catalog(context, "calls")
    ) == [
        ("session-001", "ok"),
        ("session-002", "ok"),
    ]


def test_run_killed_while_it_split_a_shard_leaves_no_stale_row(context: JobRun) -> None:
    """The finer file is there, the coarser one was not yet deleted: what it alone has of an owner
    is obsolete.
    """
    one = _call(1)
    _write_file(
        context, "tracks", "part-0.parquet", [track_row("alice", one), track_row("gone", one)]
    )
    bits = shard_hash(one.as_tuple()) >> 31
    anew = {**track_row("alice", one, status="partial"), "created_at": to_time(LATER_NS)}
    _write_file(context, "tracks", f"part-1-{bits}.parquet", [anew])

    _merge(context, "tracks", [track_row("bob", _call(2))])

    assert sorted(
        (row["participant_id"], row["status"]) for row in read_catalog(context, "tracks")
    ) == [
        ("alice", "partial"),
        ("bob", "ok"),
    ]


# --- shards ---------------------------------------------------------------------------------------


def test_too_many_rows_are_split_by_the_hash_of_their_owner(context: JobRun) -> None:
    rows = [call_row(_call(number)) for number in range(30)]
    write_rows(context, "calls", rows[:1])
    assert _names(context, "calls") == ["part-0.parquet"]

    merged = _merge(context, "calls", rows, shard_rows=8)

    assert _names(context, "calls") == [
        f"part-2-{shard}.parquet" for shard in ("00", "01", "10", "11")
    ]
    for path in list_parquet(context, "calls"):
        shard = int(path.stem.rpartition("-")[2], 2)
        found = pq.ParquetFile(path).read().to_pylist()
        assert {shard_hash(owner_key("calls", row)) >> 30 for row in found} == {shard}
    assert sorted(_sessions(read_catalog(context, "calls"))) == _sessions(rows)
    assert merged.row_count == 30


def test_rows_of_one_call_stay_in_one_shard(context: JobRun) -> None:
    rows = [track_row(f"p{number}", _call(call)) for call in range(6) for number in range(4)]
    write_rows(context, "tracks", rows)

    _merge(context, "tracks", [track_row("p0", _call(99))], shard_rows=10)

    holders: dict[str, set[str]] = {}
    for path in list_parquet(context, "tracks"):
        for row in pq.ParquetFile(path).read().to_pylist():
            holders.setdefault(row["call_session_id"], set()).add(path.name)
    assert len(_names(context, "tracks")) > 1
    assert len(holders) == 7
    assert all(len(names) == 1 for names in holders.values())


def test_files_of_a_coarser_split_go(context: JobRun) -> None:
    rows = [call_row(_call(number)) for number in range(40)]
    write_rows(context, "calls", rows[:3])
    _merge(context, "calls", rows[:20], shard_rows=10)
    before = _names(context, "calls")

    _merge(context, "calls", rows[20:], shard_rows=4)

    after = _names(context, "calls")
    assert not set(before) & set(after)
    assert len(read_catalog(context, "calls")) == 40
    assert len({name.split("-")[1] for name in after}) == 1


def test_partition_never_goes_back_to_fewer_shards(context: JobRun) -> None:
    rows = [call_row(_call(number)) for number in range(30)]
    _merge(context, "calls", rows, shard_rows=8)
    names = _names(context, "calls")

    _merge(context, "calls", [], removed=[_call(number) for number in range(29)], shard_rows=8)

    assert _names(context, "calls") == names
    assert _sessions(read_catalog(context, "calls")) == ["session-029"]


def test_fragment_of_many_owners_is_spread_over_the_shards(context: JobRun) -> None:
    rows = [stamp({"archive_uri": f"/raw/{number}.tar.gz", "status": "ok"}) for number in range(30)]
    sections = write_new(context, "archives", rows)

    merge_partition(context.catalog_uri, "archives", CALL_DATE, sections, 8)

    assert len(_names(context, "archives")) > 1
    assert sorted(row["archive_uri"] for row in read_catalog(context, "archives")) == sorted(
        row["archive_uri"] for row in rows
    )


# --- older files, foreign files -------------------------------------------------------------------


def test_file_of_an_older_schema_gets_null_columns(context: JobRun) -> None:
    schema = SCHEMAS["calls"]
    older = pa.schema(
        [
            field
            for field in schema
            if field.name not in ("loudness_lufs", "peak_dbfs", "settings_fingerprint")
        ]
    )
    older = older.set(older.get_field_index("duration_ms"), pa.field("duration_ms", pa.int32()))
    path = _write_file(
        context, "calls", "part-0.parquet", [call_row(_call(1), duration_ms=1_500)], older
    )

    (read,) = read_rows(
        context.catalog_uri, "calls", CALL_DATE, CALL_COLUMNS, {_call(1).as_tuple()}
    )
    assert (read["duration_ms"], read["loudness_lufs"], read["settings_fingerprint"]) == (
        1_500,
        None,
        None,
    )
    _merge(context, "calls", [call_row(_call(2), loudness_lufs=-16.0)])

    assert pq.read_schema(path).remove_metadata().equals(schema.remove_metadata())
    assert [
        (row["call_session_id"], row["loudness_lufs"]) for row in read_catalog(context, "calls")
    ] == [
        ("session-001", None),
        ("session-002", -16.0),
    ]


def _with_later_columns(path: Path, **columns: pa.Array) -> None:
    """Gives the rows of an object columns that this version does not know."""
    rows = pq.ParquetFile(path).read()
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    pq.write_table(rows, path)


def test_columns_of_a_later_version_stay_with_their_rows(context: JobRun) -> None:
    path = _write_file(context, "calls", "part-0.parquet", [call_row(_call(1)), call_row(_call(2))])
    moods = pa.array([["good"], ["bad", "sad"]], pa.list_(pa.string()))
    _with_later_columns(path, mood=moods, pulse=pa.array([60, None], pa.int32()))

    anew = {**call_row(_call(2), status="partial"), "created_at": to_time(LATER_NS)}
    _merge(context, "calls", [anew, call_row(_call(3))])

    rows = pq.ParquetFile(path).read()
    assert rows.schema.field("mood").type == pa.list_(pa.string())
    assert rows.schema.field("pulse").type == pa.int32()
    assert [
        (row["call_session_id"], row["status"], row["mood"], row["pulse"])
        for row in rows.to_pylist()
    ] == [
        ("session-001", "ok", ["good"], 60),
        ("session-002", "partial", None, None),
        ("session-003", "ok", None, None),
    ]


def test_columns_of_a_later_version_are_split_with_their_rows(context: JobRun) -> None:
    calls = [_call(number) for number in range(12)]
    path = _write_file(context, "calls", "part-0.parquet", [call_row(call) for call in calls])
    _with_later_columns(path, mood=pa.array([call.call_session_id for call in calls]))

    _merge(context, "calls", [call_row(_call(12))], shard_rows=6)

    files = list_parquet(context, "calls")
    assert len(files) > 1
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert len(rows) == 13
    assert all(row["mood"] == row["call_session_id"] for row in rows if row["mood"])
    assert sum(row["mood"] is None for row in rows) == 1


def test_row_that_a_run_keeps_keeps_what_a_later_version_put_beside_it(context: JobRun) -> None:
    """As where a run about one participant writes the rows of the others again as they were."""
    one = _call(1)
    rows = [track_row("alice", one), track_row("bob", one)]
    path = _write_file(context, "tracks", "part-0.parquet", rows)
    _with_later_columns(path, mood=pa.array(["good", "bad"]))
    anew = {**track_row("bob", one), "created_at": to_time(LATER_NS)}

    _merge(context, "tracks", [track_row("alice", one), anew])

    found = pq.ParquetFile(path).read().to_pylist()
    assert [(row["participant_id"], row["mood"]) for row in found] == [
        ("alice", "good"),
        ("bob", None),
    ]


def test_rows_that_only_the_key_of_a_later_version_tells_apart_stay_two(context: JobRun) -> None:
    one = _call(1)
    rows = [track_row("alice", one), track_row("alice", one)]
    path = _write_file(context, "tracks", "part-0.parquet", rows)
    _with_later_columns(path, piece=pa.array([None, 1], pa.int64()))

    _merge(context, "tracks", [track_row("bob", _call(2))])

    found = pq.ParquetFile(path).read().to_pylist()
    assert [(row["participant_id"], row["piece"]) for row in found] == [
        ("alice", None),
        ("alice", 1),
        ("bob", None),
    ]


def test_files_that_are_not_ours_are_not_read(context: JobRun) -> None:
    _merge(context, "calls", [call_row(_call(1))])
    folder = Path(context.catalog_uri, "calls")
    for name in (
        "notes.txt",
        "call_date=2026-01-05/.part-0.parquet.7.partial",
        "call_date=2026-01-05/extra.parquet",
        "part-0.parquet",
    ):
        (folder / name).write_bytes(b"no parquet")

    files = partitions.list_files(context.catalog_uri, "calls")

    assert [(file.call_date, file.bits, file.shard) for file in files] == [(CALL_DATE, 0, 0)]


def test_rows_that_cannot_be_listed_are_not_taken_for_none(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Path(f"{context.catalog_uri}/calls")
    (table / "call_date=2026-01-05").mkdir(parents=True)
    (table / "readme").symlink_to("nowhere")
    assert partitions.list_files(context.catalog_uri, "calls") == []
    (table / "call_date=2026-01-05/part-0.parquet").symlink_to("nowhere")

    with pytest.raises(StorageError, match=r"part-0\.parquet: a link to 'nowhere'"):
        partitions.list_files(context.catalog_uri, "calls")

    (table / "call_date=2026-01-05/part-0.parquet").unlink()
    scan = os.scandir

    def refuse(path: Any) -> Any:  # root may read all folders
        if str(path).endswith("2026-01-05"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="call_date=2026-01-05/: Permission denied"):
        partitions.list_files(context.catalog_uri, "calls")


def test_files_are_listed_with_their_shard(context: JobRun) -> None:
    for name in ("part-0.parquet", "part-1-1.parquet", "part-3-101.parquet"):
        _write_file(context, "calls", name, [])

    files = partitions.list_files(context.catalog_uri, "calls", CALL_DATE)

    assert [(file.bits, file.shard) for file in files] == [(0, 0), (1, 1), (3, 5)]
    assert partitions.list_files(context.catalog_uri, "calls", "2026-01-06") == []


def test_broken_file_of_ours_stops_the_merge_and_stays(context: JobRun) -> None:
    path = _write_file(context, "calls", "part-0.parquet", [])
    path.write_bytes(b"no parquet")

    with pytest.raises(Exception, match=r"(?i)parquet"):
        _merge(context, "calls", [call_row(_call(1))])

    assert path.read_bytes() == b"no parquet"


def test_catalog_that_cannot_be_written_is_a_storage_error(context: JobRun) -> None:
    folder = Path(context.catalog_uri, "calls")
    folder.parent.mkdir()
    folder.write_bytes(b"a file where the table's folder should be")

    with pytest.raises(StorageError):
        _merge(context, "calls", [call_row(_call(1))])


# --- reading --------------------------------------------------------------------------------------


def test_read_rows_gives_the_asked_keys_of_the_asked_date(context: JobRun) -> None:
    rows = [call_row(_call(number)) for number in range(20)]
    _merge(context, "calls", rows, shard_rows=4)
    write_rows(context, "calls", [call_row(_call(3), status="partial")], "2026-01-04")
    keys = {_call(3).as_tuple(), _call(17).as_tuple(), _call(99).as_tuple()}

    found = read_rows(context.catalog_uri, "calls", CALL_DATE, CALL_COLUMNS, keys)

    assert sorted((row["call_session_id"], row["status"]) for row in found) == [
        ("session-003", "ok"),
        ("session-017", "ok"),
    ]
    assert read_rows(context.catalog_uri, "calls", "2026-02-01", CALL_COLUMNS, keys) == []


def test_scan_gives_some_columns_and_the_date(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1)), call_row(_call(2))])
    (file,) = partitions.list_files(context.catalog_uri, "calls")

    found = list(
        scan(
            "calls",
            file,
            (*CALL_COLUMNS, "status"),
            WantedKeys(CALL_COLUMNS, {_call(2).as_tuple()}),
        )
    )

    assert found == [
        {
            "call_type": "default",
            "call_id": "standup",
            "call_session_id": "session-002",
            "status": "ok",
            "call_date": CALL_DATE,
        }
    ]


# --- media of rows that went ----------------------------------------------------------------------


def _recordings(context: JobRun, *rows: Row) -> tuple[str, ...]:
    sections = write_new(context, "recordings", rows)
    return merge_partition(context.catalog_uri, "recordings", CALL_DATE, sections).dropped_media


def test_media_of_which_no_row_is_left_is_dropped(context: JobRun) -> None:
    assert (
        _recordings(
            context, recording_row(None, "/out/mix.mp3"), recording_row("alice", "/out/alice.mkv")
        )
        == ()
    )

    dropped = _recordings(
        context, recording_row(None, "/out/mix.mp3"), recording_row("alice", "/out/alice.ogg")
    )

    assert dropped == ("/out/alice.mkv",)


def test_media_of_other_calls_is_not_dropped(context: JobRun) -> None:
    _recordings(context, recording_row(None, "/out/1.mp3", _call(1)))
    _recordings(context, recording_row(None, "/out/2.mp3", _call(2)))

    assert _recordings(context, recording_row(None, "/out/2b.mp3", _call(2))) == ("/out/2.mp3",)
    assert sorted(row["uri"] for row in read_catalog(context, "recordings")) == [
        "/out/1.mp3",
        "/out/2b.mp3",
    ]


def test_media_is_not_dropped_when_a_split_moves_its_row(context: JobRun) -> None:
    for number in range(20):
        _recordings(context, recording_row(None, f"/out/{number}.mp3", _call(number)))
    sections = write_new(context, "recordings", [recording_row(None, "/out/99.mp3", _call(99))])

    merged = merge_partition(context.catalog_uri, "recordings", CALL_DATE, sections, 4)

    assert merged.dropped_media == ()
    assert merged.row_count == 21


def test_media_is_not_dropped_when_its_call_is_replaced_in_the_same_split(
    context: JobRun,
) -> None:
    rows = [recording_row(None, f"/out/{number}.mp3", _call(number)) for number in range(20)]
    _recordings(context, *rows)
    sections = [each for row in rows for each in write_new(context, "recordings", [row])]

    merged = merge_partition(context.catalog_uri, "recordings", CALL_DATE, sections, 4)

    assert len(_names(context, "recordings")) > 1
    assert merged.dropped_media == ()


def test_media_of_removed_calls_is_dropped(context: JobRun) -> None:
    _recordings(
        context,
        recording_row(None, "/out/1.mp3", _call(1)),
        recording_row("alice", "/out/1.mkv", _call(1)),
    )

    merged = _merge(context, "recordings", [], removed=[_call(1)])

    assert merged.dropped_media == ("/out/1.mkv", "/out/1.mp3")


# --- tables without rows --------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_ensure_file_gives_an_empty_typed_file(context: JobRun, table: str) -> None:
    ensure_file(context.catalog_uri, table, CALL_DATE)

    (path,) = list_parquet(context, table)
    found = pq.ParquetFile(path)
    assert (path.name, path.parent.name, found.metadata.num_rows) == (
        "part-0.parquet",
        f"call_date={CALL_DATE}",
        0,
    )
    assert not any(pa.types.is_null(field.type) for field in found.schema_arrow)
    assert "call_date" not in found.schema_arrow.names


def test_ensure_file_adds_nothing_to_a_table_with_files(context: JobRun) -> None:
    write_rows(context, "calls", [call_row(_call(1))], "2026-01-04")

    ensure_file(context.catalog_uri, "calls", CALL_DATE)

    assert list_files(context.catalog_uri) == ["calls/call_date=2026-01-04/part-0.parquet"]


def test_catalog_in_an_object_store(context: JobRun, store: Any) -> None:
    sections = write_new(context, "calls", [call_row(_call(number)) for number in range(6)])
    merge_partition("fake://bucket/catalog", "calls", CALL_DATE, sections)
    merge_partition("fake://bucket/catalog", "calls", CALL_DATE, sections, 2)

    names = sorted(uri.rpartition("/")[2] for uri in store.OBJECTS)
    found = read_rows(
        "fake://bucket/catalog", "calls", CALL_DATE, CALL_COLUMNS, {_call(4).as_tuple()}
    )

    assert "part-0.parquet" not in names
    assert _sessions(found) == ["session-004"]
