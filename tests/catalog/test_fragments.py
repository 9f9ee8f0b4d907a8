"""Row fragments: rows of several tables in one staged object, of which only the reference is
shuffled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to

from tests.support.beam import (
    GroupOnce,
    call_row,
    make_pipeline,
    recording_row,
    track_row,
)
from tests.support.job_run import JobRun
from transforms.catalog.fragments import read_fragment, read_fragments, write_fragment
from transforms.catalog.schema import TABLES, to_table
from transforms.elements import FragmentRef
from transforms.media.errors import StorageError


def test_rows_come_back_as_written(context: JobRun) -> None:
    moment = datetime(2026, 1, 5, 10, 0, 0, 123_457, tzinfo=UTC)
    call = call_row(start_time=moment, duration_ms=1 << 40, loudness_lufs=-16.25)
    tracks = [
        track_row("Ana / ü", ssrcs=[1, 2**32 - 1]),
        track_row("bob", track_ids=[], jitter_ms=None),
    ]

    ref = write_fragment(context.staged("rows", "x.json"), {"calls": [call], "tracks": tracks})

    (found,) = read_fragment(ref, "calls")
    assert (found["start_time"], found["duration_ms"], found["loudness_lufs"]) == (
        moment,
        1 << 40,
        -16.25,
    )
    assert found["end_time"] is None
    assert read_fragment(ref, "tracks") == to_table("tracks", tracks).to_pylist()


def test_reference_counts_rows_per_table_also_none(context: JobRun) -> None:
    rows = {
        "calls": [call_row()],
        "recordings": [recording_row("alice", "/a.mkv")] * 2,
        "speech": [],
    }

    ref = write_fragment(context.staged("rows", "x.json"), rows)

    assert ref.row_counts == (("calls", 1), ("recordings", 2), ("speech", 0))
    assert read_fragment(ref, "speech") == []


def test_fragment_is_opened_once_for_all_its_tables(store: ModuleType) -> None:
    rows = {"calls": [call_row()], "tracks": [track_row("alice"), track_row("bob")], "speech": []}
    ref = write_fragment("fake://bucket/tmp/x.json", rows)

    found = read_fragments(ref, ("tracks", "speech", "calls"))

    assert {table: len(table_rows) for table, table_rows in found.items()} == {
        "tracks": 2,
        "speech": 0,
        "calls": 1,
    }
    assert store.CALLS["open"] == 1
    assert read_fragments(ref, ("speech", "failures")) == {"speech": [], "failures": []}
    assert store.CALLS["open"] == 1


def test_table_that_is_not_in_a_fragment_has_no_rows(context: JobRun) -> None:
    ref = write_fragment(context.staged("rows", "x.json"), {"calls": [call_row()]})

    assert read_fragment(ref, "tracks") == []


@pytest.mark.parametrize("table", TABLES)
def test_every_table_fits_into_a_fragment(context: JobRun, table: str) -> None:
    ref = write_fragment(context.staged("rows", "x.json"), {table: [{"run_id": "run-1"}]})

    (row,) = read_fragment(ref, table)
    assert row["run_id"] == "run-1"
    assert set(row) == set(to_table(table, []).column_names)


def test_column_the_table_does_not_have_is_a_mistake_of_ours(context: JobRun) -> None:
    with pytest.raises(ValueError, match="table calls has no column \\['colour'\\]"):
        write_fragment(context.staged("rows", "x.json"), {"calls": [{"colour": "red"}]})


def test_value_of_another_type_is_a_mistake_of_ours(context: JobRun) -> None:
    with pytest.raises(ValueError, match="duration_ms of table calls is 'long', expected int"):
        write_fragment(context.staged("rows", "x.json"), {"calls": [{"duration_ms": "long"}]})


def test_fragment_that_is_gone_is_a_storage_error(context: JobRun) -> None:
    ref = FragmentRef(
        uri=context.staged("rows", "gone.json"),
        row_counts=(("calls", 1),),
    )

    with pytest.raises(StorageError, match=r"gone\.json: No such file"):
        read_fragment(ref, "calls")


@pytest.mark.parametrize("kept_bytes", [0, 1, 40, -1, -200])
def test_fragment_that_was_cut_short_is_a_storage_error(context: JobRun, kept_bytes: int) -> None:
    rows = {"tracks": [track_row("alice")], "calls": [call_row(), call_row(call_id="other")]}
    ref = write_fragment(context.staged("rows", "x.json"), rows)
    data = Path(ref.uri).read_bytes()
    Path(ref.uri).write_bytes(data[:kept_bytes])

    with pytest.raises(StorageError, match=r"x\.json: .*rows of calls"):
        read_fragment(ref, "calls")


def test_fragment_with_rows_of_another_try_is_a_storage_error(context: JobRun) -> None:
    ref = write_fragment(
        context.staged("rows", "x.json"), {"calls": [call_row(), call_row(call_id="other")]}
    )
    write_fragment(ref.uri, {"calls": [call_row()]})

    with pytest.raises(StorageError, match=r"x\.json: 1 rows of calls, expected 2"):
        read_fragment(ref, "calls")


def test_line_ends_in_text_do_not_part_rows(context: JobRun) -> None:
    odd = "a\nb\r\u2028\x85\0"
    ref = write_fragment(
        context.staged("rows", "x.json"), {"tracks": [track_row(odd)], "calls": [call_row()]}
    )

    assert [row["participant_id"] for row in read_fragment(ref, "tracks")] == [odd]
    assert len(read_fragment(ref, "calls")) == 1


def test_numbers_of_numpy_are_numbers(context: JobRun) -> None:
    row = call_row(duration_ms=np.int64(7), loudness_lufs=np.float32(-16.25))
    ref = write_fragment(context.staged("rows", "x.json"), {"calls": [row]})

    (found,) = read_fragment(ref, "calls")
    assert (found["duration_ms"], found["loudness_lufs"]) == (7, -16.25)


def test_fragment_in_an_object_store(store: ModuleType) -> None:
    ref = write_fragment("fake://bucket/tmp/x.json", {"calls": [call_row()]})

    assert [row["call_id"] for row in read_fragment(ref, "calls")] == ["standup"]
    assert list(store.OBJECTS) == [ref.uri]


def test_reference_goes_through_a_shuffle_unchanged() -> None:
    refs = [FragmentRef(uri="/x.json", row_counts=(("calls", 1),))]
    with make_pipeline() as pipeline:
        assert_that(pipeline | beam.Create(refs) | GroupOnce(), equal_to(refs))
