"""Objects in S3 and Azure Blob Storage, by the Rust library `object_store` and its bindings
`obstore`: what both have in common.

Each call is one attempt: the library's own retries are off, since `storage.retry` tries again, once
and for all. Only the pages of a listing and the parts of an upload have a few tries each. Sizes are
compared after reading and writing. An ETag is an opaque token that changes with the object, and
never a checksum: that of an upload in parts, or of an encrypted object, is none. Uploads are framed
by their length, and in S3 signed with a SHA-256 of each request's body.

The library takes a name for a path. It leaves out a slash at either end, and refuses an empty part,
`.` and `..`, and control characters. Such names are refused here before it sees them.
"""

from __future__ import annotations

import contextlib
import errno
import math
import posixpath
import re
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult, urlsplit

from obstore import sign
from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

from transforms.media.errors import ConfigError
from transforms.media.text import has_utf8, printable
from transforms.storage import answers, storage_options
from transforms.storage.globs import compile_glob, plain_prefix, quote
from transforms.storage.object_store import ObjectStore
from transforms.storage.storage_options import StoreAccount
from transforms.storage.store import (
    ListedObject,
    OpenObject,
    ShortTransferError,
    SwapRead,
    exactly,
)
from transforms.storage.store_clock import now_at
from transforms.storage.uris import shown

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import AzureStore, ClientConfig, RetryConfig, S3Store

    Client: TypeAlias = S3Store | AzureStore

_CONNECT_SECONDS = 10
_SILENT_SECONDS = 60
"""Between two pieces of an answer."""
_REQUEST_SECONDS = 600
_SWAP_SECONDS = 20
"""For small objects by which processes agree: others wait for them."""
_OPENING_BYTES = 256 << 10
_LISTED_AT_A_TIME = 100
"""No more than stand on a page: the next one is asked for to fill it up."""
_PART_BYTES = 8 << 20
_MOST_PARTS = 9_000
"""S3 takes 10,000, Azure 50,000."""
_PARTS_AT_A_TIME = 3
"""They are all in memory."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
ONE_ATTEMPT: RetryConfig = {
    "max_retries": 0,
    "retry_timeout": timedelta(seconds=_REQUEST_SECONDS),
}
# A listing has many pages and a large upload many parts, and each may fail by itself: tried again
# one by one, all of them together soon enough succeed.
FEW_ATTEMPTS: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=_REQUEST_SECONDS),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 3,
    },
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket or container, and the clients that reach it."""

    uri: str
    """`s3://bucket`, `azfs://account/container`."""
    client: Client
    swap_client: Client
    """The same with short time-outs."""
    patient_client: Client
    """The same with a few tries at each request."""
    endpoint: str
    """URL of its service."""
    lists_in_order: bool
    """Whether listings are sorted by name, as bytes of UTF-8."""
    signs_links: bool
    """Whether its credentials are such as can sign. The library asks this machine's network for
    others where there are none.
    """


def client_options(endpoint: str, seconds: int = _REQUEST_SECONDS) -> ClientConfig:
    """Returns how to connect. Args: seconds: for a whole request."""
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, seconds)),
        "read_timeout": timedelta(seconds=min(_SILENT_SECONDS, seconds)),
        "timeout": timedelta(seconds=seconds),
    }


def swap_client_options(endpoint: str) -> ClientConfig:
    """Returns how to connect for small objects by which processes agree."""
    return client_options(endpoint, _SWAP_SECONDS)


