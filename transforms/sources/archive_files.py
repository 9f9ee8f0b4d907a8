"""Raw archives as files: which ones a pattern stands for, what is in an unpacked one, and a
fingerprint that tells whether one has changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transforms.media.archive.read_members import ArchiveInput
from transforms.media.errors import ArchiveError, ConfigError, RecordingError, StorageError
from transforms.media.rtp.timing_metadata import SUFFIX
from transforms.media.text import has_utf8, spelled_utf8
from transforms.sources.own_files import is_our_own
from transforms.storage import globs, objects, retry, uris
from transforms.storage.inputs import ARCHIVE_INPUTS
from transforms.storage.store import ListedObject

_GLOB = re.compile(r"[*?\[]")
_DUMP_SUFFIX = ".rtpdump"
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
"""What tells an archive from the members of an unpacked folder it lies in; elsewhere names tell
nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedArchive:
    """A file or unpacked folder that a pattern matched, or what stands in the place of one."""

    uri: str
    """As it is stored; spelled in UTF-8 where its name is none, and then nothing opens it."""
    size_bytes: int
    modified_unix_ns: int
    fingerprint: str = ""
    """As `fingerprint` gives it, where the listing itself tells; else empty, and it has to be asked
    for.
    """
    error: RecordingError | None = None
    """Why there is nothing to press; None for an archive. It passes where another run may find an
    archive, or many, in its place.
    """

    def is_after(self, since_unix_ns: int | None) -> bool:
        """Whether it was modified after a moment. So is, for all we know, what lies behind a folder
        or link that cannot be read.
        """
        return (
            since_unix_ns is None
            or self.modified_unix_ns > since_unix_ns
            or (self.error is not None and self.error.retryable)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundArchives:
    """What a pattern stands for."""

    archives: tuple[ListedArchive, ...]
    """Sorted by URI, each once."""
    own_count: int
    """Files that were left out because a run of ours made them."""


def find_archives(pattern: str, own_uris: Collection[str] = ()) -> FoundArchives:
    """Returns what a pattern stands for: files, and unpacked folders.

    A folder that holds timing metadata or dumps is one recording, with all that is below it. The
    archives that lie in it, told by their names, are archives beside it. Where metadata lies among
    archives and no dump does, it is of no recording, and an error each.

    Args:
      pattern: a file, a folder or a glob. A folder that is no recording itself stands for nothing.
      own_uris: files of this run that are not among its recordings and tables, absolute.

    Raises:
      StorageError: it cannot be listed.
    """
    own: set[str] = set()
    own_names = {uri.rsplit("/", 1)[-1] for uri in own_uris}
    own_places = {objects.resolve(uri) for uri in own_uris}

    def is_own(path: str) -> bool:
        if path.rsplit("/", 1)[-1] in own_names and objects.resolve(path) in own_places:
            return True
        return is_our_own(path)

    def theirs(found: Iterable[ListedObject]) -> list[ListedObject]:
        kept = []
        for listed in found:
            if is_own(listed.path):
                own.add(listed.path)
            elif not _stands_for_a_folder(listed):
                kept.append(listed)
        return kept

    plain = uris.absolute(pattern).rstrip("/")
    wants_files = not pattern.endswith("/")
    found: Iterable[ListedArchive]
    if uris.is_link(pattern):
        found = map(_listed, theirs(objects.match(globs.quote(pattern))))
    elif _is_spelled_out(plain):
        members = objects.list_below(plain)
        if members:
            found = _in_folder(plain + "/", theirs(members))
        else:
            found = map(_listed, theirs(objects.match(globs.quote(plain)) if wants_files else ()))
    elif "**" in plain:
        found = _among(theirs(objects.match(plain)), wants_files=wants_files)
    else:
        # Globs match files only: a folder is found by what is in it, cut to as many levels as the
        # pattern has.
        files = theirs(objects.match(plain)) if wants_files else []
        levels = plain.count("/") + 1
        below: dict[str, list[ListedObject]] = {}
        for listed in theirs(objects.match(plain + "/**")):
            folder = "/".join(listed.path.split("/")[:levels]) + "/"
            below.setdefault(folder, []).append(listed)
        found = (
            *map(_listed, files),
            *(archive for folder in below for archive in _in_folder(folder, below[folder])),
        )
    by_uri = {archive.uri: archive for archive in found}
    return FoundArchives(archives=tuple(by_uri[uri] for uri in sorted(by_uri)), own_count=len(own))


def why_nothing_matches(pattern: str) -> str | None:
    """Returns why a pattern stands for no archive, None when it stands for some. Raises:
    StorageError.
    """
    if uris.is_link(pattern):
        objects.has_match(globs.quote(pattern))  # raises where there is nothing
        return None
    plain = uris.absolute(pattern).rstrip("/")
    shown = spelled_utf8(pattern)
    # A folder on a disk matches its own name.
    name = globs.quote(plain) if _is_spelled_out(plain) else plain
    wants_files = not pattern.endswith("/") and not objects.is_folder(plain)
    if wants_files and objects.has_match(name, lambda listed: not is_our_own(listed.path)):
        return None
    below = uris.join(name, "**")
    if not objects.has_match(below, lambda listed: not is_our_own(listed.path)):
        is_ours = (wants_files and objects.has_match(name)) or objects.has_match(below)
        return f"{shown} matches nothing" + (" but what Callpress made itself" if is_ours else "")
    if objects.has_match(below, lambda listed: _is_of_recording(listed) or bool(listed.unreadable)):
        return None
    what = "is a folder" if _is_spelled_out(plain) else "matches only folders"
    below = spelled_utf8(below)
    return f"{shown} {what} without *{SUFFIX}; to press the archives in it, write {below}"


def _is_spelled_out(plain: str) -> bool:
    """Whether a pattern is the name of one thing: it has no wildcard, or there is a file or folder
    of just that name.
    """
    return not _GLOB.search(plain) or objects.exists_literally(plain)


# --- unpacked folders -----------------------------------------------------------------------------


def _stands_for_a_folder(listed: ListedObject) -> bool:
    """Whether an object is what consoles of object stores put in the place of a folder."""
    return listed.path.endswith("/") and not listed.size_bytes and not listed.unreadable


def _is_metadata(listed: ListedObject) -> bool:
    return listed.path.lower().endswith(SUFFIX)


def _is_dump(listed: ListedObject) -> bool:
    return listed.path.lower().endswith(_DUMP_SUFFIX)


def _is_of_recording(listed: ListedObject) -> bool:
    return not is_our_own(listed.path) and (_is_metadata(listed) or _is_dump(listed))


def _is_archive(listed: ListedObject) -> bool:
    return listed.path.lower().endswith(_ARCHIVE_SUFFIXES)


def _in_folder(uri: str, found: Sequence[ListedObject]) -> Iterator[ListedArchive]:
    """Yields what a folder stands for that a pattern names. Args: found: all that is below it."""
    archives = [listed for listed in found if _is_archive(listed)]
    rest = [listed for listed in found if not _is_archive(listed)]
    metadata = list(filter(_is_metadata, rest))
    has_dump = any(map(_is_dump, rest))
    unreadable = [listed for listed in rest if listed.unreadable]
    # The folder may itself be a link that is not followed, and be called like an archive.
    unreadable += [each for each in archives if each.unreadable and f"{each.path}/" == uri]
    if has_dump or (metadata and not archives):
        yield _listed_folder(uri, rest)  # what is unreadable in it is told by whoever reads it
    else:
        yield from map(_stray, metadata)
        yield from map(_listed, unreadable)
    if has_dump or metadata:
        yield from map(_listed, archives)
    elif not unreadable and uri.rstrip("/").lower().endswith(_ARCHIVE_SUFFIXES):
        wrong = f"a folder without *{SUFFIX}, expected an archive or an unpacked one"
        yield _not_pressed(uri, 0, ArchiveError(f"{spelled_utf8(uri)}: {wrong}"))


def _among(found: Sequence[ListedObject], *, wants_files: bool) -> Iterator[ListedArchive]:
    """Yields what the files stand for that a pattern with `**` matched: unpacked folders by their
    metadata, of folders within each other the outermost; all other files as archives.

    A folder with metadata is one when a dump lies in it, or in a folder below it that has no
    metadata of its own. One without dumps is one where there is nothing else to press below it.
    """
    with_metadata = {_folder_of(listed.path) for listed in found if _is_metadata(listed)}
    with_dump: set[str] = set()
    with_more: set[str] = set()
    for listed in found:
        if not (_is_dump(listed) or _is_archive(listed)):
            continue
        above = [folder for folder in folders_above(listed.path) if folder in with_metadata]
        with_more.update(above)
        if above and _is_dump(listed):
            with_dump.add(above[0])
    recordings: set[str] = set()
    for folder in sorted(with_dump | (with_metadata - with_more)):
        if recordings.isdisjoint(folders_above(folder.rstrip("/"))):
            recordings.add(folder)
    for listed in found:
        if (wants_files or listed.unreadable) and (
            _is_archive(listed) or recordings.isdisjoint(folders_above(listed.path))
        ):
            yield _listed(listed)
    for folder in recordings:
        yield _listed_folder(folder, _members_of(folder))


def _names_folder(uri: str) -> bool:
    """Whether a URI is that of a folder: a signature may end in a slash, too."""
    return uris.without_signature(uri).endswith("/")


def _folder_of(path: str) -> str:
    return path[: path.rfind("/", 0, len(path) - 1) + 1]


def folders_above(path: str) -> Iterator[str]:
    """Yields the folders a path lies in, the nearest first."""
    while folder := _folder_of(path):
        yield folder
        path = folder


def _members_of(uri: str) -> list[ListedObject]:
    """Returns the files of an unpacked folder: all that is below it but archives and what runs of
    ours made there. Raises: StorageError.
    """
    return [
        listed
        for listed in objects.list_below(uri.rstrip("/"))
        if not (_is_archive(listed) or is_our_own(listed.path) or _stands_for_a_folder(listed))
    ]


def folder_members(uri: str) -> tuple[tuple[str, int], ...]:
    """Returns the relative path and size of every file of an unpacked folder, and of folders in it
    that cannot be listed, which end in `/`. Raises: StorageError.
    """
    return tuple((m.path[len(uri) :], m.size_bytes) for m in _members_of(uri))


def file_input(uri: str, size_bytes: int) -> ArchiveInput:
    """Returns an archive that is a file as the code that reads one takes it, whatever opens it."""
    return ArchiveInput(name=uri, size_bytes=size_bytes)


def archive_input(uri: str, size_bytes: int) -> ArchiveInput:
    """Returns an archive as the code that reads one takes it. Raises: StorageError."""
    if not _names_folder(uri):
        return file_input(uri, size_bytes)
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
    if _names_folder(uri):
        return _folder_fingerprint(_members_of(uri))
    found = objects.match(globs.quote(uri))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uris.shown(uri))
    if (error := _why_no_archive(found[0])) is not None:
        raise error
    return _file_fingerprint(found[0])


