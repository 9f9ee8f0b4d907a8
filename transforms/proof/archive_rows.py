"""The rows of `archives`, as reconciling asks for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.elements import Row
from transforms.tries import ROW_COLUMNS

_KEY = ("archive_uri",)
_COLUMNS = (
    *("archive_uri", "call_session_ids", "error_message", "callpress_version", "copy_uri"),
    *ROW_COLUMNS,
)


class ArchiveRows(Protocol):
    """Rows of archives."""

    def of(self, archive_uris: Collection[str]) -> Iterator[Row]:
        """Yields the rows of some archives; of one that stands under two dates more than one."""
        ...

    def uris(self) -> Iterator[list[str]]:
        """Yields the URIs of all archives, some thousands at a time."""
        ...


class CatalogArchiveRows:
    """Those of a catalog. Memory is one object of the table, and what is asked for. Columns that a
    catalog of an older version lacks are null.
    """

    def __init__(self, catalog_uri: str) -> None:
        """Lists the table. Raises: StorageError."""
        self._files = partitions.list_files(catalog_uri, "archives")

    def __bool__(self) -> bool:
        """Whether there is such a table."""
        return bool(self._files)

    def of(self, archive_uris: Collection[str]) -> Iterator[Row]:
        """As `ArchiveRows.of`. Raises: StorageError."""
        wanted = WantedKeys(_KEY, {(uri,) for uri in archive_uris})
        for file in self._files:
            yield from partitions.scan("archives", file, _COLUMNS, wanted)

    def uris(self) -> Iterator[list[str]]:
        """As `ArchiveRows.uris`. Raises: StorageError."""
        for file in self._files:
            yield partitions.read_texts(file, "archives", "archive_uri")
