"""WriteCatalog: staged rows -> tables, then what is obsolete goes, then the run's own row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest

from tests.support.beam import (
    CALL,
    CALL_DATE,
    Check,
    anything,
    call_row,
    expect,
    list_files,
    list_parquet,
    make_failure,
    make_pipeline,
    read_catalog,
    recording_row,
    stamp,
    track_row,
    write_removal,
    write_rows,
)
from tests.support.job_run import JobRun
from tests.support.locks import acquire, other_state, put, token_of
from transforms.bounds import Bound, Bounds
from transforms.catalog import bundles, merging, pending_replacement, publish, results
from transforms.catalog.bundles import Bundle, owned
from transforms.catalog.repressing import Repressing
from transforms.catalog.results import run_status
from transforms.catalog.rows.ids import call_ids
from transforms.catalog.schema import CALL_TABLES, TABLES
from transforms.elements import (
    DroppedFile,
    Failure,
    PressedCall,
    RecordedArchive,
    Row,
    SectionRef,
    Status,
)
from transforms.filters import Filters
from transforms.locking import lease, lock
from transforms.locking.lock import LockLostError
from transforms.match_filters import Unmatched
from transforms.media.errors import RunFailedError
from transforms.media.settings import PressSettings
from transforms.media.values import CallKey
from transforms.media.wall_time import to_time
from transforms.notices import tell
from transforms.notices.tell import Told
from transforms.targets import Notify, Target, TargetKind
from transforms.write_catalog import WriteCatalog


@dataclass(frozen=True)
class _Call:
    """A call and its rows in staging, at least its own."""

    pressed: PressedCall
    sections: list[SectionRef]


def _pressed(
    context: JobRun,
    rows: dict[str, Sequence[Row]] | None = None,
    call: CallKey = CALL,
    **fields: Any,
) -> _Call:
    found: dict[str, Sequence[Row]] = dict.fromkeys(CALL_TABLES, ())
    found |= {"calls": [call_row(call)], **(rows or {})}
    bundle = Bundle()
    bundle.add(owned(CALL_DATE, found, call.as_tuple()))
    pressed = PressedCall(
        **{
            "call": call,
            "call_date": CALL_DATE,
            "status": Status.OK,
            "failures": (),
            "claimed_ms": 2_000,
            "found_ms": 1_900,
            "missing_ms": 100,
            "replaces_prior": False,
            "files_written": 2,
            "media_samples": 96_000,
            "bytes_written": 1_000,
            "cpu_ns": 3_000_000,
            **fields,
        }
    )
    return _Call(pressed, bundle.write(context.staging_uri))


def _archives(context: JobRun, uri: str = "/raw/a") -> list[SectionRef]:
    rows = {"archives": [stamp({"archive_uri": uri, "status": "ok"})], "failures": []}
    bundle = Bundle()
    bundle.add(owned(CALL_DATE, rows, (uri,)))
    return bundle.write(context.staging_uri)


def _recorded(
    status: Status = Status.OK, failures: int = 0, is_first_time: bool = True
) -> RecordedArchive:
    return RecordedArchive(
        status=status,
        bytes_read=500,
        cpu_ns=2_000_000,
        failure_count=failures,
        is_first_time=is_first_time,
    )


def _run(
    context: JobRun, check: Check = anything, calls: Sequence[_Call] = (), **inputs: Sequence[Any]
) -> dict[str, Any]:
    """Writes; returns the run's result."""
    inputs["calls"] = [call.pressed for call in calls]
    rows = [section for call in calls for section in call.sections]
    inputs["sections"] = [*inputs.get("sections", ()), *rows]
    with make_pipeline() as pipeline:
        created = {
            name: pipeline | name >> beam.Create(inputs.get(name, ()))
            for name in (
                "sections",
                "calls",
                "archives",
                "failures",
                "listed",
                "skipped",
                "left_out",
                "repressing",
                "unpublished",
                *(("unmatched",) if "unmatched" in inputs else ()),
            )
        }
        expect(result=(created | WriteCatalog(*context), check))
    result = results.read(context.catalog_uri, context.run_id)
    assert result is not None
    return dict(result)


