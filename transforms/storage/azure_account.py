"""How a storage account of Azure is reached and by whose credentials, as Azure's own tools find
both, and soon where there are none.

In this order: a key or SAS of the account (`storage_options`); then, where the environment speaks
of this account or of none by name (`AZURE_STORAGE_ACCOUNT`), `AZURE_STORAGE_CONNECTION_STRING`,
`AZURE_STORAGE_KEY`, `AZURE_STORAGE_SAS_TOKEN`; then identities that may reach many accounts: a
token, a service principal, a workload's identity, the login of `az`, a managed identity.
`AZURE_SKIP_SIGNATURE` asks without credentials, as for a public container.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transforms.media.errors import ConfigError
from transforms.storage import secrets
from transforms.storage.storage_options import StoreAccount
from transforms.storage.surroundings import first_set, has_metadata_server, is_made_by, is_true

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_METADATA = "/metadata/instance?api-version=2021-02-01"
_KEYS = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
_SAS_TOKENS = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
_ENDPOINTS = ("AZURE_STORAGE_SERVICE_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_NAMES = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")


@dataclass(frozen=True, slots=True)
class AzureAccess:
    """How an account is reached, and by whose credentials."""

    endpoint: str
    config: AzureConfig = field(repr=False)


def find_access(name: str, account: StoreAccount | None) -> AzureAccess:
    """Returns how a storage account is reached.

    Args:
      name: of the storage account.
      account: what the job profile says of it.

    Raises:
      ConfigError: there are no credentials.
    """
    account = account or StoreAccount(place="azfs://any")
    connection = _connection_string()
    named = first_set(*_NAMES) or connection.get("accountname", "")
    is_of_environment = named in ("", name)
    if not is_of_environment:
        connection = {}
    endpoint = (
        account.endpoint
        or (is_of_environment and (connection.get("blobendpoint") or first_set(*_ENDPOINTS)))
        or f"https://{name}.blob.{connection.get('endpointsuffix') or 'core.windows.net'}"
    )
    config = (
        _config_of(account)
        or (_config_of_environment(connection) if is_of_environment else None)
        or _config_of_identity()
    )
    if config is None:
        raise ConfigError(
            f"no Azure credentials for the account {name}: set AZURE_STORAGE_ACCOUNT={name} with "
            "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, AZURE_TENANT_ID and "
            "AZURE_CLIENT_SECRET, or log in with az login"
        )
    # Said even so: the library, too, reads the variable that says otherwise.
    return AzureAccess(endpoint.rstrip("/"), {"skip_signature": False, **config})


def _config_of(account: StoreAccount) -> AzureConfig | None:
    if not (reference := account.account_key or account.sas_token):
        return None
    found = secrets.read(reference)
    return _by_key(found) if account.account_key else _by_sas(found)


def _config_of_environment(connection: dict[str, str]) -> AzureConfig | None:
    """Returns what variables say that are about one account."""
    if key := connection.get("accountkey") or first_set(*_KEYS):
        return _by_key(key)
    if sas := connection.get("sharedaccesssignature") or first_set(*_SAS_TOKENS):
        return _by_sas(sas)
    return None


def _config_of_identity() -> AzureConfig | None:
    if is_true("AZURE_SKIP_SIGNATURE"):
        return {"skip_signature": True}
    if first_set("AZURE_STORAGE_TOKEN"):
        return {"credential_type": "bearer_token"}
    if first_set("AZURE_CLIENT_ID") and first_set("AZURE_TENANT_ID"):
        if first_set("AZURE_CLIENT_SECRET"):
            return {"credential_type": "client_secret"}
        if first_set("AZURE_FEDERATED_TOKEN_FILE"):
            return {"credential_type": "workload_identity"}
    if is_true("AZURE_USE_AZURE_CLI") or _is_logged_in():
        return {"credential_type": "azure_cli"}
    if first_set("IDENTITY_ENDPOINT", "AZURE_MSI_ENDPOINT") or _is_on_azure():
        return {"credential_type": "managed_identity"}
    return None


def _by_key(key: str) -> AzureConfig:
    return {"account_key": key, "credential_type": "access_key"}


def _by_sas(token: str) -> AzureConfig:
    return {"sas_key": token.lstrip("?"), "credential_type": "sas_token"}


def _connection_string() -> dict[str, str]:
    """Returns the parts of `AZURE_STORAGE_CONNECTION_STRING` by name in small letters."""
    parts = (os.environ.get("AZURE_STORAGE_CONNECTION_STRING") or "").split(";")
    return {
        name.strip().lower(): value.strip()
        for name, found, value in (part.partition("=") for part in parts)
        if found
    }


def _is_logged_in() -> bool:
    """Whether `az login` was run here."""
    folder = os.environ.get("AZURE_CONFIG_DIR") or os.path.expanduser("~/.azure")
    return Path(folder, "azureProfile.json").is_file() and shutil.which("az") is not None


def _is_on_azure() -> bool:
    """Whether this machine is Azure's, and so may have an identity of its own."""
    if is_made_by("microsoft") is False:
        return False
    return has_metadata_server("GET", _METADATA, {"Metadata": "true"})
