"""The archives that a command is given by name, where it reads them itself: without Beam, and
without what packets take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transforms.media.archive.read_members import ArchiveMembers
from transforms.media.errors import ArchiveError
from transforms.media.text import spelled_utf8
from transforms.sources import archive_files
from transforms.sources.archive_files import ListedArchive
from transforms.storage import objects, storage_options, uris
from transforms.storage.inputs import ARCHIVE_INPUTS, Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedArchive:
    """An archive that a pattern stands for."""

    listed: ListedArchive
    link: str = field(default="", repr=False)
    """What opens it, with its signature; empty where its URI does."""

    @property
    def inputs(self) -> Inputs:
        """What opens it."""
        return ARCHIVE_INPUTS.opened_by(self.listed.uri, self.link or self.listed.uri)


def reach(patterns: Sequence[str], *places: str) -> None:
    """Has this process reach what a command names: finds the credentials, and lets links lead to
    their own hosts wherever these are.

    Args:
      patterns: of archives.
      places: that are written to.

    Raises:
      ConfigError: a place needs credentials, and there are none.
    """
    objects.find_credentials(map(uris.absolute, [*patterns, *places]))
    links = filter(None, map(uris.split_link, patterns))
    named_hosts = frozenset(link.host_and_port for link in links)
    storage_options.use(replace(storage_options.current(), named_hosts=named_hosts))


def find(pattern: str) -> list[NamedArchive]:
    """Returns the archives that a pattern stands for.

    Raises:
      RecordingError: it stands for none, or cannot be listed.
    """
    # What is listed of a link has no signature, which it takes to open it.
    link = pattern if uris.is_link(pattern) else ""
    found = archive_files.find_archives(pattern).archives
    if not found:
        shown = spelled_utf8(uris.shown(pattern))
        raise ArchiveError(archive_files.why_nothing_matches(pattern) or f"{shown} matches nothing")
    return [NamedArchive(listed=listed, link=link) for listed in found]


def what_is_wrong(members: ArchiveMembers) -> str | None:
    """Returns what is wrong with an archive that was read, before anybody looks into its packets;
    None where nothing is.
    """
    error = members.suspect or members.unread_metadata or _damaged_description(members)
    return members.cut_by or (None if error is None else error.message)


def _damaged_description(members: ArchiveMembers) -> ArchiveError | None:
    """Returns what is wrong with the archive where a session description lies in it."""
    found = (members.descriptions[path] for path in members.descriptions)
    return next((error for error in found if isinstance(error, ArchiveError)), None)
