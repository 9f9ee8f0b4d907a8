"""This machine's disks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transforms.storage.globs import compile_glob, plain_prefix
from transforms.storage.retry import (
    T,
)
from transforms.storage.store import Listed, ShortTransferError


def in_folder(path: str, act: Callable[[], T]) -> T:
    """Does something with a path of which the folder is there as a rule; makes the folder when it
    was not.
    """
    try:
        return act()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return act()


@contextlib.contextmanager
def beside(path: str, size_bytes: int) -> Iterator[Path]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """A file of a disk as listed."""

    path: str
    size_in_bytes: int
    last_updated_in_seconds: float


def match_files(pattern: str) -> Iterator[Listed]:
    """Yields the files of this machine's disks that a glob matches; a folder only where it is
    spelled out.
    """
    prefix = plain_prefix(pattern)
    if prefix == pattern:
        yield from _look_at(pattern)
        return
    wanted = compile_glob(pattern)
    # `?` and sets match a slash, too.
    deepest = (
        None if "**" in pattern else pattern.count("/") + pattern.count("?") + pattern.count("[")
    )
    for folder, below, names in os.walk(os.path.dirname(prefix)):
        for name in names:
            path = os.path.join(folder, name)
            if wanted.fullmatch(path):
                yield from _look_at(path)
        if deepest is not None and os.path.join(folder, "").count("/") >= deepest:
            below.clear()


def _look_at(path: str) -> Iterator[Listed]:
    with contextlib.suppress(OSError, ValueError):  # it may have gone a moment ago
        found = os.stat(path)
        yield ListedFile(
            path=path, size_in_bytes=found.st_size, last_updated_in_seconds=found.st_mtime
        )
