"""The listing that a command compares a catalog with: read as a run reads it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace

from pipelines import manifests
from pipelines.catalog_commands import ListingArguments
from transforms.media.settings import PressSettings
from transforms.media.text import printable
from transforms.proof.listing import Listing, read_listing
from transforms.proof.reconcile import Reconciliation, Terms
from transforms.proof.telling import in_words, not_pressed, plain
from transforms.storage import objects, storage_options


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """What a command line names of listings."""

    manifests: tuple[str, ...] = field(repr=False)
    links: tuple[str, ...] = ()


def read(arguments: ListingArguments) -> Listing:
    """Returns the recordings that a command line names by its manifests; from then on this process
    reaches what the command line allows.

    Raises:
      ConfigError: a manifest is not there, or of no shape that is read.
      StorageError: one cannot be read now.
    """
    where = _Named(manifests=manifests.spelled(arguments.manifests))
    storage_options.use(
        replace(
            storage_options.current(),
            allow_private_addresses=arguments.allow_private_addresses,
            named_hosts=manifests.hosts_of(where),
        )
    )
    objects.find_credentials(manifests.stores_of(where))
    manifests.check(where)
    with tempfile.TemporaryDirectory(prefix="callpress-") as folder:
        return read_listing(manifests.stage(where, folder, reads_files=True))


def names_of(arguments: ListingArguments) -> list[str]:
    """Returns how people know the manifests: without signatures."""
    return [manifests.shown(name) for name in manifests.spelled(arguments.manifests)]


def tell(listing: Listing, found: Reconciliation) -> None:
    """Prints a line for each recording of a listing that is not pressed, those that are missing
    first, and for what of it cannot be read; tells what it passes over.
    """
    for each in not_pressed(found):
        print(printable(in_words(plain(each, found.terms))))
    for problem in listing.problems:
        print(f"not read: {printable(problem)}")
    for note in found.notes:
        print(f"callpress: {printable(note)}")
    manifests.tell_passed_over(listing.passed_over)


def terms_of(arguments: ListingArguments, settings: PressSettings) -> Terms:
    """Returns from when on what is not pressed is missing, as of now."""
    return Terms(
        now_unix_ns=time.time_ns(),
        max_attempts=settings.limits.max_attempts,
        grace_ns=arguments.grace_seconds * 10**9,
        kept_ns=arguments.kept_seconds * 10**9,
    )
