"""Every record of a dump is accounted for, and sums are sums: by the names of the columns.

The table `dumps` is made up here, beside the tables of a catalog that an earlier version wrote.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import ROOT
from transforms.catalog.check_tables import CheckedTables

KEPT = ROOT / "tests" / "data" / "catalog_3a91846"
SUMMED = ("claimed_ms", "found_ms", "missing_ms")
_IDS = ("call_type", "call_id", "call_session_id", "participant_id", "user_session_id")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "catalog"))


def _file(catalog: Path, table: str) -> Path:
    (file,) = (catalog / table).rglob("*.parquet")
    return file


def _dumps(catalog: Path) -> list[dict[str, Any]]:
    """Returns two rows of `dumps` for each track of the catalog."""
    tracks = pq.ParquetFile(_file(catalog, "tracks")).read().to_pylist()
    return [
        {
            **{name: track[name] for name in _IDS},
            "output_type": track["output_type"],
            "archive_uri": track["archive_uris"][0],
            "base_filename": f"{track['user_session_id']}-{number}",
            "claimed_ms": 4_000,
            "found_ms": 3_000,
            "missing_ms": 1_000,
            "records": 150,
            "records_placed": 140,
            "records_too_late": 7,
            "records_reports": 3,
        }
        for track in tracks
        for number in range(2)
    ]


def _write(catalog: Path, rows: list[dict[str, Any]]) -> None:
    path = catalog / "dumps" / _file(catalog, "tracks").parent.name / "part-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _add_sums(catalog: Path, table: str, dumps: int, **off: int | None) -> None:
    """Gives a table the sums that it would have. Args: dumps: of each row; off: what to add to the
    first row's, None for a null.
    """
    rows = pq.ParquetFile(_file(catalog, table)).read()
    for name, each in zip(SUMMED, (4_000, 3_000, 1_000), strict=True):
        values: list[int | None] = [each * dumps] * rows.num_rows
        if name in off:
            much = off[name]
            values[0] = None if much is None else each * dumps + much
        rows = rows.append_column(name, pa.array(values, pa.int64()))
    pq.write_table(rows, _file(catalog, table))


def _said(catalog: Path) -> list[str]:
    return [problem.what for problem in CheckedTables(str(catalog)).problems()]


def test_what_adds_up_passes(catalog: Path) -> None:
    rows = _dumps(catalog)
    _write(catalog, rows)
    _add_sums(catalog, "tracks", 2)
    _add_sums(catalog, "calls", len(rows))
    assert _said(catalog) == []


@pytest.mark.parametrize("fate", ["records", "records_placed", "records_too_late", "records_new"])
def test_one_record_that_no_fate_tells_of_is_named(catalog: Path, fate: str) -> None:
    """Whichever fates there are: also one that only a later version knows."""
    rows = _dumps(catalog)
    for row in rows:
        row.setdefault(fate, 0)
    rows[3][fate] += 1
    _write(catalog, rows)
    (said,) = _said(catalog)
    assert f"records of dump {rows[3]['base_filename']!r} are {rows[3]['records']}, their" in said
    assert f"add up to {150 + (fate != 'records')}" in said


@pytest.mark.parametrize("name", SUMMED)
def test_sum_that_is_none_is_named(catalog: Path, name: str) -> None:
    rows = _dumps(catalog)
    _write(catalog, rows)
    _add_sums(catalog, "tracks", 2, **{name: -1})
    _add_sums(catalog, "calls", len(rows))
    said = _said(catalog)
    assert len(said) == 2
    assert any(f"{name} of tracks is " in what for what in said)
    assert any(f"{name} of calls is " in what for what in said)


def test_track_that_claims_audio_of_no_dump_is_named(catalog: Path) -> None:
    rows = _dumps(catalog)
    _write(catalog, rows[2:])
    _add_sums(catalog, "tracks", 2)
    said = _said(catalog)
    assert len(said) == len(SUMMED)
    assert all("its rows of dumps add up to 0" in what for what in said)


def test_call_with_a_track_that_is_newer_is_not_judged(catalog: Path) -> None:
    """A run about some tracks only leaves the row of their call as it was."""
    rows = _dumps(catalog)
    rows[0]["claimed_ms"] += 500
    _write(catalog, rows)
    _add_sums(catalog, "tracks", 2, claimed_ms=500)
    _add_sums(catalog, "calls", len(rows))
    assert any("claimed_ms of calls is " in what for what in _said(catalog))

    tracks = pq.ParquetFile(_file(catalog, "tracks")).read()
    made = tracks.column("created_at").to_pylist()
    place = tracks.schema.get_field_index("created_at")
    newer = pa.array([made[0] + timedelta(days=1), *made[1:]], tracks.schema.field(place).type)
    pq.write_table(tracks.set_column(place, "created_at", newer), _file(catalog, "tracks"))
    assert _said(catalog) == []


def test_rows_of_earlier_versions_are_not_judged(catalog: Path) -> None:
    rows = _dumps(catalog)
    for name in list(rows[0]):
        if name.startswith("records") or name in SUMMED:
            rows[0][name] = None
    _write(catalog, rows)
    _add_sums(catalog, "tracks", 2, **dict.fromkeys(SUMMED))
    _add_sums(catalog, "calls", 1)
    assert _said(catalog) == []


def test_part_of_a_track_shares_the_dumps_of_the_track(catalog: Path) -> None:
    """A second file of a session has a row in `tracks` of its own: they are summed together."""
    rows = _dumps(catalog)
    _write(catalog, rows)
    tracks = pq.ParquetFile(_file(catalog, "tracks")).read()
    claims = [8_000] * tracks.num_rows
    parts: list[int | None] = [None] * tracks.num_rows
    tracks = pa.concat_tables([tracks, tracks.slice(0, 1)])
    tracks = tracks.append_column("part", pa.array([*parts, 1], pa.int64()))
    tracks = tracks.append_column("claimed_ms", pa.array([5_000, *claims[1:], 3_000], pa.int64()))
    pq.write_table(tracks, _file(catalog, "tracks"))
    assert not [what for what in _said(catalog) if "claimed_ms" in what]


def test_dumps_that_are_gone_are_missed(catalog: Path) -> None:
    _add_sums(catalog, "tracks", 2)
    _add_sums(catalog, "calls", 2 * pq.ParquetFile(_file(catalog, "tracks")).read().num_rows)
    said = _said(catalog)
    assert said
    assert all("its rows of dumps add up to 0" in what for what in said)
