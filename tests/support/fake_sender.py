"""A sender that answers as a test tells it to, and telling by way of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.support.receiver import read_table
from tests.support.tell_once import QUICK
from transforms.notices.pace import Pace
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.notices.tell import Told, tell_pending
from transforms.targets import Notify, Target, TargetKind


class FakeSender:
    """Answers as it is told to."""

    at_a_time = 4

    def __init__(self, *answers: Answer, most: int = 1) -> None:
        """Args: answers: to the next calls; delivered when there are none left."""
        self.most = most
        self.sent: list[Sequence[Notice]] = []
        self.is_closed = False
        self._answers = list(answers)
        self._lock = threading.Lock()

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        with self._lock:
            self.sent.append(notices)
            answer = self._answers.pop(0) if self._answers else Answer(state=NoticeState.DELIVERED)
        return [answer] * len(notices)

    def close(self) -> None:
        self.is_closed = True

    def ids(self) -> list[str]:
        """Returns what was sent, in order."""
        return [notice.event_id for some in self.sent for notice in some]


CRM = Target(name="crm", kind=TargetKind.HTTPS, place="https://crm.example.org/hook")


def tell_by(folder: Path, sender: FakeSender, pace: Pace = QUICK) -> Told:
    """Tells `CRM` what is pending in a catalog, by a sender."""
    notify = Notify(targets=(CRM,), budget_seconds=30)
    (told,) = tell_pending(
        str(folder), notify, "r1", lambda: None, senders=lambda _: sender, pace=pace
    )
    assert sender.is_closed or not sender.sent
    return told


AGAIN = Answer(state=NoticeState.PENDING, http_status=503, why="HTTP status 503")


def states_of(folder: Path) -> Counter[str]:
    """Returns how many notices of a catalog have each state."""
    return Counter(row["state"] for row in read_table(folder, "notices"))
