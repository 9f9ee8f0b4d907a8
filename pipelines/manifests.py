"""Manifests on their way into a job: what is wrong with them is found before any work, and what
workers elsewhere cannot read, or a job must not have in it, is written to staging.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from transforms.media.errors import ConfigError, RecordingError
from transforms.recovery import manifests
from transforms.sources.manifests import bounds
from transforms.sources.manifests.places import list_manifests, open_manifest
from transforms.sources.manifests.read_entries import tell_shape
from transforms.sources.manifests.reading import ManifestSource
from transforms.sources.manifests.stream_api import check_stream, is_stream
from transforms.storage import globs, objects, uris
from transforms.storage.named import name_object

STANDARD_INPUT = "-"
_SHOWN_AS = "standard input"
_LINKS_SHOWN_AS = "--input"
_TRIED_OF_FOLDER = 10
"""Manifests of a folder that are looked at before any work."""


class NamedPlaces(Protocol):
    """What a command line names of manifests; links have their signatures."""

    @property
    def links(self) -> tuple[str, ...]:
        """Links to archives themselves."""
        ...

    @property
    def manifests(self) -> tuple[str, ...]:
        """Places, `-`, and queries of the vendor's API, as `spelled` spells them."""
        ...


def spelled(names: Sequence[str]) -> tuple[str, ...]:
    """Returns where manifests are, however they were spelled. Raises: ConfigError: as
    `uris.absolute`.
    """
    return tuple(
        name
        if name == STANDARD_INPUT or is_stream(name) or uris.is_link(name)
        else uris.absolute(name)
        for name in names
    )


def shown(name: str) -> str:
    """Returns what people are told of where a manifest is."""
    return _SHOWN_AS if name == STANDARD_INPUT else uris.shown(name)


def hosts_of(where: NamedPlaces) -> frozenset[str]:
    """Returns the hosts that the command line itself names: links to them may lead anywhere."""
    links = (uris.split_link(uri) for uri in (*where.links, *where.manifests))
    return frozenset(link.host_and_port for link in links if link is not None)


def stores_of(where: NamedPlaces) -> Iterator[str]:
    """Yields the places of manifests in stores, whose credentials are to be looked for."""
    for name in where.manifests:
        if name != STANDARD_INPUT and not is_stream(name):
            yield name


def check(where: NamedPlaces, *, is_for_later: bool = False) -> None:
    """Finds out whether manifests and links are such as can be read; reads no standard input.

    Args:
      where: the places of a command line.
      is_for_later: whether the job is begun later and elsewhere, by a template.

    Raises:
      ConfigError: they are not.
      StorageError: a manifest cannot be read now.
    """
    if where.manifests.count(STANDARD_INPUT) > 1:
        raise ConfigError("--manifest -: given twice, expected standard input once")
    if STANDARD_INPUT in where.manifests and sys.stdin is None:
        raise ConfigError("--manifest -: standard input is closed, expected a manifest there")
    for link in where.links:
        try:
            name_object(link)
        except ValueError as error:
            raise ConfigError(f"--input {uris.shown(link)}: {error}") from None
        if is_for_later:
            raise ConfigError(
                f"--input {uris.shown(link)}: a template must not have links in it, expected a "
                "manifest of them in a store (--manifest)"
            )
    for name in where.manifests:
        if is_for_later and _is_staged(name, reads_files=False):
            raise ConfigError(
                f"--manifest {uris.shown(name)}: a template is started later and elsewhere, "
                "expected a URI of a store, or stream:..."
            )
        if is_stream(name):
            check_stream(name)
        elif not (is_for_later or name == STANDARD_INPUT):
            _check_shape(name)


