"""Objects in stores that only Beam's `FileSystems` knows, uncompressed: what `objects` does for
their names.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.storage.globs import quote
from transforms.storage.store import Listed, OpenFile, OpenObject, ShortTransferError

READ_BYTES = 1 << 20
_BATCH_OBJECTS = 100


def open_object(uri: str) -> OpenObject:
    """Opens an object for reading."""
    return OpenFile(
        cast(BinaryIO, FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED))
    )


def match(pattern: str) -> Iterator[Listed]:
    """Yields the objects a glob matches."""
    yield from FileSystems.match([pattern])[0].metadata_list


def has_match(pattern: str) -> bool:
    """Whether a glob matches anything at all."""
    return bool(FileSystems.match([pattern], limits=[1])[0].metadata_list)


def checksum(uri: str) -> str:
    """Returns what the store tells an object's content by."""
    return cast(str, FileSystems.checksum(uri))


def read(uri: str) -> bytes:
    """Returns a whole object. Raises: ShortTransferError."""
    with contextlib.closing(open_object(uri)) as found:
        return found.read_at(0, found.size_bytes)


def write(uri: str, data: bytes) -> None:
    """Writes a whole object in one upload. Raises: ShortTransferError."""
    with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    _check_size(uri, len(data))


def write_file(uri: str, source: Path) -> None:
    """Writes an object from a local file in one upload. Raises: ShortTransferError."""
    size_bytes = source.stat().st_size
    with (
        source.open("rb") as data,
        FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as file,
    ):
        shutil.copyfileobj(data, file, READ_BYTES)
    _check_size(uri, size_bytes)


def _check_size(uri: str, size_bytes: int) -> None:
    arrived = [listed.size_in_bytes for listed in match(quote(uri))]
    if arrived != [size_bytes]:
        raise ShortTransferError(
            f"{arrived[0] if arrived else 'no'} bytes arrived, expected {size_bytes}"
        )


def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error."""
    if FileSystems.exists(uri):
        FileSystems.delete([uri])


def delete_all(uris: list[str]) -> None:
    """Deletes objects, many with a request."""
    for start in range(0, len(uris), _BATCH_OBJECTS):
        FileSystems.delete(uris[start : start + _BATCH_OBJECTS])
