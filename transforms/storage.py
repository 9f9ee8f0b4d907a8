"""The only code that knows URIs: opens, lists, stages and publishes whole objects, on disks and object stores alike.

Disks are used directly, gs:// through `transforms.cloud_storage`, other stores through Beam's `FileSystems`, uncompressed. What
was read and written is compared with its size, where the store tells one with its checksum. Trouble that may pass is retried
with back-off; what stays becomes a `StorageError`, and a `StoreDownError` where a store does not answer any more at all.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import BinaryIO, ParamSpec, Protocol, TypeVar, cast

import tenacity
import urllib3.exceptions
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from transforms import cloud_storage
from transforms.cloud_storage import ShortTransferError
from transforms.media.errors import StorageError, StoreDownError
from transforms.plain_text import printable, without_secrets
from transforms.positioned_file import PositionedFile

_COPY_BYTES = 1 << 20
_TRIES = 6
_BACK_OFF = tenacity.wait_random_exponential(multiplier=0.2, max=10)
_DOWN_SECONDS = 60
_DOWN_OPERATIONS = 3
_FINAL_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
    }
)
_STORAGE_ERRORS = (
    OSError,  # also those of requests
    EOFError,
    google_errors.GoogleAPIError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)
_REQUEST = re.compile(r"^[A-Z]+ https?://\S+:\s*")
_JSON_MESSAGE = re.compile(r'^\{.*?"message": "((?:[^"\\]|\\.)*)"', re.DOTALL)
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")

P = ParamSpec("P")
T = TypeVar("T")


class Listed(Protocol):
    """What a listing tells of an object; Beam's `FileMetadata` is one."""

    @property
    def path(self) -> str: ...
    @property
    def size_in_bytes(self) -> int: ...
    @property
    def last_updated_in_seconds(self) -> float: ...


def _is_passing(error: object) -> bool:
    """Whether a try later may go better."""
    if isinstance(error, int):  # Beam's file systems give the status of a batch's parts bare
        return error in (408, 429) or error >= 500
    if isinstance(error, BeamIOError):
        causes = list((error.exception_details or {}).values())
        return bool(causes) and all(_is_passing(cause) for cause in causes)
    if isinstance(error, google_errors.GoogleAPICallError):
        return error.code is None or _is_passing(int(error.code))
    if isinstance(error, InvalidResponse):
        return _is_passing(int(error.response.status_code))
    if isinstance(error, OSError):
        return error.errno not in _FINAL_ERRNOS and not isinstance(error, FileNotFoundError | PermissionError)
    # Not google's RetryError: behind it lies a long row of tries already.
    passing = GoogleAuthError | EOFError | DataCorruption | urllib3.exceptions.HTTPError | http.client.HTTPException
    return isinstance(error, passing)


class _Health:
    """Tells a store that is gone from an object that is bad: a run that asks it for each of 10,000 archives never ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent: dict[str, tuple[float, set[str]]] = {}

    def answered(self, uri: str) -> None:
        """An operation went well, or was refused for good."""
        if self._silent:
            with self._lock:
                self._silent.pop(_store_of(uri), None)

    def gave_up(self, uri: str, why: str, began: float) -> None:
        """An operation that began at `began` used up its tries. Raises: StoreDownError: none went well for long."""
        store = _store_of(uri)
        with self._lock:
            since, names = self._silent.setdefault(store, (began, set()))
            names.add(uri)
            silent_seconds = time.monotonic() - since
            if is_local(uri) or len(names) < _DOWN_OPERATIONS or silent_seconds < _DOWN_SECONDS:
                return
        raise StoreDownError(f"{store} has not answered for {silent_seconds:.0f} s, last with: {why}; run again when it does")


def _store_of(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


_health = _Health()


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Retries passing trouble; what stays is a `StorageError` that names the first argument."""
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_passing),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=lambda state: _BACK_OFF(state),
        reraise=True,
    )

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        uri, began = cast(str, args[0]), time.monotonic()
        try:
            result = attempts(function, *args, **kwargs)
        except _STORAGE_ERRORS as error:
            why = plain(error)
            if _is_passing(error) or isinstance(error, google_errors.RetryError):
                _health.gave_up(uri, why, began)
            else:
                _health.answered(uri)
            raise StorageError(f"{printable(uri)}: {why}") from error
        _health.answered(uri)
        return result

    return run


def plain(error: BaseException) -> str:
    """Returns an error in one line, without a query string, a token or a payload."""
    if isinstance(error, BeamIOError) and error.exception_details:
        return "; ".join(sorted({_plain_cause(cause) for cause in error.exception_details.values() if cause is not None}))
    if isinstance(error, google_errors.RetryError) and error.cause is not None:
        return plain(error.cause)
    if isinstance(error, InvalidResponse):
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, google_errors.GoogleAPICallError) and error.code is not None:
        # The message of others begins with the request, and may end in the answer as it came.
        said = _REQUEST.sub("", error.message or "")
        told = _JSON_MESSAGE.search(said)
        said = (told[1] if told else said).split("\n", 1)[0]
        return f"HTTP status {int(error.code)}" + (f": {printable(without_secrets(said))[:200]}" if said.strip() else "")
    if isinstance(error, OSError) and error.strerror:
        return printable(without_secrets(error.strerror))
    text = printable(without_secrets(str(error)).split("\n", 1)[0])[:300]
    return text or type(error).__name__


