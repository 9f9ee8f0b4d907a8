"""Tells whoever watches how far a run is. Only in the launcher's own process: elsewhere nobody
listens, and metrics count.

| figure | what it counts |
|---|---|
| `archives_found`, `archives_skipped`, `archives` | archives listed, left out, unpacked or failed |
| `bytes_found`, `bytes_done` | bytes of the archives to unpack; of them what is done, live |
| `bytes_unpacked`, `samples_unpacked` | bytes of unpacked archives; the media that was in them |
| `tracks_found`, `tracks` | tracks in the archives, those extracted or failed |
| `samples_extracted` | the media in those that are extracted or failed |
| `calls_found`, `calls` | calls planned, and pressed |
| `samples_found`, `samples_measured` | media of planned calls; of it what was measured, live |
| `media_samples` | length of what was made: files of tracks as they are done, mixes live |
| `missing_ms` | audio that is claimed or came, and is in no file |
| `failures`, `partitions` | what failed; partitions of the catalog written |
| `telling` | 1 once all is published and notices are being sent |
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

Listener = Callable[[str, int], None]
_listeners: list[Listener] = []


def add(what: str, count: int = 1) -> None:
    """Adds to a figure. Called from any thread."""
    for listener in list(_listeners):
        listener(what, count)


def listen(listener: Listener) -> Callable[[], None]:
    """Calls `listener` at each report; returns what ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


class Portion:
    """A piece of work of known size, reported bit by bit while a `with` block does it: all of it
    once the block has ended.
    """

    def __init__(self, what: str, size: int, steps: int) -> None:
        """Args: what: the figure. size: what the piece adds to it. steps: how many steps it will
        take, about.
        """
        self._what = what
        self._size = size
        self._steps = max(1, steps)
        self._taken = 0
        self._told = 0

    def advance(self, steps: int) -> None:
        """Takes steps, or takes them back. More than there were to be add nothing."""
        self._taken += steps
        self._tell(self._size * min(self._taken, self._steps) // self._steps)

    def _tell(self, done: int) -> None:
        if done != self._told:
            add(self._what, done - self._told)
            self._told = done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tell(self._size)
