"""Events of files that are there already: as a run would have made them, once, and the same for all
targets.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.made_files import MADE, NAMES, add, make_catalog, make_file, notices
from transforms.media.wall_time import from_time
from transforms.notices import backfill
from transforms.notices.events import event_id_of
from transforms.targets import Notify, Target, TargetKind

NOW = MADE + timedelta(days=3)
CRM, LAKE = (
    Target(name=name, kind=TargetKind.JSON_LINES, place=f"/{name}") for name in ("crm", "lake")
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return make_catalog(tmp_path)


def _add_pending(catalog: Path, *targets: Target, since: datetime = MADE, **notify: Any) -> int:
    return backfill.add_pending(
        str(catalog),
        Notify(targets=targets, **notify),
        from_time(since),
        from_time(NOW),
        "tell-1",
        lambda: None,
    )


def test_files_have_rows_as_if_a_run_had_made_them(catalog: Path) -> None:
    assert _add_pending(catalog, CRM, LAKE, url_base="https://files.test") == 6

    rows = notices(catalog)
    assert {(row["filename"], row["target"]) for row in rows} == {
        (name, target) for name in NAMES for target in ("crm", "lake")
    }
    for row in rows:
        assert row["event_id"] == event_id_of(
            row["call_session_id"], row["filename"], row["sha256"]
        )
        assert (row["state"], row["attempts"], row["run_id"]) == ("pending", 0, "tell-1")
        assert row["created_at"] == row["updated_at"] == NOW
    told = {row["filename"]: json.loads(row["body"]) for row in rows}
    figures = ("status", "missing_ms", "sync_error_ms", "replaces")
    beside = {name: body["callpress"] for name, body in told.items()}
    assert {name: tuple(found[key] for key in figures) for name, found in beside.items()} == {
        "mix0.mkv": ("partial", 8, 4.0, None),
        "alice0.mkv": ("partial", 7, 2.0, None),
        "bob0.mkv": ("ok", 0, 4.0, None),
    }
    url = "https://files.test/recordings/a/b/c/alice0.mkv"
    assert told["alice0.mkv"]["call_recording"]["url"] == url
    assert told["alice0.mkv"]["created_at"] == from_time(MADE)


def test_nothing_is_made_twice_or_for_older_files(catalog: Path) -> None:
    assert _add_pending(catalog, CRM, since=MADE + timedelta(days=2)) == 0
    assert not (catalog / "notices").exists()
    assert _add_pending(catalog, CRM, since=MADE + timedelta(hours=1)) == 1
    assert _add_pending(catalog, CRM) == 2
    assert _add_pending(catalog, CRM) == 0
    assert len(notices(catalog)) == 3


def test_another_target_is_told_the_same_bytes(catalog: Path) -> None:
    _add_pending(catalog, CRM, url_base="https://old.test")
    _add_pending(catalog, CRM, LAKE, url_base="https://new.test")

    bodies = {(row["target"], row["event_id"]): row["body"] for row in notices(catalog)}
    assert len(bodies) == 6
    for (_, event_id), body in bodies.items():
        assert body == bodies["crm", event_id]
        assert "https://old.test/" in body


def test_what_became_of_a_row_stays(catalog: Path) -> None:
    _add_pending(catalog, CRM)
    done = [{**row, "state": "delivered", "attempts": 1} for row in notices(catalog)]
    add(catalog, "notices", *done)
    assert _add_pending(catalog, CRM) == 0
    assert {row["state"] for row in notices(catalog)} == {"delivered"}


def test_rows_that_lack_something_cost_no_other(catalog: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("filename", "uri", "sha256", "start_time", "created_at"), 1):
        row = make_file(tmp_path, "eve", number, user_session_id=name, **{name: None})
        add(catalog, "recordings", row)
    add(catalog, "recordings", make_file(tmp_path, "dan", offset_ms=None, size_bytes=None))
    assert _add_pending(catalog, CRM) == 4
    assert "dan0.mkv" in {row["filename"] for row in notices(catalog)}


def test_many_files_are_taken_some_at_a_time(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "_ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(backfill, "_ADDED_AT_A_TIME", 4)
    files = [make_file(tmp_path, "zoe", n, user_session_id=str(n)) for n in range(5)]
    add(catalog, "recordings", *files)
    assert _add_pending(catalog, CRM) == 8
    assert len(notices(catalog)) == 8