def _plain_cause(cause: object) -> str:
    return plain(cause) if isinstance(cause, BaseException) else f"HTTP status {cause}"


def _is_gs(uri: str) -> bool:
    return uri.startswith(cloud_storage.PREFIX)


def is_local(uri: str) -> bool:
    """Whether a name is a path on this machine's disks."""
    return not _SCHEME.match(uri)


def absolute(uri: str) -> str:
    """Returns the absolute path or full URI, however it was spelled; a slash at the end stays."""
    if not is_local(uri):
        return uri
    path = os.path.abspath(os.path.expanduser(uri))
    return path + "/" if uri.endswith("/") and path != "/" else path


def join(base: str, *parts: str) -> str:
    """Returns the URI of something below `base`."""
    return "/".join([base.rstrip("/"), *parts])


# --- reading ---------------------------------------------------------------------------------------------------------


class _Reader(Protocol):
    size_bytes: int
    checksum: str
    """Empty where the store tells none."""

    def read_at(self, position: int, size: int) -> bytes: ...


class _BeamReader:
    """A file that Beam opens."""

    checksum = ""

    def __init__(self, uri: str) -> None:
        self._file: BinaryIO = FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED)
        self.size_bytes = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)

    def read_at(self, position: int, size: int) -> bytes:
        if self._file.tell() != position:
            self._file.seek(position)
        data = self._file.read(size)
        wanted = min(size, self.size_bytes - position)
        while len(data) < wanted:  # some file systems give what they have
            more = self._file.read(wanted - len(data))
            if not more:
                raise ShortTransferError(f"{len(data)} bytes came from byte {position}, expected {wanted}")
            data += more
        return data

    def close(self) -> None:
        self._file.close()


def _open_reader(uri: str) -> _Reader:
    return cloud_storage.ObjectReader(uri) if _is_gs(uri) else _BeamReader(uri)


class _Input(PositionedFile):
    """An object being read: a read that fails in passing is tried again where it stood, on a new connection."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._reader: _Reader | None = None
        self._known: tuple[int, str] | None = None
        _size_of(uri, self._opened)  # an object that is not there is found out now

    def read_at(self, position: int, size: int) -> bytes:
        return _read_at(self._uri, self._opened, position, size)

    def find_end(self) -> int:
        return _size_of(self._uri, self._opened)

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        reader, self._reader = self._reader, None
        if isinstance(reader, _BeamReader):
            with contextlib.suppress(OSError):
                reader.close()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[_Reader]:
        try:
            if self._reader is None:
                self._reader = _open_reader(self._uri)
                found = (self._reader.size_bytes, self._reader.checksum)
                if self._known not in (None, found):
                    raise StorageError(f"{printable(self._uri)}: it was replaced while it was being read")
                self._known = found
            yield self._reader
        except BaseException:
            self._drop()
            raise


_Opened = Callable[[], contextlib.AbstractContextManager[_Reader]]


@retried
def _read_at(_uri: str, opened: _Opened, position: int, size: int) -> bytes:
    with opened() as reader:
        return reader.read_at(position, size)


@retried
def _size_of(_uri: str, opened: _Opened) -> int:
    with opened() as reader:
        return reader.size_bytes


def open_input(uri: str) -> BinaryIO:
    """Opens an object for reading; seekable. Raises: StorageError, also from its reads."""
    return cast(BinaryIO, io.BufferedReader(_Input(uri), cloud_storage.READ_BYTES if _is_gs(uri) else _COPY_BYTES))


def open_staged(uri: str) -> BinaryIO:
    """As `open_input`, with a small buffer: all tracks of a call are open at a time. Raises: StorageError."""
    return cast(BinaryIO, io.BufferedReader(_Input(uri), _COPY_BYTES))


@retried
def read_bytes(uri: str) -> bytes:
    """Returns a whole small object. Raises: StorageError."""
    if _is_gs(uri):
        return cloud_storage.read(uri)
    with contextlib.closing(_BeamReader(uri)) as reader:
        return reader.read_at(0, reader.size_bytes)


@retried
def match(pattern: str) -> list[Listed]:
    """Returns the objects a glob matches, sorted by name; none when nothing does. Raises: StorageError."""
    found = cloud_storage.match(pattern) if _is_gs(pattern) else FileSystems.match([pattern])[0].metadata_list
    return sorted(found, key=lambda metadata: cast(str, metadata.path))


@retried
def has_match(pattern: str) -> bool:
    """Whether a glob matches anything at all; cheap also where it matches much. Raises: StorageError."""
    if _is_gs(pattern):
        return next(cloud_storage.match(pattern), None) is not None
    return bool(FileSystems.match([pattern], limits=[1])[0].metadata_list)


@retried
def checksum(uri: str) -> str:
    """Returns what a store tells an object's content by. Raises: StorageError."""
    if _is_gs(uri):
        return cloud_storage.ObjectReader(uri).checksum
    return cast(str, FileSystems.checksum(uri))


