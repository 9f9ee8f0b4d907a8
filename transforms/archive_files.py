"""Raw archives as files: what a pattern stands for, what is in a folder, what tells whether one changed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from typing import cast

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from transforms import storage
from transforms.media.timing import SUFFIX

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file or unpacked folder that a pattern matched."""

    uri: str
    size_bytes: int
    modified_unix_ns: int


def list_archives(pattern: str) -> list[Listed]:
    """Returns what a pattern matches: files, and unpacked folders (those with timing metadata in them).

    Args:
      pattern: a file, a folder or a glob. A folder that is no recording itself stands for nothing.

    Raises:
      StorageError: it cannot be listed.
    """
    plain = storage.absolute(pattern).rstrip("/")
    if _is_spelled_out(plain):
        members = storage.list_below(plain)
        if members:
            if not any(cast(str, member.path).lower().endswith(SUFFIX) for member in members):
                return []
            return [_listed_folder(plain + "/", members)]
        return [_listed(metadata) for metadata in storage.match(storage.quote(plain))] if not pattern.endswith("/") else []
    found = {listed.uri: listed for listed in map(_listed, storage.match(plain)) if not pattern.endswith("/")}
    if "**" not in plain:
        # Globs match files only: a folder is found by the metadata in it, cut to as many levels as the pattern has.
        levels = plain.count("/") + 1
        below: dict[str, list[FileMetadata]] = {}
        for metadata in storage.match(plain + "/**"):
            folder = "/".join(cast(str, metadata.path).split("/")[:levels]) + "/"
            below.setdefault(folder, []).append(metadata)
        for folder, members in below.items():
            if any(cast(str, member.path).lower().endswith(SUFFIX) for member in members):
                found[folder] = _listed_folder(folder, members)
    return sorted(found.values(), key=lambda listed: listed.uri)


def why_nothing_matches(pattern: str) -> str | None:
    """Returns why a pattern stands for no archive, None when it stands for some. Raises: StorageError."""
    plain = storage.absolute(pattern).rstrip("/")
    # Beam takes a folder on a disk for a match of itself.
    name = storage.quote(plain) if _is_spelled_out(plain) else plain
    if not pattern.endswith("/") and not os.path.isdir(plain) and storage.has_match(name):
        return None
    below = storage.join(name, "**")
    if not storage.has_match(below):
        return f"{pattern} matches nothing"
    if not _is_spelled_out(plain) or storage.has_match(below + SUFFIX):
        return None
    return f"{pattern} is a folder without *{SUFFIX}; to press the archives in it, write {plain}/**"


def _is_spelled_out(plain: str) -> bool:
    """Whether a pattern is the name of one thing: it has no wildcard, or there is a file or folder of just that name."""
    return not _GLOB.search(plain) or (storage.is_local(plain) and os.path.exists(plain))


def folder_members(uri: str) -> tuple[tuple[str, int], ...]:
    """Returns the relative path and size of every file of an unpacked folder. Raises: StorageError."""
    return tuple((cast(str, m.path)[len(uri) :], int(m.size_in_bytes)) for m in storage.list_below(uri.rstrip("/")))


@storage.retried
def fingerprint(uri: str) -> str:
    """Returns what changes whenever an archive's content may have.

    Of a file its size and modification (the entity tag where the store has one), of a folder the same over its members.

    Raises:
      StorageError: it is not there.
    """
    if uri.endswith("/"):
        digest = hashlib.sha256()
        for member in storage.list_below(uri.rstrip("/")):
            digest.update(f"{member.path}\n{_one_fingerprint(member)}\n".encode())
        return digest.hexdigest()[:32]
    found = storage.match(storage.quote(uri))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return _one_fingerprint(found[0])


def stat_archive(uri: str) -> Listed | None:
    """Returns one archive as listed, None when it is gone. Raises: StorageError."""
    if uri.endswith("/"):
        members = storage.list_below(uri.rstrip("/"))
        return _listed_folder(uri, members) if members else None
    found = storage.match(storage.quote(uri))
    return _listed(found[0]) if found else None


def _one_fingerprint(metadata: FileMetadata) -> str:
    if storage.is_local(metadata.path):
        return f"{metadata.size_in_bytes}-{os.stat(metadata.path).st_mtime_ns}"
    return f"{metadata.size_in_bytes}-{FileSystems.checksum(metadata.path)}"


def _listed(metadata: FileMetadata) -> Listed:
    return Listed(
        uri=metadata.path,
        size_bytes=int(metadata.size_in_bytes),
        modified_unix_ns=int(metadata.last_updated_in_seconds * 1_000_000) * 1_000,
    )


def _listed_folder(uri: str, members: list[FileMetadata]) -> Listed:
    return Listed(
        uri=uri,
        size_bytes=sum(int(member.size_in_bytes) for member in members),
        modified_unix_ns=max(_listed(member).modified_unix_ns for member in members),
    )