def _write_media(context: JobRun, name: str) -> str:
    path = Path(context.output_uri, "recordings", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"media")
    return str(path)


# --- rows -----------------------------------------------------------------------------------------


def test_file_that_a_late_rival_wrote_over_is_made_again_before_its_row_stands(
    context: JobRun, tmp_path: Path
) -> None:
    context = context.changed(took_over=True)
    uri, ours = f"{context.output_uri}/recordings/default/standup/s/alice.mkv", b"ours" * 100
    (tmp_path / "made").write_bytes(ours)
    publish.publish_media(*context, uri, tmp_path / "made")
    told: dict[str, Any] = {"size_bytes": len(ours), "sha256": hashlib.sha256(ours).hexdigest()}
    call = _pressed(context, {"recordings": [recording_row("alice", uri, **told)]})
    Path(uri).write_bytes(b"them" * 100)

    _run(context, calls=[call])

    assert Path(uri).read_bytes() == ours
    assert read_catalog(context, "recordings")[0]["sha256"] == told["sha256"]


def test_rows_land_in_their_tables_and_the_run_is_told(context: JobRun) -> None:
    failure = make_failure(archive_uri="/raw/b")
    call = _pressed(
        context,
        {"tracks": [track_row("alice")], "recordings": [recording_row("alice", "/out/a.mkv")]},
    )

    def check(elements: list[dict[str, Any]]) -> None:
        (element,) = elements
        assert json.loads(json.dumps(element)) == results.read(context.catalog_uri, "run-1")

    result = _run(
        context.changed(is_one_process=False),  # else this process's own CPU time counts, too
        check,
        sections=_archives(context),
        calls=[call],
        archives=[
            _recorded(),
            _recorded(Status.PARTIAL),
            _recorded(Status.FAILED, failures=1),
            _recorded(Status.EMPTY),
        ],
        failures=[failure],
        listed=[1, 3, 1],
        skipped=[("/raw/old",)],
        left_out=[2],
    )

    assert {table: len(read_catalog(context, table)) for table in TABLES} == {
        "recordings": 1,
        "segments": 0,
        "tracks": 1,
        "dumps": 0,
        "calls": 1,
        "archives": 1,
        "speech": 0,
        "failures": 0,
        "notices": 0,
        "runs": 1,
    }
    (run,) = read_catalog(context, "runs")
    assert (run["run_id"], run["status"], run["call_date"]) == ("run-1", "failed", "2026-01-07")
    assert run["started_at"] == to_time(context.started_unix_ns)
    assert run["finished_at"] > run["started_at"]
    assert json.loads(run["settings_json"]) == json.loads(json.dumps(asdict(context.settings)))
    numbers = {
        "archives_listed": 5,
        "archives_skipped": 1,
        "archives_ok": 2,
        "archives_partial": 1,
        "archives_failed": 1,
        "calls_pressed": 1,
        "media_ms": 2_000,
        "cpu_ms": 11,
        "bytes_read": 2_000,
        "bytes_written": 1_000,
    }
    assert {name: run[name] for name in numbers} == numbers
    assert result["finished_at"] == run["finished_at"].isoformat()
    del result["finished_at"]
    assert result == {
        "run_id": "run-1",
        "exit_status": 1,
        "reason": "too_many_failed",
        "started_at": "2026-01-07T02:00:00+00:00",
        "counts": {
            "archives": {
                "listed": 5,
                "skipped": 1,
                "waiting": 0,
                "ok": 1,
                "partial": 1,
                "failed": 1,
                "empty": 1,
            },
            "calls": {"ok": 1, "partial": 0, "failed": 0, "empty": 0},
            "recordings": 2,
            "failures": 1,
            "left_out": 2,
            "passed_over": {"composite": 0, "individual": 0, "other_event": 0},
        },
        "claimed_seconds": 2.0,
        "missing_seconds": 0.1,
        "unmatched": [],
        "repress": None,
        "reconcile": None,
        "notices": None,
        "first_time": {"ok": 1, "partial": 1, "failed": 1, "empty": 1},
        "media_seconds": 2.0,
        "cpu_seconds": 0.011,
        "bytes_read": 2_000,
        "bytes_written": 1_000,
        "failures": [
            {
                "stage": "UnpackArchives",
                "error_type": "ArchiveError",
                "message": "begins with b'no'",
                "archive_uri": "/raw/b",
                "member": None,
                "participant_id": None,
                "user_session_id": None,
                "output_type": None,
                "byte_offset": None,
                "attempt": 1,
                "retryable": False,
                "call_cid": None,
                "call_session_id": None,
            }
        ],
        "told": [
            "2 of the 4 archives attempted for the first time failed or are partial, more than 5% "
            "of them (max_failed_ratio)"
        ],
    }


