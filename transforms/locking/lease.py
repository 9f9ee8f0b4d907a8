"""How a run holds its catalog: each of its processes that is at work sees to it that the lock is
renewed, and looks at it before it publishes anything.

Each process at work looks at the lock every fifteenth of the lease, and of all of them one renews
when a third has passed; the others see that on their next look. A run that was away for longer
than its lease (a machine asleep, a network cut) may find its lock with another: it is told so, and
publishes no more. When nobody could renew it, the run ends where it would publish next.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transforms.context import JobSettings, RunIdentity
from transforms.locking import lock
from transforms.locking.lock import HeldLock, LockLostError, LockState
from transforms.media.errors import CallpressError, StorageError
from transforms.storage import uris

logger = logging.getLogger(__name__)

_LOOKED_SHARE = 1 / 15
"""Of a lease, for which a look at the lock holds good: 60 s of 15 minutes."""
_LEFT_SHARE = 1 / 3
"""Of a lease, that is to be left before anything is published: 5 minutes of 15."""
_RENEWED_SHARE = 2 / 3
"""Of a lease: with no more left than this it is renewed."""
_SLOWEST_UPLOAD_BYTES_PER_SECOND = 1_000_000
_LOOK_SECONDS = 5.0
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Which run holds which catalog, as all its processes know it."""

    catalog_uri: str
    run_id: str
    token: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """The run's own lock, as it was when this process looked last."""

    looked_at: float
    expires_at: float
    """Both by `_now`."""


class Lease:
    """A run's hold on its catalog, in one of its processes."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._seen: _Seen | None = None
        self._lost = ""
        self._lock = threading.Lock()
        """Of what was seen and lost; held while the store is asked."""
        self._count_lock = threading.Lock()
        self._at_work = 0
        self._begun = 0
        """Pieces of work, ever."""
        self._is_kept = False
        """Whether a thread sees to it that the lock is renewed."""
        self._given_back = threading.Event()
        self._listeners: list[Callable[[str], None]] = []

    # --- asking ---

    def check(self, size_bytes: int = 0) -> None:
        """Makes sure that the lock is the run's and stays so for as long as publishing takes; to be
        called before anything is published.

        Args:
          size_bytes: what is to be uploaded; 0 for what takes no time.

        Raises:
          LockLostError: another has it, or nobody.
          StorageError: it cannot be read.
        """
        lease_seconds = self._holder.lease_seconds
        wanted = lease_seconds * _LEFT_SHARE + size_bytes / _SLOWEST_UPLOAD_BYTES_PER_SECOND
        wanted = min(wanted, lease_seconds * _RENEWED_SHARE)
        with self._lock:
            self._raise_if_lost()
            if not self._has_looked():
                self._look_and_renew()
            for _ in range(_TRIES):
                self._raise_if_lost()
                if self._seconds_left() >= wanted:
                    return
                self._look_and_renew()  # it may have taken so long that too little is left
        raise StorageError(
            f"{self._uri}: renewing it takes too long, of its {lease_seconds:.0f} s {wanted:.0f} "
            "are to be left"
        )

    def is_held(self) -> bool:
        """Whether the lock is the run's still. Raises: StorageError: it cannot be read."""
        held = lock.look(self._holder.catalog_uri)
        return held is not None and self._is_ours(held.state)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Keeps the lock renewed for as long as the block lasts. Raises: LockLostError: it is known
        to be another's.
        """
        self._raise_if_lost()
        with self._count_lock:
            self._at_work += 1
            self._begun += 1
            if not (self._is_kept or self._given_back.is_set()):
                self._is_kept = True
                threading.Thread(target=self._keep, daemon=True, name="lock-renewal").start()
        try:
            yield
        finally:
            with self._count_lock:
                self._at_work -= 1

    @contextlib.contextmanager
    def telling(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Tells why, within the block and from any thread, when the lock turns out to be
        another's.
        """
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def give_back(self, after_seconds: float = 0.0) -> None:
        """Gives the lock back, if it is the run's still; this process renews it no more. One that
        cannot be given back now ends with its lease.

        Args:
          after_seconds: as `lock.give_back` has it.
        """
        with self._lock:  # no look of ours is on its way that would find the lock another's
            self._given_back.set()
            self._seen = None
            try:
                lock.give_back(self._holder.catalog_uri, self._holder.token, after_seconds)
            except CallpressError as error:
                logger.warning("the catalog's lock %s was not given back: %s", self._uri, error)

    # --- looking and renewing ---

    @property
    def _uri(self) -> str:
        return uris.join(self._holder.catalog_uri, lock.NAME)

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise LockLostError(self._lost)

    def _keep(self) -> None:
        """Looks and renews while there is work, and a little longer: work comes in small pieces. A
        run that has lost the catalog should not work on for hours.
        """
        begun = -1
        while self._goes_on(begun):
            begun = self._begun
            with self._lock:
                try:
                    is_wanted = self._at_work and not self._given_back.is_set()
                    if is_wanted and (self._is_due() or not self._has_looked()):
                        self._look_and_renew()
                except Exception as error:  # whatever it was, the next look may go well
                    logger.warning(
                        "the catalog's lock %s could not be renewed: %s", self._uri, error
                    )
            # Waits are short, since the clock that counts them stands still while a machine sleeps,
            # and a lease does not.
            self._given_back.wait(min(_LOOK_SECONDS, self._holder.lease_seconds / 10))

    def _goes_on(self, begun: int) -> bool:
        with self._count_lock:
            has_ended = bool(self._lost) or self._given_back.is_set()
            self._is_kept = not has_ended and bool(self._at_work or self._begun != begun)
            return self._is_kept

    def _is_ours(self, state: LockState | None) -> bool:
        return state is not None and state.token == self._holder.token

    def _has_looked(self) -> bool:
        """Whether the last look holds good."""
        good_seconds = self._holder.lease_seconds * _LOOKED_SHARE
        return self._seen is not None and _now() - self._seen.looked_at <= good_seconds

    def _seconds_left(self) -> float:
        return self._seen.expires_at - _now() if self._seen else 0.0

    def _is_due(self) -> bool:
        return self._seconds_left() <= self._holder.lease_seconds * _RENEWED_SHARE

    def _look_and_renew(self) -> None:
        """Looks at the lock, and renews it when it is due; sets `_lost` when it is another's."""
        holder = self._holder
        for _ in range(_TRIES):
            now = _now()  # before the store is asked, so that no time is counted twice
            held = lock.look(holder.catalog_uri)
            if held is None or held.state is None or not self._is_ours(held.state):
                self._lose(held)
                return
            self._seen = _Seen(looked_at=now, expires_at=now + held.seconds_left)
            if not self._is_due():
                return
            now = _now()
            if lock.swap(holder.catalog_uri, held.swap_token, lock.renewed(held.state)):
                self._seen = _Seen(looked_at=now, expires_at=now + held.state.lease_seconds)
                return
        raise StorageError(f"{self._uri}: it changes too fast to be renewed")

    def _lose(self, held: HeldLock | None) -> None:
        """Notes, and tells, that the lock is not the run's any more."""
        run_id = self._holder.run_id
        if held is None:
            now = "it is gone"
        elif held.state is not None and held.state.run_id == run_id:
            now = "the run was ended"
        else:
            now = f"{held.name} has it now"
        self._lost = (
            f"run {run_id} lost the catalog's lock {self._uri} ({now}); what it had not published "
            "yet was not published, run again"
        )
        logger.error("%s", self._lost)
        for listener in list(self._listeners):
            listener(self._lost)


