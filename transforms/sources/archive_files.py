"""Raw archives as files: which ones a pattern stands for, what is in an unpacked one, and a
fingerprint that tells whether one has changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from transforms.media.archive.read_members import ArchiveInput
from transforms.media.errors import ArchiveError
from transforms.media.rtp.timing_metadata import SUFFIX
from transforms.storage import globs, objects, retry, uris
from transforms.storage.inputs import ARCHIVE_INPUTS
from transforms.storage.store import ListedObject

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedArchive:
    """A file or unpacked folder that a pattern matched."""

    uri: str
    size_bytes: int
    modified_unix_ns: int
    fingerprint: str = ""
    """As `fingerprint` gives it, where the listing itself tells; else empty, and it has to be asked
    for.
    """


def list_archives(pattern: str) -> list[ListedArchive]:
    """Returns what a pattern matches: files, and unpacked folders (those with timing metadata in
    them).

    Args:
      pattern: a file, a folder or a glob. A folder that is no recording itself stands for nothing.

    Raises:
      StorageError: it cannot be listed.
    """
    plain = uris.absolute(pattern).rstrip("/")
    if _is_spelled_out(plain):
        members = objects.list_below(plain)
        if members:
            if not any(member.path.lower().endswith(SUFFIX) for member in members):
                return []
            return [_listed_folder(plain + "/", members)]
        return (
            [_listed(listed) for listed in objects.match(globs.quote(plain))]
            if not pattern.endswith("/")
            else []
        )
    found = {
        listed.uri: listed
        for listed in map(_listed, objects.match(plain))
        if not pattern.endswith("/")
    }
    if "**" not in plain:
        # Globs match files only: a folder is found by the metadata in it, cut to as many levels as
        # the pattern has.
        levels = plain.count("/") + 1
        below: dict[str, list[ListedObject]] = {}
        for listed in objects.match(plain + "/**"):
            folder = "/".join(listed.path.split("/")[:levels]) + "/"
            below.setdefault(folder, []).append(listed)
        for folder, members in below.items():
            if any(member.path.lower().endswith(SUFFIX) for member in members):
                found[folder] = _listed_folder(folder, members)
    return sorted(found.values(), key=lambda listed: listed.uri)


def why_nothing_matches(pattern: str) -> str | None:
    """Returns why a pattern stands for no archive, None when it stands for some. Raises:
    StorageError.
    """
    plain = uris.absolute(pattern).rstrip("/")
    # A folder on a disk matches its own name.
    name = globs.quote(plain) if _is_spelled_out(plain) else plain
    if not pattern.endswith("/") and not objects.is_folder(plain) and objects.has_match(name):
        return None
    below = uris.join(name, "**")
    if not objects.has_match(below):
        return f"{pattern} matches nothing"
    if not _is_spelled_out(plain) or objects.has_match(below + SUFFIX):
        return None
    return f"{pattern} is a folder without *{SUFFIX}; to press the archives in it, write {plain}/**"


def _is_spelled_out(plain: str) -> bool:
    """Whether a pattern is the name of one thing: it has no wildcard, or there is a file or folder
    of just that name.
    """
    return not _GLOB.search(plain) or objects.exists_literally(plain)


def folder_members(uri: str) -> tuple[tuple[str, int], ...]:
    """Returns the relative path and size of every file of an unpacked folder. Raises:
    StorageError.
    """
    return tuple((m.path[len(uri) :], m.size_bytes) for m in objects.list_below(uri.rstrip("/")))


def archive_input(uri: str, size_bytes: int) -> ArchiveInput:
    """Returns an archive as the code that reads one takes it. Raises: StorageError."""
    if not uri.endswith("/"):
        return ArchiveInput(name=uri, size_bytes=size_bytes)
    local_path = ARCHIVE_INPUTS.local_path(uri)
    return ArchiveInput(
        name=uri,
        size_bytes=size_bytes,
        folder_members=folder_members(uri),
        local_folder=None if local_path is None else Path(local_path),
    )


@retry.retried
def fingerprint(uri: str) -> str:
    """Returns what changes whenever an archive's content may have.

    Of a file its size and modification (the entity tag where the store has one), of a folder the
    same over its members.

    Raises:
      StorageError: it is not there.
    """
    if uri.endswith("/"):
        return _folder_fingerprint(objects.list_below(uri.rstrip("/")))
    found = objects.match(globs.quote(uri))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    return _one_fingerprint(found[0])


def stat_archive(uri: str) -> ListedArchive | None:
    """Returns one archive as listed, None when it is gone. Raises: StorageError."""
    if uri.endswith("/"):
        members = objects.list_below(uri.rstrip("/"))
        return _listed_folder(uri, members) if members else None
    found = objects.match(globs.quote(uri))
    return _listed(found[0]) if found else None


def _folder_fingerprint(members: list[ListedObject]) -> str:
    digest = hashlib.sha256()
    for member in members:
        digest.update(f"{member.path}\n{_one_fingerprint(member)}\n".encode())
    return digest.hexdigest()[:32]


def _one_fingerprint(file: ListedObject) -> str:
    if file.special_mode:  # a named pipe would be waited for
        raise ArchiveError(f"{file.path}: {file.special_mode}, expected a regular file")
    return f"{file.size_bytes}-{file.change_token or objects.change_token(file.path)}"


def _listed(file: ListedObject) -> ListedArchive:
    return ListedArchive(
        uri=file.path,
        size_bytes=file.size_bytes,
        modified_unix_ns=_modified_unix_ns(file),
        fingerprint=_one_fingerprint(file) if file.change_token else "",
    )


def _listed_folder(uri: str, members: list[ListedObject]) -> ListedArchive:
    return ListedArchive(
        uri=uri,
        size_bytes=sum(member.size_bytes for member in members),
        modified_unix_ns=max(map(_modified_unix_ns, members)),
        fingerprint=_folder_fingerprint(members)
        if all(member.change_token for member in members)
        else "",
    )


def _modified_unix_ns(file: ListedObject) -> int:
    return int(file.modified_unix_s * 1_000_000) * 1_000
