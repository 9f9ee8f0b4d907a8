"""The only code that knows URIs: opens, lists, stages and publishes whole objects, on disks and object stores alike.

Everything goes through Beam's `FileSystems`, uncompressed. Trouble that may pass is retried with back-off; what stays
becomes a `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar, cast

import tenacity
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError

from transforms.media.errors import StorageError
from transforms.positioned_file import PositionedFile

_COPY_BYTES = 1 << 20
_TRIES = 5
_FINAL_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
    }
)
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")

P = ParamSpec("P")
T = TypeVar("T")


def _is_passing(error: BaseException) -> bool:
    """Whether a try later may go better."""
    if isinstance(error, BeamIOError):
        causes = list((error.exception_details or {}).values())
        return bool(causes) and all(isinstance(cause, Exception) and _is_passing(cause) for cause in causes)
    if isinstance(error, google_errors.GoogleAPICallError):
        return error.code is None or error.code == 429 or error.code >= 500
    if isinstance(error, google_errors.RetryError | GoogleAuthError | EOFError):
        return True
    if isinstance(error, OSError):
        return error.errno not in _FINAL_ERRNOS and not isinstance(error, FileNotFoundError | PermissionError)
    return False


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Retries passing trouble; what stays is a `StorageError` that names the first argument."""
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_passing),
        stop=tenacity.stop_after_attempt(_TRIES),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return attempts(function, *args, **kwargs)
        except (OSError, EOFError, google_errors.GoogleAPIError, GoogleAuthError) as error:
            raise StorageError(f"{args[0]}: {_plain(error)}") from error

    return run


def _plain(error: BaseException) -> str:
    """The error in one line, without a query string or a payload."""
    if isinstance(error, BeamIOError) and error.exception_details:
        return "; ".join(sorted({_plain(cause) for cause in error.exception_details.values() if cause is not None}))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).split("?", 1)[0].split("\n", 1)[0][:300]
    return text or type(error).__name__


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


class _Input(PositionedFile):
    """An object being read: a read that fails in passing is tried again where it stood, on a new connection."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._file: BinaryIO | None = None
        self.read_at(0, 0)  # an object that is not there is found out now

    def read_at(self, position: int, size: int) -> bytes:
        return _read_at(self._uri, self._opened, position, size)

    def find_end(self) -> int:
        return _find_end(self._uri, self._opened)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._file is None:
            self._file = FileSystems.open(self._uri, compression_type=CompressionTypes.UNCOMPRESSED)
        try:
            yield self._file
        except BaseException:
            broken, self._file = self._file, None
            with contextlib.suppress(OSError):
                broken.close()
            raise


_Opened = Callable[[], contextlib.AbstractContextManager[BinaryIO]]


@retried
def _read_at(_uri: str, opened: _Opened, position: int, size: int) -> bytes:
    with opened() as file:
        if file.tell() != position:
            file.seek(position)
        return file.read(size) if size else b""


@retried
def _find_end(_uri: str, opened: _Opened) -> int:
    with opened() as file:
        return file.seek(0, io.SEEK_END)


def open_input(uri: str) -> BinaryIO:
    """Opens an object for reading; seekable. Raises: StorageError, also from its reads."""
    return cast(BinaryIO, io.BufferedReader(_Input(uri), _COPY_BYTES))


@retried
def read_bytes(uri: str) -> bytes:
    """Returns a whole small object. Raises: StorageError."""
    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return cast(bytes, file.read())


@retried
def match(pattern: str) -> list[FileMetadata]:
    """Returns the objects a glob matches, sorted by name; none when nothing does. Raises: StorageError."""
    found = FileSystems.match([pattern])[0].metadata_list
    return sorted(found, key=lambda metadata: cast(str, metadata.path))


@retried
def has_match(pattern: str) -> bool:
    """Whether a glob matches anything at all; cheap also where it matches much. Raises: StorageError."""
    return bool(FileSystems.match([pattern], limits=[1])[0].metadata_list)


def check_bucket(uri: str) -> None:
    """Finds out whether an object store can be reached at all. Raises: StorageError."""
    has_match(join(quote(uri), "**"))


def list_below(prefix: str) -> list[FileMetadata]:
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
        with _beside(uri) as partial:
            partial.write_bytes(data)
        return
    with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


@retried
def publish(uri: str, source: Path) -> None:
    """Moves a finished local file to its final name; it is not visible before it is complete.

    On a disk a rename, over file systems a copy beside it first; on an object store one upload. Raises: StorageError.
    """
    if is_local(uri):
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        try:
            os.replace(source, uri)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with _beside(uri) as partial:
                shutil.copyfile(source, partial)
            source.unlink()
        return
    with source.open("rb") as data, FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        shutil.copyfileobj(data, file, _COPY_BYTES)
    source.unlink()


@contextlib.contextmanager
def _beside(path: str) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed onto it when the block ends well."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = Path(os.path.dirname(path)) / f".{os.path.basename(path)[:200]}.{os.getpid()}.partial"
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@retried
def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error. Raises: StorageError."""
    if is_local(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    if FileSystems.exists(uri):
        FileSystems.delete([uri])


@retried
def delete_below(prefix: str) -> None:
    """Deletes a folder with all that is in it. Raises: StorageError."""
    if is_local(prefix):
        shutil.rmtree(prefix, ignore_errors=True)
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
