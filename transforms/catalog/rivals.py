"""What a run does that took the lock from one which may yet be at work: that one starts no upload
that its lease may not outlast, but one that takes much longer than it should could still lay
another file over one of this run. So this run keeps a copy of each file until its rows stand.

    <staging>/copies/<hash of the URI>
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa

from transforms.context import RunIdentity
from transforms.elements import key_hash
from transforms.storage import globs, objects, work_folders

logger = logging.getLogger(__name__)


def keep_copy(run: RunIdentity, uri: str, source: Path) -> None:
    """Keeps a copy of a finished recording in staging. Args: source: the file, which stays. Raises:
    StorageError.
    """
    with work_folders.work_folder(run.staging_uri) as folder:
        copy = folder / "copy"
        shutil.copyfile(source, copy)
        objects.move(_copy_of(run, uri), copy)


def make_again(run: RunIdentity, check: Callable[[int], None], recordings: pa.Table) -> None:
    """Puts the copies of those recordings in place again that are not as their rows say.

    Args:
      run: which made them, or took them up: of those there is no copy, and they were compared then.
      check: makes sure, before an upload of so many bytes, that the run has the lock still.
      recordings: rows of the table that are about to stand.

    Raises:
      LockLostError: as `check` finds.
      StorageError: a file or its copy cannot be read or written.
    """
    for row in recordings.select(["uri", "size_bytes", "sha256"]).to_pylist():
        uri, copy = row["uri"], _copy_of(run, row["uri"])
        if is_as_told(uri, row["size_bytes"], row["sha256"]) or not objects.match(
            globs.quote(copy)
        ):
            continue
        logger.warning("%s was overwritten by a run that had lost the lock; made again", uri)
        with work_folders.work_folder(run.staging_uri) as folder:
            again = folder / "again"
            with objects.open_input(copy) as kept, again.open("wb") as file:
                shutil.copyfileobj(kept, file)
            check(row["size_bytes"])
            objects.publish(uri, again)


def is_as_told(uri: str, size_bytes: int, sha256: str) -> bool:
    """Whether a file is there, with a size and a checksum. Raises: StorageError."""
    found = objects.match(globs.quote(uri))
    if not found or found[0].size_bytes != size_bytes:
        return False
    with objects.open_input(uri) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest() == sha256


def _copy_of(run: RunIdentity, uri: str) -> str:
    return run.staged("copies", key_hash(uri))
