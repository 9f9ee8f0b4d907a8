"""Manifests in staging: the launcher writes there what workers elsewhere cannot read in its place,
and what must not stand in a job, such as links with their signatures.

    <staging root>/manifests/<random digits>
    <staging root>/manifests/<random digits>/<relative path>    of a folder of manifests

They go with the run that they are for: by its last step, or by the launcher of one that failed.
What a killed one left goes after a day: the job of another launcher may wait to be begun.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable

from transforms.context import JobSettings
from transforms.sources.manifests.reading import ManifestSource
from transforms.storage import objects, uris
from transforms.storage.store import ListedObject

FOLDER = "manifests"
_KEPT_SECONDS = 86_400


def new_place(staging_root: str) -> str:
    """Returns where a manifest may be staged: a name that nobody has used."""
    return uris.join(staging_root, FOLDER, secrets.token_hex(16))


def delete_staged(job: JobSettings) -> None:
    """Deletes the manifests that were staged for a job; those gone already are no error. Raises:
    StorageError.
    """
    delete_sources(job.staging_root, job.manifests)


def delete_sources(staging_root: str, sources: Iterable[ManifestSource]) -> None:
    """Deletes those of some manifests that lie in staging. Raises: StorageError."""
    staged = [source.where for source in sources if source.is_staged]
    for where in staged:
        if where.endswith("/"):
            objects.delete_below(where.rstrip("/"))
        else:
            objects.delete(where)
    if staged:
        objects.delete_empty_folder(uris.join(staging_root, FOLDER))


def delete_forgotten(staging_root: str, found: Iterable[ListedObject]) -> None:
    """Deletes those of some staged manifests that no run can be for any more. Raises:
    StorageError.
    """
    folder = uris.join(staging_root, FOLDER)
    forgotten = []
    for listed in found:
        if listed.modified_unix_s < time.time() - _KEPT_SECONDS:
            name, slash, _ = listed.path[len(folder) + 1 :].partition("/")
            where = uris.join(folder, name) + slash
            forgotten.append(ManifestSource(where=where, shown="", is_staged=True))
    delete_sources(staging_root, dict.fromkeys(forgotten))
