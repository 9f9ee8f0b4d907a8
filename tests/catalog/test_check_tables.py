"""Tables against each other: a catalog that is as it should be passes, and each thing that is not
is named, with what heals it.

The catalog is one that a run of an earlier version wrote; some of it is changed by hand.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT
from transforms.catalog.check_tables import CheckedTables
from transforms.catalog.problems import ADD_ROWS, Problem
from transforms.catalog.schema import TABLES, shard_hash, to_table

KEPT = ROOT / "tests" / "data" / "catalog_3a91846"
DATE = "call_date=2026-11-22"


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "catalog"))


def _problems(catalog: Path) -> list[Problem]:
    return list(CheckedTables(str(catalog)).problems())


def _file(catalog: Path, table: str) -> Path:
    (file,) = (catalog / table).rglob("*.parquet")
    return file


def _read(catalog: Path, table: str) -> pa.Table:
    return pq.ParquetFile(_file(catalog, table)).read()


def _write(catalog: Path, table: str, rows: pa.Table) -> None:
    pq.write_table(rows, _file(catalog, table))


def _drop(catalog: Path, table: str, rows: int) -> None:
    """Takes the first rows of a table away."""
    _write(catalog, table, _read(catalog, table).slice(rows))


def _change(catalog: Path, table: str, column: str, change: Callable[[pa.Array], pa.Array]) -> None:
    """Changes the first row's value of a column."""
    rows = _read(catalog, table)
    place = rows.schema.get_field_index(column)
    found = rows.column(column)
    changed = pa.concat_arrays([
        change(found.slice(0, 1).combine_chunks()).cast(found.type),
        *found.slice(1).chunks,
    ])  # fmt: skip
    _write(catalog, table, rows.set_column(place, rows.schema.field(place), changed))


def _add(much: int) -> Callable[[pa.Array], pa.Array]:
    return lambda values: pc.add(values.cast(pa.int64()), much)


def _be(value: object) -> Callable[[pa.Array], pa.Array]:
    return lambda values: pa.array([value], values.type)


def _with_column(catalog: Path, table: str, name: str, values: list[int | None]) -> None:
    _write(catalog, table, _read(catalog, table).append_column(name, pa.array(values, pa.int64())))


def test_a_catalog_of_an_earlier_version_passes(catalog: Path) -> None:
    assert _problems(catalog) == []


DAY_US = 86_400_000_000


