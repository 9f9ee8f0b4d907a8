"""Results of runs in the catalog: the last 400 stay, and nothing else there is ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.results import make_result, name_of
from transforms.catalog import results
from transforms.media.errors import StorageError
from transforms.storage import objects


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def _leave(catalog: Path, *numbers: int) -> None:
    """Leaves results of runs as earlier ones did."""
    folder = catalog / results.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        result = make_result(number)
        (folder / f"{result['run_id']}.json").write_text(json.dumps(result))


def _names(catalog: Path) -> list[str]:
    return sorted(path.name for path in (catalog / results.FOLDER).iterdir())


def test_result_is_read_as_it_was_written(catalog: Path) -> None:
    result = make_result(1)

    results.write(str(catalog), result)

    assert results.read(str(catalog), result["run_id"]) == result
    assert results.read(str(catalog), name_of(2)) is None


def test_last_400_stay(catalog: Path) -> None:
    _leave(catalog, *range(402))

    results.write(str(catalog), make_result(402))

    assert _names(catalog) == [f"{name_of(number)}.json" for number in range(3, 403)]


def test_file_of_anybody_else_is_neither_counted_nor_deleted(catalog: Path) -> None:
    """As of one who writes his --summary-json there."""
    _leave(catalog, *range(400))
    for name in ("0.json", "night.json", f"{name_of(0)}.json.bak"):
        (catalog / "results" / name).write_text("mine")
    (catalog / "results" / "0").mkdir()
    (catalog / "results" / "0" / f"{name_of(0)}.json").write_text("mine")

    results.write(str(catalog), make_result(400))

    mine = {"0", "0.json", "night.json", f"{name_of(0)}.json.bak"}
    assert set(_names(catalog)) == mine | {f"{name_of(number)}.json" for number in range(1, 401)}
    assert (catalog / "results" / "0" / f"{name_of(0)}.json").exists()
    found, damaged = results.newest(str(catalog), 400)
    assert (len(found), damaged) == (400, [])


def test_old_result_that_cannot_be_deleted_costs_the_run_nothing(
    catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a bucket that is locked against deleting."""
    _leave(catalog, *range(400))

    def refuse(uri: str) -> None:
        raise StorageError(f"{uri}: HTTP status 403")

    monkeypatch.setattr(objects, "delete", refuse)

    results.write(str(catalog), make_result(400))

    assert len(_names(catalog)) == 401
    assert "old results stay" in caplog.text


def test_newest_come_first(catalog: Path) -> None:
    _leave(catalog, 3, 1, 2)

    found, damaged = results.newest(str(catalog), 2)

    assert [result["run_id"] for result in found] == [name_of(3), name_of(2)]
    assert damaged == []


def test_result_that_goes_while_it_is_read_is_none(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at its end deletes the oldest."""
    _leave(catalog, 1, 2)
    read = objects.read_bytes

    def read_late(uri: str) -> bytes:
        Path(uri.replace(name_of(2), name_of(1))).unlink(missing_ok=True)
        return read(uri)

    monkeypatch.setattr(objects, "read_bytes", read_late)

    found, damaged = results.newest(str(catalog), 2)

    assert ([result["run_id"] for result in found], damaged) == ([name_of(2)], [])


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in make_result(1).items() if key != name}


DAMAGED = {
    "empty": b"",
    "cut short": json.dumps(make_result(1)).encode()[:100],
    "not text": b"\xff\xfe",
    "nested deep": b"[" * 100_000,
    "list": b"[]",
    "null": b"null",
    "no reason": json.dumps(_without("reason")).encode(),
    "no counts": json.dumps(_without("counts")).encode(),
    "counts of nothing": json.dumps({**make_result(1), "counts": {}}).encode(),
    "told is a number": json.dumps({**make_result(1), "told": 1}).encode(),
    "time of no day": json.dumps({**make_result(1), "started_at": "2026-02-30"}).encode(),
    "time without a zone": json.dumps({**make_result(1), "started_at": "2026-02-20"}).encode(),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_damaged_result_is_told_beside_the_others(catalog: Path, text: bytes) -> None:
    _leave(catalog, 1, 2)
    path = catalog / "results" / f"{name_of(1)}.json"
    path.write_bytes(text)

    found, damaged = results.newest(str(catalog), 5)

    assert [result["run_id"] for result in found] == [name_of(2)]
    assert damaged == [f"{path}: is damaged, expected the result of a run; remove it"]
    with pytest.raises(StorageError, match="is damaged"):
        results.read(str(catalog), name_of(1))
