"""What every step knows: what was asked for (the job's settings), and which run it is part of."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import version

from transforms.bounds import Bounds, PortionSize
from transforms.elements import Status
from transforms.filters import Filters
from transforms.media.settings import PressSettings, settings_fingerprint
from transforms.sources.manifests.reading import ManifestSource
from transforms.stamp import Stamp, own_stamp
from transforms.storage import storage_options, uris
from transforms.storage.storage_options import StorageOptions
from transforms.targets import Notify

VERSION = version("callpress")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What was asked for: settings and flags. The same for every run of a job; pickled into steps.

    Places are absolute paths or full URIs.
    """

    stamp: Stamp = field(default_factory=own_stamp)
    """Of the process that started the job. The first field, as fields are unpickled in their order:
    a worker with another stamp gets no further.
    """
    storage_options: StorageOptions = field(default_factory=storage_options.current)
    """How stores are reached: as the process that started the job does. Before all that names a
    place in one: a worker that unpickles them uses them.
    """
    output_uri: str
    catalog_uri: str
    settings: PressSettings
    filters: Filters
    overwrite: bool
    """Whether all is pressed, whatever the catalog has."""
    codec_processes: int | None = None
    """How many codec jobs a machine has at work at a time; None for as many as it has cores and
    memory for.
    """
    worker_memory_bytes: int | None = None
    """Memory of a machine that unpacks or mixes, asked of the engine; None to ask for none."""
    own_uris: tuple[str, ...] = ()
    """Files a run writes beside its recordings and tables: no pattern of its own stands for them.
    """
    repress: bool = False
    """Whether a large part of the catalog may be pressed anew for other settings, or by a newer
    version.
    """
    staging_root: str = ""
    """The folder that all runs over the catalog stage in; each has its own inside."""
    takes_up: bool = True
    """Whether dead runs may have left something to take up: where that was looked for, and is not,
    a run is spared the steps.
    """
    is_one_process: bool = False
    """Whether all of a run lives in one process, and ends with that."""
    fails_unattended: bool = False
    """Whether the job itself is to end as failed when more archives failed than are allowed: nobody
    may be waiting for it who would see that from its result.
    """
    bounds: Bounds = field(default_factory=Bounds)
    """How much a run takes on."""
    portion: PortionSize | None = None
    """How much of it is pressed and published at a time; None for all."""
    manifests: tuple[ManifestSource, ...] = ()
    """Listings of recordings to press."""
    copy_raw_uri: str = ""
    """The folder that archives are copied to before they are pressed; empty to copy none."""
    notify: Notify = field(default_factory=Notify)
    """Who is told of what is made."""
    settings_fingerprint: str = field(init=False)
    """Of `settings`: archives pressed with another one are pressed anew."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings_fingerprint", settings_fingerprint(self.settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Which run this is: what is different each time that the same job is run."""

    run_id: str
    started_unix_ns: int
    """The moment all rows of the run carry, in whole microseconds."""
    staging_uri: str
    """The run's own folder for packets, rows and files being made; gone when it has published."""
    lock_token: str = ""
    """By which its processes know the catalog's lock as theirs; empty for a run without a lock."""
    took_over: bool = False
    """Whether it has the lock of a run that did not give it back, and may yet be at work."""
    since_unix_ns: int | None = None
    """Archives are left out that were not modified after this."""
    repeat_archives: frozenset[str] = frozenset()
    """Archives to press whatever the catalog says: a run that was cut short had begun to replace
    what was made of them.
    """
    portion_number: int = 1
    """The number of the portion at work; the last of them, where some are at work together."""
    taken_up: tuple[tuple[Status, int], ...] = ()
    """Archives that this run put into the catalog for one that had died, and that were that one's
    first try: how many ended how. They are this run's news.
    """

    def staged(self, *parts: str) -> str:
        """Returns the URI of something in the run's staging folder."""
        return uris.join(self.staging_uri, *parts)


def is_older(version_of_row: str | None) -> bool:
    """Returns whether a row is an older program's: None stands in rows of versions that had no such
    column. A pre-release is as old as its release, and another one than this.

    Rows of a newer program are not: two that share a catalog do not press by turns.
    """
    if version_of_row is None:
        return True
    return version_of_row != VERSION and _release(version_of_row) <= _release(VERSION)


def _release(text: str) -> tuple[int, ...]:
    found = _RELEASE.match(text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
