"""Containers of Azure Blob Storage: `azfs://account/container/name`."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from obstore.store import AzureStore as _Client

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.storage.azure_account import find_access
from transforms.storage.cloud import (
    FEW_ATTEMPTS,
    ONE_ATTEMPT,
    Bucket,
    CloudStore,
    client_options,
    refuse_user,
    split_endpoint,
    swap_client_options,
)
from transforms.storage.storage_options import StoreAccount

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_PREFIX = "azfs://"
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_SIGNED = re.compile(r"[A-Za-z0-9._~/-]+")
_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")


class AzureStore(CloudStore):
    """Containers of storage accounts."""

    _batch_objects = 256

    def split(self, uri: str) -> tuple[str, str]:
        """Returns the URI of a container and the name in it. Raises: OSError: there can be no such
        container.
        """
        account, _, rest = uri.removeprefix(_PREFIX).partition("/")
        container, _, name = rest.partition("/")
        refuse_user(uri, account)
        for what, found, spelling in (
            ("a storage account", account, _ACCOUNT),
            ("a container", container, _CONTAINER),
        ):
            if not spelling.fullmatch(found):
                raise OSError(
                    errno.EINVAL,
                    f"{printable(found)!r} is no name of {what}, expected "
                    "azfs://ACCOUNT/CONTAINER/NAME",
                    uri,
                )
        return f"{_PREFIX}{account}/{container}", name

    def check_name(self, uri: str, name: str) -> None:
        """Raises: OSError: the library or Azure would take a name for another."""
        super().check_name(uri, name)
        if "\\" in name:
            why = "has a backslash, of which Azure makes a slash"
            raise OSError(errno.EINVAL, f"the name {printable(name)!r} {why}", uri)

    def signed_link(self, uri: str, seconds: int) -> str:
        """Returns a signed link. Raises: ConfigError: the credentials cannot sign, or the library
        would sign another name.
        """
        # It signs the path as it stands in the link, where Azure takes the name itself.
        if not _SIGNED.fullmatch(self.split(uri)[1]):
            raise ConfigError(
                f"{printable(uri)}: no link to it can be signed, as its name is spelled otherwise "
                "in a link, expected ASCII letters, digits, and - . _ ~ /"
            )
        return super().signed_link(uri, seconds)

    def connect(self, bucket_uri: str, account: StoreAccount | None) -> Bucket:
        """Returns a container as its account and the environment have it. Raises: ConfigError."""
        name, _, container = bucket_uri.removeprefix(_PREFIX).partition("/")
        access = find_access(name, account)
        split_endpoint(access.endpoint, "https://HOST or http://HOST:PORT/ACCOUNT")

        def client(options: ClientConfig, retries: RetryConfig) -> _Client:
            return _Client(
                container,
                account_name=name,
                endpoint=access.endpoint,
                client_options=options,
                retry_config=retries,
                config=access.config,
            )

        return Bucket(
            uri=bucket_uri,
            client=client(client_options(access.endpoint), ONE_ATTEMPT),
            swap_client=client(swap_client_options(access.endpoint), ONE_ATTEMPT),
            patient_client=client(client_options(access.endpoint), FEW_ATTEMPTS),
            endpoint=access.endpoint,
            # With a hierarchical namespace they are not.
            lists_in_order=False,
            signs_links=not access.config.get("skip_signature")
            and access.config.get("credential_type") != "sas_token",
        )
