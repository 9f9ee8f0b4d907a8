"""Reading by ranges: little is asked for, all that is wanted comes, and damage is one line."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.beam import CALL_COLUMNS, stamp
from tests.support.reads import CountedFile, Reads
from transforms.catalog import parquet_objects, partitions
from transforms.catalog.parquet_objects import ParquetObject, WantedKeys, write
from transforms.catalog.partitions import CatalogFile, count_rows, read_table, scan
from transforms.catalog.row_keys import sorted_by_key
from transforms.catalog.schema import to_table
from transforms.media.errors import StorageError

_COUNT = 10_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Notes the reads of all but the smallest objects, which have small row groups."""
    monkeypatch.setattr(parquet_objects, "_GROUP_ROWS", 1_000)
    monkeypatch.setattr(parquet_objects, "_WHOLE_BYTES", 1_000)
    return Reads(monkeypatch)


def _uri(number: int) -> str:
    return f"/raw/{number * 2_654_435_761 % 2**32:010d}.tar.gz"


@functools.cache
def _rows() -> pa.Table:
    return sorted_by_key(
        "archives",
        to_table(
            "archives",
            [
                stamp(
                    {
                        "archive_uri": _uri(number),
                        "status": "ok",
                        "size_bytes": number,
                        "error_message": hashlib.sha512(b"%d" % number).hexdigest(),
                        "call_session_ids": [f"s{number}", "t"],
                    }
                )
                for number in range(_COUNT)
            ],
        ),
    )


def _write(folder: Path, rows: pa.Table, **how: Any) -> CatalogFile:
    path = folder / "part-0.parquet"
    if how:
        pq.write_table(rows, path, **how)
    else:
        write(str(path), rows)
    return CatalogFile(
        uri=str(path), call_date="2026-01-05", bits=0, shard=0, size_bytes=path.stat().st_size
    )


def _archives(folder: Path) -> CatalogFile:
    return _write(folder, _rows())


def _wanted(*numbers: int) -> WantedKeys:
    return WantedKeys(("archive_uri",), {(_uri(number),) for number in numbers})


def test_row_of_one_key_takes_the_footer_and_one_row_group(tmp_path: Path, reads: Reads) -> None:
    file = _archives(tmp_path)
    columns = ("archive_uri", "status", "size_bytes")

    (row,) = scan("archives", file, columns, _wanted(1_234))

    assert (row["size_bytes"], row["call_date"]) == (1_234, "2026-01-05")
    assert len(reads.spans) == 2
    assert reads.size_bytes < file.size_bytes / 4


def test_keys_that_no_row_group_can_hold_take_the_footer_only(tmp_path: Path, reads: Reads) -> None:
    file = _archives(tmp_path)
    wanted = WantedKeys(("archive_uri",), {("/raw/-",), ("/rax",), ("/raw/0000000000-",)})

    assert list(scan("archives", file, ("archive_uri",), wanted)) == []

    assert len(reads.spans) == 1


def test_all_columns_of_one_key_come_with_lists_and_nulls(tmp_path: Path, reads: Reads) -> None:
    file = _archives(tmp_path)

    rows = read_table(file, "archives", wanted=_wanted(0, _COUNT - 1, _COUNT)).to_pylist()

    assert sorted((row["size_bytes"], *row["call_session_ids"]) for row in rows) == [
        (0, "s0", "t"),
        (_COUNT - 1, f"s{_COUNT - 1}", "t"),
    ]
    assert {row["member_count"] for row in rows} == {None}


def test_some_columns_of_all_rows_leave_the_others_unread(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_objects, "_GROUP_ROWS", _COUNT)
    file = _archives(tmp_path)

    found = read_table(file, "archives", ("archive_uri",))

    assert sorted(found.column("archive_uri").to_pylist()) == sorted(map(_uri, range(_COUNT)))
    assert reads.size_bytes < file.size_bytes / 2


def test_rows_are_counted_by_the_footer(tmp_path: Path, reads: Reads) -> None:
    file = _archives(tmp_path)

    assert count_rows(file) == _COUNT

    assert len(reads.spans) == 1


def test_small_object_is_read_at_once(tmp_path: Path, reads: Reads) -> None:
    file = _write(tmp_path, to_table("runs", [{"run_id": "r"}]).select(["run_id"]))

    (row,) = scan("runs", file, ("run_id",), WantedKeys(("run_id",), [("r",)]))

    assert row["run_id"] == "r"
    assert reads.spans == [None]


@pytest.mark.parametrize("how", [{"write_statistics": False}, {"row_group_size": 10_000}])
def test_objects_written_otherwise_give_the_same(
    tmp_path: Path, reads: Reads, how: dict[str, Any]
) -> None:
    file = _write(tmp_path, _rows(), **how)

    (row,) = scan("archives", file, ("archive_uri", "size_bytes"), _wanted(77))

    assert row["size_bytes"] == 77