def test_row_with_a_time_that_python_does_not_know_is_named(catalog: Path) -> None:
    _change(catalog, "recordings", "end_time", _be(1 << 62))
    _change(catalog, "recordings", "duration_samples", _be(-192))
    assert any("has -192 samples" in problem.what for problem in _problems(catalog))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda c: _drop(c, "calls", 1), "recordings of .*: calls has no row of it"),
        (lambda c: _drop(c, "tracks", 1), "recordings of .*: tracks has no row of that track"),
        (lambda c: _drop(c, "tracks", 1), "its track_count is 5, its tracks with audio give 4"),
        (lambda c: _drop(c, "tracks", 1), "its participant_ms is "),
        (lambda c: _drop(c, "segments", 99), "tracks of .*: segments has no row of that track"),
        (
            lambda c: _change(c, "segments", "file_end_ms", _add(-9)),
            "tracks of .*: media_ms and dtx_ms are .* together, its rows of segments give ",
        ),
        (lambda c: _drop(c, "speech", 1), "speech_ms is .*, its rows of speech give "),
        (lambda c: _drop(c, "archives", 1), "archives has no row of /"),
        (
            lambda c: _change(c, "calls", "status", _be("partial")),
            "calls of .*: it is partial, and failures has no row of the call",
        ),
        (
            lambda c: _change(c, "tracks", "status", _be("partial")),
            "tracks of .*: it is partial, and failures has no row of the call",
        ),
        (
            lambda c: _change(c, "archives", "status", _be("failed")),
            "archives of .*: it is failed, and its error_type is null",
        ),
        (
            lambda c: _change(c, "calls", "timeline_start_time", _add(DAY_US)),
            "calls of .*: it began on 2026-11-23, by its row",
        ),
        (
            lambda c: _change(c, "archives", "modified_time", _add(-DAY_US)),
            "archives of .*: it was modified on 2026-11-21, by its row",
        ),
        (
            lambda c: _change(c, "segments", "call_session_id", _be(None)),
            "1 rows of segments name no call session",
        ),
        (
            lambda c: _change(c, "recordings", "call_session_id", _be(None)),
            "1 rows of recordings name no call session",
        ),
        (lambda c: _change(c, "calls", "start_time", _add(1)), "its start_time is "),
        (lambda c: _change(c, "calls", "session_count", _be(1)), "session_count is 1, .* give 4"),
        (lambda c: _change(c, "calls", "participant_count", _be(0)), "participant_count is 0"),
        (lambda c: _change(c, "recordings", "duration_ms", _add(3)), "duration_ms is .*, of "),
        (lambda c: _change(c, "recordings", "duration_samples", _be(-192)), "has -192 samples"),
        (lambda c: _change(c, "segments", "file_start_ms", _be(-5)), "it lies from -5 to "),
        (lambda c: _change(c, "segments", "file_end_ms", _be(10**7)), "it ends at 10000000 ms of"),
        (lambda c: _change(c, "speech", "file_end_ms", _be(10**7)), "it ends at 10000000 ms of"),
        (lambda c: _change(c, "speech", "file_end_ms", _be(1)), "to 1 ms of its file"),
        (lambda c: _change(c, "runs", "archives_skipped", _be(9)), "it skipped 9 of 1 archives"),
        (
            lambda c: _with_column(c, "runs", "archives_waiting", [9]),
            "it skipped 0 of 1 archives and left 9 to the next",
        ),
        (
            lambda c: _change(c, "archives", "status", _be("waiting")),
            "archives of .*: it is waiting, and its attempts are 1",
        ),
        (lambda c: _change(c, "runs", "calls_pressed", _be(0)), "pressed 0 calls, 1 rows of calls"),
        (lambda c: _change(c, "runs", "finished_at", _add(-DAY_US)), "it ended before it began"),
    ],
)  # fmt: skip
def test_what_does_not_agree_is_named(
    catalog: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(catalog)
    found = _problems(catalog)
    assert any(re.search(said, problem.what) for problem in found), found
    assert all(problem.heal and problem.uri.startswith(str(catalog)) for problem in found)
    assert {problem.call.call_id for problem in found if problem.call} <= {"weekly-sync"}


def test_archive_that_is_whole_has_its_calls_under_some_date(catalog: Path) -> None:
    """All rows of a date may be lost together: each of them agrees with all that are left."""
    _change(catalog, "archives", "call_session_ids", _be(["weekly-sync-2026-11-22", "gone"]))
    (problem,) = _problems(catalog)
    assert "it is ok, and calls has no row of its call session 'gone'" in problem.what
    _change(catalog, "archives", "call_session_ids", _be(None))
    assert _problems(catalog) == []


def test_segments_of_a_file_neither_overlap_nor_go_back(catalog: Path) -> None:
    rows = _read(catalog, "segments")
    _write(catalog, "segments", pa.concat_tables([rows, rows.slice(0, 1)]))
    first = rows.slice(0, 1).to_pylist()[0]
    _change(catalog, "segments", "file_start_ms", _be(first["file_end_ms"] - 10))
    _change(catalog, "segments", "file_end_ms", _be(first["file_end_ms"]))
    _change(catalog, "segments", "call_start_ms", _be(first["call_start_ms"] - 7))

    said = "\n".join(problem.what for problem in _problems(catalog))

    assert f"the one before ends at {first['file_end_ms']} ms" in said
    assert f"the one before it in the file at {first['call_start_ms']} ms" in said


def test_rows_of_a_narrowed_run_are_not_judged_by_the_row_of_their_call(catalog: Path) -> None:
    """It leaves the row of the call as it was, and records no archive as done."""
    _change(catalog, "tracks", "duration_ms", _add(0))
    _change(catalog, "tracks", "created_at", _add(1))
    _change(catalog, "tracks", "archive_uris", _be(["/raw/late.tar.gz"]))
    _change(catalog, "calls", "participant_ms", _add(500))
    assert _problems(catalog) == []


def test_call_that_only_a_narrowed_run_has_seen_needs_neither_failure_nor_archive(
    catalog: Path,
) -> None:
    _drop(catalog, "archives", 1)
    _change(catalog, "calls", "status", _be("partial"))
    rows = _read(catalog, "recordings")
    individual = rows.filter(pc.equal(rows.column("recording_type"), "individual"))
    _write(catalog, "recordings", individual)
    assert not [problem for problem in _problems(catalog) if "start_time" not in problem.what]


# --- keys -----------------------------------------------------------------------------------------


def test_call_archive_or_run_under_two_dates_is_named(catalog: Path) -> None:
    for table in ("calls", "archives", "runs"):
        file = _file(catalog, table)
        other = file.parent.parent / "call_date=2026-11-01" / file.name
        other.parent.mkdir()
        shutil.copyfile(file, other)
    said = [problem.what for problem in _problems(catalog)]
    for table in ("calls", "archives", "runs"):
        assert len([what for what in said if what.startswith(f"{table} has rows of ")]) == 2


def test_parts_of_a_track_are_told_apart_and_null_is_the_first(catalog: Path) -> None:
    rows = _read(catalog, "speech")
    twice = pa.concat_tables([rows, rows.slice(0, 1)])

    def say(parts: list[int | None]) -> list[str]:
        _write(catalog, "speech", twice)
        _with_column(catalog, "speech", "part", parts)
        return [problem.what for problem in _problems(catalog)]

    nulls: list[int | None] = [None] * (rows.num_rows - 1)
    assert any("speech has more than one row" in what for what in say([0, *nulls, None]))
    said = say([0, *nulls, 1])
    assert not any("speech has more than one row" in what for what in said)
    assert any("tracks has no row of that track with audio" in what for what in said)


# --- shards ---------------------------------------------------------------------------------------


def test_tables_that_are_split_differently_are_looked_at_together(catalog: Path) -> None:
    """The one call lies in one half of a split date; the other half is empty."""
    for table in ("segments", "failures"):
        file = _file(catalog, table)
        rows = pq.ParquetFile(file).read()
        for bit in "01":
            pq.write_table(rows.slice(0, 0), file.with_name(f"part-1-{bit}.parquet"))
        file.unlink()
    (problem,) = _problems(catalog)
    assert "segments has no row of that track; 5 such rows of tracks" in problem.what
    (call,) = _read(catalog, "calls").to_pylist()
    half = shard_hash((call["call_type"], call["call_id"], call["call_session_id"])) >> 31
    kept = next((KEPT / "segments").rglob("*.parquet"))
    shutil.copyfile(kept, catalog / "segments" / DATE / f"part-1-{half}.parquet")
    assert _problems(catalog) == []


def test_object_that_cannot_be_read_is_named_once_and_nothing_blamed_on_it(catalog: Path) -> None:
    for data in (b"PAR1", _file(catalog, "tracks").read_bytes()[:-9]):
        _file(catalog, "tracks").write_bytes(data)
        (problem,) = _problems(catalog)
        assert "tracks" in problem.uri
        assert "not a Parquet file" in problem.what
        assert problem.heal == "restore it from a copy"


@pytest.mark.parametrize("table", ["archives", "calls"])
def test_object_of_another_date_that_cannot_be_read_is_blamed_for_nothing(
    catalog: Path, table: str
) -> None:
    old = _file(catalog, table)
    new = catalog / table / "call_date=2026-11-01" / old.name
    new.parent.mkdir()
    old.rename(new).write_bytes(b"PAR1")
    said = "\n".join(found.what for found in _problems(catalog))
    assert "not a Parquet file" in said
    assert "archives has no row" not in said
    assert "of its call session" not in said


def test_table_of_a_later_version_is_nothing_wrong(catalog: Path) -> None:
    path = catalog / "letters" / "call_date=2026-11-22" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"event_id": ["1"]}), path)
    assert _problems(catalog) == []
    assert set(CheckedTables(str(catalog)).row_counts) == set(TABLES)


