"""What every step of one run knows: where things go, how they are made, which part of the input is
meant.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version

from transforms.elements import Row
from transforms.filters import Filters
from transforms.media.settings import PressSettings
from transforms.media.wall_time import to_time
from transforms.storage import uris

VERSION = version("callpress")
SCRATCH_FOLDERS = ("packets", "work")
"""Folders of a run's staging that are of no use to the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Frozen for the length of a run; pickled into every step."""

    run_id: str
    started_unix_ns: int
    output_uri: str
    catalog_uri: str
    staging_uri: str
    """This run's own folder for packets, rows and files being made; gone when the run has
    published.
    """
    settings: PressSettings
    settings_fingerprint: str
    filters: Filters
    overwrite: bool
    threads: int
    """Codec processes per worker process."""
    must_hold_lock: bool = False
    """Whether publishing first makes sure that the catalog's lock is this run's still."""
    repeat_archives: frozenset[str] = frozenset()
    """Archives to press whatever the catalog says: a run that was cut short had begun to replace
    what was made of them.
    """

    def staged(self, *parts: str) -> str:
        """Returns the URI of something in this run's staging folder."""
        return uris.join(self.staging_uri, *parts)

    def stamp(self, row: Row) -> Row:
        """Returns a row with the columns every row has. All of a run's rows carry its start, so
        that reruns compare.
        """
        return {
            **row,
            "run_id": self.run_id,
            "created_at": to_time(self.started_unix_ns),
            "settings_fingerprint": self.settings_fingerprint,
        }


def key_hash(*parts: str) -> str:
    """Returns a short name for something that ids stand for; the same in every process and run."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:24]
