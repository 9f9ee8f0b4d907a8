"""Which archives wait: rows of `archives` that a run left to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.catalog.partitions import CatalogFile
from transforms.elements import Status

_READ_AT_A_TIME = 16
_WANTED = WantedKeys(("status",), {(str(Status.WAITING),)})


def waiting_archives(catalog_uri: str) -> Iterator[str]:
    """Yields the URIs of the archives that wait. Of a large object without any only the footer is
    read: no status is greater than theirs, so the greatest tells.

    Raises:
      StorageError: the catalog cannot be read.
    """
    with ThreadPoolExecutor(_READ_AT_A_TIME) as pool:
        for found in pool.map(_waiting_in, partitions.list_files(catalog_uri, "archives")):
            yield from found


def _waiting_in(file: CatalogFile) -> list[str]:
    rows = partitions.read_table(file, "archives", ("archive_uri", "status"), _WANTED)
    found: list[str] = rows.column("archive_uri").to_pylist()
    return found