def test_run_without_any_archive_leaves_typed_tables_and_a_run(context: JobRun) -> None:
    result = _run(context)

    for table in TABLES:
        (path,) = list_parquet(context, table)
        assert pq.read_metadata(path).num_rows == (1 if table == "runs" else 0)
    assert (result["exit_status"], result["reason"], result["failures"]) == (0, "ok", [])
    assert [name for name in list_files(context.catalog_uri) if not name.endswith(".parquet")] == [
        "results/run-1.json"
    ]


def test_second_run_adds_a_run_and_replaces_its_calls(context: JobRun) -> None:
    first = _pressed(context, {"tracks": [track_row("alice"), track_row("bob")]})
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    _run(context, calls=[first, _pressed(context, {"tracks": [track_row("carol", other)]}, other)])
    second = context.changed(run_id="run-2", staging_uri=context.staging_uri + "-2")

    _run(second, calls=[_pressed(second, {"tracks": [track_row("alice")]})])

    assert sorted(row["participant_id"] for row in read_catalog(context, "tracks")) == [
        "alice",
        "carol",
    ]
    assert sorted(row["call_session_id"] for row in read_catalog(context, "calls")) == [
        "session-1",
        "session-2",
    ]
    assert sorted(row["run_id"] for row in read_catalog(context, "runs")) == ["run-1", "run-2"]


@pytest.mark.slow
def test_publishing_twice_gives_the_same_rows(context: JobRun) -> None:
    inputs: dict[str, Any] = {
        "sections": _archives(context),
        "calls": [_pressed(context)],
        "archives": [_recorded()],
    }
    _run(context, **inputs)
    first = {
        name: Path(context.catalog_uri, name).read_bytes()
        for name in list_files(context.catalog_uri)
    }
    # Else the last steps would find that they are done.
    Path(results.uri_of(context.catalog_uri, "run-1")).unlink()

    _run(context, **{**inputs, "fragments": [_archives(context)], "calls": [_pressed(context)]})

    again = {
        name: Path(context.catalog_uri, name).read_bytes()
        for name in list_files(context.catalog_uri)
    }
    assert again.keys() == first.keys()
    assert {name for name in first if first[name] != again[name]} <= {
        name for name in first if name.startswith(("runs/", "results/"))
    }
    assert len(read_catalog(context, "runs")) == 1


def test_archive_under_another_date_is_removed_there(context: JobRun) -> None:
    write_rows(
        context,
        "archives",
        [stamp({"archive_uri": uri, "status": "ok"}) for uri in ("/raw/a", "/raw/b")],
        "2026-01-03",
    )

    _run(
        context,
        sections=[
            *_archives(context),
            *write_removal(context, [("/raw/a",)], "archives", "failures", call_date="2026-01-03"),
        ],
        archives=[_recorded()],
    )

    assert sorted(
        (row["archive_uri"], row["call_date"]) for row in read_catalog(context, "archives")
    ) == [
        ("/raw/a", "2026-01-05"),
        ("/raw/b", "2026-01-03"),
    ]


# --- media of rows that went ----------------------------------------------------------------------


