"""This machine's disks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from transforms.storage.globs import compile_glob, may_match_below, plain_prefix, quote
from transforms.storage.store import (
    ListedObject,
    OpenFile,
    OpenObject,
    ShortTransferError,
    SwapRead,
    exactly,
    unsignable,
)
from transforms.storage.uris import join

_TRIES = 10
T = TypeVar("T")


class LocalStore:
    """Files in folders. A path that ends in an object makes the folders it needs."""

    read_buffer_bytes = 1 << 20
    can_be_down = False

    def find_credentials(self, uri: str) -> None:
        """Looks for nothing: a disk asks for no credentials."""

    # --- reading ----------------------------------------------------------------------------------

    def open(self, uri: str) -> OpenObject:
        """Opens a file for reading."""
        return OpenFile(open(uri, "rb"))

    def read(self, uri: str) -> bytes:
        """Returns a whole file."""
        with open(uri, "rb") as file:
            return file.read()

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of a file. Raises: ShortTransferError."""
        with open(uri, "rb") as file:
            file.seek(position)
            return exactly(file.read(size), position, size)

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the files a glob matches; a folder only where it is spelled out.

        Links to folders are not followed, as one may lead to all of the disk: they are yielded as
        unreadable, unless the folder lies below the pattern under its own name, too.
        """
        prefix = plain_prefix(pattern)
        if prefix == pattern:
            yield from _look_at(pattern)
            return
        wanted = compile_glob(pattern)
        # `?` and sets match a slash, too.
        deepest = (
            None
            if "**" in pattern
            else pattern.count("/") + pattern.count("?") + pattern.count("[")
        )
        root = os.path.dirname(prefix)
        folders = [root]
        while folders:
            folder = folders.pop()
            goes_on = deepest is None or os.path.join(folder, "").count("/") < deepest
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except (FileNotFoundError, NotADirectoryError):  # or gone a moment ago
                continue
            except OSError as error:
                if may_match_below(pattern, folder):
                    yield _unreadable(join(folder, ""), error.strerror or str(error))
                continue
            for entry in found:
                path = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if goes_on:
                        folders.append(path)
                elif entry.is_symlink() and os.path.isdir(path):
                    if goes_on and may_match_below(pattern, path):
                        yield from _look_at_link(path, root, pattern)
                elif wanted.fullmatch(path):
                    yield from _look_at(path)

    def has_match(self, pattern: str) -> bool:
        """Whether a glob matches anything at all."""
        return next(self.match(pattern), None) is not None

    def list_below(self, folder: str) -> Iterator[ListedObject]:
        """Yields every file below a folder; none when it is not there."""
        if os.path.isdir(folder):
            yield from self.match(join(quote(folder), "**"))

    def change_token(self, uri: str) -> str:
        """Returns the time of a file's last modification, in ns since 1970."""
        return str(os.stat(uri).st_mtime_ns)

    def exists_literally(self, name: str) -> bool:
        """Whether a file, folder or link has just this name."""
        return os.path.lexists(name)

    def is_folder(self, name: str) -> bool:
        """Whether a name is that of a folder."""
        return os.path.isdir(name)

    def resolve(self, uri: str) -> str:
        """Returns the path without links, in small letters where the disk takes no notice of
        case.
        """
        there = real = os.path.realpath(uri)
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        folder, name = os.path.split(there)
        other = os.path.join(folder, name.swapcase())
        with contextlib.suppress(OSError):
            if other != there and os.path.samefile(other, there):
                return real.casefold()
        return real

    def local_path(self, uri: str) -> str | None:
        """Returns the name itself: it is a path."""
        return uri

    def signed_link(self, uri: str, seconds: int) -> str:
        """Raises: ConfigError: nobody but this machine reads its disks."""
        raise unsignable(uri)

    # --- writing ----------------------------------------------------------------------------------

    def prepare_folder(self, folder: str) -> None:
        """Makes a folder and a file in it, which is gone again at once."""
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass

    def write(self, uri: str, data: bytes) -> None:
        """Writes a whole file beside its name and renames it. Raises: ShortTransferError."""
        with _beside(uri, len(data)) as partial:
            partial.write_bytes(data)

    def write_in_place(self, uri: str, data: bytes) -> None:
        """Writes a file under its name: a second name and a wait for the disk cost more than a
        small file itself.
        """
        with in_folder(uri, lambda: open(uri, "wb")) as file:
            file.write(data)

    def move(self, uri: str, source: Path) -> None:
        """Renames a file, over file systems copies it beside its name first."""
        try:
            in_folder(uri, lambda: os.replace(source, uri))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with _beside(uri, source.stat().st_size) as partial:
                shutil.copyfile(source, partial)
            source.unlink()

    def publish(self, uri: str, source: Path) -> None:
        """Moves a file once its content is on the disk: a rename may outlive a power cut that the
        content does not.
        """
        with source.open("rb") as file:
            os.fsync(file.fileno())
        self.move(uri, source)

    def default_staging(self, output: str, name: str) -> str:
        """Returns a folder below the output: on one disk, moving is renaming."""
        return join(output, ".staging", name)

    # --- deleting ---------------------------------------------------------------------------------

    def delete(self, uri: str) -> None:
        """Deletes a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)

    def delete_many(self, uris: list[str]) -> None:
        """Deletes files; those gone already are no error."""
        for uri in uris:
            self.delete(uri)

    def delete_below(self, folder: str) -> None:
        """Deletes a folder with all that is in it."""
        shutil.rmtree(folder, ignore_errors=True)

    def delete_partials(self, folder: str) -> None:
        """Deletes the temporary files of `write` below a folder. Nobody may be writing there."""
        for path in Path(folder).rglob(".*.partial"):
            path.unlink(missing_ok=True)

    def delete_empty_folder(self, folder: str) -> bool:
        """Deletes a folder unless something is in it; returns whether it did."""
        try:
            os.rmdir(folder)
        except OSError:
            return False
        return True

    # --- agreeing with other processes ------------------------------------------------------------

    def read_for_swap(self, uri: str) -> SwapRead:
        """Returns a file's content, read under the lock that it is written under, so that its age
        is that of the content. A file without content is as good as none.
        """
        try:
            with _locked(uri, fcntl.LOCK_SH) as file:
                state = os.fstat(file)
                data = os.pread(file, state.st_size, 0)
        except FileNotFoundError:
            return SwapRead()
        age_seconds = max(0.0, _now_beside(uri) - state.st_mtime)
        return SwapRead(data, _token(data), age_seconds)

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Writes a file if it is still the one that `expected` stands for: the SHA-256 of its
        content, compared under an advisory lock of the file.

        The write is in place, since the lock belongs to the file and not to its name.
        """
        try:
            with _locked(uri, fcntl.LOCK_EX, make=expected is None) as file:
                if _token(os.pread(file, os.fstat(file).st_size, 0)) != expected:
                    return None
                os.pwrite(file, data, 0)
                os.ftruncate(file, len(data))
        except FileNotFoundError:
            return None
        return _token(data)


