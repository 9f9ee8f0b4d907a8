"""Sends what is pending in `notices`, and marks what became of it. Plain: what runs it is a step of
a run, or `callpress tell`.

    footers of `notices` -> rows that are pending -> rows of `recordings`, files -> target -> marks

Each target is sent to by itself; one that answers slowly, or never, holds up no other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from transforms.media.errors import CallpressError, StorageError, StoreDownError
from transforms.media.text import printable
from transforms.notices import pending
from transforms.notices.marks import Marks
from transforms.notices.pace import Pace
from transforms.notices.pending import PendingShard
from transforms.notices.sender import NoticeState, Sender
from transforms.notices.sending import Sending
from transforms.targets import Notify, Target

_FOOTERS_AT_A_TIME = 16
"""In a bucket each is some 50 ms of waiting, and a year of nights has 365 of them."""
_GRACE_SECONDS = 1.0
"""With the time-out of a request: for how long answers are waited for when sending is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of one target's notices."""

    target: str
    """Its name."""
    delivered: int
    """As `failed` and `gone`: those that became so just now."""
    pending: int
    """All that are still to be sent to it, as far as the table could be read."""
    failed: int
    gone: int
    why: str
    """One line: why some are not delivered, or what could not be read or written; empty where
    nothing is to be told.
    """


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

    Memory holds some thousand notices of each target, and what is pending in one object of
    `notices`.

    Args:
      catalog_uri: root of the catalog; nobody else writes to it meanwhile.
      notify: the targets, and for how long to send.
      sender_id: what tells this sending from others, such as the run's id.
      check: raises what is to keep marks from being written; called before each object.
      senders: makes what sends to a target; None for those of `senders.make_sender`.
      pace: None for the usual one.

    Raises:
      LockLostError: `check` says so.
    """
    if senders is None:
        from transforms.notices.senders import make_sender  # late: their libraries are large

        def make_own(target: Target) -> Sender:
            return make_sender(target, sender_id)

        senders = make_own
    pace = pace or Pace()
    until = time.monotonic() + notify.budget_seconds
    shards, problems = _find(catalog_uri, [target.name for target in notify.targets])
    marks = Marks(check)
    sendings: dict[str, Sending] = {}
    whys: dict[str, list[str]] = {target.name: list(problems) for target in notify.targets}
    for target in notify.targets:
        own = [shard for shard in shards if target.name in shard.counts]
        if not own:
            continue
        try:
            sender = senders(target)
        except CallpressError as error:
            whys[target.name].append(printable(str(error)))
            continue
        sendings[target.name] = Sending(
            catalog_uri,
            target.name,
            sender,
            own,
            marks,
            until,
            target.timeout_seconds + _GRACE_SECONDS,
            pace,
        )
    unwritten = _run(list(sendings.values()), marks, pace)
    for name in sendings:
        whys[name] += unwritten
    return [
        _told(name, sendings.get(name), sum(shard.counts.get(name, 0) for shard in shards), why)
        for name, why in whys.items()
    ]


def _find(catalog_uri: str, targets: Sequence[str]) -> tuple[list[PendingShard], list[str]]:
    """Returns the objects in which something is pending for some targets; and what could not be
    read.
    """
    problems: list[str] = []

    def count(shard: PendingShard) -> PendingShard:
        try:
            return pending.counted(shard, targets)
        except (StorageError, StoreDownError) as error:
            problems.append(printable(str(error)))
            return shard

    if not targets:
        return [], []
    try:
        listed = pending.list_shards(catalog_uri)
    except (StorageError, StoreDownError) as error:
        return [], [printable(str(error))]
    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        return [shard for shard in pool.map(count, listed) if shard.counts], problems


def _run(sendings: Sequence[Sending], marks: Marks, pace: Pace) -> list[str]:
    """Sends to all targets at once, and writes marks meanwhile; returns why some could not be
    written in the end.
    """
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(sending: Sending) -> None:
        error: BaseException | None = None
        try:
            sending.run()
        except BaseException as raised:
            error = raised
        ended.put(error)

    for sending in sendings:
        threading.Thread(target=run, args=(sending,), daemon=True, name="notices").start()
    left = len(sendings)
    error: BaseException | None = None
    next_mark = time.monotonic() + pace.mark_seconds
    try:
        while left and error is None:
            try:
                error = ended.get(timeout=max(0.0, next_mark - time.monotonic()))
                left -= 1
            except queue.Empty:
                marks.write()
                next_mark = time.monotonic() + pace.mark_seconds
    finally:
        # Where some are left, all is broken off; what was delivered until then is put down even so.
        for sending in sendings if left else ():
            sending.stop("sending was broken off")
        for _ in range(left):
            ended.get()
        unwritten = marks.write()
    if error is not None:
        raise error
    return [printable(why) for why in unwritten]


def _told(name: str, sending: Sending | None, found: int, why: Sequence[str]) -> Told:
    settled = sending.settled if sending is not None else {}
    counts = {
        state: settled.get(state, 0)
        for state in (NoticeState.DELIVERED, NoticeState.FAILED, NoticeState.GONE)
    }
    left = found - sum(counts.values())
    reasons = list(why)
    if sending is not None and (left or counts[NoticeState.FAILED] or counts[NoticeState.GONE]):
        reasons += [sending.why] if sending.why else []
        reasons += [each for each in sending.problems if each not in sending.why]
    return Told(
        target=name,
        delivered=counts[NoticeState.DELIVERED],
        pending=left,
        failed=counts[NoticeState.FAILED],
        gone=counts[NoticeState.GONE],
        why="; ".join(reasons),
    )
