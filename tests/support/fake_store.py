"""An object store in memory behind Beam's `FileSystems`, under `fake://`, that fails on demand."""

from __future__ import annotations

import io
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

OBJECTS: dict[str, tuple[bytes, float]] = {}
"""Content and modification time by URI."""
TROUBLE: dict[str, deque[BaseException]] = defaultdict(deque)
"""What the next calls of `open`, `read`, `create`, `write`, `match`, `checksum` or `delete`
raise.
"""
CALLS: dict[str, int] = defaultdict(int)
"""How often each of these was called."""
VISIBLE_WHILE_WRITING: list[bool] = []
"""For every write, whether the object could be seen under its name."""


def clear() -> None:
    """Empties the store."""
    OBJECTS.clear()
    TROUBLE.clear()
    CALLS.clear()
    VISIBLE_WHILE_WRITING.clear()


def put(uri: str, data: bytes, modified_unix_s: float = 1_767_607_200.0) -> str:
    """Puts an object into the store; returns its URI."""
    OBJECTS[uri] = (data, modified_unix_s)
    return uri


def _meet_trouble(operation: str) -> None:
    CALLS[operation] += 1
    if TROUBLE[operation]:
        raise TROUBLE[operation].popleft()


class _Download(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        _meet_trouble("read")
        return super().read(size)


class _Upload(io.BytesIO):
    """Becomes an object when it is closed, unless an exception left the `with` block, as in Cloud
    Storage.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri

    def write(self, data: Any) -> int:
        VISIBLE_WHILE_WRITING.append(self._uri in OBJECTS)
        _meet_trouble("write")
        return super().write(data)

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            OBJECTS[self._uri] = (self.getvalue(), time.time())
        self.close()


class FakeFileSystem(FileSystem):
    """`fake://bucket/name`."""

    @classmethod
    def scheme(cls) -> str:
        return "fake"

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        raise NotImplementedError

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        _meet_trouble("match")
        for uri, (data, modified) in list(OBJECTS.items()):
            if uri.startswith(dir_or_prefix):
                yield FileMetadata(uri, len(data), modified)

    def create(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO
    ) -> Any:
        _meet_trouble("create")
        return _Upload(path)

    def open(
        self, path: str, mime_type: str = "", compression_type: str = CompressionTypes.AUTO
    ) -> Any:
        _meet_trouble("open")
        if path not in OBJECTS:
            raise FileNotFoundError(2, "No such object", path)
        return _Download(OBJECTS[path][0])

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        raise NotImplementedError

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        return path in OBJECTS

    def size(self, path: str) -> int:
        return len(OBJECTS[path][0])

    def last_updated(self, path: str) -> float:
        return OBJECTS[path][1]

    def checksum(self, path: str) -> str:
        _meet_trouble("checksum")
        return f"crc-{sum(OBJECTS[path][0])}"

    def metadata(self, path: str) -> FileMetadata:
        _meet_trouble("match")
        data, modified = OBJECTS[path]
        return FileMetadata(path, len(data), modified)

    def delete(self, paths: list[str]) -> None:
        _meet_trouble("delete")
        missing: dict[str, BaseException] = {
            path: FileNotFoundError(2, "gone", path) for path in paths if path not in OBJECTS
        }
        for path in paths:
            OBJECTS.pop(path, None)
        if missing:
            raise BeamIOError("Delete operation failed", missing)
