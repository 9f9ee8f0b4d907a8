"""How often a target is sent to, in which order, and when it is left alone."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fake_sender import AGAIN, CRM, FakeSender, states_of, tell_by
from tests.support.receiver import DATE, MADE, make_catalog, read_table, write_table
from transforms.notices.pace import Pace
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.tell import tell_pending
from transforms.targets import Notify

OTHER = "2026-11-21"


def test_tries_are_counted_over_runs(tmp_path: Path) -> None:
    make_catalog(tmp_path, 1, ["crm"])
    first = FakeSender(
        AGAIN, AGAIN, Answer(state=NoticeState.PENDING, why="mend it", ends_target=True)
    )
    told = tell_by(tmp_path, first)
    assert (told.pending, told.why) == (1, "mend it")
    (row,) = read_table(tmp_path, "notices")
    assert (row["state"], row["attempts"], row["http_status"], row["message"]) == (
        "pending", 3, None, "mend it",
    )  # fmt: skip

    second = FakeSender()
    tell_by(tmp_path, second)

    assert [notice.attempt for some in (*first.sent, *second.sent) for notice in some] == [
        1,
        2,
        3,
        4,
    ]
    (row,) = read_table(tmp_path, "notices")
    assert (row["state"], row["attempts"], row["message"]) == ("delivered", 4, None)


def test_target_that_never_succeeds_is_left_alone(tmp_path: Path) -> None:
    make_catalog(tmp_path, 200, ["crm"])
    sender = FakeSender(*[AGAIN] * 1_000)
    told = tell_by(
        tmp_path, sender, Pace(first_wait_seconds=0.001, most_wait_seconds=0.01, failing_seconds=0)
    )
    assert 64 <= len(sender.sent) < 64 + sender.at_a_time
    assert told.pending == 200
    assert told.why.startswith("it failed 64 times in a row, the last time: HTTP status 503")


def test_target_that_is_back_in_a_moment_is_told_all(tmp_path: Path) -> None:
    """A receiver that begins anew refuses within a moment more than there may be in a row."""
    rows = make_catalog(tmp_path, 200, ["crm"])

    class BeginsAnew(FakeSender):
        at_a_time = 32
        is_back_at = time.monotonic() + 1_000.0

        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            found = super().send(notices)
            if len(self.sent) == 1:
                self.is_back_at = time.monotonic() + 0.1
            return found if time.monotonic() > self.is_back_at else [AGAIN]

    sender = BeginsAnew()
    told = tell_by(tmp_path, sender, Pace(first_wait_seconds=0.05))
    assert (told.delivered, told.why) == (200, "")
    assert len(sender.sent) < len(rows) + 4 * sender.at_a_time  # it was not asked all the time


def test_target_that_rests_longer_than_there_is_time_asked_for_nothing(tmp_path: Path) -> None:
    make_catalog(tmp_path, 20, ["crm"])
    notify = Notify(targets=(CRM,), budget_seconds=0.2)
    sender, pace = FakeSender(*[AGAIN] * 100), Pace(first_wait_seconds=60)
    (told,) = tell_pending(
        str(tmp_path), notify, "r", lambda: None, senders=lambda _: sender, pace=pace
    )
    assert told.why == "the time for sending was over; HTTP status 503"
    assert 8 <= len(sender.sent) < 8 + sender.at_a_time


def test_budget_of_nothing_leaves_all_for_later(tmp_path: Path) -> None:
    make_catalog(tmp_path, 3, ["crm"])
    sender = FakeSender()
    notify = Notify(targets=(CRM,), budget_seconds=0)
    (told,) = tell_pending(str(tmp_path), notify, "r1", lambda: None, senders=lambda _: sender)
    assert (told.pending, told.why) == (3, "the time for sending was over")
    assert (sender.sent, sender.is_closed) == ([], True)


def test_one_success_ends_a_row_of_failures(tmp_path: Path) -> None:
    make_catalog(tmp_path, 30, ["crm"])
    good = Answer(state=NoticeState.DELIVERED)
    sender = FakeSender(*([AGAIN] * 5 + [good]) * 10)
    told = tell_by(tmp_path, sender, Pace(first_wait_seconds=0.001, failures_in_a_row=10))
    assert (told.delivered, told.why) == (30, "")


def test_what_waits_for_the_next_run_is_sent_once_a_run_for_seven_days(tmp_path: Path) -> None:
    new, old = make_catalog(tmp_path, 2, ["crm"])
    write_table(tmp_path, "notices", [new, {**old, "created_at": MADE - timedelta(days=7)}])
    mend = Answer(
        state=NoticeState.PENDING, http_status=404, why="HTTP status 404", waits_for_next_run=True
    )

    told = tell_by(tmp_path, first := FakeSender(mend, mend))

    assert sorted(first.ids()) == sorted([new["event_id"], old["event_id"]])
    assert (told.pending, told.failed, told.why) == (1, 1, "HTTP status 404")
    assert tell_by(tmp_path, second := FakeSender()).delivered == 1
    assert second.ids() == [new["event_id"]]


def test_410_ends_the_target_and_the_rest_waits(tmp_path: Path) -> None:
    make_catalog(tmp_path, 50, ["crm"])
    told = tell_by(
        tmp_path,
        FakeSender(Answer(state=NoticeState.GONE, http_status=410, why="no", ends_target=True)),
    )
    assert (told.gone, told.delivered + told.pending, told.why) == (1, 49, "no")
    assert told.pending >= 40
    assert states_of(tmp_path)["gone"] == 1


def test_target_that_asks_for_it_is_left_alone(tmp_path: Path) -> None:
    make_catalog(tmp_path, 30, ["crm"])
    asked = 0.4
    busy = Answer(
        state=NoticeState.PENDING, http_status=429, why="HTTP status 429", after_seconds=asked
    )
    moments: list[float] = []

    class Noting(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            moments.append(time.monotonic())
            return super().send(notices)

    told = tell_by(tmp_path, Noting(busy))

    assert told.delivered == 30
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert max(pauses) >= asked - 0.05


def test_target_that_asks_for_longer_than_there_is_waits_for_the_next_run(tmp_path: Path) -> None:
    make_catalog(tmp_path, 30, ["crm"])
    busy = Answer(
        state=NoticeState.PENDING, http_status=429, why="HTTP status 429", after_seconds=1e18
    )
    began = time.monotonic()
    told = tell_by(tmp_path, FakeSender(*[busy] * 4))
    assert told.pending == 30
    assert told.why.startswith("it asks to be left alone for 1000000000000000000 s")
    assert time.monotonic() - began < 15


def test_what_is_refused_is_failed_and_not_sent_again(tmp_path: Path) -> None:
    make_catalog(tmp_path, 3, ["crm"])
    no = Answer(state=NoticeState.FAILED, http_status=400, why="HTTP status 400")
    sender = FakeSender(no)
    told = tell_by(tmp_path, sender)
    assert (told.failed, told.delivered, told.why) == (1, 2, "HTTP status 400")
    assert len(sender.sent) == 3


def test_notices_of_a_shard_go_together_where_a_sender_takes_many(tmp_path: Path) -> None:
    rows = make_catalog(tmp_path, 100, ["crm"])
    later = [{**row, "created_at": MADE + timedelta(minutes=-n)} for n, row in enumerate(rows)]
    write_table(tmp_path, "notices", later)
    make_catalog(tmp_path, 10, ["crm"], "2026-11-21", first=100)
    sender = FakeSender(AGAIN, most=64)
    told = tell_by(tmp_path, sender)
    assert told.delivered == 110
    assert len(sender.sent) == 4  # one of them twice, as it was
    assert {len(some) for some in sender.sent} == {10, 36, 64}
    made = {row["event_id"]: row["created_at"] for row in later}
    for some in sender.sent:
        assert len({notice.shard for notice in some}) == 1
        order = [(notice.call, made.get(notice.event_id, MADE)) for notice in some]
        assert order == sorted(order)


def test_no_notice_of_a_call_overtakes_one_where_a_sender_takes_many(tmp_path: Path) -> None:
    """Those of the first three calls do not fit into one batch each."""
    rows = make_catalog(tmp_path, 12, ["crm"])
    made = {row["event_id"]: MADE - timedelta(minutes=n) for n, row in enumerate(rows)}
    write_table(tmp_path, "notices", [{**row, "created_at": made[row["event_id"]]} for row in rows])
    sender = FakeSender(AGAIN, AGAIN, Answer(state=NoticeState.DELIVERED), AGAIN, most=3)
    sender.at_a_time = 1

    assert tell_by(tmp_path, sender).delivered == 12

    last = {notice.event_id: number for number, some in enumerate(sender.sent) for notice in some}
    first = {
        notice.event_id: number
        for number, some in reversed(list(enumerate(sender.sent)))
        for notice in some
    }
    for one, other in itertools.permutations(rows, 2):
        if one["call_id"] == other["call_id"] and made[one["event_id"]] < made[other["event_id"]]:
            assert last[one["event_id"]] <= first[other["event_id"]] or (
                first[one["event_id"]] == first[other["event_id"]]
            )


@pytest.mark.parametrize("date_of_others", [DATE, OTHER], ids=["in-one-object", "in-two"])
def test_what_a_target_never_takes_keeps_nothing_else_from_it(
    tmp_path: Path, date_of_others: str
) -> None:
    """Its receiver cannot do with the first 20, say, and answers 500."""
    rows = [
        make_catalog(tmp_path, 20, ["crm"]),
        make_catalog(tmp_path, 12, ["crm"], OTHER, first=20),
    ]
    never, others = ({row["event_id"] for row in some} for some in rows)
    if date_of_others == DATE:
        for table in ("recordings", "notices"):
            write_table(tmp_path, table, read_table(tmp_path, table))
            shutil.rmtree(tmp_path / table / f"call_date={OTHER}")

    class Choosy(FakeSender):
        def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
            delivered = super().send(notices)
            return [AGAIN] if notices[0].event_id in never else delivered

    notify = Notify(targets=(CRM,), budget_seconds=0.3)
    pace = Pace(first_wait_seconds=60, failures_in_a_row=8, failing_seconds=0)
    for _run in range(4):
        tell_pending(
            str(tmp_path), notify, "r", lambda: None, senders=lambda _: Choosy(), pace=pace
        )
    assert states_of(tmp_path)["delivered"] == len(others)
