"""How this process reaches stores, beyond what the environment says: accounts by place, and which
addresses it may connect to. The same for all processes of a job.

Secrets stand here by reference only (`secrets`): what is pickled into a job holds none.
"""

from __future__ import annotations

from dataclasses import dataclass

from transforms.storage.uris import is_within


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccount:
    """What a table `[stores."s3://bucket"]` of a job profile says of a place."""

    place: str
    """A bucket or container as its URIs begin, or a folder in it: `s3://bucket`,
    `azfs://account/container`, `azfs://account`.
    """
    endpoint: str = ""
    """URL of the service; empty for what the environment says."""
    region: str = ""
    path_style: bool | None = None
    """Whether the bucket stands in the path of a request and not in the host's name; None for what
    fits the endpoint.
    """
    profile: str = ""
    """A profile of AWS's files of configuration."""
    access_key_id: str = ""
    """Like all keys below a reference to a secret: `env:NAME`, `file:PATH`, or
    `gcp-secret:projects/PROJECT/secrets/NAME/versions/N`.
    """
    secret_access_key: str = ""
    session_token: str = ""
    account_key: str = ""
    sas_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """What was asked for of all stores."""

    accounts: tuple[StoreAccount, ...] = ()
    allow_private_addresses: bool = False
    """Whether links may lead to addresses that are not public."""
    named_hosts: frozenset[str] = frozenset()
    """`host:port` of links that the command line itself named: they may be anywhere."""

    def account_of(self, uri: str) -> StoreAccount | None:
        """Returns the account of the longest place that a URI lies in; None for none."""
        within = [account for account in self.accounts if is_within(uri, account.place)]
        return max(within, key=lambda account: len(account.place), default=None)


_options = StorageOptions()


def current() -> StorageOptions:
    """Returns the options of this process."""
    return _options


def use(options: StorageOptions) -> None:
    """Has this process use options from now on."""
    global _options
    _options = options
