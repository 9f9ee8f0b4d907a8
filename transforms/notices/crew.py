"""Threads that wait for others on behalf of one that decides."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Then = Callable[[], None]
"""What is to be done about a result, by the thread that decides."""


class Crew:
    """Does work in threads, and hands what is to be done about it to whoever calls `wait`. They
    hold up no process that ends.
    """

    def __init__(self, most: int) -> None:
        """Args: most: threads at work at once."""
        self._most = most
        self._threads = 0
        self._at_work = 0
        self._work: queue.SimpleQueue[Callable[[], Then] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[bool, Then]] = queue.SimpleQueue()

    @property
    def at_work(self) -> int:
        """Pieces of work that were begun, and whose results were not waited for yet."""
        return self._at_work

    def begin(self, work: Callable[[], Then]) -> None:
        """Has a piece of work done. What it raises is raised by `wait`."""
        self._at_work += 1
        if self._threads < min(self._at_work, self._most):
            try:
                threading.Thread(target=self._run, daemon=True, name="notices").start()
                self._threads += 1
            except RuntimeError:  # this user has as many as may be: those that there are do it
                if not self._threads:
                    raise
        self._work.put(work)

    def tell(self, then: Then) -> None:
        """Has something done by the thread that decides; from any thread."""
        self._done.put((False, then))

    def wait(self, seconds: float) -> None:
        """Does what is to be done about one result, once there is one, or nothing in so many
        seconds.
        """
        try:
            is_of_work, then = self._done.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return
        self._at_work -= is_of_work
        then()

    def leave(self) -> None:
        """Lets the threads go once their work is done."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                then = work()
            except BaseException as error:
                then = _raising(error)
            self._done.put((True, then))


def _raising(error: BaseException) -> Then:
    def then() -> None:
        raise error

    return then
