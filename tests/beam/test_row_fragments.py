"""Row fragments: rows of several tables in one staged object, of which only the reference is shuffled."""

from __future__ import annotations

from datetime import UTC, datetime
from types import ModuleType

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.beam.support import CALL, CALL_DATE, GroupOnce, call_row, make_pipeline, recording_row, track_row
from transforms.media.catalog import TABLES, to_table
from transforms.media.errors import StorageError
from transforms.row_fragments import FragmentRef, read_fragment, write_fragment
from transforms.run_context import RunContext


def test_rows_come_back_as_written(context: RunContext) -> None:
    moment = datetime(2026, 1, 5, 10, 0, 0, 123_457, tzinfo=UTC)
    call = call_row(start_time=moment, duration_ms=1 << 40, loudness_lufs=-16.25)
    tracks = [track_row("Ana / ü", ssrcs=[1, 2**32 - 1]), track_row("bob", track_ids=[], jitter_ms=None)]

    ref = write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, {"calls": [call], "tracks": tracks}, ())

    (found,) = read_fragment(ref.uri, "calls")
    assert (found["start_time"], found["duration_ms"], found["loudness_lufs"]) == (moment, 1 << 40, -16.25)
    assert found["end_time"] is None
    assert read_fragment(ref.uri, "tracks") == to_table("tracks", tracks).to_pylist()


def test_reference_counts_rows_per_table_also_none(context: RunContext) -> None:
    rows = {"calls": [call_row()], "recordings": [recording_row("alice", "/a.mkv")] * 2, "speech": []}

    ref = write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, rows, (CALL.as_tuple(),))

    assert ref.row_counts == (("calls", 1), ("recordings", 2), ("speech", 0))
    assert (ref.call_date, ref.replaced) == (CALL_DATE, (CALL.as_tuple(),))
    assert read_fragment(ref.uri, "speech") == []


def test_table_that_is_not_in_a_fragment_has_no_rows(context: RunContext) -> None:
    ref = write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, {"calls": [call_row()]}, ())

    assert read_fragment(ref.uri, "tracks") == []


@pytest.mark.parametrize("table", TABLES)
def test_every_table_fits_into_a_fragment(context: RunContext, table: str) -> None:
    ref = write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, {table: [{"run_id": "run-1"}]}, ())

    (row,) = read_fragment(ref.uri, table)
    assert row["run_id"] == "run-1"
    assert set(row) == set(to_table(table, []).column_names)


def test_column_the_table_does_not_have_is_a_mistake_of_ours(context: RunContext) -> None:
    with pytest.raises(ValueError, match="table calls has no column \\['colour'\\]"):
        write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, {"calls": [{"colour": "red"}]}, ())


def test_value_of_another_type_is_a_mistake_of_ours(context: RunContext) -> None:
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_fragment(context.staged("rows", "x.parquet"), CALL_DATE, {"calls": [{"duration_ms": "long"}]}, ())


def test_fragment_that_is_gone_is_a_storage_error(context: RunContext) -> None:
    with pytest.raises(StorageError, match=r"gone\.parquet: No such file"):
        read_fragment(context.staged("rows", "gone.parquet"), "calls")


def test_fragment_in_an_object_store(store: ModuleType) -> None:
    ref = write_fragment("fake://bucket/tmp/x.parquet", CALL_DATE, {"calls": [call_row()]}, ())

    assert [row["call_id"] for row in read_fragment(ref.uri, "calls")] == ["standup"]
    assert list(store.OBJECTS) == [ref.uri]


def test_reference_goes_through_a_shuffle_unchanged() -> None:
    refs = [
        FragmentRef(uri="/x.parquet", call_date=CALL_DATE, row_counts=(("calls", 1),), replaced=(CALL.as_tuple(),)),
        FragmentRef(uri="", call_date=CALL_DATE, row_counts=(("archives", 0),), replaced=(("/raw/a.tar.gz",),)),
    ]
    with make_pipeline() as pipeline:
        assert_that(pipeline | beam.Create(refs) | GroupOnce(), equal_to(refs))
