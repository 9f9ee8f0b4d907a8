"""Sends what is pending in `notices`, and marks what became of it. Plain: what runs it is a step of
a run, or `callpress tell`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transforms.notices.sender import Sender
from transforms.targets import Notify, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of one target's notices."""

    target: str
    """Its name."""
    delivered: int
    """As `failed` and `gone`: those that became so just now."""
    pending: int
    """All that are still to be sent to it."""
    failed: int
    gone: int
    why: str
    """One line: why some are pending or failed; empty where none are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast tries follow each other, and how often marks are written."""

    first_wait_seconds: float = 0.5
    """Before a second try; it doubles with each."""
    most_wait_seconds: float = 30.0
    mark_seconds: float = 20.0
    failures_in_a_row: int = 64
    """After so many, none delivered between them, a target is left alone."""


def tell_pending(
    catalog_uri: str,
    notify: Notify,
    sender_id: str,
    check: Callable[[], None],
    *,
    senders: Callable[[Target], Sender] | None = None,
    pace: Pace | None = None,
) -> list[Told]:
    """Sends the pending notices of some targets; returns what became of them, target by target, in
    the order of `notify`.

    Ends with the budget, or soon after: nothing is begun then, and connections are cut. What a
    store cannot do is told; it raises no StorageError.

    Args:
      catalog_uri: root of the catalog; nobody else writes to it meanwhile.
      notify: the targets, and for how long to send.
      sender_id: what tells this sending from others, such as the run's id.
      check: raises what is to keep marks from being written; called before each.
      senders: makes what sends to a target; None for those of `senders.make_sender`.
      pace: None for the usual one.

    Raises:
      LockLostError: `check` says so.
    """
    raise NotImplementedError
