"""Sends to one target: what is next, when it is tried again, and when the target is left alone."""

from __future__ import annotations

import functools
import heapq
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from transforms.media.errors import CallpressError
from transforms.media.text import printable
from transforms.notices import pending
from transforms.notices.crew import Crew, Then
from transforms.notices.marks import Mark, Marks
from transforms.notices.pace import Failures, Pace
from transforms.notices.pending import PendingNotice, PendingShard
from transforms.notices.sender import Answer, Notice, NoticeState, Sender

_FILES_AT_A_TIME = 16
"""That are looked at, as a run reads them, with some requests at once."""
_FILES_OF_A_LOOK = 32
"""One after the other: on a disk many together cost less than a thread each."""
_AT_HAND = 2_000
"""Notices in memory at once, unless more are sent with one call."""
_MOST_PROBLEMS = 3
"""In the line of a target; `notices.message` has that of each event."""
_T = TypeVar("_T")


@dataclass(slots=True)
class _Item:
    """A notice on its way."""

    notice: PendingNotice
    attempts: int
    """How often it was sent, ever."""
    last: Answer | None = None


@dataclass(slots=True)
class _Batch:
    """Notices of one shard that are sent with one call."""

    items: list[_Item]
    tries: int = 0
    """Made just now."""


@dataclass(slots=True)
class _Looks:
    """Notices whose files are being looked at."""

    items: list[_Item] = field(default_factory=list)
    """Those that are there."""
    left: int = 0
    """Looks under way."""