@pytest.mark.parametrize("columns", [CALL_COLUMNS, CALL_COLUMNS[1:]], ids=["three", "two"])
def test_keys_of_several_columns_are_found_together(
    tmp_path: Path, reads: Reads, columns: Sequence[str]
) -> None:
    """The values of one key are not mixed with those of another."""
    ids = [(f"t{n % 3}", f"c{n % 40:02d}", f"s{n:04d}") for n in range(_COUNT)]
    rows = [stamp({**dict(zip(CALL_COLUMNS, each, strict=True)), "status": "ok"}) for each in ids]
    file = _write(tmp_path, sorted_by_key("calls", to_table("calls", rows)))
    asked = [ids[5], ids[1_999], (ids[5][0], ids[6][1], ids[7][2]), ("t9", "c99", "s9999")]
    cut = len(CALL_COLUMNS) - len(columns)
    wanted = WantedKeys(columns, {each[cut:] for each in asked})

    found = list(scan("calls", file, (*CALL_COLUMNS, "status"), wanted))

    assert sorted(tuple(row[name] for name in CALL_COLUMNS) for row in found) == sorted(
        [ids[5], ids[1_999]]
    )


def test_shards_that_cannot_hold_a_key_are_not_opened(tmp_path: Path, reads: Reads) -> None:
    whole = _archives(tmp_path)
    halves = [
        CatalogFile(uri=whole.uri, call_date="2026-01-05", bits=1, shard=shard, size_bytes=9)
        for shard in (0, 1)
    ]
    columns = ("archive_uri", "size_bytes")

    found = [list(scan("archives", half, columns, _wanted(3))) for half in halves]

    assert sorted(map(len, found)) == [0, 1]
    assert len(reads.spans) == 1


# --- damage ---------------------------------------------------------------------------------------


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def test_damage_anywhere_is_one_line_or_the_rows(tmp_path: Path, reads: Reads) -> None:
    """Pages have checksums; a footer has none."""
    file = _archives(tmp_path)
    data = Path(file.uri).read_bytes()
    footer_bytes = int.from_bytes(data[-8:-4], "little") + 8
    whole = sorted(scan("archives", file, ("archive_uri", "status"), _wanted(1, 2)), key=str)
    messages = []
    for place in [*range(0, len(data), len(data) // 30), *range(len(data) - 12, len(data))]:
        Path(file.uri).write_bytes(_flip(data, place))
        try:
            found = list(scan("archives", file, ("archive_uri", "status"), _wanted(1, 2)))
        except StorageError as error:
            messages.append(error.message)
        else:
            is_footer = place >= len(data) - footer_bytes
            assert is_footer or sorted(found, key=str) == whole
    assert len(messages) > 8
    assert all("not a Parquet file (" in told and "\n" not in told for told in messages)


@pytest.mark.parametrize(
    "end",
    [b"\xff\xff\xff\xffPAR1", b"\xff\xff\xff\x7fPAR1", b"\0\0\0\0PAR1", b"PAR2", b"\x20\0\0\0PARE"],
)
def test_footer_that_claims_anything_is_one_line(tmp_path: Path, reads: Reads, end: bytes) -> None:
    file = _archives(tmp_path)
    data = Path(file.uri).read_bytes()
    Path(file.uri).write_bytes(data[: -len(end)] + end)

    with pytest.raises(StorageError, match=r"part-0\.parquet: not a Parquet file \("):
        read_table(file, "archives", ("archive_uri",))

    assert reads.size_bytes <= file.size_bytes


@pytest.mark.parametrize("kept", [0, 3, 2_000])
def test_object_that_has_become_shorter_is_one_line(
    tmp_path: Path, reads: Reads, kept: int
) -> None:
    file = _archives(tmp_path)
    Path(file.uri).write_bytes(Path(file.uri).read_bytes()[:kept])

    with pytest.raises(StorageError, match="not a Parquet file"):
        partitions.count_rows(file)


def test_read_that_fails_is_told_as_it_is(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _archives(tmp_path)
    read_at = CountedFile.read_at

    def fail(counted: CountedFile, position: int, size: int) -> bytes:
        if reads.spans:
            raise StorageError(f"{file.uri}: 503 try later")
        return read_at(counted, position, size)

    monkeypatch.setattr(CountedFile, "read_at", fail)

    with pytest.raises(StorageError, match=r"part-0\.parquet: 503 try later$"):
        read_table(file, "archives", ("archive_uri",))


def test_two_columns_of_one_name_are_one_line(tmp_path: Path) -> None:
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["archive_uri", "archive_uri"])
    file = _write(tmp_path, twice)

    with pytest.raises(StorageError, match="two columns have one name"):
        read_table(file, "archives")


def test_columns_of_a_later_version_are_read_by_their_names(tmp_path: Path, reads: Reads) -> None:
    rows = _rows().append_column("archive_uri.later", pa.array(["x"] * _COUNT))
    file = _write(tmp_path, rows)

    (row,) = scan("archives", file, ("archive_uri", "size_bytes"), _wanted(8))

    assert row["size_bytes"] == 8
    with ParquetObject(file.uri, file.size_bytes) as parquet:
        assert parquet.read(["archive_uri.later"]).num_rows == _COUNT
