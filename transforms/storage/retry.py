"""The one retry for all stores: errors that may pass are tried again with back-off; what stays is a
`StorageError`, or a `StoreDownError` where the store as a whole has stopped answering.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import tenacity

from transforms.media.errors import StorageError, StoreDownError
from transforms.media.text import printable
from transforms.storage.globs import unquote
from transforms.storage.registry import store_of
from transforms.storage.store import StoreBusyError
from transforms.storage.uris import is_link, shown

_TRIES = 6
_BACK_OFF = tenacity.wait_random_exponential(multiplier=0.2, max=10)
_DOWN_SECONDS = 60
_DOWN_OPERATIONS = 3
_ASK_AGAIN_SECONDS = 60
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Silence:
    """That a place answers no more."""

    since: float
    """As `time.monotonic` gives it."""
    names: set[str] = field(default_factory=set, repr=False)
    """What was asked for."""
    asked: float = 0.0
    """When it was last asked for something."""
    why: str = ""

    def is_long(self, now: float) -> bool:
        """Whether that is no fault of a single object."""
        return len(self.names) >= _DOWN_OPERATIONS and now - self.since >= _DOWN_SECONDS


class _Health:
    """Tells a store that is down from an object that cannot be read.

    A run that went on to ask a store that is down for each of 10,000 archives would never end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: dict[str, _Silence] = {}

    def why_not_asked(self, uri: str) -> str | None:
        """Returns why an operation is not tried: its host, one of many behind one store, has not
        answered for long. None where it is to be tried: once in a while it may answer again.
        """
        if not self._silent or not is_link(uri):
            return None
        place, now = _place_of(uri), time.monotonic()
        with self._lock:
            silence = self._silent.get(place)
            if silence is None or not silence.is_long(now):
                return None
            if now - silence.asked >= _ASK_AGAIN_SECONDS:
                silence.asked = now
                return None
        return f"{place} has not answered for {now - silence.since:.0f} s, last with: {silence.why}"

    def answered(self, uri: str) -> None:
        """Notes that an operation went well, or was refused for good."""
        if self._silent:
            with self._lock:
                self._silent.pop(_place_of(uri), None)

    def gave_up(self, uri: str, why: str, began: float) -> None:
        """Notes that an operation used up its tries.

        Args:
          uri: what it was about.
          why: its last error.
          began: when it began, as `time.monotonic` gives it.

        Raises:
          StoreDownError: for long no operation on that store went well.
        """
        place, now = _place_of(uri), time.monotonic()
        with self._lock:
            silence = self._silent.setdefault(place, _Silence(began))
            silence.names.add(uri)
            silence.asked, silence.why = now, why
            if not (silence.is_long(now) and store_of(uri).can_be_down):
                return
        raise StoreDownError(
            f"{place} has not answered for {now - silence.since:.0f} s, last with: {why}; run "
            "again when it does"
        )


def _place_of(uri: str) -> str:
    """Returns the bucket, or whatever else goes down as a whole."""
    return "/".join(_name_of(uri).split("/", 3)[:3])


def _name_of(uri: str) -> str:
    """Returns a URI or a glob as messages have it. In a link nothing is a wildcard."""
    return printable(shown(unquote(uri) if is_link(uri) else uri))


_health = _Health()


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates an operation of a store, whose first argument is a URI: it is tried again while its
    error may pass; an error that stays becomes a `StorageError` that names the URI.
    """
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=_wait_seconds,
        reraise=True,
    )

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        uri, began = cast(str, args[0]), time.monotonic()
        if (down := _health.why_not_asked(uri)) is not None:
            raise StorageError(f"{_name_of(uri)}: {down}")
        try:
            result = attempts(function, *args, **kwargs)
        except Exception as error:
            from transforms.storage import errors

            if not isinstance(error, errors.STORE_ERRORS):
                raise
            why = errors.describe_error(error)
            if errors.is_passing(error) or errors.was_retried(error):
                _health.gave_up(uri, why, began)
            else:
                _health.answered(uri)
            errors.hide_secrets(error)
            raise StorageError(f"{_name_of(uri)}: {why}") from error
        _health.answered(uri)
        return result

    return call


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    """Returns how long to wait before the next try: at least as long as the store asks."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.after_seconds if isinstance(error, StoreBusyError) else 0.0
    return max(asked, _BACK_OFF(state))


def _may_pass(error: BaseException) -> bool:
    from transforms.storage import errors

    return errors.is_passing(error)