class Sending:
    """To one target, from now until a moment. But for `stop` it is used by one thread, which alone
    decides; others wait for stores and for the target.
    """

    def __init__(
        self,
        catalog_uri: str,
        target: str,
        sender: Sender,
        shards: Sequence[PendingShard],
        marks: Marks,
        until: float,
        grace_seconds: float,
        pace: Pace,
    ) -> None:
        """Args:
        catalog_uri: root of the catalog.
        target: its name.
        sender: what sends to it; closed at the end.
        shards: where something is pending for it.
        marks: where it is put down what became of each.
        until: the moment, as `time.monotonic` has it.
        grace_seconds: for how long, after that, answers are waited for.
        pace: how fast.
        """
        self.settled: Counter[NoticeState] = Counter()
        """What became of notices for good."""
        self.why = ""
        """Why no more was sent; empty where nothing kept it."""
        self.problems: dict[str, None] = {}
        """Why some notices are pending or failed, the first few."""
        self._catalog_uri = catalog_uri
        self._target = target
        self._sender = sender
        self._marks = marks
        self._until = until
        self._grace_seconds = grace_seconds
        self._pace = pace
        self._crew = Crew(sender.at_a_time + _FILES_AT_A_TIME)
        self._chunks = self._read(shards)
        self._has_more = True
        self._is_reading = False
        self._is_in_order = sender.most > 1
        self._looks: deque[_Looks] = deque()
        """In the order in which they were begun; none where that is not kept."""
        self._looks_under_way = 0
        self._at_hand = 0
        self._fresh: deque[_Batch] = deque()
        self._again: list[tuple[float, int, _Batch]] = []
        """By the moment from which they are tried again."""
        self._numbers = itertools.count()
        self._under_way: dict[int, _Batch] = {}
        self._not_before = 0.0
        self._failures = Failures(pace)

    # --- deciding ---

    def run(self) -> None:
        """Sends, until nothing is left or something ends it."""
        try:
            while not self._is_done():
                now = time.monotonic()
                if now >= self._until:
                    self._end("the time for sending was over")
                    break
                if not self.why:
                    self._begin(now)
                self._crew.wait(self._seconds_to_wait(now))
            self._sender.close()
            until = max(time.monotonic(), self._until) + self._grace_seconds
            while self._under_way and (left := until - time.monotonic()) > 0:
                self._crew.wait(left)
        finally:
            self._sender.close()
            self._crew.leave()
        self._put_down_what_is_left()

    def stop(self, why: str) -> None:
        """Ends it soon; from any thread."""
        self._crew.tell(lambda: self._cut(why))

    def _cut(self, why: str) -> None:
        self._until = 0.0
        self._end(why)

    def _is_done(self) -> bool:
        if self._under_way:
            return False
        is_empty = not (self._has_more or self._looks_under_way or self._fresh or self._again)
        return bool(self.why) or is_empty

    def _end(self, why: str) -> None:
        self.why = self.why or why

    def _begin(self, now: float) -> None:
        """Begins what can be begun."""
        is_allowed = now >= self._not_before
        while is_allowed and len(self._under_way) < self._sender.at_a_time:
            if self._again and self._again[0][0] <= now:
                batch = heapq.heappop(self._again)[2]
            elif self._has_fresh():
                batch = self._fresh.popleft()
            else:
                break
            self._send(batch)
        room = max(_AT_HAND, self._sender.most)
        has_room = self._at_hand < room and self._looks_under_way < _FILES_AT_A_TIME
        if self._has_more and not self._is_reading and has_room:
            self._is_reading = True
            self._crew.begin(self._next_chunk)

    def _has_fresh(self) -> bool:
        """Whether there is a batch that may be sent for the first time. Where many are sent with
        one call, so that they come in order, none of a call session overtakes one of it that is to
        be tried again.
        """
        if not self._fresh or not self._is_in_order:
            return bool(self._fresh)
        waiting = {item.notice.call for _, _, batch in self._again for item in batch.items}
        return not any(item.notice.call in waiting for item in self._fresh[0].items)

    def _seconds_to_wait(self, now: float) -> float:
        """Returns after how long there is something to begin, if nothing comes back before."""
        moment = self._until
        if not self.why and len(self._under_way) < self._sender.at_a_time:
            if self._has_fresh():
                moment = min(moment, max(now, self._not_before))
            if self._again:
                moment = min(moment, max(self._again[0][0], self._not_before))
        return moment - now

    # --- reading, and looking at files ---

    def _read(self, shards: Sequence[PendingShard]) -> Iterator[list[PendingNotice]]:
        """Yields what is to be judged together; what cannot be read is passed over.

        What was tried least comes first: some that a target never takes are not to keep all others
        from it, in one run after the other. Where many are sent with one call they keep their order
        within a shard.
        """
        is_in_order = self._is_in_order
        size = self._sender.most if is_in_order else _FILES_OF_A_LOOK
        for shard in sorted(shards, key=lambda shard: shard.fewest_tries[self._target]):
            try:
                with self._marks.of_objects:
                    rows = pending.read(shard, self._target, tried_last=not is_in_order)
                    first = next(rows, None)
                rest = itertools.chain([first] if first is not None else [], rows)
                for some in _cut_up(rest, max(size, _AT_HAND // 2)):
                    notices = pending.judged(self._catalog_uri, shard, some)
                    yield from _cut_up(sorted(notices, key=self._place), size)
            except CallpressError as error:
                self._crew.tell(functools.partial(self._note, str(error)))

    def _next_chunk(self) -> Then:
        chunk = next(self._chunks, None)
        return lambda: self._take(chunk)

    def _take(self, chunk: list[PendingNotice] | None) -> None:
        self._is_reading = False
        if chunk is None:
            self._has_more = False
            return
        looks = _Looks()
        wanted = []
        for notice in chunk:
            if notice.why:
                self._leave(notice, notice.state, notice.why)
            else:
                wanted.append(notice)
        self._at_hand += len(wanted)
        if self._is_in_order:
            self._looks.append(looks)
        for some in _cut_up(wanted, _FILES_OF_A_LOOK):
            looks.left += 1
            self._looks_under_way += 1
            self._crew.begin(self._look_at(looks, some))

    def _look_at(self, looks: _Looks, notices: list[PendingNotice]) -> Callable[[], Then]:
        def work() -> Then:
            found = [pending.why_not_there(notice) for notice in notices]
            return lambda: self._looked(looks, notices, found)

        return work

    def _looked(self, looks: _Looks, notices: list[PendingNotice], found: Sequence[str]) -> None:
        for notice, why in zip(notices, found, strict=True):
            if why:
                self._at_hand -= 1
                self._leave(notice, NoticeState.PENDING, why)
            else:
                looks.items.append(_Item(notice, notice.attempts))
        self._looks_under_way -= 1
        looks.left -= 1
        if not self._is_in_order and not looks.left:
            self._release(looks)
        while self._looks and not self._looks[0].left:
            self._release(self._looks.popleft())

    def _release(self, looks: _Looks) -> None:
        """Has what was found there sent."""
        looks.items.sort(key=lambda item: self._place(item.notice))
        for items in _cut_up(looks.items, self._sender.most):
            self._fresh.append(_Batch(items))

    def _place(self, notice: PendingNotice) -> tuple[Any, ...]:
        """Returns what it is sorted by."""
        return notice.order if self._is_in_order else (notice.attempts, *notice.order)

    def _leave(self, notice: PendingNotice, state: NoticeState, why: str) -> None:
        """Puts down why a notice is not sent, ever or now."""
        if (state, why) != (NoticeState.PENDING, notice.message):
            mark = Mark(state=state, attempts=notice.attempts, http_status=None, message=why)
            self._marks.add(notice.shard, notice.key, mark)
        self._settle(state, why)

    # --- sending ---

    def _send(self, batch: _Batch) -> None:
        notices = [
            Notice(
                event_id=item.notice.event_id,
                event_type=item.notice.event_type,
                call=item.notice.call,
                attempt=item.attempts + 1,
                body=item.notice.body.encode(),
                shard=item.notice.shard.name,
            )
            for item in batch.items
        ]
        number = next(self._numbers)
        self._under_way[number] = batch

        def work() -> Then:
            answers = self._sender.send(notices)
            return lambda: self._answered(number, answers)

        self._crew.begin(work)

    def _answered(self, number: int, answers: Sequence[Answer]) -> None:
        batch = self._under_way.pop(number)
        now = time.monotonic()
        batch.tries += 1
        again = []
        for item, given in zip(batch.items, answers, strict=True):
            answer = given
            if given.waits_for_next_run and pending.has_waited_long(item.notice.made):
                answer = replace(given, state=NoticeState.FAILED)
            item.attempts += 1
            item.last = answer
            self._put_down(item, answer)
            if answer.state is NoticeState.PENDING and not answer.waits_for_next_run:
                again.append(item)
            else:
                self._at_hand -= 1
                self._settle(answer.state, answer.why)
        self._judge_target(now, answers)
        if again:
            batch.items = again
            wait = self._pace.wait_seconds(batch.tries - 1) * random.uniform(0.5, 1.0)
            heapq.heappush(self._again, (now + wait, next(self._numbers), batch))

    def _judge_target(self, now: float, answers: Sequence[Answer]) -> None:
        """Finds out whether, and when, the target is to be sent more."""
        for answer in answers:
            if answer.ends_target:
                self._end(answer.why)
        after = max((answer.after_seconds for answer in answers), default=0.0)
        self._not_before = max(self._not_before, now + after)
        if after and now + after >= self._until:
            self._end(f"it asks to be left alone for {after:.0f} s")
        if any(answer.state is NoticeState.DELIVERED for answer in answers):
            self._failures.end()
        elif not after:
            self._not_before = max(self._not_before, self._failures.add(now))
        if self._failures.are_too_many(now):
            self._end(
                f"it failed {self._failures.in_a_row} times in a row, the last time: "
                f"{answers[-1].why}"
            )

    def _settle(self, state: NoticeState, why: str) -> None:
        """Counts a notice that is not sent any more, or not now."""
        if state is not NoticeState.PENDING:
            self.settled[state] += 1
        if state is not NoticeState.DELIVERED:
            self._note(why)

    def _put_down(self, item: _Item, answer: Answer) -> None:
        mark = Mark(
            state=answer.state,
            attempts=item.attempts,
            http_status=answer.http_status,
            message=printable(answer.why) if answer.why else None,
        )
        self._marks.add(item.notice.shard, item.notice.key, mark)

    def _put_down_what_is_left(self) -> None:
        """Counts tries of which nobody knows what came, and notes what came of the others."""
        unknown = Answer(state=NoticeState.PENDING, why="no answer before sending ended")
        for batch in self._under_way.values():
            for item in batch.items:
                item.attempts, item.last = item.attempts + 1, unknown
                self._put_down(item, unknown)
        for batch in (*self._under_way.values(), *(each[2] for each in self._again)):
            for item in batch.items:
                if item.last is not None:
                    self._note(item.last.why)

    def _note(self, why: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems[printable(why)] = None


def _cut_up(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields some values at a time."""
    rest = iter(values)
    while some := list(itertools.islice(rest, size)):
        yield some
