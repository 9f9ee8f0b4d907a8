"""Which events a pressed call gives, and what their rows say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.beam import CALL_START_UNIX_NS, call_row, make_failure, recording_row, track_row
from transforms.elements import PriorFile, Row, Status
from transforms.media.settings import CompositeSettings, IndividualSettings, PressSettings
from transforms.media.wall_time import to_time
from transforms.notices.rows import failed_recording_type, file_ids, pending_rows
from transforms.targets import Notify, Target, TargetKind

NOTIFY = Notify(
    targets=(
        Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.test/hook"),
        Target(name="lake", kind=TargetKind.JSON_LINES, place="/lake"),
    ),
    url_base="https://files.test",
)
OLD, NEW = "0d" * 32, "e3" * 32


def _file(participant_id: str | None, sha256: str = NEW, **fields: Any) -> Row:
    name = f"{participant_id or 'mix'}{fields.get('part') or ''}"
    return recording_row(
        participant_id, f"/out/recordings/a/b/c/{name}.mkv",
        **{"filename": f"{name}.mkv", "sha256": sha256, "size_bytes": 1, "offset_ms": 0,
           "duration_ms": 1_000, **fields},
    )  # fmt: skip


def _prior(row: Row, **changes: Any) -> PriorFile:
    row = {**row, **changes}
    return PriorFile(ids=file_ids(row), filename=row["filename"], sha256=row["sha256"])


def _told(
    recordings: list[Row], prior: list[PriorFile] | None = None, failed_as: str = "", **call: Any
) -> list[Row]:
    tracks = [
        track_row("alice", status="partial", missing_ms=7, sync_error_ms=2.0),
        track_row("alice", status="ok", missing_ms=0, sync_error_ms=9.0, part=1),
        track_row("bob", sync_error_ms=None),
    ]
    rows = {"recordings": recordings, "tracks": tracks, "calls": [call_row(**call)]}
    return pending_rows(rows, prior or [], failed_as, make_failure(), NOTIFY)


def _bodies(rows: list[Row], target: str = "crm") -> dict[str, Any]:
    found = [json.loads(row["body"]) for row in rows if row["target"] == target]
    return {each["call_recording"]["filename"]: each["callpress"] for each in found}


def test_each_target_has_a_row_of_each_file() -> None:
    alice, mix = _file("alice"), _file(None, missing_ms=None)
    rows = _told([alice, mix])

    assert [(row["target"], row["filename"]) for row in rows] == [
        ("crm", "alice.mkv"), ("lake", "alice.mkv"), ("crm", "mix.mkv"), ("lake", "mix.mkv"),
    ]  # fmt: skip
    first, same = rows[:2]
    assert {**first, "target": "lake"} == same
    assert {name: value for name, value in first.items() if name not in ("body", "event_id")} == {
        **{name: alice[name] for name in ("call_cid", "call_type", "call_id", "call_session_id")},
        "target": "crm", "event_type": "call.recording_ready",
        "filename": "alice.mkv", "uri": alice["uri"], "sha256": NEW,
        "state": "pending", "attempts": 0, "updated_at": to_time(CALL_START_UNIX_NS),
        "run_id": "earlier", "created_at": to_time(CALL_START_UNIX_NS),
        "settings_fingerprint": "settings-1",
    }  # fmt: skip
    body = json.loads(first["body"])
    assert body["call_recording"]["url"] == "https://files.test/recordings/a/b/c/alice.mkv"
    assert body["callpress"]["replaces"] is None


def test_file_that_the_catalog_had_is_not_told_and_another_says_what_it_replaces() -> None:
    alice, bob, mix = _file("alice"), _file("bob"), _file(None)
    prior = [_prior(alice), _prior(bob, sha256=OLD), _prior(mix, filename="mix.old.mkv")]

    found = _bodies(_told([alice, bob, mix, _file("alice", part=1)], prior))

    assert {name: each["replaces"] for name, each in found.items()} == {
        "bob.mkv": OLD, "mix.mkv": NEW, "alice1.mkv": None,
    }  # fmt: skip


def test_figures_are_those_of_the_track_or_of_the_call() -> None:
    files = [_file("alice"), _file("alice", part=1), _file("bob"), _file("carol"), _file(None)]
    found = _bodies(_told(files, status="partial", missing_ms=12))

    figures = ("status", "missing_ms", "sync_error_ms")
    assert {name: tuple(each[key] for key in figures) for name, each in found.items()} == {
        "alice.mkv": ("partial", 7, 2.0), "alice1.mkv": ("ok", 0, 9.0),
        "bob.mkv": ("ok", None, None), "carol.mkv": (None, None, None),
        "mix.mkv": ("partial", 12, 9.0),
    }  # fmt: skip


def test_call_without_any_file_is_told_once_as_failed() -> None:
    crm, lake = _told([], failed_as="composite", status="failed", missing_ms=3)

    assert (crm["event_type"], crm["filename"], crm["sha256"], crm["uri"]) == (
        "call.recording_failed", None, None, None,
    )  # fmt: skip
    assert json.loads(crm["body"])["callpress"]["error_type"] == "ArchiveError"
    assert (crm["body"], crm["event_id"]) == (lake["body"], lake["event_id"])


def test_call_that_keeps_a_file_is_not_told_as_failed() -> None:
    alice = _file("alice")
    assert _told([alice], [_prior(alice)], failed_as="composite") == []


ALL = PressSettings()
ONE_EACH = PressSettings(composite=CompositeSettings(enabled=False))
MIX_ALONE = PressSettings(individual=IndividualSettings(enabled=False))


@pytest.mark.parametrize(
    ("status", "settings", "is_narrowed", "has_lost_mix", "told_as"),
    [
        (Status.FAILED, ALL, False, False, "composite"),
        (Status.FAILED, ONE_EACH, False, False, "individual"),
        (Status.FAILED, ALL, True, False, ""),
        (Status.PARTIAL, MIX_ALONE, False, True, "composite"),
        (Status.PARTIAL, ONE_EACH, False, True, ""),
        (Status.PARTIAL, ALL, False, False, ""),
        (Status.EMPTY, ALL, False, False, ""),
    ],
)
def test_what_is_told_of_a_call_without_files(
    status: Status, settings: PressSettings, is_narrowed: bool, has_lost_mix: bool, told_as: str
) -> None:
    assert told_as == failed_recording_type(
        status, settings, is_narrowed=is_narrowed, has_lost_mix=has_lost_mix
    )
