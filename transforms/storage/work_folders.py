"""Local folders for files being made."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transforms.storage.local import in_folder
from transforms.storage.registry import store_of
from transforms.storage.uris import join

_spare_folders: dict[str, list[str]] = {}
"""Empty work folders by the folder they lie in: making and removing one costs more than a short
recording's other files.
"""


@contextlib.contextmanager
def work_folder(staging_uri: str) -> Iterator[Path]:
    """Gives an empty local folder for files being made, emptied again when the block ends.

    It lies on the disk of staging where staging is on a disk, so that moving a file from it is
    renaming. There it stays for the next caller, until staging is deleted.
    """
    parent = store_of(staging_uri).local_path(join(staging_uri, "work"))
    if parent is None:
        with tempfile.TemporaryDirectory(prefix="callpress-") as folder:
            yield Path(folder)
        return
    folder = _spare_folder(parent) or in_folder(
        join(parent, "x"), lambda: tempfile.mkdtemp(prefix="callpress-", dir=parent)
    )
    try:
        yield Path(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):  # staging was swept while work went on
            if os.listdir(folder):  # as a rule what was made in it has been moved to its place
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _spare_folders.setdefault(parent, []).append(folder)


def _spare_folder(parent: str) -> str | None:
    spare = _spare_folders.get(parent, [])
    with contextlib.suppress(IndexError):
        while not os.path.isdir(folder := spare.pop()):
            pass
        return folder
    return None
