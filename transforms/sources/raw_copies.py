"""Copies of archives (`--copy-raw`), byte for byte: the vendor keeps its own for two weeks.

    <copy-raw>/<YYYY-MM-DD>/<12 hex digits>-<name>

The date is that of the archive's modification; the digits are of its URI and fingerprint, so that a
rerun finds what was copied before, and a changed archive is another copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from transforms.media.errors import RecordingError, StorageError
from transforms.storage import objects, uris
from transforms.storage.globs import quote

_BLOCK_BYTES = 1 << 20
_MAX_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_COPY = re.compile(r"/(\d{4}-\d\d-\d\d)/[0-9a-f]{12}-[A-Za-z0-9._-]{1,100}\Z")


def name_copy(folder: str, archive_uri: str, modified_date: str, hexadecimal: str) -> str:
    """Returns where the copy of an archive lies.

    Args:
      folder: of all copies.
      archive_uri: as it is known: its end goes into the name.
      modified_date: the UTC date of its modification.
      hexadecimal: digits of its URI and fingerprint, twelve at least.
    """
    name = _UNSAFE.sub("_", archive_uri.rsplit("/", 1)[-1])[-_MAX_NAME:] or "archive"
    return uris.join(folder, modified_date, f"{hexadecimal[:12]}-{name}")


def date_of(uri: str) -> str | None:
    """Returns the date in a name that copies have; None for any other name."""
    found = _COPY.search(uri)
    return found[1] if found else None


def is_gone(copy_uri: str, size_bytes: int) -> bool:
    """Whether a copy is gone, or cut short. Of one that cannot be looked at now that is not known:
    whoever reads it will say what is wrong.
    """
    try:
        return not _is_whole(copy_uri, size_bytes)
    except RecordingError:
        return False


def _is_whole(copy_uri: str, size_bytes: int) -> bool:
    found = objects.match(quote(copy_uri))
    return bool(found) and not found[0].unreadable and found[0].size_bytes == size_bytes


def make_copy(
    source: str,
    copy_uri: str,
    size_bytes: int,
    folder: Path,
    max_seconds: float,
) -> None:
    """Copies an archive, unless a copy of this name is there and whole.

    It is read once, in blocks, into a local file, of which the length is compared with what was
    listed, and published from there. What lies there then is read back, and its SHA-256 compared
    with that of the bytes read: not every store tells one.

    Args:
      source: what opens the archive.
      copy_uri: as `name_copy` gives it.
      size_bytes: of the archive, as listed.
      folder: a local one with room for the archive.
      max_seconds: for reading the archive: its server may send a byte now and then for ever.

    Raises:
      StorageError: the archive cannot be read, or not in time, or the copy not be written, or is
        not the same.
    """
    if _is_whole(copy_uri, size_bytes):
        return
    local, until = folder / "copy", time.monotonic() + max_seconds

    def keep(block: bytes) -> None:
        sink.write(block)
        if time.monotonic() > until:
            raise StorageError(
                f"{uris.shown(source)}: reading it took more than {max_seconds:g} s "
                "(limits.max_archive_seconds)"
            )

    try:
        with contextlib.closing(objects.open_input(source)) as file, local.open("wb") as sink:
            read_bytes, digest = _pass_on(file, keep)
    except OSError as error:  # of the local file: the disk is full
        raise StorageError(f"{folder}: {error.strerror or error}") from None
    if read_bytes != size_bytes:
        raise StorageError(
            f"{uris.shown(source)}: {read_bytes} bytes were read, expected {size_bytes} as listed: "
            "it was replaced"
        )
    objects.publish(copy_uri, local)
    with contextlib.closing(objects.open_input(copy_uri)) as file:
        back_bytes, back_digest = _pass_on(file, lambda _: None)
    if (back_bytes, back_digest) != (read_bytes, digest):
        objects.delete(copy_uri)
        raise StorageError(f"{copy_uri}: is not what was written ({back_bytes} bytes)")


def _pass_on(file: BinaryIO, write: Callable[[bytes], object]) -> tuple[int, str]:
    """Returns how many bytes a file had, and their SHA-256."""
    digest, size_bytes = hashlib.sha256(), 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        write(block)
        size_bytes += len(block)
    return size_bytes, digest.hexdigest()
