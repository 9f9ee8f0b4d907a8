"""Objects in stores that only Beam's `FileSystems` knows, uncompressed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.storage.globs import quote
from transforms.storage.object_store import ObjectStore
from transforms.storage.store import (
    ListedObject,
    OpenFile,
    OpenObject,
    ShortTransferError,
    SwapRead,
    SwapUnsupportedError,
    exactly,
)

_BATCH_OBJECTS = 100
_COPY_BYTES = 1 << 20


class BeamStore(ObjectStore):
    """Any store of Beam's. It compares sizes, knows no checksum that all of them have, and cannot
    compare and swap.
    """

    read_buffer_bytes = 1 << 20

    def open(self, uri: str) -> OpenObject:
        """Opens an object for reading."""
        return OpenFile(
            cast(BinaryIO, FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED))
        )

    def read(self, uri: str) -> bytes:
        """Returns a whole object. Raises: ShortTransferError."""
        with contextlib.closing(self.open(uri)) as found:
            return found.read_at(0, found.size_bytes)

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of an object. Raises: ShortTransferError."""
        with contextlib.closing(self.open(uri)) as found:
            return exactly(found.read_at(position, size), position, size)

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the objects a glob matches."""
        for found in FileSystems.match([pattern])[0].metadata_list:
            yield ListedObject(
                path=found.path,
                size_bytes=int(found.size_in_bytes),
                modified_unix_s=found.last_updated_in_seconds,
            )

    def has_match(self, pattern: str) -> bool:
        """Whether a glob matches anything at all."""
        return bool(FileSystems.match([pattern], limits=[1])[0].metadata_list)

    def change_token(self, uri: str) -> str:
        """Returns what the store tells an object's content by."""
        return cast(str, FileSystems.checksum(uri))

    def write(self, uri: str, data: bytes) -> None:
        """Writes a whole object in one upload. Raises: ShortTransferError."""
        with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        self._check_size(uri, len(data))

    def write_file(self, uri: str, source: Path) -> None:
        """Writes an object from a local file in one upload. Raises: ShortTransferError."""
        size_bytes = source.stat().st_size
        with (
            source.open("rb") as data,
            FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file,
        ):
            shutil.copyfileobj(data, file, _COPY_BYTES)
        self._check_size(uri, size_bytes)

    def _check_size(self, uri: str, size_bytes: int) -> None:
        arrived = [listed.size_bytes for listed in self.match(quote(uri))]
        if arrived != [size_bytes]:
            raise ShortTransferError(
                f"{arrived[0] if arrived else 'no'} bytes arrived, expected {size_bytes}"
            )

    def delete(self, uri: str) -> None:
        """Deletes an object; one that is gone already is no error."""
        if FileSystems.exists(uri):
            FileSystems.delete([uri])

    def delete_many(self, uris: list[str]) -> None:
        """Deletes objects, many with a request."""
        for start in range(0, len(uris), _BATCH_OBJECTS):
            FileSystems.delete(uris[start : start + _BATCH_OBJECTS])

    def read_for_swap(self, uri: str) -> SwapRead:
        """Raises: SwapUnsupportedError: Beam has no conditional requests."""
        raise SwapUnsupportedError(uri)

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Raises: SwapUnsupportedError: Beam has no conditional requests."""
        raise SwapUnsupportedError(uri)