class _OpenVersion:
    """One version of an object: one replaced while it is read is an error and never a mixture.

    It is opened by reading its beginning, which costs no more than asking what it is, and is all
    there is of most staged objects.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._beginning, found = _get_beginning(client, name, _OPENING_BYTES)
        self.size_bytes: int = found["size"]
        self._tag = found["e_tag"]
        self.checksum = _token(found)

    def read_at(self, position: int, size: int) -> bytes:
        """Returns `size` bytes from `position`, fewer only at the end. Raises:
        ShortTransferError.
        """
        wanted = min(size, self.size_bytes - position)
        if wanted <= 0:
            return b""
        known = self._beginning[position : position + wanted]
        if len(known) == wanted:
            return known
        self._beginning = b""  # whoever reads on has no use for it, and it may be one of many
        return known + self._read(position + len(known), wanted - len(known))

    def _read(self, position: int, wanted: int) -> bytes:
        options: GetOptions = {"range": (position, position + wanted), "if_match": self._tag}
        data, found = _get(self._client, self._name, options)
        if _token(found) != self.checksum:  # a store that does not know the condition
            raise ShortTransferError("it was replaced while it was being read")
        return exactly(data, position, wanted)

    def close(self) -> None:
        """Closes nothing: each read is a request of its own."""


class CloudStore(ObjectStore):
    """Buckets or containers of one scheme."""

    read_buffer_bytes = 16 << 20
    """A request per megabyte would wait more than it reads."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, StoreAccount | None], Bucket] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def split(self, uri: str) -> tuple[str, str]:
        """Returns the URI of a bucket and the name in it. Raises: OSError: there can be no such
        bucket.
        """

    @abstractmethod
    def connect(self, bucket_uri: str, account: StoreAccount | None) -> Bucket:
        """Returns a bucket as its account and the environment have it. Raises: ConfigError: there
        are no credentials.
        """

    def check_name(self, uri: str, name: str) -> None:
        """Raises: OSError: the library would take a name for another, or refuse it with more
        words.
        """
        _check_name(uri, name)

    def find_credentials(self, uri: str) -> None:
        """Looks for the credentials of a place. Raises: ConfigError: there are none, or there can
        be no such place.
        """
        try:
            self._bucket(uri)
        except OSError as error:
            raise ConfigError(f"{printable(shown(uri))}: {error.strerror}") from None

    def forget_clients(self) -> None:
        """Has the next call make clients anew, from the environment as it is then."""
        with self._lock:
            self._buckets.clear()

    def _bucket(self, uri: str) -> Bucket:
        """Returns the bucket of a place, by the account of just this place."""
        key = self.split(uri)[0], storage_options.current().account_of(uri)
        with self._lock:
            if key not in self._buckets:
                self._buckets[key] = self.connect(*key)
            return self._buckets[key]

    def _object(self, uri: str) -> tuple[Bucket, str]:
        """Returns an object's bucket and name. Raises: OSError: no name that can be read."""
        _, name = self.split(uri)
        self.check_name(uri, name)
        return self._bucket(uri), name

    # --- reading ----------------------------------------------------------------------------------

    def open(self, uri: str) -> OpenObject:
        """Opens an object for reading."""
        bucket, name = self._object(uri)
        return _OpenVersion(bucket.client, name)

    def read(self, uri: str) -> bytes:
        """Returns a whole object by one request. Raises: ShortTransferError."""
        bucket, name = self._object(uri)
        return _get_beginning(bucket.client, name, None)[0]

    def read_range(self, uri: str, position: int, size: int) -> bytes:
        """Returns a part of an object. Raises: ShortTransferError."""
        bucket, name = self._object(uri)
        data, _ = _get(bucket.client, name, {"range": (position, position + size)})
        return exactly(data, position, size)

    def match(self, pattern: str) -> Iterator[ListedObject]:
        """Yields the objects a glob matches, page by page: the next page is asked for when it is
        needed. A name without wildcards is looked up, and not listed. Objects of no bytes that
        stand for a folder (`folder/`) are left out.
        """
        wanted = compile_glob(pattern)
        bucket_uri, name = self.split(pattern)
        if not has_utf8(name):
            _check_name(pattern, name)
        literal = re.sub(r"\[([*?\[])\]", r"\1", name)
        if literal and not literal.endswith("/") and quote(literal) == name:
            self.check_name(pattern, literal)
            bucket = self._bucket(pattern)
            with contextlib.suppress(_NotThereError):
                yield _listed(bucket_uri, _find(bucket, literal))
            return
        prefix = plain_prefix(name)
        if folder := posixpath.dirname(prefix):
            self.check_name(pattern, folder)
        for found in _list(self._bucket(pattern), prefix):
            if wanted.fullmatch(f"{bucket_uri}/{found['path']}"):
                yield _listed(bucket_uri, found)

    def has_match(self, pattern: str) -> bool:
        """Whether a glob matches anything at all."""
        return next(self.match(pattern), None) is not None

    def change_token(self, uri: str) -> str:
        """Returns an object's ETag, without the quotation marks that not all answers have."""
        bucket, name = self._object(uri)
        return _token(_look(bucket.client, name))

    def signed_link(self, uri: str, seconds: int) -> str:
        """Returns a link that is signed by the credentials of its place; no longer good than these
        are themselves. Raises: ConfigError: they cannot sign.
        """
        bucket, name = self._object(uri)
        if not bucket.signs_links:
            raise ConfigError(
                f"{printable(bucket.uri)}: no link to it can be signed without credentials or by a "
                "shared access signature, expected a key, or an identity that may"
            )
        return sign(bucket.client, "GET", name, timedelta(seconds=seconds))

    # --- writing ----------------------------------------------------------------------------------

    def write(self, uri: str, data: bytes) -> None:
        """Writes a whole object by one request. Raises: ShortTransferError."""
        bucket, name = self._object(uri)
        bucket.client.put(name, data, use_multipart=False)
        _check_size(bucket.client, name, len(data))

    def write_file(self, uri: str, source: Path) -> None:
        """Writes an object from a local file: a large one in parts, of which some are in memory at
        a time; they are given up when it breaks off. Raises: ShortTransferError.
        """
        size_bytes = source.stat().st_size
        if size_bytes <= 2 * _PART_BYTES:
            self.write(uri, source.read_bytes())
            return
        bucket, name = self._object(uri)
        bucket.patient_client.put(
            name,
            source,
            use_multipart=True,
            chunk_size=max(_PART_BYTES, math.ceil(size_bytes / _MOST_PARTS)),
            max_concurrency=_PARTS_AT_A_TIME,
        )
        _check_size(bucket.client, name, size_bytes)

    # --- deleting ---------------------------------------------------------------------------------

    def delete(self, uri: str) -> None:
        """Deletes an object; one that is gone already is no error."""
        self.delete_many([uri])

    def delete_many(self, uris: list[str]) -> None:
        """Deletes objects, many with a request; those gone already are no error."""
        by_bucket: dict[int, tuple[Bucket, list[str]]] = {}
        for uri in uris:
            bucket, name = self._object(uri)
            by_bucket.setdefault(id(bucket), (bucket, []))[1].append(name)
        for bucket, names in by_bucket.values():
            for start in range(0, len(names), self._batch_objects):
                _delete(bucket, names[start : start + self._batch_objects])

    _batch_objects: int
    """As many as the service deletes with a request."""

    # --- agreeing with other processes ------------------------------------------------------------

    def read_for_swap(self, uri: str) -> SwapRead:
        """Returns an object's content with its ETag, and its age by the clock of the store."""
        bucket, name = self._object(uri)
        try:
            data, found = _get_beginning(bucket.swap_client, name, None)
        except FileNotFoundError as error:
            if answers.has_no_place(error):
                raise
            return SwapRead()
        age = now_at(bucket.endpoint) - found["last_modified"]
        return SwapRead(data, found["e_tag"], max(0.0, age.total_seconds()))

    def compare_and_swap(self, uri: str, expected: str | None, data: bytes) -> str | None:
        """Writes an object if its ETag is still the one expected."""
        bucket, name = self._object(uri)
        try:
            written = bucket.swap_client.put(
                name,
                data,
                mode="create" if expected is None else {"e_tag": expected},
                use_multipart=False,
            )
        except (AlreadyExistsError, PreconditionError) as error:
            if answers.has_no_place(error) or answers.is_passing(error):
                raise
            return None
        return written["e_tag"]


