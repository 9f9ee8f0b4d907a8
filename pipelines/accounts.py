"""Whether the workers of an engine can read the secrets that accounts of stores, and who is told,
name.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.notices.target_secrets import check_secrets
from transforms.sources.manifests.stream_api import is_stream
from transforms.storage import secrets, storage_options
from transforms.storage.storage_options import StoreAccount, StreamAccount
from transforms.targets import Target


def accounts_of(manifests: Sequence[str]) -> tuple[StoreAccount | StreamAccount, ...]:
    """Returns the accounts that a job with such manifests may use."""
    options = storage_options.current()
    return (*options.accounts, *([options.stream] if any(map(is_stream, manifests)) else []))


def check_secrets_reach_workers(
    accounts: Sequence[StoreAccount | StreamAccount | Target],
    *,
    has_workers_here: bool,
    secrets_in_image: bool,
) -> None:
    """Checks that no secret is named that lies on this machine alone, where workers are elsewhere.
    Where they are here, those of the vendor's API, which is asked for certain, are read, and those
    of who is told.

    All accounts count, also of places that the command line does not name: manifests and the
    catalog may lead a worker there.

    Args:
      accounts: of stores, of the vendor's API where a manifest is asked of it, and who is told.
      has_workers_here: whether the engine's workers live in this process, or are its children.
      secrets_in_image: whether the image of the workers is said to have them.

    Raises:
      ConfigError: one is, or cannot be read, or is not what it is to be.
    """
    if has_workers_here:
        for account in accounts:
            if isinstance(account, StreamAccount):
                for reference in account.references:
                    secrets.check(reference)
            elif isinstance(account, Target):
                check_secrets(account)
        return
    if secrets_in_image:
        return
    for account in accounts:
        for reference in account.references:
            if secrets.is_of_this_machine(reference):
                where = "environment" if reference.startswith("env:") else "disks"
                raise ConfigError(
                    f"{printable(account.table)}: {reference} is on this machine, and workers "
                    f"elsewhere do not have its {where}: expected "
                    "gcp-secret:projects/PROJECT/secrets/NAME/versions/N, or --secrets-in-image "
                    "where their image has it too"
                )