def test_media_without_a_row_goes_once_and_other_media_stays(context: JobRun) -> None:
    old, kept = _write_media(context, "old.mkv"), _write_media(context, "kept.mp3")
    foreign = Path(context.output_uri, "mine.mkv")
    foreign.write_bytes(b"not ours")
    beside = Path(context.output_uri, "recordings-of-mine.mkv")
    beside.write_bytes(b"not ours")
    rows = [
        recording_row(name, uri)
        for name, uri in (("a", old), ("b", str(foreign)), ("c", str(beside)))
    ]
    rows.append(recording_row("d", f"{context.output_uri}/recordings/gone-already.mkv"))
    write_rows(context, "recordings", [*rows, recording_row(None, kept)])

    _run(context, calls=[_pressed(context, {"recordings": [recording_row(None, kept)]})])

    assert list_files(context.output_uri) == [
        "mine.mkv",
        "recordings-of-mine.mkv",
        "recordings/kept.mp3",
    ]
    assert [row["uri"] for row in read_catalog(context, "recordings")] == [kept]


def test_files_of_calls_that_are_put_off_go(context: JobRun) -> None:
    made, kept = _write_media(context, "made.mkv"), _write_media(context, "kept.mp3")

    _run(context, unpublished=[DroppedFile(uri=made)])

    assert not Path(made).exists()
    assert Path(kept).exists()


def test_what_waits_is_counted_told_and_no_fault(context: JobRun) -> None:
    bounded = context.changed(
        bounds=Bounds(stop_after_seconds=5_400, max_archives=4),
        filters=Filters(calls=("default:no",)),
    )
    left = [
        replace(_recorded(Status.WAITING, is_first_time=False), put_off_by=bound)
        for bound in (Bound.MAX_ARCHIVES, Bound.STOP_AFTER, Bound.STOP_AFTER)
    ]
    unmatched = Unmatched(flag="--call", value="default:no", nearest=())

    result = _run(bounded, archives=[_recorded(), *left], unmatched=[unmatched], listed=[1] * 4)

    assert result["counts"]["archives"]["waiting"] == 3
    assert (result["exit_status"], result["reason"]) == (0, "ok")
    (line,) = result["told"]
    assert line.startswith("3 archives wait for the next run, which begins with them (--stop-after")
    assert "(--stop-after 90m and --max-archives 4); no call was done" in line
    (row,) = read_catalog(context, "runs")
    assert row["archives_waiting"] == 3


def test_notes_of_replaced_calls_are_taken_away_and_others_stay(context: JobRun) -> None:
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    pending_replacement.announce(context.catalog_uri, CALL, ["/raw/a"], [])
    pending_replacement.announce(context.catalog_uri, other, ["/raw/b"], [])

    _run(context, calls=[_pressed(context, replaces_prior=True)])

    assert pending_replacement.archives_to_repeat(context.catalog_uri) == {"/raw/b"}


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("blocked", CALL_TABLES)
def test_table_that_cannot_be_written_fails_the_run_before_it_is_done(
    context: JobRun, blocked: str
) -> None:
    """As long as rows of a call are missing its archive is not recorded as done, old media is kept,
    no run is written.
    """
    old = _write_media(context, "old.mkv")
    if blocked != "recordings":
        write_rows(context, "recordings", [recording_row("gone", old)])
    Path(context.catalog_uri, blocked, f"call_date={CALL_DATE}", "part-0.parquet").mkdir(
        parents=True
    )
    other = CallKey(call_type="default", call_id="standup", call_session_id="session-2")
    pending_replacement.announce(context.catalog_uri, other, ["/raw/b"], [])
    rows = {
        table: [stamp(_ids(table))] for table in CALL_TABLES if table not in ("recordings", "calls")
    }
    calls = [
        _pressed(context, {**rows, "recordings": [recording_row("alice", "/out/a.mkv")]}),
        _pressed(context, call=other, replaces_prior=True),
    ]

    with pytest.raises(Exception, match=rf"{blocked}/.*: Is a directory"):
        _run(context, sections=_archives(context), calls=calls, archives=[_recorded()])

    assert read_catalog(context, "archives") == []
    assert read_catalog(context, "runs") == []
    assert Path(old).exists()
    assert pending_replacement.archives_to_repeat(context.catalog_uri) == {"/raw/b"}
    assert results.read(context.catalog_uri, context.run_id) is None


