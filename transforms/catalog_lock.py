"""One run per catalog: a lock object with a lease, renewed while the run lives and taken over when the lease has run out.

On a disk the object is read and replaced under an advisory file lock; in Cloud Storage by conditional requests on its
generation, so of two runs only one ever gets it.
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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from google.api_core import exceptions as google_errors
from google.cloud import storage as google_storage

from transforms import gcp, storage
from transforms.media.errors import CallpressError, ConfigError

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15 * 60
NAME = "callpress.lock"
_STATE_BYTES = 512


class LockHeldError(CallpressError):
    """Another run holds the catalog; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockState:
    """What the lock object says."""

    run_id: str
    host: str
    pid: int
    expires_unix_s: float

    def is_dead(self) -> bool:
        """Whether the holder has let its lease run out, or was a process of this machine that is no more."""
        if self.expires_unix_s <= time.time():
            return True
        return self.host == socket.gethostname() and not _is_running(self.pid)


class _Store(Protocol):
    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        """Replaces the state if it is `expected`; None stands for no lock. Returns whether it did."""

    def read(self) -> LockState | None: ...


class CatalogLock:
    """Held from `acquire` to `release`; a thread renews the lease in between."""

    def __init__(self, catalog_uri: str, run_id: str, lease_seconds: float = LEASE_SECONDS) -> None:
        """Args: catalog_uri: a folder or `gs://bucket/prefix`. Raises: ConfigError: some other store."""
        self._uri = storage.join(catalog_uri, NAME)
        self._run_id = run_id
        self._lease_seconds = lease_seconds
        self._store: _Store
        if storage.is_local(catalog_uri):
            self._store = _DiskStore(self._uri)
        elif catalog_uri.startswith("gs://"):
            self._store = _GcsStore(self._uri)
        else:
            raise ConfigError(f"--catalog {catalog_uri}: only folders and gs:// can be locked against a second run")
        self._mine: LockState | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lock, or takes it over from a dead run.

        Raises:
          LockHeldError: a living run has it.
        """
        for _ in range(10):
            held = self._store.read()
            if held is not None and not held.is_dead():
                until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.expires_unix_s))
                raise LockHeldError(
                    f"run {held.run_id} on {held.host} (process {held.pid}) holds the catalog's lock {self._uri} until "
                    f"{until} unless it goes on renewing it; wait for it, or remove the lock if you know that run is dead"
                )
            mine = self._state()
            if self._store.swap(held, mine):
                if held is not None:
                    logger.warning("took over the lock of run %s, whose lease has run out", held.run_id)
                self._mine = mine
                self._stop.clear()
                self._thread = threading.Thread(target=self._renew, daemon=True, name="lock-renewal")
                self._thread.start()
                return
        raise LockHeldError(f"{self._uri} changes hands too fast; another run is starting, try again")

    def release(self) -> None:
        """Gives the lock up; harmless when it is not held."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._mine is not None:
            self._store.swap(self._mine, None)
            self._mine = None

    def _state(self) -> LockState:
        return LockState(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            expires_unix_s=time.time() + self._lease_seconds,
        )

    def _renew(self) -> None:
        while not self._stop.wait(self._lease_seconds / 3):
            try:
                mine = self._state()
                if not self._store.swap(self._mine, mine):
                    logger.error("the catalog's lock %s was taken by another run", self._uri)
                    return
                self._mine = mine
            except (OSError, google_errors.GoogleAPICallError) as error:
                logger.warning("the catalog's lock %s could not be renewed: %s", self._uri, error)


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
        )
    except (ValueError, KeyError, TypeError):
        return None  # cut short by a crash: nobody's


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

    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        with self._locked() as fd:
            if _decode(os.pread(fd, 1 << 16, 0)) != expected:
                return False
            if new is None:
                os.unlink(self._path)
            else:
                # Padded, so that one write replaces all of it and nobody who just looks sees a half.
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
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        self._bucket = gcp.storage_client().bucket(bucket)
        self._name = name
        self._generation: int | None = None

    def read(self) -> LockState | None:
        blob = self._bucket.get_blob(self._name)
        self._generation = blob.generation if blob else 0
        if blob is None:
            return None
        try:
            return _decode(blob.download_as_bytes(if_generation_match=blob.generation))
        except (google_errors.NotFound, google_errors.PreconditionFailed):
            return self.read()

    def swap(self, expected: LockState | None, new: LockState | None) -> bool:
        if self.read() != expected:
            return False
        blob: google_storage.Blob = self._bucket.blob(self._name)
        try:
            if new is None:
                blob.delete(if_generation_match=self._generation)
            else:
                blob.upload_from_string(_encode(new), if_generation_match=self._generation)
        except (google_errors.NotFound, google_errors.PreconditionFailed):
            return False
        return True