def refuse_user(uri: str, authority: str) -> None:
    """Raises: OSError: a URI has a user in it, as some tools take keys; they are not told."""
    if "@" in authority:
        why = "has a user in it, expected none: credentials are read from the environment"
        raise OSError(errno.EINVAL, why, shown(uri))


def split_endpoint(endpoint: str, expected: str) -> SplitResult:
    """Returns the parts of a service's URL.

    Args:
      expected: how those of this service are spelled, for the message.

    Raises:
      ConfigError: it is none, or has a user in it, who is not told.
    """
    found = urlsplit(endpoint)
    if found.scheme not in ("http", "https") or not found.hostname or found.username:
        shown_as = printable(endpoint.rpartition("@")[2])
        raise ConfigError(f"{shown_as}: is no endpoint, expected {expected}")
    return found


class _NotThereError(Exception):
    """There is no object of a name, and a bucket it might be in."""


def _check_name(uri: str, name: str) -> None:
    parts = name.split("/")
    if not name:
        why = "names no object"
    elif not has_utf8(name):
        why = "is not UTF-8"
    elif "" in parts:
        why = "has a slash at an end or two in a row, which the client of this store cannot ask for"
    elif "." in parts or ".." in parts:
        why = "has a part . or .., which the client of this store cannot ask for"
    elif _CONTROLS.search(name):
        why = "has a control character, which the client of this store cannot ask for"
    else:
        return
    raise OSError(errno.EINVAL, f"the name {printable(name)!r} {why}", uri)


def _get(client: Client, name: str, options: GetOptions) -> tuple[bytes, ObjectMeta]:
    result = client.get(name, options=options)
    return bytes(result.bytes()), result.meta


