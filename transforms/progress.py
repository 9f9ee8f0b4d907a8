"""Tells whoever watches how far a run is. Only in the launcher's own process: elsewhere nobody listens, and metrics count."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str, int], None]
_listeners: list[Listener] = []


def report(what: str, count: int = 1) -> None:
    """Adds to a figure: `archives_found archives tracks calls media_samples failures` and so on. Called from any thread."""
    for listener in list(_listeners):
        listener(what, count)


def listen(listener: Listener) -> Callable[[], None]:
    """Calls `listener` at each report; returns what ends that."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)
