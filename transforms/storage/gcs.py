"""Objects in Google Cloud Storage, whole and checked: what `transforms.storage.objects` does for
names that begin with `gs://`.

Beam's own file system for it was seen (2.77) to hand out half an object without a word when a body
came short, to answer 503 to a delete with 69 s of waiting, and to make a new connection for each
call. Here each call is one request over one client, its size and checksum are compared, and it is
not retried: `storage.retried` does that, once and for all.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from google.api_core import exceptions as google_errors
from google.cloud import storage as google_storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum

from transforms.storage import credentials
from transforms.storage.globs import compile_glob, plain_prefix
from transforms.storage.store import Listed, OpenObject, ShortTransferError, StoredObject

_PREFIX = "gs://"
READ_BYTES = 16 << 20
"""Read at a time: a request per megabyte would wait more than it reads."""
_TIMEOUT_SECONDS = 60
"""To connect, and between two pieces of an answer."""
# A listing has many pages, and each may fail by itself: tried again one by one, all of them
# together soon enough succeed.
_PAGE_RETRY = DEFAULT_RETRY.with_timeout(10.0)
_BATCH_OBJECTS = 100


def _split(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix(_PREFIX).partition("/")
    return bucket, name


def _blob(uri: str) -> google_storage.Blob:
    bucket, name = _split(uri)
    return credentials.storage_client().bucket(bucket).blob(name)


class ObjectReader:
    """One generation of an object: replaced while it is read, it is an error and never a
    mixture.
    """

    def __init__(self, uri: str) -> None:
        found = _blob(uri)
        found.reload(retry=None, timeout=_TIMEOUT_SECONDS)
        self.size_bytes: int = found.size
        self.checksum: str = found.crc32c or ""
        # Another of it, that has no link to its media: such a link may lead by another way than all
        # other requests go.
        self._blob = found.bucket.blob(found.name, generation=found.generation)

    def read_at(self, position: int, size: int) -> bytes:
        """Returns `size` bytes from `position`, fewer only at the end. Raises:
        ShortTransferError.
        """
        wanted = min(size, self.size_bytes - position)
        if wanted <= 0:
            return b""
        data = cast(
            bytes,
            self._blob.download_as_bytes(
                start=position,
                end=position + wanted - 1,
                raw_download=True,
                checksum=None,  # Cloud Storage knows that of the whole only
                retry=None,
                timeout=_TIMEOUT_SECONDS,
            ),
        )
        if len(data) != wanted:
            raise ShortTransferError(
                f"{len(data)} bytes came from byte {position}, expected {wanted}"
            )
        return data

    def close(self) -> None:
        """There is nothing to let go of: each read is a request."""


def open_object(uri: str) -> OpenObject:
    """Opens an object for reading."""
    return ObjectReader(uri)


def has_match(pattern: str) -> bool:
    """Whether a glob matches anything at all."""
    return next(match(pattern), None) is not None


def checksum(uri: str) -> str:
    """Returns an object's CRC32C as Cloud Storage spells it."""
    return ObjectReader(uri).checksum


def read(uri: str) -> bytes:
    """Returns a whole object. Raises: ShortTransferError."""
    reader = ObjectReader(uri)
    data = reader.read_at(0, reader.size_bytes)
    checksum = Checksum(data)
    if reader.checksum and _spell(checksum) != reader.checksum:
        raise ShortTransferError(
            f"what came has checksum {_spell(checksum)}, expected {reader.checksum}"
        )
    return data


def write(uri: str, data: bytes) -> None:
    """Writes a whole object in one upload. Raises: ShortTransferError."""
    _upload(uri, io.BytesIO(data), len(data))


def write_file(uri: str, source: Path) -> None:
    """Writes an object from a local file in one upload. Raises: ShortTransferError."""
    with source.open("rb") as file:
        _upload(uri, file, source.stat().st_size)


def _upload(uri: str, file: io.BufferedIOBase, size_bytes: int) -> None:
    blob = _blob(uri)
    try:
        blob.upload_from_file(
            file, size=size_bytes, checksum="crc32c", retry=None, timeout=_TIMEOUT_SECONDS
        )
    except google_errors.BadRequest as error:
        if "crc32c" not in str(error).lower():
            raise
        raise ShortTransferError("other bytes arrived than were sent") from error
    except (
        ValueError
    ) as error:  # the client's word for an upload that the store says is not complete yet
        raise ShortTransferError("not all bytes arrived") from error
    if blob.size != size_bytes:
        raise ShortTransferError(f"{blob.size} bytes arrived, expected {size_bytes}")
    file.seek(0)
    checksum = Checksum()
    while piece := file.read(1 << 20):
        checksum.update(piece)
    if blob.crc32c and blob.crc32c != _spell(checksum):
        raise ShortTransferError(
            f"what arrived has checksum {blob.crc32c}, expected {_spell(checksum)}"
        )


def _spell(checksum: Checksum) -> str:
    return base64.b64encode(checksum.digest()).decode("ascii")


def match(pattern: str) -> Iterator[Listed]:
    """Yields the objects a glob matches, by Beam's rules: `*` stays in its folder, `**` does
    not.
    """
    bucket, name = _split(pattern)
    wanted = compile_glob(pattern)
    found = credentials.storage_client().list_blobs(
        bucket,
        prefix=plain_prefix(name) or None,
        fields="items(name,size,updated,crc32c),nextPageToken",
        retry=_PAGE_RETRY,
        timeout=_TIMEOUT_SECONDS,
    )
    for blob in found:
        path = f"{_PREFIX}{bucket}/{blob.name}"
        if wanted.fullmatch(path):
            yield StoredObject(
                path=path,
                size_in_bytes=blob.size or 0,
                last_updated_in_seconds=blob.updated.timestamp(),
                checksum=blob.crc32c or "",
            )


def delete(uri: str) -> None:
    """Deletes an object; one that is gone already is no error."""
    with contextlib.suppress(google_errors.NotFound):
        _blob(uri).delete(retry=None, timeout=_TIMEOUT_SECONDS)


def delete_all(uris: list[str]) -> None:
    """Deletes objects, many with a request; those gone already are no error."""
    client = credentials.storage_client()
    for start in range(0, len(uris), _BATCH_OBJECTS):
        with client.batch(raise_exception=False) as batch:
            for uri in uris[start : start + _BATCH_OBJECTS]:
                _blob(uri).delete(retry=None, timeout=_TIMEOUT_SECONDS)
        for answer in batch._responses:
            if answer.status_code >= 400 and answer.status_code != 404:
                raise google_errors.from_http_response(answer)