def _check_shape(name: str) -> None:
    """Raises: ConfigError: a manifest, or each of the first ones of a folder, is of no known shape;
    it is not on this machine.
    """
    if objects.is_on_this_machine(name) and not _is_glob_or_there(name):
        raise ConfigError(f"--manifest {name}: {os.strerror(2)}")
    first_error: ConfigError | None = None
    for found in islice(list_manifests(name), _TRIED_OF_FOLDER):
        with contextlib.closing(open_manifest(found)) as file:
            beginning = file.read(bounds.BEGINNING_BYTES)
        try:
            tell_shape(uris.shown(found), beginning)
        except ConfigError as error:
            first_error = first_error or error
        else:
            return
    if first_error is not None:
        raise ConfigError(f"--manifest {first_error}") from None


def _is_glob_or_there(path: str) -> bool:
    return objects.exists_literally(path) or next(list_manifests(path), path) != path


def _is_staged(name: str, *, reads_files: bool) -> bool:
    """Whether a manifest goes by way of staging."""
    if name == STANDARD_INPUT:
        return True
    if is_stream(name):
        return False
    if objects.is_on_this_machine(name):
        return not reads_files
    return uris.shown(name) != name  # a signature must not stand in a job


def stage(where: NamedPlaces, root: str, *, reads_files: bool) -> tuple[ManifestSource, ...]:
    """Returns where a job reads its manifests, of which some are written to staging now.

    Args:
      where: the places of a command line, checked.
      root: the folder that runs stage in.
      reads_files: whether the job reads files of this machine where they are.

    Raises:
      ConfigError: standard input is no manifest.
      RecordingError: a manifest cannot be read, or staging not be written.
    """
    staged: list[ManifestSource] = []
    try:
        for source in _stage(where, root, reads_files=reads_files):
            staged.append(source)
    except BaseException:
        with contextlib.suppress(RecordingError):
            manifests.delete_sources(root, staged)
        raise
    return tuple(staged)


def _stage(where: NamedPlaces, root: str, *, reads_files: bool) -> Iterator[ManifestSource]:
    if where.links:
        place = manifests.new_place(root)
        objects.write_bytes(place, "".join(f"{link}\n" for link in where.links).encode())
        yield ManifestSource(where=place, shown=_LINKS_SHOWN_AS, is_staged=True)
    for name in where.manifests:
        if not _is_staged(name, reads_files=reads_files):
            yield ManifestSource(where=name, shown=uris.shown(name))
            continue
        place = manifests.new_place(root)
        told = shown(name)
        if name == STANDARD_INPUT:
            _copy(sys.stdin.buffer, place, told)
        elif (found := list(list_manifests(name))) != [name]:  # a folder, or a glob
            place = f"{place}/"
            told = f"{globs.plain_prefix(f'{name}/').rpartition('/')[0].rstrip('/')}/"
            for each in found:
                with contextlib.closing(open_manifest(each)) as file:
                    _copy(file, place + each.removeprefix(told))
        else:
            with contextlib.closing(open_manifest(name)) as file:
                _copy(file, place)
        yield ManifestSource(where=place, shown=told, is_staged=True)


def _copy(file: BinaryIO, place: str, to_be_told: str | None = None) -> None:
    """Writes a file to staging, by way of a local one, however long it is. Args: to_be_told: its
    name, where its shape is not known. Raises: ConfigError: then, and it is none that is read.
    """
    with tempfile.TemporaryDirectory(prefix="callpress-") as folder:
        local = Path(folder) / "manifest"
        with local.open("wb") as sink:
            shutil.copyfileobj(file, sink, bounds.CHUNK_BYTES)
        if to_be_told is not None:
            with local.open("rb") as found:
                tell_shape(to_be_told, found.read(bounds.BEGINNING_BYTES))
        objects.move(place, local)


def tell_passed_over(counts: Mapping[str, int]) -> None:
    """Tells how many entries of manifests are of no raw recording."""
    names = {
        "composite": "composite recording",
        "individual": "individual recording",
        "other_event": "other event",
    }
    found = [
        f"{counts[why]} {name}{'' if counts[why] == 1 else 's'}"
        for why, name in names.items()
        if counts.get(why)
    ]
    if found:
        print(f"callpress: passed over {_join(found)} of --manifest", file=sys.stderr)


def _join(words: Sequence[str]) -> str:
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last
