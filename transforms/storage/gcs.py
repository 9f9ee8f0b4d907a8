"""Objects in Google Cloud Storage, read and written whole, and checked.

Beam's own file system for it was seen (2.77) to hand out half an object without a word when a body
came short, to answer 503 to a delete with 69 s of waiting, and to make a new connection for each
call. Here each call is one request over one client, its size and checksum are compared, and it is
not retried: `storage.retry` does that, once and for all.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http
import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from google.api_core import exceptions as google_errors
from google.cloud import storage as google_storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google_crc32c import Checksum

from transforms.storage import credentials
from transforms.storage.globs import compile_glob, plain_prefix
from transforms.storage.object_store import ObjectStore
from transforms.storage.store import (
    ListedObject,
    OpenObject,
    ShortTransferError,
    SwapRead,
    exactly,
)

_PREFIX = "gs://"
_TIMEOUT_SECONDS = 60
"""To connect, and between two pieces of an answer."""
_SWAP_TIMEOUT_SECONDS = 20
"""The same for small objects by which processes agree: others wait for them."""
# A listing has many pages, and each may fail by itself: tried again one by one, all of them
# together soon enough succeed.
_PAGE_RETRY = DEFAULT_RETRY.with_timeout(10.0)
_BATCH_OBJECTS = 100
_NO_OBJECT = 0
"""As the generation in a condition: there is to be no object."""


def _bucket_and_name(uri: str) -> tuple[str, str]:
    """Returns the two parts of a URI. Raises: OSError: what stands for the bucket cannot be one."""
    bucket, _, name = uri.removeprefix(_PREFIX).partition("/")
    if not (bucket[:1].isalnum() and bucket[-1:].isalnum()):
        raise OSError(errno.EINVAL, f"{bucket!r} is no name of a bucket", uri)
    return bucket, name


def _blob(uri: str) -> google_storage.Blob:
    bucket, name = _bucket_and_name(uri)
    return credentials.storage_client().bucket(bucket).blob(name)


class _OpenGeneration:
    """One generation of an object: one replaced while it is read is an error and never a
    mixture.
    """

    def __init__(self, uri: str) -> None:
        found = _blob(uri)
        found.reload(retry=None, timeout=_TIMEOUT_SECONDS)
        self.size_bytes: int = found.size
        self.checksum: str = found.crc32c or ""
        # A second blob without the first one's link to its media, which may lead by another way
        # than all other requests go.
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
        """Closes nothing: each read is a request of its own."""


class GcsStore(ObjectStore):
    """Buckets of Google Cloud Storage."""

    read_buffer_bytes = 16 << 20
    """A request per megabyte would wait more than it reads."""

    def find_credentials(self, uri: str) -> None:
        """Looks for Google's credentials, and goes on without where there are none."""
        credentials.have_credentials()

    # --- reading ----------------------------------------------------------------------------------

    def open(self, uri: str) -> OpenObject:
        """Opens an object for reading."""
        return _OpenGeneration(uri)

    def read(self, uri: str) -> bytes:
        """Returns a whole object. Raises: ShortTransferError."""
        reader = _OpenGeneration(uri)
        data = reader.read_at(0, reader.size_bytes)
        checksum = Checksum(data)
        if reader.checksum and _spell(checksum) != reader.checksum:
            raise ShortTransferError(
                f"what came has checksum {_spell(checksum)}, expected {reader.checksum}"
            )
        return data

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of an object. Raises: ShortTransferError."""
        data = cast(
            bytes,
            _blob(uri).download_as_bytes(
                start=position,
                end=position + size - 1,
                raw_download=True,
                checksum=None,  # Cloud Storage knows that of the whole only
                retry=None,
                timeout=_TIMEOUT_SECONDS,
            ),
        )
        return exactly(data, position, size)

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the objects a glob matches, by Beam's rules: `*` stays in its folder, `**` does
        not.
        """
        bucket, name = _bucket_and_name(pattern)
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
                yield ListedObject(
                    path=path,
                    size_bytes=blob.size or 0,
                    modified_unix_s=blob.updated.timestamp(),
                    change_token=blob.crc32c or "",
                )

    def has_match(self, pattern: str) -> bool:
        """Whether a glob matches anything at all."""
        return next(self.match(pattern), None) is not None

    def change_token(self, uri: str) -> str:
        """Returns an object's CRC32C as Cloud Storage spells it."""
        return _OpenGeneration(uri).checksum

    def signed_link(self, uri: str, seconds: int) -> str:
        """Returns a link that is signed (V4) by a service account: by its key, where this process
        has it, else by asking Google. Raises: ConfigError: it acts for no service account.
        """
        return cast(
            str,
            _blob(uri).generate_signed_url(
                version="v4",
                method="GET",
                expiration=timedelta(seconds=seconds),
                **credentials.signer(),
            ),
        )

    # --- writing ----------------------------------------------------------------------------------

    def write(self, uri: str, data: bytes) -> None:
        """Writes a whole object in one upload. Raises: ShortTransferError."""
        _upload(uri, io.BytesIO(data), len(data))

    def write_file(self, uri: str, source: Path) -> None:
        """Writes an object from a local file in one upload. Raises: ShortTransferError."""
        with source.open("rb") as file:
            _upload(uri, file, source.stat().st_size)

    def delete(self, uri: str) -> None:
        """Deletes an object; one that is gone already is no error."""
        with contextlib.suppress(google_errors.NotFound):
            _blob(uri).delete(retry=None, timeout=_TIMEOUT_SECONDS)

    def delete_many(self, uris: list[str]) -> None:
        """Deletes objects, many with a request; those gone already are no error."""
        client = credentials.storage_client()
        for start in range(0, len(uris), _BATCH_OBJECTS):
            with client.batch(raise_exception=False) as batch:
                for uri in uris[start : start + _BATCH_OBJECTS]:
                    _blob(uri).delete(retry=None, timeout=_TIMEOUT_SECONDS)
            for answer in batch._responses:
                if answer.status_code >= 400 and answer.status_code != 404:
                    raise google_errors.from_http_response(answer)

    # --- agreeing with other processes ------------------------------------------------------------

    def read_for_swap(self, uri: str) -> SwapRead:
        """Returns an object's content with its generation, and its age by the clock of Cloud
        Storage: that stands in the head of each answer, which the client's own functions do not
        show.
        """
        while True:
            answer = _ask_about(uri)
            if answer.status_code == http.HTTPStatus.NOT_FOUND:
                return SwapRead()
            if answer.status_code >= 400:
                raise google_errors.from_http_response(answer)
            found = answer.json()
            try:
                data = _blob(uri).download_as_bytes(
                    if_generation_match=int(found["generation"]),
                    retry=None,
                    timeout=_SWAP_TIMEOUT_SECONDS,
                )
            except google_errors.PreconditionFailed:
                continue  # replaced between the two requests
            except google_errors.NotFound:
                return SwapRead()
            written = datetime.fromisoformat(found["updated"])
            now = parsedate_to_datetime(answer.headers["Date"])
            age_seconds = max(0.0, (now - written).total_seconds())
            return SwapRead(cast(bytes, data), str(found["generation"]), age_seconds)

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Writes an object if it is still of the generation `expected`."""
        blob = _blob(uri)
        try:
            blob.upload_from_string(
                data,
                if_generation_match=int(expected or _NO_OBJECT),
                retry=None,
                timeout=_SWAP_TIMEOUT_SECONDS,
            )
        except google_errors.NotFound:
            if expected is None:
                raise  # there is no such bucket
            return None
        except google_errors.PreconditionFailed:
            return None
        return str(blob.generation)


def _ask_about(uri: str) -> Any:
    """Returns what Cloud Storage answers when it is asked about an object."""
    bucket, name = _bucket_and_name(uri)
    client = credentials.storage_client()
    path = f"/b/{quote(bucket)}/o/{quote(name, safe='')}"
    url = client._connection.build_api_url(path, {"fields": "generation,updated"})
    return client._http.get(url, timeout=_SWAP_TIMEOUT_SECONDS)


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