def _ids(table: str) -> Row:
    row = track_row("alice")
    ids = {
        name: row[name]
        for name in ("call_cid", "call_type", "call_id", "call_session_id", "participant_id")
    }
    ids |= {"user_session_id": "sess-alice", "output_type": "audio_only"}
    numbers: dict[str, Row] = {
        "segments": {"file_start_ms": 0},
        "speech": {"start_ms": 0},
        "dumps": {"archive_uri": "/raw/a", "base_filename": "a"},
        "failures": {"stage": "MixCalls"},
    }
    return {**ids, **numbers.get(table, {})}


def test_result_names_the_first_hundred_failures_in_order(context: JobRun) -> None:
    failures: list[Failure] = [
        make_failure(archive_uri=f"/raw/{number:03d}") for number in range(150)
    ]

    result = _run(context, failures=failures[::-1])

    assert [failure["archive_uri"] for failure in result["failures"]] == [
        f"/raw/{number:03d}" for number in range(100)
    ]


@pytest.mark.parametrize(
    ("first_time", "settings", "status"),
    [
        ({}, {}, "ok"),
        ({"ok": 3}, {"max_failed_ratio": 0.0}, "ok"),
        ({"ok": 19, "failed": 1}, {}, "partial"),
        ({"ok": 18, "failed": 1}, {}, "failed"),
        ({"ok": 18, "empty": 1, "partial": 1}, {}, "partial"),
        ({"ok": 17, "empty": 1, "partial": 1}, {}, "failed"),
        ({"partial": 1}, {"max_failed_ratio": 1.0}, "partial"),
        ({"ok": 99, "partial": 1}, {"max_failed_ratio": 0.0}, "failed"),
        ({"failed": 1}, {"max_failed_ratio": 0.5}, "failed"),
        ({"ok": 999, "failed": 1, "partial": 2}, {"max_failed_count": 3}, "partial"),
        ({"ok": 999, "failed": 1, "partial": 3}, {"max_failed_count": 3}, "failed"),
        ({"ok": 99, "failed": 1}, {"max_failed_count": 0}, "failed"),
        ({"ok": 99}, {"max_failed_count": 0}, "ok"),
        ({"ok": 9, "failed": 1}, {"max_failed_count": 5}, "failed"),
    ],
)
def test_run_fails_when_more_archives_than_allowed_failed_for_the_first_time(
    first_time: dict[str, int], settings: dict[str, Any], status: str
) -> None:
    tally = {"archives_skipped": 100, "archives_ok": 100}
    for name, count in first_time.items():
        tally |= {f"archives_{name}": count, f"first_time_{name}": count}
    assert run_status(tally, PressSettings(**settings)) == status


def _status(context: JobRun) -> str:
    """Returns how the run went, by its own row."""
    (run,) = [row for row in read_catalog(context, "runs") if row["run_id"] == context.run_id]
    return str(run["status"])


def test_archives_that_were_known_to_fail_ring_no_bell(context: JobRun) -> None:
    known = [_recorded(Status.FAILED, is_first_time=False) for _ in range(9)]
    second = context.changed(run_id="run-2", staging_uri=context.staging_uri + "-2")

    first_result = _run(context, archives=[_recorded(), *known])
    result = _run(second, archives=[_recorded(Status.FAILED), *known])

    assert (_status(context), first_result["exit_status"]) == ("partial", 0)
    assert (_status(second), result["exit_status"]) == ("failed", 1)
    assert (result["counts"]["archives"]["failed"], result["first_time"]["failed"]) == (10, 1)


def test_what_was_not_pressed_anew_is_told(context: JobRun) -> None:
    refused = Repressing(
        archives=50, size_bytes=9, is_refused=True, catalog_archives=200, cpu_seconds=3.5
    )

    result = _run(context, repressing=[refused])

    assert (result["repress"], result["reason"]) == (asdict(refused), "repress_needed")
    assert "--repress" in result["told"][0]


