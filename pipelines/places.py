"""Where a run reads and writes, found out and tried before any work."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines import manifests
from pipelines.options import RunArguments
from transforms.catalog.schema import TABLES
from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.media.text import has_utf8, printable, spelled_utf8
from transforms.sources import archive_files
from transforms.storage import globs, objects, uris
from transforms.storage.errors import describe_error


class NothingToDoError(CallpressError):
    """No archive matches."""


class UnwritableError(CallpressError):
    """A folder cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Absolute paths or full URIs."""

    inputs: tuple[str, ...]
    """Patterns."""
    links: tuple[str, ...] = field(repr=False)
    """Inputs that are links, with their signatures."""
    manifests: tuple[str, ...] = field(repr=False)
    """Besides places also `-` and queries of the vendor's API; links may have signatures."""
    output_uri: str
    catalog_uri: str
    copy_raw_uri: str
    """Empty where no copies were asked for."""
    own_uris: tuple[str, ...]
    """The summary and the log, where they were asked for, and manifests: no archives."""


def places_of(arguments: RunArguments) -> Places:
    """Returns the places a command line names.

    Raises:
      ConfigError: one that is written to has a name that no table can hold, or is a link.
    """
    refuse_link("--output", arguments.output)
    refuse_link("--catalog", arguments.catalog)
    output = uris.folder(arguments.output)
    catalog = uris.folder(arguments.catalog or uris.join(output, "catalog"))
    copy_raw = uris.folder(arguments.copy_raw) if arguments.copy_raw else ""
    own = tuple(uris.absolute(uri) for uri in (arguments.summary_json, arguments.log_file) if uri)
    for place in filter(None, (output, catalog, copy_raw, *own)):
        if not has_utf8(place):
            raise ConfigError(
                f"{spelled_utf8(place)}: its name is no UTF-8, expected one that tables can hold"
            )
    named = manifests.spelled(arguments.manifests)
    return Places(
        inputs=tuple(
            uris.absolute(pattern) for pattern in arguments.inputs if not uris.is_link(pattern)
        ),
        links=tuple(link for link in arguments.inputs if uris.is_link(link)),
        manifests=named,
        output_uri=output,
        catalog_uri=catalog,
        copy_raw_uri=copy_raw,
        own_uris=own + tuple(filter(objects.is_on_this_machine, named)),
    )


def refuse_link(flag: str, place: str | None) -> None:
    """Checks that a place to write to is no link. Raises: ConfigError."""
    if place and uris.is_link(place):
        shown = printable(uris.shown(place))
        raise ConfigError(
            f"{flag} {shown}: https:// is read only, expected a path or a place in a store"
        )


def check_apart(places: Places) -> None:
    """Checks that tables and recordings do not lie in each other, however their places are spelled.

    Raises:
      ConfigError: they do.
    """
    recordings = objects.resolve(uris.join(places.output_uri, "recordings"))
    inside = uris.is_within(objects.resolve(places.catalog_uri), recordings)
    for table in TABLES:
        rows = objects.resolve(uris.join(places.catalog_uri, table))
        inside = inside or uris.is_within(rows, recordings) or uris.is_within(recordings, rows)
    if inside:
        raise ConfigError(
            f"--catalog {places.catalog_uri}: its tables and the recordings in "
            f"{uris.join(places.output_uri, 'recordings')} would lie in each other, expected a "
            "place apart, such as <output>/catalog"
        )


def check_copies_apart(places: Places) -> None:
    """Checks that copies of archives lie neither among what runs make nor where archives come from,
    however their places are spelled.

    Raises:
      ConfigError: they do.
    """
    if not places.copy_raw_uri:
        return
    copies = objects.resolve(places.copy_raw_uri)
    for place in (places.output_uri, places.catalog_uri):
        if uris.is_within(copies, objects.resolve(place)):
            raise ConfigError(
                f"--copy-raw {places.copy_raw_uri}: lies in {place}, expected a place apart from "
                "what is pressed"
            )
    for pattern in places.inputs:
        folder = globs.plain_prefix(pattern).rpartition("/")[0]
        if uris.is_within(objects.resolve(folder), copies):
            raise ConfigError(
                f"--copy-raw {places.copy_raw_uri}: archives of --input {spelled_utf8(pattern)} "
                "lie there themselves, expected another place"
            )


def staging_root(places: Places, temp_location: str | None, *, shares_this_machine: bool) -> str:
    """Returns the folder that all runs over one catalog stage in; each has its own inside.

    Args:
      places: of the run.
      temp_location: Beam's option, if it was given.
      shares_this_machine: whether the engine's workers see the files of this machine.

    Raises:
      ConfigError: an engine with workers elsewhere was given no `--temp_location`, or it is a
        link.
    """
    refuse_link("--temp_location", temp_location)
    name = "callpress-" + hashlib.sha256(places.catalog_uri.encode()).hexdigest()[:12]
    if temp_location:
        return uris.join(uris.absolute(temp_location), name)
    if not shares_this_machine:
        raise ConfigError(
            "--temp_location is needed with --runner: a place that all workers can read and write"
        )
    return objects.default_staging(places.output_uri, name)


def check_inputs(patterns: Sequence[str], *, may_come_later: bool = False) -> None:
    """Warns of patterns that match nothing, as they were given.

    Args:
      patterns: of archives.
      may_come_later: whether nothing need be there yet.

    Raises:
      NothingToDoError: none of them matches anything.
      StorageError: it cannot be found out.
    """
    if not patterns:
        return
    reasons = [archive_files.why_nothing_matches(pattern) for pattern in patterns]
    if all(reasons) and not may_come_later:
        raise NothingToDoError(
            f"nothing to press: {'; '.join(reason for reason in reasons if reason)}"
        )
    for reason in filter(None, reasons):
        print(f"callpress: warning: {reason}", file=sys.stderr)


def tell_left_out(count: int) -> None:
    """Tells how many files below the inputs are left out because a run of ours made them."""
    if count:
        print(
            f"callpress: left out {count} files below --input that Callpress itself made",
            file=sys.stderr,
        )


def check_writable(places: Places, root: str, summary_json: str | None) -> None:
    """Makes the folders of a run where its stores have folders.

    Raises:
      UnwritableError, StorageError: a place cannot be written.
    """
    for folder in filter(None, (places.output_uri, places.catalog_uri, places.copy_raw_uri, root)):
        _prepare_folder(folder)
        objects.check_reachable(folder)
    if summary_json:
        _prepare_folder(os.path.dirname(uris.absolute(summary_json)))


def _prepare_folder(folder: str) -> None:
    try:
        objects.prepare_folder(folder)
    except StorageError as error:
        raise refusal(folder, folder, error) from None


def refusal(what: str, uri: str, error: StorageError) -> CallpressError:
    """Returns the error to end with when a place cannot be written: a store that can be down speaks
    for itself, a disk is the operator's to mend.
    """
    if objects.can_be_down(uri):
        return error
    why = describe_error(error.__cause__ or error)
    return UnwritableError(f"{what}: cannot be written: {why}")
