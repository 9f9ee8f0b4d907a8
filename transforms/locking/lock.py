"""The lock of a catalog: an object that names the run that holds it, with a lease that whatever of
the run is at work renews (`lease`).

The object is only ever replaced by compare-and-swap, so of two runs only one gets the lock. A run
gives it back by writing that it is nobody's: not every store can delete on a condition. A lease
counts from when the object was last written, by the clock of the store: that of a worker may be
wrong by hours.

The lock is the run's and not a process's: processes of one run know each other by its token, and
any of them may renew it. Only where all of a run lives in one process does it end with that.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.media.settings import LONGEST_LEASE_SECONDS
from transforms.storage import objects, uris
from transforms.storage.store import SwapUnsupportedError

logger = logging.getLogger(__name__)

NAME = "callpress.lock"
LEASE_SECONDS = 15 * 60.0
_STATE_BYTES = 768
"""States are padded to this, so that one write replaces all of one and nobody who just looks sees a
half.
"""
_GIVEN_BACK_UNIX_S = 0.0
_TRIES = 10


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
    token: str = ""
    """By which the processes of a run know each other; empty of a run that was ended, which none of
    its processes goes on with.
    """
    host: str
    """Of the process that wrote it."""
    pid: int = 0
    """Of the one process that all of the run lives in; 0 for a run that has workers."""
    machine: str = ""
    """Where `pid` means something: containers may share a host's name and not see each other's
    processes.
    """
    job_id: str = ""
    """The engine's name for the job, where a worker can know it."""
    lease_seconds: float = LEASE_SECONDS
    """How long the lock holds, from when it was last written."""
    expires_unix_s: float
    """The same by the writer's own clock, for people; 0 of a lock that was given back."""
    took_over: bool = False
    """Whether the lock was another run's, which may be at work still."""

    @property
    def name(self) -> str:
        """How the holder is told: its run, and where that is."""
        where = f"{self.host} (process {self.pid})" if self.pid else self.host
        return f"run {self.run_id} on {where}" + (f", job {self.job_id}" if self.job_id else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLock:
    """The lock object as it was found, when it is somebody's."""

    state: LockState | None
    """None for an object that is damaged: it may be a living run's."""
    swap_token: str | None
    """The store's, for compare-and-swap."""
    age_seconds: float

    @property
    def name(self) -> str:
        """How the holder is told."""
        return self.state.name if self.state else "a run whose lock is damaged"

    @property
    def seconds_left(self) -> float:
        """What is left of the lease, less than nothing once it has run out."""
        return (self.state.lease_seconds if self.state else LEASE_SECONDS) - self.age_seconds

    def is_dead(self) -> bool:
        """Whether the holder let its lease run out, or is known to be no more."""
        return self.seconds_left <= 0 or self.is_gone()

    def is_gone(self) -> bool:
        """Whether the holder was a process of this machine that is no more. One that only let its
        lease run out may yet be at work.
        """
        state = self.state
        return (
            state is not None
            and state.pid != 0
            and state.host == socket.gethostname()
            and state.machine == this_machine()
            and not _is_running(state.pid)
        )


def state_of(
    run_id: str, token: str, *, is_one_process: bool, lease_seconds: float = LEASE_SECONDS
) -> LockState:
    """Returns what this process writes of a run that it is at work for.

    Args:
      run_id, token: of the run.
      is_one_process: whether all of it lives in this process.
      lease_seconds: how long the lock is to hold.
    """
    return LockState(
        run_id=run_id,
        token=token,
        host=socket.gethostname(),
        pid=os.getpid() if is_one_process else 0,
        machine=this_machine() if is_one_process else "",
        job_id="" if is_one_process else os.environ.get("JOB_ID", ""),  # in Dataflow's workers
        lease_seconds=lease_seconds,
        expires_unix_s=time.time() + lease_seconds,
    )


def acquire(catalog_uri: str, state: LockState) -> bool:
    """Takes the lock for a run, or takes it over from a dead one. A run that has it already, since
    a step is done once more, goes on with it.

    Args:
      catalog_uri: a folder or `gs://bucket/prefix`.
      state: the run's.

    Returns:
      whether it was another run's that did not give it back and may be at work still.

    Raises:
      ConfigError: the store cannot compare and swap, or lets no object be replaced.
      LockHeldError: a living run has it.
      StorageError: it cannot be read or written.
    """
    for _ in range(_TRIES):
        held, swap_token = _read(catalog_uri)
        if held is None:
            new = state
        elif held.state is not None and held.state.token == state.token:
            new = replace(state, took_over=held.state.took_over)
            held = None
        elif held.is_dead():
            # It may have taken over from one that is at work still.
            has_rival = not held.is_gone() or bool(held.state and held.state.took_over)
            new = replace(state, took_over=has_rival)
        else:
            raise LockHeldError(why_held(catalog_uri, held))
        if _take(catalog_uri, swap_token, new):
            if held is not None:
                logger.warning("took over the lock of %s, which is dead", held.name)
            return new.took_over
    uri = uris.join(catalog_uri, NAME)
    raise LockHeldError(f"{uri} changes hands too fast; another run is starting, try again")


def _take(catalog_uri: str, expected: str | None, new: LockState) -> bool:
    """Takes the lock as `swap` does, and makes sure that its store lets an object be replaced.

    Raises:
      ConfigError: it does not: nor could the tables be written anew.
      StorageError: the lock cannot be written.
    """
    if expected is None and not objects.can_be_down(catalog_uri):
        return swap(catalog_uri, None, new)  # a disk has no retention
    uri = uris.join(catalog_uri, NAME)
    if expected is None:
        nobodys = replace(new, token="", expires_unix_s=_GIVEN_BACK_UNIX_S)
        expected = objects.compare_and_swap(uri, None, _encode(nobodys))
        if expected is None:
            return False
    try:
        return swap(catalog_uri, expected, new)
    except StorageError as error:
        if not objects.was_refused(error):
            raise
        raise ConfigError(
            f"--catalog {catalog_uri}: its objects may not be replaced, and each run writes tables "
            f"and lock anew ({error.message}); expected a place without retention or object lock "
            "where this account may overwrite and delete. Recordings may lie in such a place: "
            "give --catalog one of its own"
        ) from None


def swap(catalog_uri: str, expected: str | None, new: LockState) -> bool:
    """Writes a state over the one of a store's token; returns whether no other process was faster.
    Raises: StorageError.
    """
    uri = uris.join(catalog_uri, NAME)
    return objects.compare_and_swap(uri, expected, _encode(new)) is not None


def renewed(state: LockState) -> LockState:
    """Returns what this process writes to go on holding the lock."""
    return replace(
        state, host=socket.gethostname(), expires_unix_s=time.time() + state.lease_seconds
    )


def give_back(catalog_uri: str, token: str, after_seconds: float = 0.0) -> bool:
    """Gives the lock back if it is a run's still; returns whether it was. Once more does no harm.

    Args:
      catalog_uri: of the catalog.
      token: of the run.
      after_seconds: how long it holds yet, though nobody of the run may go on with it: a worker of
        a job that was ended may not know that yet.

    Raises:
      StorageError: it cannot be read or written.
    """
    for _ in range(_TRIES):
        held = look(catalog_uri)
        if held is None or held.state is None or not token or held.state.token != token:
            return False
        new = replace(held.state, expires_unix_s=_GIVEN_BACK_UNIX_S)
        if after_seconds:
            until = time.time() + after_seconds
            new = replace(
                held.state, token="", pid=0, lease_seconds=after_seconds, expires_unix_s=until
            )
        if swap(catalog_uri, held.swap_token, new):
            return True
    return False


def last_state(catalog_uri: str) -> str | None:
    """Returns what differs once anybody has taken, renewed or given back a catalog's lock; None
    while nobody ever has. Raises: ConfigError, StorageError: as of `look`.
    """
    return _read(catalog_uri)[1]


def look(catalog_uri: str) -> HeldLock | None:
    """Returns who has a catalog's lock, dead or alive; None for nobody.

    Raises:
      ConfigError: the store cannot compare and swap.
      StorageError: it cannot be read.
    """
    return _read(catalog_uri)[0]


def _read(catalog_uri: str) -> tuple[HeldLock | None, str | None]:
    """Returns who has the lock, None for nobody, and the store's token for the object, None when
    there is no object.
    """
    try:
        found = objects.read_for_swap(uris.join(catalog_uri, NAME))
    except SwapUnsupportedError:
        raise ConfigError(
            f"--catalog {catalog_uri}: only folders, gs://, s3:// and azfs:// can be locked "
            "against a second run"
        ) from None
    state = decode(found.data)
    is_given_back = state is not None and state.expires_unix_s == _GIVEN_BACK_UNIX_S
    # What a power cut left of a file that was just made is nobody's.
    if is_given_back or not found.data.strip(b"\0 \r\n\t"):
        return None, found.token
    held = HeldLock(state=state, swap_token=found.token, age_seconds=found.age_seconds)
    return held, found.token


def why_held(catalog_uri: str, held: HeldLock) -> str:
    """Returns what a run is told that comes second."""
    uri = uris.join(catalog_uri, NAME)
    until = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + held.seconds_left))
    if held.state is None:
        return (
            f"the catalog's lock {uri} is damaged: it may be a living run's until {until}; wait "
            "until then, or remove it if you know that no run is at work"
        )
    return (
        f"{held.state.name} holds the catalog's lock {uri} until {until} unless it goes on "
        "renewing it; wait for it, or remove the lock if you know that run is dead"
    )


def _encode(state: LockState) -> bytes:
    return json.dumps(asdict(state)).encode().ljust(_STATE_BYTES)


def decode(data: bytes) -> LockState | None:
    """Returns what a lock object says, also one of an earlier version; None when it is damaged."""
    try:
        found: dict[str, Any] = json.loads(data)
        lease_seconds = float(found.get("lease_seconds", LEASE_SECONDS))
        if not 0 < lease_seconds <= LONGEST_LEASE_SECONDS:
            return None
        return LockState(
            run_id=str(found["run_id"]),
            token=str(found.get("token", "")),
            host=str(found["host"]),
            pid=int(found["pid"]),
            machine=str(found.get("machine", "")),
            job_id=str(found.get("job_id", "")),
            lease_seconds=lease_seconds,
            expires_unix_s=float(found["expires_unix_s"]),
            took_over=bool(found.get("took_over", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def this_machine() -> str:
    """Returns what processes share that see each other's ids; empty where that cannot be told."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process can have such a number
        return False
    except PermissionError:
        return True
    return True