def check_bucket(uri: str) -> None:
    """Finds out whether an object store can be reached at all. Raises: StorageError."""
    has_match(join(quote(uri), "**"))


def list_below(prefix: str) -> list[Listed]:
    """Returns every object below a folder. Raises: StorageError."""
    if is_local(prefix) and not os.path.isdir(prefix):
        return []
    return match(join(quote(prefix), "**"))


def quote(text: str) -> str:
    """Spells a literal path so that a glob matches nothing but it."""
    return re.sub(r"([*?\[])", r"[\1]", text)


# --- writing ---------------------------------------------------------------------------------------------------------


@retried
def write_bytes(uri: str, data: bytes) -> None:
    """Writes a whole object; it is not visible before it is complete. Raises: StorageError."""
    if is_local(uri):
        with _beside(uri, len(data)) as partial:
            partial.write_bytes(data)
    elif _is_gs(uri):
        cloud_storage.write(uri, data)
    else:
        with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        _check_size(uri, len(data))


def publish(uri: str, source: Path) -> None:
    """Moves a finished local file to its final name; it is not visible before it is complete, nor short after a power cut.

    On a disk a rename, over file systems a copy beside it first; on an object store one upload. Raises: StorageError.
    """
    if is_local(uri):
        _sync(uri, source)
    move(uri, source)


@retried
def _sync(_uri: str, source: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())


@retried
def move(uri: str, source: Path) -> None:
    """As `publish`, of what nobody needs after a power cut. Raises: StorageError."""
    if is_local(uri):
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        try:
            os.replace(source, uri)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with _beside(uri, source.stat().st_size) as partial:
                shutil.copyfile(source, partial)
            source.unlink()
        return
    if _is_gs(uri):
        cloud_storage.write_file(uri, source)
    else:
        size_bytes = source.stat().st_size
        with source.open("rb") as data, FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            shutil.copyfileobj(data, file, _COPY_BYTES)
        _check_size(uri, size_bytes)
    source.unlink()


def _check_size(uri: str, size_bytes: int) -> None:
    arrived = [metadata.size_in_bytes for metadata in FileSystems.match([quote(uri)])[0].metadata_list]
    if arrived != [size_bytes]:
        raise ShortTransferError(f"{arrived[0] if arrived else 'no'} bytes arrived, expected {size_bytes}")


@contextlib.contextmanager
def _beside(path: str, size_bytes: int) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed onto it when the block ends well and all bytes are there."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = Path(os.path.dirname(path)) / f".{os.path.basename(path)[:200]}.{os.getpid()}.partial"
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_size != size_bytes:
                raise ShortTransferError(f"{os.fstat(file.fileno()).st_size} bytes were written, expected {size_bytes}")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@retried
def delete_partials(folder: str) -> None:
    """Deletes what a process that was killed while it wrote left below a folder of a disk; nobody else may be writing there."""
    for path in Path(folder).rglob(".*.partial") if is_local(folder) else ():
        path.unlink(missing_ok=True)


@retried
def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error. Raises: StorageError."""
    if is_local(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
    elif _is_gs(uri):
        cloud_storage.delete(uri)
    elif FileSystems.exists(uri):
        FileSystems.delete([uri])


def delete_recording(output_uri: str, uri: str) -> bool:
    """Deletes a media file that no row names any more; returns whether it is one of ours. Nothing else is ever deleted.

    Raises: StorageError.
    """
    is_ours = uri.startswith(join(output_uri, "recordings") + "/")
    if is_ours:
        delete(uri)
    return is_ours


@retried
def delete_below(prefix: str) -> None:
    """Deletes a folder with all that is in it. Raises: StorageError."""
    if is_local(prefix):
        shutil.rmtree(prefix, ignore_errors=True)
        return
    if _is_gs(prefix):
        cloud_storage.delete_all([found.path for found in cloud_storage.match(join(quote(prefix), "**"))])
        return
    paths = [metadata.path for metadata in FileSystems.match([join(quote(prefix), "**")])[0].metadata_list]
    for start in range(0, len(paths), 100):
        FileSystems.delete(paths[start : start + 100])


@contextlib.contextmanager
def work_folder(staging_uri: str) -> Iterator[Path]:
    """Gives an empty local folder for files being made: on the staging disk where there is one, so that moving is renaming."""
    parent = None
    if is_local(staging_uri):
        parent = join(staging_uri, "work")
        os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="callpress-", dir=parent) as folder:
        yield Path(folder)