def test_what_a_dead_run_met_for_the_first_time_is_news_of_the_run_that_takes_it_up(
    context: JobRun,
) -> None:
    taken = context.changed(taken_up=((Status.PARTIAL, 1), (Status.OK, 9)))

    assert _run(taken, archives=[_recorded()])["first_time"]["partial"] == 1
    assert _status(taken) == "failed"


def test_allowed_ratio_is_a_setting(context: JobRun) -> None:
    lenient = context.changed(settings=PressSettings(max_failed_ratio=1.0))

    assert _run(lenient, archives=[_recorded(Status.FAILED)])["exit_status"] == 0
    assert _status(lenient) == "partial"


def test_run_whose_last_worker_has_a_slow_clock_does_not_end_before_it_began(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_before = context.started_unix_ns - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_before)

    result = _run(context)

    assert result["finished_at"] == result["started_at"]


# --- the end --------------------------------------------------------------------------------------


@pytest.fixture
def locked(context: JobRun) -> JobRun:
    """A run that has the catalog's lock, as one worker of a job has it."""
    acquire(context.catalog_uri, context.run_id, is_one_process=False)
    return context.changed(
        lock_token=token_of(context.run_id), staging_root=str(Path(context.staging_uri).parent)
    )


def _on_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is done by a process that knows of the lock what lies in the catalog."""
    monkeypatch.setattr(lease, "_leases", {})


def test_run_leaves_its_result_and_nothing_else(locked: JobRun) -> None:
    _run(locked, calls=[_pressed(locked)])

    assert results.read(locked.catalog_uri, "run-1")
    assert not Path(locked.job.staging_root).exists()
    assert lock.look(locked.catalog_uri) is None


@pytest.mark.parametrize("now", ["free", "another's"])
def test_last_steps_done_once_more_change_nothing(
    locked: JobRun, now: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine may, on any worker, and also when the next run is at work already."""
    first = _run(locked, archives=[_recorded()])
    if now == "another's":
        acquire(locked.catalog_uri, "run-2")
    there = {
        name: Path(locked.catalog_uri, name).read_bytes() for name in list_files(locked.catalog_uri)
    }
    theirs = Path(locked.job.staging_root, "run-2", "rows")
    theirs.mkdir(parents=True)
    _on_another_worker(monkeypatch)

    assert _run(locked) == first

    assert there == {
        name: Path(locked.catalog_uri, name).read_bytes() for name in list_files(locked.catalog_uri)
    }
    assert theirs.exists()