# --- what was told --------------------------------------------------------------------------------


def _tell(catalog: Path, *events: str, **fields: object) -> None:
    """Puts rows of `notices` beside the first call, made after all that is there."""
    row = _read(catalog, "calls").slice(0, 1).to_pylist()[0]
    own = {name: row[name] for name in ("call_cid", "call_type", "call_id", "call_session_id")}
    made = datetime(2100, 1, 1, tzinfo=UTC)
    rows = [
        {**own, "event_id": event, "target": "crm", "created_at": made, **fields}
        for event in events
    ]
    path = catalog / "notices" / DATE / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(to_table("notices", rows), path)


def test_what_was_told_of_a_call_stays_when_the_call_is_gone(catalog: Path) -> None:
    _tell(catalog, "1", "2", call_session_id="gone")
    assert _problems(catalog) == []


def test_what_was_told_later_hides_nothing_that_is_wrong_with_its_call(catalog: Path) -> None:
    _tell(catalog, "1")
    _change(catalog, "calls", "track_count", _add(1))
    assert any("its track_count is" in problem.what for problem in _problems(catalog))


def test_notice_that_is_there_twice_has_no_call_pressed_anew(catalog: Path) -> None:
    _tell(catalog, "1", "1", "2")
    (problem,) = _problems(catalog)
    assert "notices has more than one row of " in problem.what
    assert problem.call is None
    assert problem.heal == ADD_ROWS


def test_notice_of_no_call_is_named(catalog: Path) -> None:
    _tell(catalog, "1", call_session_id=None)
    (problem,) = _problems(catalog)
    assert problem.what == "1 rows of notices name no call session"
