"""`notices`, a table whose rows stay: of two with one key that which is further."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from transforms.catalog import merging, parquet_objects, partitions
from transforms.catalog.bundles import Bundle, owned
from transforms.catalog.schema import to_table
from transforms.elements import Row

DATE = "2026-11-20"
CALL = ("default", "standup", "s1")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def _notice(event_id: str, state: str, attempts: int = 0, minute: int = 0, **columns: Any) -> Row:
    made = NOON + timedelta(minutes=minute)
    return {
        "event_id": event_id,
        "target": "crm",
        "call_cid": "default:standup",
        "call_type": CALL[0],
        "call_id": CALL[1],
        "call_session_id": CALL[2],
        "state": state,
        "attempts": attempts,
        "updated_at": made,
        "run_id": "r",
        "created_at": made,
        "settings_fingerprint": "f",
        **columns,
    }


def _merge(folder: Path, *rows: Row) -> list[tuple[str, str, int]]:
    """Merges rows of one call; returns what `notices` has."""
    bundle = Bundle()
    bundle.add(owned(DATE, {"notices": rows}, CALL))
    sections = bundle.write(str(folder / "staging"))
    merging.merge_partition(str(folder / "catalog"), "notices", DATE, sections)
    (file,) = partitions.list_files(str(folder / "catalog"), "notices", DATE)
    found = partitions.read_table(file, "notices").to_pylist()
    return [(row["event_id"], row["state"], row["attempts"]) for row in found]


def test_rows_of_a_call_stay_when_others_of_it_come(tmp_path: Path) -> None:
    _merge(tmp_path, _notice("a", "delivered", 1))
    assert _merge(tmp_path, _notice("b", "pending")) == [("a", "delivered", 1), ("b", "pending", 0)]


STATES = (
    _notice("a", "failed", minute=1),  # replaced before it was sent
    _notice("a", "pending"),  # the same file is there again
    _notice("a", "pending", 2, minute=2),
    _notice("a", "failed", 3, minute=1, http_status=400),
    _notice("a", "delivered", 1),
)


@pytest.mark.parametrize(
    ("before", "after"), [*itertools.combinations(STATES, 2), *zip(STATES, STATES, strict=True)]
)
def test_a_state_never_goes_back(tmp_path: Path, before: Row, after: Row) -> None:
    further = [("a", after["state"], after["attempts"])]
    assert _merge(tmp_path / "1", before, after) == further
    assert _merge(tmp_path / "2", after, before) == further
    _merge(tmp_path / "3", after)
    assert _merge(tmp_path / "3", before) == further
    _merge(tmp_path / "4", before)
    assert _merge(tmp_path / "4", after) == further
    assert _merge(tmp_path / "4", before) == further


def test_what_a_later_version_knows_of_an_event_makes_no_other_of_it(tmp_path: Path) -> None:
    rows = to_table("notices", [_notice("a", "delivered", 1)])
    known = rows.append_column("answer", pa.array(["thanks"]))
    path = tmp_path / "catalog" / "notices" / f"call_date={DATE}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    parquet_objects.write(str(path), known)
    assert _merge(tmp_path, _notice("a", "pending", minute=9)) == [("a", "delivered", 1)]


def test_what_was_sent_before_its_file_was_replaced_goes_out_again_as_it_was(
    tmp_path: Path,
) -> None:
    """The same file may be there again, by settings that were given back: without its event a
    receiver that missed it would wait for ever.
    """
    replaced = _notice("a", "failed", 3, body="as sent", message="replaced before it was sent")
    never = _notice("b", "failed", body="not sent", message="replaced before it was sent")
    _merge(tmp_path, replaced, never)

    again = [_notice(each, "pending", minute=9, body="now", run_id="r9") for each in "ab"]
    assert _merge(tmp_path, *again) == [("a", "pending", 3), ("b", "pending", 0)]

    (file,) = partitions.list_files(str(tmp_path / "catalog"), "notices", DATE)
    found = partitions.read_table(file, "notices").to_pylist()
    assert [(row["body"], row["run_id"], row["message"]) for row in found] == [
        ("as sent", "r9", None), ("now", "r9", None),
    ]  # fmt: skip
    assert _merge(tmp_path, *again) == [("a", "pending", 3), ("b", "pending", 0)]
