"""Where manifests lie: single ones, and all below a folder, a prefix or a glob."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from transforms.media.text import printable
from transforms.sources.own_files import is_our_own
from transforms.storage import objects, uris
from transforms.storage.globs import quote
from transforms.storage.listings import each_below, each_match
from transforms.storage.store import ListedObject
from transforms.storage.uris import is_link

logger = logging.getLogger(__name__)
_GLOB = re.compile(r"[*?\[]")


def list_manifests(where: str) -> Iterator[str]:
    """Yields the manifests that a place stands for, by name.

    A link, a file or an object stands for itself, a folder or a glob for what lies below it or
    matches it. There, what is no manifest is passed over: hidden files and those whose names begin
    with `_`, which other programs leave beside their output; what is empty; what is no regular
    file; what a run of ours made.

    Args:
      where: a link, URI or path. A folder of an object store need not end in a slash unless an
        object has its name.

    Raises:
      StorageError: it cannot be listed. A single manifest is not looked at.
    """
    if is_link(where):
        yield where
        return
    plain = uris.absolute(where)
    if _GLOB.search(plain) and not objects.exists_literally(plain):
        yield from _manifests(each_match(plain))
    elif plain.endswith("/") or objects.is_folder(plain):
        yield from _manifests(each_below(plain.rstrip("/")))
    elif objects.is_on_this_machine(plain) or objects.has_match(quote(plain)):
        yield plain
    elif objects.has_match(uris.join(quote(plain), "**")):
        yield from _manifests(each_below(plain))
    else:
        yield plain  # whoever opens it says that it is not there


def _manifests(found: Iterable[ListedObject]) -> Iterator[str]:
    for listed in found:
        if (why := _why_none(listed)) is None:
            yield listed.path
        else:
            logger.debug("%s is no manifest: %s", printable(listed.path), why)


def _why_none(listed: ListedObject) -> str | None:
    """Returns why an object is taken for no manifest; None where it is one."""
    if listed.path.rsplit("/", 1)[-1].startswith((".", "_")):
        return "hidden, or a mark of another program"
    if listed.special_mode:
        return "no regular file"
    if not (listed.size_bytes or listed.unreadable):
        return "empty"
    return "made by a run" if is_our_own(listed.path) else None


def open_manifest(name: str) -> BinaryIO:
    """Opens a manifest as it is stored: `read_entries` expands what is gzipped. Args: name: a link,
    URI or absolute path. Raises: StorageError, also from reads.
    """
    return objects.open_input(name)
