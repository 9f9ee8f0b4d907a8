"""The one retry for all stores: errors that may pass are tried again with back-off; what stays is a
`StorageError`, or a `StoreDownError` where the store as a whole has stopped answering.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

import tenacity

from transforms.media.errors import StorageError, StoreDownError
from transforms.media.text import printable
from transforms.storage.registry import store_of

_TRIES = 6
_BACK_OFF = tenacity.wait_random_exponential(multiplier=0.2, max=10)
_DOWN_SECONDS = 60
_DOWN_OPERATIONS = 3
P = ParamSpec("P")
T = TypeVar("T")


class _Health:
    """Tells a store that is down from an object that cannot be read.

    A run that went on to ask a store that is down for each of 10,000 archives would never end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: dict[str, tuple[float, set[str]]] = {}

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
        place = _place_of(uri)
        with self._lock:
            since, names = self._silent.setdefault(place, (began, set()))
            names.add(uri)
            silent_seconds = time.monotonic() - since
            is_long = len(names) >= _DOWN_OPERATIONS and silent_seconds >= _DOWN_SECONDS
            if not (is_long and store_of(uri).can_be_down):
                return
        raise StoreDownError(
            f"{place} has not answered for {silent_seconds:.0f} s, last with: {why}; run again "
            "when it does"
        )


def _place_of(uri: str) -> str:
    """Returns the bucket, or whatever else goes down as a whole."""
    return "/".join(uri.split("/", 3)[:3])


_health = _Health()


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates an operation of a store, whose first argument is a URI: it is tried again while its
    error may pass; an error that stays becomes a `StorageError` that names the URI.
    """
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=lambda state: _BACK_OFF(state),
        reraise=True,
    )

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        uri, began = cast(str, args[0]), time.monotonic()
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
            raise StorageError(f"{printable(uri)}: {why}") from error
        _health.answered(uri)
        return result

    return call


def _may_pass(error: BaseException) -> bool:
    from transforms.storage import errors

    return errors.is_passing(error)
