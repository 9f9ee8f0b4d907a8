"""One run per catalog: a lock object with a lease, renewed while the run lives and taken over when
the lease has run out.

On a disk the object is read and replaced under an advisory file lock; in Cloud Storage by
conditional requests on its generation, so of two runs only one ever gets it. A run that was away
for longer than its lease (a machine asleep, a network cut) may find its lock with another: it is
told so and ends, and before rows are published the lock is looked at once more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from google.api_core import exceptions as google_errors

from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.storage import credentials, retry, uris

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15 * 60
NAME = "callpress.lock"
_STATE_BYTES = 512
_LOOK_SECONDS = 5
"""Waits are this short, since the clock that counts them stands still while a machine sleeps, and a
lease does not.
"""
_RELEASE_SECONDS = 10
_TIMEOUT_SECONDS = 20


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


class _Store(Protocol):
    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        """Replaces the state if it is `expected`; None stands for no lock. Returns whether it
        did.
        """

    def read(self) -> LockState | None:
        """Returns the state, to be given to `swap`."""

    def look(self) -> LockState | None:
        """Returns the state; changes nothing."""


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

        Raises:
          ConfigError: some other store.
        """
        self._uri = uris.join(catalog_uri, NAME)
        self._run_id = run_id
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._store = _store(catalog_uri)
        self._mine: LockState | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, or takes it over from a dead run.

        Raises:
          LockHeldError: a living run has it.
          OSError, StorageError: it cannot be read or written.
        """
        for _ in range(10):
            held = self._store.read()
            if held is not None and not held.is_dead():
                until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.expires_unix_s))
                raise LockHeldError(
                    f"run {held.run_id} on {held.host} (process {held.pid}) holds the catalog's "
                    f"lock {self._uri} until "
                    f"{until} unless it goes on renewing it; wait for it, or remove the lock if "
                    "you know that run is dead"
                )
            mine = self._state()
            if self._store.swap(held, mine):
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
        """Gives the lock up; harmless when it is not held. One that cannot be given up now ends
        with its lease.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_RELEASE_SECONDS)
            self._thread = None
        if self._mine is not None:
            mine, self._mine = self._mine, None
            try:
                self._store.swap(mine, None)
            except (OSError, StorageError) as error:
                logger.warning("the catalog's lock %s could not be given up: %s", self._uri, error)

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
            if mine is None or mine.expires_unix_s - time.time() > self._lease_seconds * 2 / 3:
                continue
            try:
                renewed = self._state()
                if not self._store.swap(mine, renewed):
                    self._mine = None
                    why = f"the catalog's lock {self._uri} was taken by another run, or removed"
                    logger.error("%s", why)
                    self._on_lost(why)
                    return
                if self._mine is not None:
                    self._mine = renewed
            except (OSError, CallpressError) as error:
                logger.warning("the catalog's lock %s could not be renewed: %s", self._uri, error)


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
    """Returns who has a catalog's lock, dead or alive; None for nobody. Raises: StorageError."""
    return _store(catalog_uri).look()


def _store(catalog_uri: str) -> _Store:
    uri = uris.join(catalog_uri, NAME)
    if not uris.scheme_of(catalog_uri):
        return _DiskStore(uri)
    if catalog_uri.startswith("gs://"):
        return _GcsStore(uri)
    raise ConfigError(
        f"--catalog {catalog_uri}: only folders and gs:// can be locked against a second run"
    )


def _encode(state: LockState) -> bytes:
    return json.dumps({name: getattr(state, name) for name in state.__slots__}).encode()


def _decode(text: bytes) -> LockState | None:
    try:
        data: dict[str, Any] = json.loads(text)
        return LockState(
            run_id=str(data["run_id"]),
            host=str(data["host"]),
            pid=int(data["pid"]),
            expires_unix_s=float(data["expires_unix_s"]),
            machine=str(data.get("machine", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut short by a crash: nobody's


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


class _DiskStore:
    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> LockState | None:
        with self._locked() as fd:
            return _decode(os.pread(fd, 1 << 16, 0))

    def look(self) -> LockState | None:
        try:
            with open(self._path, "rb") as file:
                return _decode(file.read(1 << 16))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error

    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        with self._locked() as fd:
            if _decode(os.pread(fd, 1 << 16, 0)) != expected:
                return False
            if new is None:
                os.unlink(self._path)
            else:
                # Padded, so that one write replaces all of it and nobody who just looks sees a
                # half.
                os.pwrite(fd, _encode(new).ljust(_STATE_BYTES), 0)
                os.ftruncate(fd, _STATE_BYTES)
            return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Opens the object and keeps everybody else out until the block ends."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(fd).st_ino == os.stat(self._path).st_ino:
                        yield fd
                        return
            finally:
                os.close(fd)


class _GcsStore:
    def __init__(self, uri: str) -> None:
        self._uri = uri

    def read(self) -> LockState | None:
        return _read_object(self._uri)[0]

    look = read

    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        return _swap_object(self._uri, expected, new)


@retry.retried
def _read_object(uri: str) -> tuple[LockState | None, int]:
    """Returns what a lock object says, and its generation: 0 when there is none."""
    while True:
        blob = _blob(uri)
        try:
            blob.reload(retry=None, timeout=_TIMEOUT_SECONDS)
            text = blob.download_as_bytes(
                if_generation_match=blob.generation, retry=None, timeout=_TIMEOUT_SECONDS
            )
            return _decode(text), blob.generation
        except google_errors.PreconditionFailed:
            continue  # replaced between the two requests
        except google_errors.NotFound:
            return None, 0


@retry.retried
def _swap_object(uri: str, expected: LockState | None, new: LockState | None) -> bool:
    found, generation = _read_object(uri)
    if found == new:
        return True  # done by a try before this one, of which the answer was lost
    if found != expected:
        return False
    blob = _blob(uri)
    try:
        if new is None:
            blob.delete(if_generation_match=generation, retry=None, timeout=_TIMEOUT_SECONDS)
        else:
            blob.upload_from_string(
                _encode(new), if_generation_match=generation, retry=None, timeout=_TIMEOUT_SECONDS
            )
    except (google_errors.NotFound, google_errors.PreconditionFailed):
        return False
    return True


def _blob(uri: str) -> Any:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return credentials.storage_client().bucket(bucket).blob(name)