def test_run_that_lost_its_lock_writes_no_result(
    locked: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(locked.catalog_uri, other_state())

    with pytest.raises(LockLostError, match=r"run run-1 lost the .*run other on elsewhere"):
        _run(locked)

    assert results.read(locked.catalog_uri, "run-1") is None
    assert not list_parquet(locked, "runs")


def test_run_that_loses_its_lock_while_it_reads_writes_no_rows(
    locked: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the rows of a night may take longer than a look at the lock holds good."""
    call = _pressed(locked)
    reads, began = bundles.read_rows, lease._now()
    monkeypatch.setattr(lease, "_now", lambda: began)

    def lose(span: bundles.Span, table: str) -> Iterator[Any]:
        put(locked.catalog_uri, other_state())
        monkeypatch.setattr(lease, "_now", lambda: began + 61)
        return reads(span, table)

    monkeypatch.setattr(bundles, "read_rows", lose)

    with pytest.raises(LockLostError, match=r"run run-1 lost the .*run other on elsewhere"):
        _run(locked, calls=[call])

    assert not list_parquet(locked, "calls")


def test_run_that_lost_its_lock_deletes_nothing(locked: JobRun) -> None:
    """Whoever has it may have made the file anew, under the same name."""
    uri = _write_media(locked, "old.mkv")
    pending_replacement.announce(locked.catalog_uri, CALL, ["/raw/a"], [])
    call = _pressed(locked, replaces_prior=True)
    put(locked.catalog_uri, other_state())

    with pytest.raises(LockLostError):
        publish.delete_dropped(*locked, DroppedFile(uri=uri))
    with pytest.raises(LockLostError):
        publish.settle(*locked, call.pressed)

    assert Path(uri).exists()
    assert pending_replacement.archives_to_repeat(locked.catalog_uri) == {"/raw/a"}


def test_job_that_nobody_waits_for_ends_as_failed_when_all_is_published(locked: JobRun) -> None:
    unattended = locked.changed(fails_unattended=True)

    with pytest.raises(RunFailedError, match="run run-1 failed: 1 of the 1 archives"):
        _run(unattended, archives=[_recorded(Status.FAILED)], calls=[_pressed(locked)])

    result = results.read(locked.catalog_uri, "run-1")
    assert result is not None
    assert (result["exit_status"], result["reason"]) == (1, "too_many_failed")
    assert len(read_catalog(locked, "calls")) == 1
    assert _status(locked) == "failed"
    assert not Path(locked.job.staging_root).exists()
    assert lock.look(locked.catalog_uri) is None


def test_job_that_nobody_waits_for_ends_well_when_it_went_well(locked: JobRun) -> None:
    assert _run(locked.changed(fails_unattended=True), archives=[_recorded()])["exit_status"] == 0


# --- who is told ----------------------------------------------------------------------------------


@pytest.fixture
def telling(context: JobRun) -> JobRun:
    """A run of which somebody is told."""
    target = Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.test/hook")
    return context.changed(notify=Notify(targets=(target,)))


def _notice_row(**fields: Any) -> Row:
    return stamp({**call_ids(CALL), "event_id": "e", "target": "crm", "state": "pending", **fields})


def test_telling_comes_when_all_is_published_and_before_the_result(
    telling: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = _write_media(telling, "old.mkv"), _write_media(telling, "kept.mp3")
    write_rows(telling, "recordings", [recording_row("a", old)])
    call = _pressed(
        telling, {"recordings": [recording_row(None, kept)], "notices": [_notice_row()]}
    )
    merged: list[str] = []
    merge = merging.merge_shard

    def merge_shard(catalog_uri: str, shard: merging.ShardMerge, *more: Any) -> Any:
        merged.append(shard.table)
        return merge(catalog_uri, shard, *more)

    def tell_pending(catalog_uri: str, notify: Notify, sender_id: str, check: Any) -> list[Told]:
        check()
        merged.append("told")
        assert (catalog_uri, notify, sender_id) == (
            telling.catalog_uri,
            telling.job.notify,
            "run-1",
        )
        assert [row["uri"] for row in read_catalog(telling, "recordings")] == [kept]
        assert [row["state"] for row in read_catalog(telling, "notices")] == ["pending"]
        assert len(read_catalog(telling, "archives")) == 1
        assert not Path(old).exists()
        assert not list_parquet(telling, "runs")
        return [
            Told(target="crm", delivered=5, pending=2, failed=1, gone=0, why="503 \x1b[31m"),
            Told(target="lake", delivered=7, pending=0, failed=0, gone=0, why=""),
        ]

    monkeypatch.setattr(merging, "merge_shard", merge_shard)
    monkeypatch.setattr(tell, "tell_pending", tell_pending)

    result = _run(telling, archives=[_recorded()], calls=[call], sections=_archives(telling))

    assert (merged[0], merged[-3:]) == ("notices", ["archives", "told", "runs"])
    assert merged.index("calls") < merged.index("archives")
    assert result["notices"] == [
        {"target": "crm", "delivered": 5, "pending": 2, "failed": 1, "gone": 0,
         "why": "503 \x1b[31m"},
        {"target": "lake", "delivered": 7, "pending": 0, "failed": 0, "gone": 0, "why": ""},
    ]  # fmt: skip
    assert result["told"] == [
        "notices for crm: 5 delivered, 2 pending, 1 failed (503 \\x1b[31m); "
        "the next run sends what is pending"
    ]
    assert result["exit_status"] == 0


def test_what_a_dead_run_was_to_tell_goes_with_its_calls_where_nobody_is_told(
    context: JobRun,
) -> None:
    _run(context, calls=[_pressed(context, {"notices": [_notice_row()]})])

    assert [row["event_id"] for row in read_catalog(context, "notices")] == ["e"]