def _now() -> float:
    """Returns seconds of a clock that never steps, and goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class _NoLease(Lease):
    """Of a run without a lock, as in tests of single steps: it holds what nobody wants."""

    def check(self, size_bytes: int = 0) -> None:
        """Finds all well."""

    def is_held(self) -> bool:
        return True

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        yield

    def give_back(self, after_seconds: float = 0.0) -> None:
        """Has nothing to give."""


_leases: dict[Holder, Lease] = {}
_leases_lock = threading.Lock()


def lease_of(job: JobSettings, run: RunIdentity) -> Lease:
    """Returns this process's part in a run's hold on its catalog, always the same."""
    holder = Holder(
        catalog_uri=job.catalog_uri,
        run_id=run.run_id,
        token=run.lock_token,
        lease_seconds=job.settings.limits.lock_seconds,
    )
    with _leases_lock:
        if holder not in _leases:
            _leases[holder] = Lease(holder) if holder.token else _NoLease(holder)
        return _leases[holder]


@contextlib.contextmanager
def holding(catalog_uri: str, name: str) -> Iterator[Lease]:
    """Holds a catalog within the block, for a command that writes to it and is no run of a job;
    gives its lease.

    Args:
      catalog_uri: of the catalog.
      name: told to whoever comes second.

    Raises:
      LockHeldError: a run is at work.
      StorageError: the lock cannot be read or written.
    """
    holder = Holder(
        catalog_uri=catalog_uri,
        run_id=name,
        token=secrets.token_hex(16),
        lease_seconds=lock.LEASE_SECONDS,
    )
    lock.acquire(catalog_uri, lock.state_of(name, holder.token, is_one_process=True))
    lease = Lease(holder)
    try:
        with lease.at_work():
            yield lease
    finally:
        lease.give_back()
