"""Tells who started a run what it begins with: where its first steps are done in the same process.
Elsewhere nobody listens: the lock names the run, and the log has the lines.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

from transforms.context import RunIdentity

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """Who wants to know."""

    def begin(self, run: RunIdentity) -> None:
        """Takes the run, which has the lock now."""

    def divide(self, run: RunIdentity, portions: int) -> None:
        """Takes how many portions a run has, of which the first is at work."""

    def hear(self, line: str) -> None:
        """Takes a line for people."""


_listeners: list[Listener] = []


def tell(run: RunIdentity) -> None:
    """Tells that a run has taken the lock. From any thread."""
    for listener in list(_listeners):
        listener.begin(run)


def tell_portions(run: RunIdentity, portions: int) -> None:
    """Tells how many portions a run has: another job of the same process presses each."""
    for listener in list(_listeners):
        listener.divide(run, portions)


def say(line: str) -> None:
    """Tells people something of what a run begins with."""
    logger.info("%s", line)
    for listener in list(_listeners):
        listener.hear(line)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tells `listener` within the block of each run that begins."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
