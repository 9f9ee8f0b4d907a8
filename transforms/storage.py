"""The only code that knows URIs: opens, lists, stages and publishes whole objects, on disks and object stores alike.

Everything goes through Beam's `FileSystems`, uncompressed. Trouble that may pass is retried with back-off; what stays
becomes a `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast

import tenacity
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError

from transforms.media.errors import StorageError
from transforms.media.timing import SUFFIX

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
_GLOB = re.compile(r"[*?\[]")
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


def _retried(function: Callable[P, T]) -> Callable[P, T]:
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


class _Input(io.RawIOBase):
    """An object being read: a read that fails in passing is tried again where it stood, on a new connection."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._position = 0
        self._file: BinaryIO | None = None
        self.seek(0, io.SEEK_CUR)
        self._read(0)  # an object that is not there is found out now

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += _end_of(self._uri, self._opened)
        self._position = max(0, offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _read(self, size: int) -> bytes:
        data = _read_at(self._uri, self._opened, self._position, size)
        self._position += len(data)
        return data

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


@_retried
def _read_at(_uri: str, opened: _Opened, position: int, size: int) -> bytes:
    with opened() as file:
        if file.tell() != position:
            file.seek(position)
        return file.read(size) if size else b""


@_retried
def _end_of(_uri: str, opened: _Opened) -> int:
    with opened() as file:
        return file.seek(0, io.SEEK_END)


def open_input(uri: str) -> BinaryIO:
    """Opens an object for reading; seekable. Raises: StorageError, also from its reads."""
    return cast(BinaryIO, io.BufferedReader(_Input(uri), _COPY_BYTES))


@_retried
def read_bytes(uri: str) -> bytes:
    """Returns a whole small object. Raises: StorageError."""
    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return cast(bytes, file.read())


@_retried
def match(pattern: str) -> list[FileMetadata]:
    """Returns the objects a glob matches, sorted by name; none when nothing does. Raises: StorageError."""
    found = FileSystems.match([pattern])[0].metadata_list
    return sorted(found, key=lambda metadata: cast(str, metadata.path))


def list_below(prefix: str) -> list[FileMetadata]:
    """Returns every object below a folder. Raises: StorageError."""
    if is_local(prefix) and not os.path.isdir(prefix):
        return []
    return match(join(_quote(prefix), "**"))


def _quote(text: str) -> str:
    """Spells a literal path so that a glob matches nothing but it."""
    return re.sub(r"([*?\[])", r"[\1]", text)


# --- writing ---------------------------------------------------------------------------------------------------------


@_retried
def write_bytes(uri: str, data: bytes) -> None:
    """Writes a whole object; it is not visible before it is complete. Raises: StorageError."""
    if is_local(uri):
        with _beside(uri) as partial:
            partial.write_bytes(data)
        return
    with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


@_retried
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


@_retried
def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error. Raises: StorageError."""
    if is_local(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    if FileSystems.exists(uri):
        FileSystems.delete([uri])


@_retried
def delete_below(prefix: str) -> None:
    """Deletes a folder with all that is in it. Raises: StorageError."""
    if is_local(prefix):
        shutil.rmtree(prefix, ignore_errors=True)
        return
    paths = [metadata.path for metadata in FileSystems.match([join(_quote(prefix), "**")])[0].metadata_list]
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


# --- archives --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file or unpacked folder that a pattern matched."""

    uri: str
    size_bytes: int
    modified_unix_ns: int


def list_archives(pattern: str) -> list[Listed]:
    """Returns what a pattern matches: files, and unpacked folders (those with timing metadata in them).

    Args:
      pattern: a file, a folder or a glob. A folder that is no recording itself stands for nothing.

    Raises:
      StorageError: it cannot be listed.
    """
    plain = absolute(pattern).rstrip("/")
    if _is_spelled_out(plain):
        members = list_below(plain)
        if members:
            if not any(cast(str, member.path).lower().endswith(SUFFIX) for member in members):
                return []
            return [_listed_folder(plain + "/", members)]
        return [_listed(metadata) for metadata in match(_quote(plain))] if not pattern.endswith("/") else []
    found = {listed.uri: listed for listed in map(_listed, match(plain)) if not pattern.endswith("/")}
    if "**" not in plain:
        # Globs match files only: a folder is found by the metadata in it, cut to as many levels as the pattern has.
        levels = plain.count("/") + 1
        below: dict[str, list[FileMetadata]] = {}
        for metadata in match(plain + "/**"):
            folder = "/".join(cast(str, metadata.path).split("/")[:levels]) + "/"
            below.setdefault(folder, []).append(metadata)
        for folder, members in below.items():
            if any(cast(str, member.path).lower().endswith(SUFFIX) for member in members):
                found[folder] = _listed_folder(folder, members)
    return sorted(found.values(), key=lambda listed: listed.uri)


def why_nothing_matches(pattern: str) -> str | None:
    """Returns why a pattern stands for no archive, None when it stands for some. Raises: StorageError."""
    plain = absolute(pattern).rstrip("/")
    # Beam takes a folder on a disk for a match of itself.
    name = _quote(plain) if _is_spelled_out(plain) else plain
    if not pattern.endswith("/") and not os.path.isdir(plain) and _first_match(name):
        return None
    below = join(name, "**")
    if not _first_match(below):
        return f"{pattern} matches nothing"
    if not _is_spelled_out(plain) or _first_match(below + SUFFIX):
        return None
    return f"{pattern} is a folder without *{SUFFIX}; to press the archives in it, write {plain}/**"


@_retried
def _first_match(pattern: str) -> bool:
    return bool(FileSystems.match([pattern], limits=[1])[0].metadata_list)


def check_bucket(uri: str) -> None:
    """Finds out whether an object store can be reached at all. Raises: StorageError."""
    _first_match(join(_quote(uri), "**"))


def _is_spelled_out(plain: str) -> bool:
    """Whether a pattern is the name of one thing: it has no wildcard, or there is a file or folder of just that name."""
    return not _GLOB.search(plain) or (is_local(plain) and os.path.exists(plain))


def folder_members(uri: str) -> tuple[tuple[str, int], ...]:
    """Returns the relative path and size of every file of an unpacked folder. Raises: StorageError."""
    return tuple((cast(str, m.path)[len(uri) :], int(m.size_in_bytes)) for m in list_below(uri.rstrip("/")))


@_retried
def fingerprint(uri: str) -> str:
    """Returns what changes whenever an archive's content may have.

    Of a file its size and modification (the entity tag where the store has one), of a folder the same over its members.

    Raises:
      StorageError: it is not there.
    """
    if uri.endswith("/"):
        digest = hashlib.sha256()
        for member in list_below(uri.rstrip("/")):
            digest.update(f"{member.path}\n{_one_fingerprint(member)}\n".encode())
        return digest.hexdigest()[:32]
    found = match(_quote(uri))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return _one_fingerprint(found[0])


def stat_archive(uri: str) -> Listed | None:
    """Returns one archive as listed, None when it is gone. Raises: StorageError."""
    if uri.endswith("/"):
        members = list_below(uri.rstrip("/"))
        return _listed_folder(uri, members) if members else None
    found = match(_quote(uri))
    return _listed(found[0]) if found else None


def _one_fingerprint(metadata: FileMetadata) -> str:
    if is_local(metadata.path):
        return f"{metadata.size_in_bytes}-{os.stat(metadata.path).st_mtime_ns}"
    return f"{metadata.size_in_bytes}-{FileSystems.checksum(metadata.path)}"


def _listed(metadata: FileMetadata) -> Listed:
    return Listed(
        uri=metadata.path,
        size_bytes=int(metadata.size_in_bytes),
        modified_unix_ns=int(metadata.last_updated_in_seconds * 1_000_000) * 1_000,
    )


def _listed_folder(uri: str, members: list[FileMetadata]) -> Listed:
    return Listed(
        uri=uri,
        size_bytes=sum(int(member.size_in_bytes) for member in members),
        modified_unix_ns=max(_listed(member).modified_unix_ns for member in members),
    )