def in_folder(path: str, act: Callable[[], T]) -> T:
    """Does something with a path, and again with the folder made when that was missing."""
    try:
        return act()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return act()


@contextlib.contextmanager
def _beside(path: str, size_bytes: int) -> Iterator[Path]:
    """Gives a temporary name beside `path`, renamed onto it when the block ends well and all bytes
    are there.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = Path(os.path.dirname(path)) / f".{os.path.basename(path)[:200]}.{os.getpid()}.partial"
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_size != size_bytes:
                raise ShortTransferError(
                    f"{os.fstat(file.fileno()).st_size} bytes were written, expected {size_bytes}"
                )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _look_at(path: str) -> Iterator[ListedObject]:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):  # else it was never there, or has gone a moment ago
            yield _unreadable(path, f"a link to {os.readlink(path)!r}, which is not there")
        return
    except ValueError:  # no name can hold NUL
        return
    except OSError as error:
        yield _unreadable(path, error.strerror or str(error))
        return
    is_regular = stat.S_ISREG(found.st_mode)
    yield ListedObject(
        path=path,
        size_bytes=found.st_size,
        modified_unix_s=found.st_mtime,
        change_token=str(found.st_mtime_ns) if is_regular else "",
        special_mode="" if is_regular else stat.filemode(found.st_mode),
    )


def _look_at_link(path: str, root: str, pattern: str) -> Iterator[ListedObject]:
    """Yields a link to a folder, unless the walk from `root` comes by that folder anyway."""
    target, real_root = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([target, real_root]) == real_root:
        on_the_way = os.path.normpath(os.path.join(root, os.path.relpath(target, real_root)))
        if may_match_below(pattern, on_the_way):
            return
    yield _unreadable(path, f"a link to the folder {target!r}, which is not followed")


def _unreadable(path: str, why: str) -> ListedObject:
    modified_unix_s = 0.0
    with contextlib.suppress(OSError):
        modified_unix_s = os.lstat(path).st_mtime
    return ListedObject(path=path, size_bytes=0, modified_unix_s=modified_unix_s, unreadable=why)


def _token(data: bytes) -> str | None:
    return hashlib.sha256(data).hexdigest() if data else None


@contextlib.contextmanager
def _locked(path: str, how: int, *, make: bool = False) -> Iterator[int]:
    """Opens a file under an advisory lock until the block ends. Raises: FileNotFoundError, unless
    it is to be made.

    Args:
      path: of the file.
      how: LOCK_EX to write and keep everybody else out, LOCK_SH to read and keep writers out.
      make: whether to make it where it is missing.
    """
    if make:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = os.O_RDONLY if how == fcntl.LOCK_SH else os.O_RDWR
    while True:
        file = os.open(path, mode | (os.O_CREAT if make else 0), 0o644)
        try:
            fcntl.flock(file, how)
            if _has_name(file, path):  # else it was replaced while we waited
                yield file
                return
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would not, if a fork has it too
            os.close(file)


def _has_name(file: int, path: str) -> bool:
    try:
        return os.fstat(file).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


def _now_beside(path: str) -> float:
    """Returns the time by the clock that a file has its times from: on a disk that machines share,
    the file server's.
    """
    folder = os.path.dirname(path)
    for _ in range(_TRIES):
        try:
            # Without a name, where the file system can: whoever begins a run tidies up beside us.
            with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".partial") as file:
                return os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            continue  # it had a name, which was tidied up before we took it away
        except OSError:
            break
    return time.time()  # who may only read looks at his own clock