def stat_archive(uri: str) -> ListedArchive | None:
    """Returns one archive as listed, None when it is gone. Raises: StorageError."""
    if _names_folder(uri):
        members = _members_of(uri)
        return _listed_folder(uri, members) if members else None
    found = objects.match(globs.quote(uri))
    return _listed(found[0]) if found else None


def look_at(uri: str) -> ListedArchive:
    """Returns one archive as listed, with its fingerprint. Raises: RecordingError: it is none, or
    cannot be looked at, also for want of credentials.
    """
    try:
        return _look_at(uri)
    except ConfigError as error:
        raise StorageError(f"{uris.shown(uri)}: {error}") from error


@retry.retried
def _look_at(uri: str) -> ListedArchive:
    listed = stat_archive(uri)
    if listed is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), uri)
    if listed.error is not None:
        raise listed.error
    return replace(listed, fingerprint=listed.fingerprint or fingerprint(uri))


# --- what one is listed as ------------------------------------------------------------------------


def _folder_fingerprint(members: list[ListedObject]) -> str:
    digest = hashlib.sha256()
    for member in members:
        # What is no file counts by what it is: reading says what is wrong with it.
        token = member.unreadable or member.special_mode or _file_fingerprint(member)
        digest.update(f"{member.path}\n{token}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _file_fingerprint(file: ListedObject) -> str:
    return f"{file.size_bytes}-{file.change_token or objects.change_token(file.path)}"


def _listed(file: ListedObject) -> ListedArchive:
    modified = _modified_unix_ns(file)
    if (error := _why_no_archive(file)) is not None:
        return _not_pressed(file.path, modified, error)
    return ListedArchive(
        uri=file.path,
        size_bytes=file.size_bytes,
        modified_unix_ns=modified,
        fingerprint=_file_fingerprint(file) if file.change_token else "",
    )


def _listed_folder(uri: str, members: list[ListedObject]) -> ListedArchive:
    modified = max(map(_modified_unix_ns, members))
    if not has_utf8(uri):
        return _not_pressed(uri, modified, _no_utf8(uri))
    is_known = all(m.change_token or m.unreadable or m.special_mode for m in members)
    return ListedArchive(
        uri=uri,
        size_bytes=sum(member.size_bytes for member in members),
        modified_unix_ns=modified,
        fingerprint=_folder_fingerprint(members) if is_known else "",
    )


def _why_no_archive(file: ListedObject) -> RecordingError | None:
    """Returns what is wrong with a file before it is opened, None when nothing is."""
    name = spelled_utf8(file.path)
    if file.unreadable:
        return StorageError(f"{name}: {spelled_utf8(file.unreadable)}")
    if file.special_mode.startswith("d"):
        return ArchiveError(
            f"{name}: a folder without files, expected an archive or an unpacked one"
        )
    if file.special_mode:  # a named pipe would be waited for
        return ArchiveError(f"{name}: {file.special_mode}, expected a regular file")
    return None if has_utf8(file.path) else _no_utf8(file.path)


def _no_utf8(path: str) -> ArchiveError:
    return ArchiveError(
        f"{spelled_utf8(path)}: its name is no UTF-8, expected one that tables hold"
    )


def _stray(file: ListedObject) -> ListedArchive:
    wrong = "timing metadata among archives and without a dump, expected it in an archive"
    error = ArchiveError(f"{spelled_utf8(file.path)}: {wrong}")
    return _not_pressed(file.path, _modified_unix_ns(file), _why_no_archive(file) or error)


def _not_pressed(path: str, modified_unix_ns: int, error: RecordingError) -> ListedArchive:
    return ListedArchive(
        uri=spelled_utf8(path), size_bytes=0, modified_unix_ns=modified_unix_ns, error=error
    )


def _modified_unix_ns(file: ListedObject) -> int:
    return int(file.modified_unix_s * 1_000_000) * 1_000
