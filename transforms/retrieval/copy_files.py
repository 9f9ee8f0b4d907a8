"""Copies recordings into a folder of this machine: each is under its name when it is whole, and is
what its row says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from transforms.elements import Row
from transforms.media.errors import CallpressError, StorageError
from transforms.storage import globs, objects
from transforms.storage.uris import shown

_BLOCK_BYTES = 1 << 20
_AT_A_TIME = 4
_PARTIAL = re.compile(r"\.callpress-(\d{1,9})-\d+\.partial")
"""What is being written, with the process that does so."""


class Became(StrEnum):
    """What became of a recording that was to be copied."""

    COPIED = "copied"
    THERE = "there already"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A recording that was to be copied."""

    name: str
    row: Row
    became: Became
    why: str = ""
    """Why it failed."""


def copy_all(folder: Path, recordings: Sequence[tuple[str, Row]]) -> Iterator[Copy]:
    """Copies recordings, a few at a time; yields what became of each, in their order. One that is
    there already with the same bytes is left as it is, any other file of its name is replaced.

    Args:
      folder: is there.
      recordings: the name of each, and its row of `recordings`.
    """
    _remove_partials(folder)
    stopped = threading.Event()
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="get") as pool:
        try:
            yield from pool.map(
                lambda number: _copy(folder, number, *recordings[number], stopped),
                range(len(recordings)),
            )
        finally:
            stopped.set()  # Ctrl-C: the block waits for those that are being read


def write(folder: Path, name: str, data: bytes) -> None:
    """Writes a file of ours beside the copies. Raises: StorageError."""
    try:
        with _partial(folder, name) as file:
            file.write(data)
    except OSError as error:
        raise StorageError(f"{folder / name}: cannot be written: {_why(error)}") from None


def _copy(folder: Path, number: int, name: str, row: Row, stopped: threading.Event) -> Copy:
    try:
        became = _copied(folder, number, name, row, stopped)
    except CallpressError as error:  # also of a row that names no store
        why = str(error)
    except OSError as error:
        why = f"cannot be written: {_why(error)}"
    else:
        return Copy(name=name, row=row, became=became)
    return Copy(name=name, row=row, became=Became.FAILED, why=why)


def _copied(folder: Path, number: int, name: str, row: Row, stopped: threading.Event) -> Became:
    """Copies a recording. Raises: StorageError: what is there is not what its row says. OSError: it
    cannot be written.
    """
    uri, size_bytes, sha256 = row["uri"], row["size_bytes"], row["sha256"]
    if _is_there(folder / name, size_bytes, sha256):
        return Became.THERE
    _check_listed(uri, size_bytes)
    with _partial(folder, name, number) as file:
        digest, copied = hashlib.sha256(), 0
        with objects.open_input(uri) as recording:
            while block := recording.read(_BLOCK_BYTES):
                if stopped.is_set():
                    raise StorageError(f"{shown(uri)}: was not copied to its end")
                digest.update(block)
                copied += len(block)
                if copied > size_bytes:
                    break
                file.write(block)
        if copied != size_bytes:
            raise StorageError(f"{shown(uri)}: {copied} bytes came, its row says {size_bytes}")
        if digest.hexdigest() != sha256:
            raise StorageError(
                f"{shown(uri)}: its SHA-256 is {digest.hexdigest()}, its row says {sha256}"
            )
    return Became.COPIED


def _check_listed(uri: str, size_bytes: int) -> None:
    """Raises: StorageError: there is no file of that size; a pipe would be waited for."""
    listed = next(iter(objects.match(globs.quote(uri))), None)
    if listed is None:
        raise StorageError(f"{shown(uri)}: it is not there, though the catalog has a row of it")
    if listed.unreadable or listed.special_mode:
        raise StorageError(f"{shown(uri)}: is no file ({listed.unreadable or listed.special_mode})")
    if listed.size_bytes != size_bytes:
        raise StorageError(
            f"{shown(uri)}: it has {listed.size_bytes} bytes, its row says {size_bytes}"
        )


def _is_there(path: Path, size_bytes: int, sha256: str) -> bool:
    """Whether a file is what a row says. Raises: StorageError: what has its name is no file."""
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            raise StorageError(f"{path}: is a folder, expected a file of that name or none")
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _partial(folder: Path, name: str, number: int = 0) -> Iterator[BinaryIO]:
    """Gives a file that gets its name when the block ends well, and else is gone."""
    partial = folder / f".callpress-{os.getpid()}-{number}.partial"
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _remove_partials(folder: Path) -> None:
    """Removes what commands that were killed had begun to write."""
    for path in folder.glob(".callpress-*.partial"):
        found = _PARTIAL.fullmatch(path.name)
        if found and not _is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process_id != os.getpid()


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
