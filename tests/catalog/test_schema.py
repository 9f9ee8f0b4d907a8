"""The catalog's tables: schemas, times, keys and shards."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.catalog.schema import (
    CALL_TABLES,
    KEYS,
    MAX_SHARD_ROWS,
    SCHEMAS,
    TABLES,
    describe,
    owner_key,
    shard_bits,
    shard_hash,
    shard_name,
    to_table,
)
from transforms.media.wall_time import from_time, to_time, utc_date

tables = pytest.mark.parametrize("name", TABLES)


def test_tables_are_those_of_the_contract() -> None:
    assert set(TABLES) == {
        "recordings",
        "segments",
        "tracks",
        "dumps",
        "calls",
        "archives",
        "speech",
        "failures",
        "notices",
        "runs",
    }
    assert set(KEYS) == set(TABLES)
    assert set(CALL_TABLES) <= set(TABLES)


@tables
def test_every_column_has_a_name_a_type_and_a_description(name: str) -> None:
    columns = describe(name)
    assert [column for column, _, _ in columns] == SCHEMAS[name].names
    for column, kind, text in columns:
        assert column == column.lower()
        assert kind == str(SCHEMAS[name].field(column).type)
        assert text.endswith("."), column


@tables
def test_every_table_says_which_run_wrote_it(name: str) -> None:
    assert SCHEMAS[name].names[-3:] == ["run_id", "created_at", "settings_fingerprint"]
    assert len(set(SCHEMAS[name].names)) == len(SCHEMAS[name].names)


@tables
def test_keys_are_columns_of_their_table(name: str) -> None:
    assert set(KEYS[name]) <= set(SCHEMAS[name].names)


@tables
def test_columns_of_one_name_have_one_type(name: str) -> None:
    for column in SCHEMAS[name]:
        for other in TABLES:
            if column.name in SCHEMAS[other].names and column.name != "status":
                assert SCHEMAS[other].field(column.name).type == column.type


@tables
def test_units_fit_their_columns(name: str) -> None:
    for column in SCHEMAS[name]:
        if column.name.endswith(
            ("_ms", "_bytes", "_samples", "_hz", "_bps")
        ) and column.name not in (
            "jitter_ms",
            "sync_error_ms",
        ):
            assert column.type == pa.int64(), column.name
        if column.name.endswith(("_time", "_at")):
            assert column.type == pa.timestamp("us", tz="UTC"), column.name


def test_missing_columns_of_a_row_are_null() -> None:
    table = to_table(
        "archives",
        [{"archive_uri": "a", "size_bytes": 5}, {"archive_uri": "b", "call_session_ids": ["s"]}],
    )
    assert table.schema == SCHEMAS["archives"]
    assert table.column("archive_uri").to_pylist() == ["a", "b"]
    assert table.column("size_bytes").to_pylist() == [5, None]
    assert table.column("call_session_ids").to_pylist() == [None, ["s"]]


def test_unknown_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table archives has no column \['colour'\]"):
        to_table("archives", [{"archive_uri": "a"}, {"colour": 1}])


def test_table_without_rows_keeps_its_schema() -> None:
    table = to_table("speech", [])
    assert (table.num_rows, table.schema) == (0, SCHEMAS["speech"])


@pytest.mark.parametrize(
    ("unix_ns", "date"),
    [
        (0, "1970-01-01"),
        (1_767_607_200_000_000_000, "2026-01-05"),
        (1_767_657_599_999_999_999, "2026-01-05"),
        (1_767_657_600_000_000_000, "2026-01-06"),
    ],
)
def test_date_is_that_of_utc(unix_ns: int, date: str) -> None:
    assert utc_date(unix_ns) == date


@given(st.integers(-(1 << 60), 1 << 61))
def test_times_keep_whole_microseconds(unix_ns: int) -> None:
    moment = to_time(unix_ns)
    assert moment.tzinfo is dt.UTC
    assert from_time(moment) == unix_ns // 1_000 * 1_000


def test_times_survive_a_table() -> None:
    unix_ns = 1_767_607_200_123_456_789
    table = to_table("runs", [{"started_at": to_time(unix_ns)}])
    assert from_time(table.column("started_at").to_pylist()[0]) == 1_767_607_200_123_456_000


def test_row_belongs_to_its_run_its_call_or_its_archive() -> None:
    call = {"call_type": "t", "call_id": "c", "call_session_id": "s"}
    nobody = {"call_type": None, "call_id": None, "call_session_id": None}
    assert owner_key("runs", {"run_id": "r"}) == ("r",)
    assert owner_key("tracks", call) == ("t", "c", "s")
    assert owner_key("failures", {**call, "archive_uri": "a"}) == ("t", "c", "s")
    assert owner_key("failures", {**nobody, "archive_uri": "a"}) == ("a",)
    assert owner_key("archives", {"archive_uri": "a"}) == ("a",)


@pytest.mark.parametrize("key", [("default", "weekly-sync", "s1"), ("gs://b/ü.tar.gz",), ("r",)])
def test_shard_hash_is_the_head_of_the_sha_256_of_a_json_array(key: tuple[str, ...]) -> None:
    text = "[" + ",".join(json.dumps(part, ensure_ascii=False) for part in key) + "]"
    assert shard_hash(key) == int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def test_golden_shard_hash() -> None:
    # printf '["default","weekly-sync","s1"]' | sha256sum
    assert f"{shard_hash(('default', 'weekly-sync', 's1')):08x}" == "4ce401c8"


@pytest.mark.parametrize(
    ("bits", "shard", "name"),
    [(0, 0, "part-0.parquet"), (1, 1, "part-1-1.parquet"), (3, 2, "part-3-010.parquet")],
)
def test_shards_are_named_by_their_bits(bits: int, shard: int, name: str) -> None:
    assert shard_name(bits, shard) == name


@pytest.mark.parametrize(
    ("rows", "bits"),
    [
        (0, 0),
        (1, 0),
        (MAX_SHARD_ROWS, 0),
        (MAX_SHARD_ROWS + 1, 1),
        (2 * MAX_SHARD_ROWS, 1),
        (2 * MAX_SHARD_ROWS + 1, 2),
    ],
)
def test_shards_hold_about_the_most_rows(rows: int, bits: int) -> None:
    assert shard_bits(rows) == bits
    assert shard_bits(rows, MAX_SHARD_ROWS * 8) == 0