def _get_beginning(client: Client, name: str, size: int | None) -> tuple[bytes, ObjectMeta]:
    """Returns so many bytes from the start of an object, or all. Asked for as a range: then the
    answer tells the size of the object, too, and not of its own body only. Raises:
    ShortTransferError.
    """
    try:
        options: GetOptions = {"range": {"offset": 0} if size is None else (0, size)}
        data, found = _get(client, name, options)
    except GenericError as error:
        if not answers.has_no_such_range(error):
            raise
        data, found = _get(client, name, {})  # there is no first byte in it
    return exactly(data, 0, min(found["size"], size or found["size"])), found


def _look(client: Client, name: str) -> ObjectMeta:
    """Returns what a store tells of an object. The answer to HEAD has no body, and so no reason:
    where it is a refusal, the first byte is asked for to hear it.
    """
    try:
        return client.head(name)
    except Exception as error:
        if not answers.is_of_library(error) or answers.is_passing(error):
            raise
        return client.get(name, options={"range": (0, 1)}).meta


def _find(bucket: Bucket, name: str) -> ObjectMeta:
    """Returns what a store tells of an object. Raises: _NotThereError."""
    try:
        return _look(bucket.client, name)
    except FileNotFoundError as error:
        if answers.has_no_place(error):
            raise
        raise _NotThereError from None


def _list(bucket: Bucket, prefix: str) -> Iterator[ObjectMeta]:
    """Yields the objects below the folder of a prefix, and where it can be told fewer: those that
    begin with it. Raises: OSError: one has a name that cannot be told from another.
    """
    folder, _, last = prefix.rpartition("/")
    # Sorts before all that begin with the prefix, and behind most others.
    before = prefix[:-1] if last[:-1] not in ("", ".", "..") else ""
    offset = None if not before or _CONTROLS.search(before) else before
    pages = bucket.patient_client.list(folder or None, offset=offset, chunk_size=_LISTED_AT_A_TIME)
    doubles = _Doubles(bucket.uri, is_root=not folder)
    for page in pages:
        for found in page:
            path = found["path"]
            if not path.startswith(prefix):
                if bucket.lists_in_order and path > prefix:
                    return
                continue
            if not found["size"] and not _is_there(bucket, path):
                continue  # `folder/`, without its slash
            doubles.check(path)
            yield found


def _is_there(bucket: Bucket, name: str) -> bool:
    try:
        _find(bucket, name)
    except _NotThereError:
        return False
    return True


class _Doubles:
    """Notices names that the library gives for two objects: it leaves out a slash at either end.

    `x` and `x/` are listed with nothing between them but what begins with `x`. `/x` and `x` may lie
    far apart, but only in a listing of the whole bucket.
    """

    def __init__(self, bucket_uri: str, is_root: bool) -> None:
        self._bucket_uri = bucket_uri
        self._recent: list[str] = []
        self._all: set[int] | None = set() if is_root else None

    def check(self, name: str) -> None:
        """Raises: OSError: the name was there before."""
        self._recent = [other for other in self._recent if f"{other}/" >= name]
        if name in self._recent or (self._all is not None and hash(name) in self._all):
            raise OSError(
                errno.EINVAL,
                f"{self._bucket_uri} has two objects that this client names "
                f"{printable(name)!r}, one of them with a slash at an end: rename that one",
            )
        self._recent.append(name)
        if self._all is not None:
            self._all.add(hash(name))


def _token(found: ObjectMeta) -> str:
    return (found["e_tag"] or "").strip('"')


def _listed(bucket_uri: str, found: ObjectMeta) -> ListedObject:
    return ListedObject(
        path=f"{bucket_uri}/{found['path']}",
        size_bytes=found["size"],
        modified_unix_s=found["last_modified"].timestamp(),
        change_token=_token(found),
    )


def _check_size(client: Client, name: str, size_bytes: int) -> None:
    arrived = _look(client, name)["size"]
    if arrived != size_bytes:
        raise ShortTransferError(f"{arrived} bytes arrived, expected {size_bytes}")


def _delete(bucket: Bucket, names: Sequence[str]) -> None:
    """Deletes objects by one request. Where one is gone already, Azure's batch is done all the
    same, but the library tells of that one only: what is still there is asked for again.
    """
    try:
        bucket.client.delete(names)
    except FileNotFoundError:
        if len(names) > 1:
            wanted = set(names)
            folder = posixpath.commonpath([posixpath.dirname(name) for name in names])
            found = _list(bucket, posixpath.join(folder, ""))
            for name in [each["path"] for each in found if each["path"] in wanted]:
                _delete(bucket, [name])
