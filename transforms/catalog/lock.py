"""One run per catalog: a lock object with a lease, renewed while the run lives and taken over when
the lease has run out.

The object is only ever replaced by compare-and-swap, so of two runs only one gets the lock. A run
gives it back by writing a lease that has run out: not every store can delete on a condition. A run
that was away for longer than its lease (a machine asleep, a network cut) may find its lock with
another: it is told so and ends, and before rows are published the lock is looked at once more.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.storage import objects, uris
from transforms.storage.store import SwapUnsupportedError

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15 * 60
NAME = "callpress.lock"
_STATE_BYTES = 512
"""States are padded to this, so that one write replaces all of one and nobody who just looks sees a
half.
"""
_GIVEN_BACK_UNIX_S = 0.0
"""When the lease of a lock ran out that was given back."""
_LOOK_SECONDS = 5
"""Waits are this short, since the clock that counts them stands still while a machine sleeps, and a
lease does not.
"""
_RELEASE_SECONDS = 10


class LockHeldError(CallpressError):
    """Another run holds the catalog; the message names it."""


class LockLostError(CallpressError):
    """The catalog's lock is no longer this run's: what it would publish may undo what another has
    published.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """What the lock object says."""

    run_id: str
    host: str
    pid: int
    expires_unix_s: float
    machine: str = ""
    """Where `pid` means something: containers may share a host's name and not see each other's
    processes.
    """

    def is_dead(self) -> bool:
        """Whether the holder has let its lease run out, or was a process of this machine that is no
        more.
        """
        if self.expires_unix_s <= time.time():
            return True
        return (
            self.host == socket.gethostname()
            and self.machine == _this_machine()
            and not _is_running(self.pid)
        )


@dataclass(frozen=True, slots=True)
class _Written:
    """The lock object as this run wrote it."""

    state: LockState
    token: str
    """For compare-and-swap."""


class CatalogLock:
    """Held from `acquire` to `release`; a thread renews the lease in between."""

    def __init__(
        self,
        catalog_uri: str,
        run_id: str,
        lease_seconds: float = LEASE_SECONDS,
        on_lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares the lock.

        Args:
          catalog_uri: a folder or `gs://bucket/prefix`.
          run_id: named to whoever comes second.
          lease_seconds: how long it holds without being renewed.
          on_lost: told why, in the renewing thread, when the lock turns out to be another's.
        """
        self._uri = uris.join(catalog_uri, NAME)
        self._run_id = run_id
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._catalog_uri = catalog_uri
        self._mine: _Written | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, or takes it over from a dead run.

        Raises:
          ConfigError: the store cannot compare and swap.
          LockHeldError: a living run has it.
          StorageError: it cannot be read or written.
        """
        for _ in range(10):
            held, token = _read(self._catalog_uri)
            if held is not None and not held.is_dead():
                raise LockHeldError(self._why_held(held))
            if (mine := self._swap(token, self._state())) is not None:
                if held is not None:
                    logger.warning("took over the lock of run %s, which is dead", held.run_id)
                self._mine = mine
                self._stop.clear()
                self._thread = threading.Thread(
                    target=self._renew, daemon=True, name="lock-renewal"
                )
                self._thread.start()
                return
        raise LockHeldError(
            f"{self._uri} changes hands too fast; another run is starting, try again"
        )

    def release(self) -> None:
        """Gives the lock back; harmless when it is not held. One that cannot be given back now ends
        with its lease.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_RELEASE_SECONDS)
            self._thread = None
        mine, self._mine = self._mine, None
        if mine is not None:
            try:
                self._swap(mine.token, replace(mine.state, expires_unix_s=_GIVEN_BACK_UNIX_S))
            except StorageError as error:
                logger.warning("the catalog's lock %s could not be given up: %s", self._uri, error)

    def _why_held(self, held: LockState) -> str:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.expires_unix_s))
        return (
            f"run {held.run_id} on {held.host} (process {held.pid}) holds the catalog's lock "
            f"{self._uri} until {until} unless it goes on renewing it; wait for it, or remove the "
            "lock if you know that run is dead"
        )

    def _swap(self, expected: str | None, new: LockState) -> _Written | None:
        """Writes a state over the one of a token; returns None when another process was faster."""
        token = objects.compare_and_swap(self._uri, expected, _encode(new))
        return _Written(new, token) if token is not None else None

    def _state(self) -> LockState:
        return LockState(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            expires_unix_s=time.time() + self._lease_seconds,
            machine=_this_machine(),
        )

    def _renew(self) -> None:
        while not self._stop.wait(min(_LOOK_SECONDS, self._lease_seconds / 3)):
            mine = self._mine
            if mine is None or not self._is_due(mine.state):
                continue
            try:
                renewed = self._swap(mine.token, self._state())
            except CallpressError as error:
                logger.warning("the catalog's lock %s could not be renewed: %s", self._uri, error)
                continue
            if renewed is None:
                self._mine = None
                why = f"the catalog's lock {self._uri} was taken by another run, or removed"
                logger.error("%s", why)
                self._on_lost(why)
                return
            if self._mine is not None:
                self._mine = renewed

    def _is_due(self, mine: LockState) -> bool:
        return mine.expires_unix_s - time.time() <= self._lease_seconds * 2 / 3


def check_held(catalog_uri: str, run_id: str) -> None:
    """Looks whether a run has the lock still, from any process of it; before anything is published.

    Raises:
      LockLostError: another has it, or nobody.
      StorageError: it cannot be read.
    """
    held = look(catalog_uri)
    if held is None or held.run_id != run_id:
        now = f"run {held.run_id} on {held.host} has it now" if held else "it is gone"
        uri = uris.join(catalog_uri, NAME)
        raise LockLostError(
            f"run {run_id} lost the catalog's lock {uri} ({now}); its rows were not published, "
            "run again"
        )


def look(catalog_uri: str) -> LockState | None:
    """Returns who has a catalog's lock, dead or alive; None for nobody.

    Raises:
      ConfigError: the store cannot compare and swap.
      StorageError: it cannot be read.
    """
    return _read(catalog_uri)[0]


def _read(catalog_uri: str) -> tuple[LockState | None, str | None]:
    """Returns who has the lock, None for nobody, and the object's token, None when there is no
    object.
    """
    try:
        data, token = objects.read_for_swap(uris.join(catalog_uri, NAME))
    except SwapUnsupportedError:
        raise ConfigError(
            f"--catalog {catalog_uri}: only folders and gs:// can be locked against a second run"
        ) from None
    return _decode(data), token


def _encode(state: LockState) -> bytes:
    return json.dumps(asdict(state)).encode().ljust(_STATE_BYTES)


def _decode(text: bytes) -> LockState | None:
    """Returns what a lock object says; None when it is nobody's: given back, or cut short by a
    crash.
    """
    try:
        data: dict[str, Any] = json.loads(text)
        state = LockState(
            run_id=str(data["run_id"]),
            host=str(data["host"]),
            pid=int(data["pid"]),
            expires_unix_s=float(data["expires_unix_s"]),
            machine=str(data.get("machine", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if state.expires_unix_s != _GIVEN_BACK_UNIX_S else None


def _this_machine() -> str:
    """Returns what processes share that see each other's ids; empty where that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
