"""What sends notices to one target: the protocol that each kind of target fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from transforms.media.values import CallKey


class NoticeState(StrEnum):
    """The values of `notices.state`; docs/catalog.md defines them."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An event on its way to a target."""

    event_id: str
    event_type: str
    call: CallKey
    attempt: int
    """From 1, over all runs."""
    body: bytes = field(repr=False)
    """As it is sent, the same each time."""
    shard: str
    """Which object of `notices` has its row, such as `2026-11-20_part-0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of sending a notice once."""

    state: NoticeState
    """`pending` where another try may go well."""
    http_status: int | None = None
    why: str = ""
    """Why it was not delivered; no query, no key."""
    after_seconds: float = 0.0
    """How long the target asks to be left alone (Retry-After)."""
    waits_for_next_run: bool = False
    """Whether a pending one is not tried again in this run: somebody has to mend the target, or it
    knows more of the event later.
    """
    ends_target: bool = False
    """Whether nothing more is to be sent to the target in this run."""


class Sender(Protocol):
    """Sends to one target. Thread-safe; raises nothing of the network's or a store's."""

    most: int
    """Notices that are sent with one call, at most."""
    at_a_time: int
    """Calls under way at once, at most."""

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        """Sends some notices, of one shard, and returns what came of each."""

    def close(self) -> None:
        """Gives up connections; whatever is under way ends soon."""
