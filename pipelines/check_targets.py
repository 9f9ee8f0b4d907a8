"""What can be found wrong with who is told before any work: places that cannot be written or lie
among tables and recordings, hosts that are refused, credentials that are not there.
"""

from __future__ import annotations

import os

from pipelines import targets
from transforms.catalog import results
from transforms.catalog.schema import TABLES
from transforms.media.errors import ConfigError, StorageError
from transforms.media.text import printable
from transforms.notices.target_secrets import read_secrets, without_host
from transforms.storage import google_account, objects, uris
from transforms.targets import PUBSUB_EMULATOR, Notify, Target, TargetKind, endpoint


def check_targets(
    notify: Notify,
    catalog_uri: str,
    output_uri: str | None = None,
    *,
    shares_this_machine: bool = True,
    reads_secrets: bool = True,
) -> None:
    """Checks who is told; nothing is sent or written. This process reaches stores and hosts by now
    as the command line allows.

    Args:
      notify: who is told.
      catalog_uri: no folder may lie in its tables.
      output_uri: nor among the recordings of this place.
      shares_this_machine: whether who sends sees the files of this machine.
      reads_secrets: whether this process can read what references stand for.

    Raises:
      ConfigError: something cannot be.
    """
    for target in notify.targets:
        if target.kind is TargetKind.JSON_LINES:
            _check_folder(target, catalog_uri, output_uri, shares_this_machine=shares_this_machine)
        elif target.kind is TargetKind.HTTPS:
            _check_endpoint(target, reads_secrets=reads_secrets)
        elif not os.environ.get(PUBSUB_EMULATOR) and (why := google_account.why_no_credentials()):
            raise ConfigError(f"{printable(target.table)}: {why}")
    objects.find_credentials(targets.folders_of(notify))


def prepare_folders(notify: Notify) -> None:
    """Makes the folders that are written to, where their stores have folders.

    Raises:
      UnwritableError, StorageError: one cannot be written.
    """
    for target in notify.targets:
        if target.kind is TargetKind.JSON_LINES:
            try:
                objects.prepare_folder(target.place)
            except StorageError as error:
                from pipelines import places  # late: with it comes Beam

                raise places.refusal(target.table, target.place, error) from None
            objects.check_reachable(target.place)


def _check_folder(
    target: Target, catalog_uri: str, output_uri: str | None, *, shares_this_machine: bool
) -> None:
    shown = printable(target.table)
    if not shares_this_machine and objects.is_on_this_machine(target.place):
        raise ConfigError(
            f"{shown}: {printable(target.place)} is on this machine, where workers elsewhere "
            "cannot reach it, expected a folder in a store"
        )
    kept = [uris.join(catalog_uri, name) for name in (*TABLES, results.FOLDER)]
    if output_uri is not None:
        kept.append(uris.join(output_uri, "recordings"))
    found = objects.resolve(target.place)
    if found == objects.resolve(catalog_uri):
        raise ConfigError(
            f"{shown}: {printable(target.place)} is the catalog, expected another folder"
        )
    for place in kept:
        if uris.is_within(found, objects.resolve(place)):
            raise ConfigError(
                f"{shown}: {printable(target.place)} lies in {place}, which has nothing else in "
                "it, expected another folder"
            )


def _check_endpoint(target: Target, *, reads_secrets: bool) -> None:
    from transforms.storage.link_connections import RefusedLinkError, check_host

    if not (target.place or reads_secrets):
        return
    url = target.place or read_secrets(target).url
    try:
        check_host(endpoint(url))
    except RefusedLinkError as error:
        told = without_host(target, url, str(error))
        raise ConfigError(f"{printable(target.table)}: {told}") from None
