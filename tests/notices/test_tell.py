"""What is pending is sent and marked: nothing is lost, whoever fails or is killed, and nothing is
told twice but under one id.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.fake_sender import CRM, FakeSender, states_of, tell_by
from tests.support.receiver import (
    DATE,
    MADE,
    Receiver,
    make_catalog,
    read_table,
    write_table,
)
from tests.support.tell_once import QUICK, crm, tell, tell_and_be_killed
from tests.support.tls_site import Site
from transforms.catalog import parquet_objects, partitions
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.schema import shard_hash
from transforms.elements import Row
from transforms.locking.lock import LockLostError
from transforms.media.errors import ConfigError, StorageError
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.tell import Told, tell_pending
from transforms.storage.registry import store_of
from transforms.targets import Notify, Target, TargetKind

# --- all of it ------------------------------------------------------------------------------------


def test_500_events_to_a_bad_receiver_by_runs_that_are_killed_twice(
    tls_site: Site, tmp_path: Path
) -> None:
    """A fifth of the tries get no answer, 5xx or 429. Some events are of files that are not there,
    or not any more.
    """
    rows = make_catalog(tmp_path, 500, ["crm"])
    gone, replaced = rows[100], rows[200]
    Path(gone["uri"]).unlink()
    recordings = read_table(tmp_path, "recordings")
    for row in recordings:
        if row["uri"] == replaced["uri"]:
            row["sha256"] = "0" * 64
    write_table(tmp_path, "recordings", recordings)
    bodies = {row["event_id"]: row["body"].encode() for row in rows}
    receiver = Receiver(tls_site, failing_percent=20)
    try:
        tell_and_be_killed(str(tmp_path), receiver, tls_site.host_and_port, (150, 300))
        killed_at = set(receiver.taken)
        (told,) = tell(str(tmp_path), crm(receiver.url))
    finally:
        receiver.let_go()

    assert set(receiver.taken) == bodies.keys() - {gone["event_id"], replaced["event_id"]}
    for event_id, taken in receiver.taken.items():
        assert {each.body for each in taken} == {bodies[event_id]}
        assert len(taken) == 1 or event_id in killed_at
    assert min(receiver.statuses[status] for status in (0, 429, 500, 502, 503)) > 0
    assert states_of(tmp_path) == {"delivered": 498, "failed": 1, "pending": 1}
    assert (told.pending, told.gone) == (1, 0)
    assert f"{gone['uri']} is not there" in told.why


def test_receiver_that_never_answers_costs_the_budget_at_most(
    tls_site: Site, tmp_path: Path
) -> None:
    make_catalog(tmp_path, 200, ["crm"])
    receiver = Receiver(tls_site)
    receiver.hold_after = 0
    began = time.monotonic()
    try:
        (told,) = tell(str(tmp_path), crm(receiver.url, timeout_seconds=30.0), budget_seconds=0.5)
    finally:
        receiver.let_go()

    assert time.monotonic() - began < 5
    assert (told.delivered, told.pending, told.failed, told.gone) == (0, 200, 0, 0)
    assert told.why.startswith("the time for sending was over")
    attempts = Counter(row["attempts"] for row in read_table(tmp_path, "notices"))
    assert 0 < attempts[1] <= 32
    assert attempts[0] + attempts[1] == 200
    assert states_of(tmp_path) == {"pending": 200}


def test_what_is_delivered_is_never_sent_again(tmp_path: Path) -> None:
    rows = make_catalog(tmp_path, 5, ["crm", "other"])
    first, second = FakeSender(), FakeSender()

    assert tell_by(tmp_path, first) == Told(
        target="crm", delivered=5, pending=0, failed=0, gone=0, why=""
    )
    assert tell_by(tmp_path, second).delivered == 0

    assert sorted(first.ids()) == sorted({row["event_id"] for row in rows})
    assert second.sent == []
    found = read_table(tmp_path, "notices")
    for row in found:
        is_crm = row["target"] == "crm"
        assert row["state"] == ("delivered" if is_crm else "pending")
        assert row["attempts"] == is_crm
        assert (row["updated_at"] > MADE) == is_crm
    assert sorted(row["body"] for row in found) == sorted(row["body"] for row in rows)


def test_columns_of_later_versions_stay_with_their_rows(tmp_path: Path) -> None:
    make_catalog(tmp_path, 5, ["crm", "other"])
    path = tmp_path / "notices" / f"call_date={DATE}" / "part-0.parquet"
    rows = pq.read_table(path, partitioning=None)
    later = rows.append_column("priority", pa.array(range(10)))
    pq.write_table(later, path)

    tell_by(tmp_path, FakeSender())

    marked = ["state", "attempts", "http_status", "message", "updated_at"]
    found = pq.read_table(path, partitioning=None)
    assert found.drop_columns(marked) == later.drop_columns(marked)


def test_targets_are_sent_to_each_by_itself(tmp_path: Path) -> None:
    """One that does not answer holds up no other, one without a sender neither."""
    make_catalog(tmp_path, 5, ["deaf", "crm", "unset"])
    has_all = threading.Event()

    class Good(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            found = super().send(notices)
            if len(self.sent) == 5:
                has_all.set()
            return found

    class Deaf(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            assert has_all.wait(60)
            why = "silent for long"
            return [Answer(state=NoticeState.PENDING, why=why, ends_target=True)] * len(notices)

    def make(target: Target) -> FakeSender:
        if target.name == "unset":
            raise ConfigError("env:KEY: the environment of this process has no such variable")
        return Deaf() if target.name == "deaf" else Good()

    names = ("deaf", "crm", "unset")
    targets = tuple(Target(name=name, kind=TargetKind.HTTPS, place="") for name in names)
    deaf, crm_told, unset = tell_pending(
        str(tmp_path), Notify(targets=targets), "r1", lambda: None, senders=make, pace=QUICK
    )

    assert (crm_told.delivered, crm_told.why) == (5, "")
    assert (deaf.delivered, deaf.pending, deaf.why) == (0, 5, "silent for long")
    assert (unset.pending, unset.why[:8]) == (5, "env:KEY:")


def test_objects_without_anything_pending_are_known_by_their_footers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day, targets in (("2026-11-18", ["crm"]), ("2026-11-19", ["crm"]), (DATE, ["other"])):
        make_catalog(tmp_path, 3, targets, day)
    tell_by(tmp_path, FakeSender())
    make_catalog(tmp_path, 2, ["crm"], "2026-11-21", first=3)
    read: list[str] = []
    read_some = partitions.read_table

    def noting(file: CatalogFile, table: str, *args: Any, **named: Any) -> pa.Table:
        read.append(f"{table} {file.call_date}")
        return read_some(file, table, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "read_table", noting)
        assert tell_by(tmp_path, FakeSender()).delivered == 2

    assert Counter(read) == {  # of the 20th another target's are pending
        "notices 2026-11-20": 1, "notices 2026-11-21": 2, "recordings 2026-11-21": 1,
    }  # fmt: skip


# --- what is not sent any more --------------------------------------------------------------------


def _only_notices(folder: Path, **changed: Any) -> list[Row]:
    """Makes a catalog of which notices are changed."""
    make_catalog(folder, 2, ["crm"])
    rows = [{**row, **changed} for row in read_table(folder, "notices")]
    write_table(folder, "notices", rows)
    return rows


@pytest.mark.parametrize(
    ("changed", "state", "why"),
    [
        ({"uri": "/gone.mp3"}, "pending", "no row names its file yet"),
        ({"uri": "/gone.mp3", "created_at": MADE - timedelta(days=7)}, "failed",
         "removed before it was sent"),
        ({"uri": None}, "pending", "no row names its file yet"),
        ({"sha256": "1" * 64}, "failed", "replaced before it was sent"),
        ({"event_type": "call.recording_failed"}, "failed", "its call has recordings by now"),
        ({"body": None}, "failed", "its row has no call, id or body"),
        ({"body": "é" * 10_001}, "failed", "its body is longer than 20000 bytes"),
        ({"call_session_id": None}, "failed", "its row has no call, id or body"),
    ],
)  # fmt: skip
def test_event_that_is_not_true_is_not_sent(
    tmp_path: Path, changed: dict[str, Any], state: str, why: str
) -> None:
    _only_notices(tmp_path, **changed)
    sender = FakeSender()

    told = tell_by(tmp_path, sender)

    assert sender.sent == []
    assert (told.pending, told.failed, told.why) == (
        2 * (state == "pending"),
        2 * (state == "failed"),
        why,
    )
    for row in read_table(tmp_path, "notices"):
        assert (row["state"], row["attempts"], row["message"]) == (state, 0, why)


def test_file_of_another_size_is_not_told(tmp_path: Path) -> None:
    (row,) = make_catalog(tmp_path, 1, ["crm"])
    Path(row["uri"]).write_bytes(b"longer")
    sender = FakeSender()

    told = tell_by(tmp_path, sender)

    assert (sender.sent, told.pending) == ([], 1)
    assert told.why == f"{row['uri']} has 6 bytes, expected 1 by its row"
    written = (tmp_path / "notices" / f"call_date={DATE}" / "part-0.parquet").stat().st_mtime_ns
    tell_by(tmp_path, sender)  # nothing new to put down
    assert (
        tmp_path / "notices" / f"call_date={DATE}" / "part-0.parquet"
    ).stat().st_mtime_ns == written


@pytest.mark.parametrize("there", [False, True], ids=["too-long", "folder"])
def test_what_is_no_file_is_not_told(tmp_path: Path, there: bool) -> None:
    (row,) = make_catalog(tmp_path, 1, ["crm"])
    uri = str(tmp_path / "recordings") if there else f"/{'a' * 5_000}"
    write_table(tmp_path, "notices", [{**row, "uri": uri}])
    (recording,) = read_table(tmp_path, "recordings")
    write_table(tmp_path, "recordings", [{**recording, "uri": uri, "size_bytes": None}])
    told = tell_by(tmp_path, FakeSender())
    assert (told.pending, told.why[-28:]) == (1, " is no file that can be read")


def test_more_tries_than_can_be_counted_are_no_more(tmp_path: Path) -> None:
    (row,) = make_catalog(tmp_path, 1, ["crm"])
    write_table(tmp_path, "notices", [{**row, "attempts": (1 << 63) - 1}])
    assert tell_by(tmp_path, FakeSender()).delivered == 1


@pytest.mark.parametrize(
    ("of_calls", "made", "state", "why"),
    [
        ("other", MADE, "delivered", ""),
        ("call-0", MADE, "pending", "no row names its call yet"),  # its run is dead
        ("call-0", MADE - timedelta(days=7), "failed", "removed before it was sent"),
    ],
)
def test_call_that_failed_is_told_of_once_the_catalog_has_it(
    tmp_path: Path, of_calls: str, made: datetime, state: str, why: str
) -> None:
    (row,) = make_catalog(tmp_path, 1, ["crm"])
    row |= {"event_type": "call.recording_failed", "call_id": "other", "uri": None, "sha256": None}
    write_table(tmp_path, "notices", [{**row, "created_at": made}])
    ids = ("call_cid", "call_type", "call_session_id", "run_id", "created_at")
    write_table(tmp_path, "calls", [{**{name: row[name] for name in ids}, "call_id": of_calls}])
    told = tell_by(tmp_path, FakeSender())
    assert (states_of(tmp_path), told.why) == ({state: 1}, why)


def test_rows_that_a_killed_split_left_twice_are_sent_once(tmp_path: Path) -> None:
    rows = make_catalog(tmp_path, 40, ["crm"])
    half = [
        row for row in rows
        if shard_hash((row["call_type"], row["call_id"], row["call_session_id"])) >> 31
    ]  # fmt: skip
    write_table(tmp_path, "notices", half, name="part-1-1")
    sender = FakeSender()

    assert tell_by(tmp_path, sender).delivered == 40

    assert sorted(sender.ids()) == sorted(row["event_id"] for row in rows)
    assert {notice.shard for some in sender.sent for notice in some} == {
        f"{DATE}_part-0", f"{DATE}_part-1-1",
    }  # fmt: skip


# --- what goes wrong on our side ------------------------------------------------------------------


def test_run_that_lost_its_catalog_marks_nothing_more(tmp_path: Path) -> None:
    make_catalog(tmp_path, 3, ["crm"])

    def lost() -> None:
        raise LockLostError("another run has it")

    sender = FakeSender()
    with pytest.raises(LockLostError):
        tell_pending(
            str(tmp_path), Notify(targets=(CRM,)), "r1", lost, senders=lambda _: sender, pace=QUICK
        )
    assert states_of(tmp_path) == {"pending": 3}


def test_what_was_delivered_before_an_interruption_is_marked(tmp_path: Path) -> None:
    make_catalog(tmp_path, 8, ["crm"])
    interrupted = threading.Event()

    class Waiting(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            found = super().send(notices)
            if len(self.sent) > 1:
                interrupted.wait(60)
            return found

    def interrupt() -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    sender = Waiting()
    with pytest.raises(KeyboardInterrupt):
        tell_pending(
            str(tmp_path), Notify(targets=(CRM,)), "r1", interrupt, senders=lambda _: sender,
            pace=QUICK,
        )  # fmt: skip
    assert states_of(tmp_path)["delivered"] == len(sender.sent)


def test_bug_of_a_sender_is_raised_and_what_was_delivered_is_marked(tmp_path: Path) -> None:
    make_catalog(tmp_path, 40, ["crm"])

    class Broken(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            if len(self.sent) == 20:
                raise ZeroDivisionError
            return super().send(notices)

    with pytest.raises(ZeroDivisionError):
        tell_by(tmp_path, Broken())
    assert states_of(tmp_path)["delivered"] >= 16


def test_damaged_object_costs_no_other(tmp_path: Path) -> None:
    make_catalog(tmp_path, 3, ["crm"])
    damaged = tmp_path / "notices" / "call_date=2026-11-19" / "part-0.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes(b"nothing of ours")
    told = tell_by(tmp_path, FakeSender())
    assert told.delivered == 3
    assert told.why.startswith(f"{damaged}: not a Parquet file")


def test_table_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    def refuse(_folder: str) -> list[Any]:
        raise PermissionError(13, "no")

    make_catalog(tmp_path, 3, ["crm"])
    monkeypatch.setattr(store_of(str(tmp_path)), "list_below", refuse)
    (told,) = tell_pending(
        str(tmp_path), Notify(targets=(CRM,)), "r1", lambda: None, senders=lambda _: FakeSender()
    )
    assert (told.pending, told.delivered) == (0, 0)
    assert "notices" in told.why


def test_marks_that_cannot_be_written_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_catalog(tmp_path, 3, ["crm"])

    def refuse(uri: str, _rows: Any) -> None:
        raise StorageError(f"{uri.rpartition('/')[2]}: no")

    monkeypatch.setattr(parquet_objects, "write", refuse)
    told = tell_by(tmp_path, FakeSender())
    assert (told.delivered, told.why) == (3, "part-0.parquet: no")
    assert states_of(tmp_path) == {"pending": 3}


def test_without_targets_nothing_is_asked(tmp_path: Path) -> None:
    assert tell_pending(str(tmp_path / "none"), Notify(), "r1", lambda: None) == []


def test_catalog_without_notices_has_nothing_to_tell(tmp_path: Path) -> None:
    told = tell_by(tmp_path, FakeSender())
    assert told == Told(target="crm", delivered=0, pending=0, failed=0, gone=0, why="")
