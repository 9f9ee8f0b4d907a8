"""How this process reaches stores, beyond what the environment says: accounts by place, which
addresses it may connect to, and how the vendor's API is asked. The same for all processes of a job.

Secrets stand here by reference only (`secrets`): what is pickled into a job holds none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transforms.storage import secrets
from transforms.storage.uris import folder, is_within, scheme_of

_PLACE = re.compile(r"[a-z0-9]+://[^/?*\[\]#@\s]+(?:/[^/?*\[\]#@\s]+)*")
"""A bucket or container, or a folder in it."""
_KEYS_OF = {
    "s3": (
        "endpoint",
        "region",
        "path_style",
        "profile",
        "access_key_id",
        "secret_access_key",
        "session_token",
    ),
    "azfs": ("endpoint", "account_key", "sas_token"),
}
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+(?:/[^\s?#@]*)?")
# Of the vendor's API. Without TLS only to this machine: requests carry what the secret signed, and
# answers signed links.
BASE_URL = re.compile(
    r"https://[\w.-]+(?::\d{1,5})?(?:/[\w./-]*)?"
    r"|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?/?",
    re.ASCII,
)
SECRET_KEYS = ("access_key_id", "secret_access_key", "session_token", "account_key", "sas_token")
"""Those that hold a reference to a secret."""


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

    def __post_init__(self) -> None:
        """Raises: ValueError: the place or a key cannot be; no value of a key is in the message."""
        scheme = scheme_of(place_of(self.place))
        given = [key for key in ALL_KEYS if getattr(self, key) not in ("", None)]
        for key in given:
            if key not in _KEYS_OF[scheme]:
                raise ValueError(
                    f"{key} is none of {scheme}://, expected one of {', '.join(_KEYS_OF[scheme])}"
                )
            if key in SECRET_KEYS and not secrets.is_reference(getattr(self, key)):
                raise ValueError(
                    f"{key} is to be named, not spelled out, expected {secrets.EXPECTED}"
                )
        if self.endpoint and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError(
                "endpoint is no address, expected https://HOST[:PORT], without user, password or "
                "query"
            )
        if ("access_key_id" in given) != ("secret_access_key" in given):
            raise ValueError("access_key_id and secret_access_key are needed together")
        if "session_token" in given and "access_key_id" not in given:
            raise ValueError("session_token is needed with access_key_id, expected both or none")
        for one, other in (("profile", "access_key_id"), ("account_key", "sas_token")):
            if one in given and other in given:
                raise ValueError(f"{one} and {other} exclude each other, expected one of them")

    @property
    def table(self) -> str:
        """The table of a job profile that it stands in."""
        return f'[stores."{self.place}"]'

    @property
    def references(self) -> tuple[str, ...]:
        """The secrets it names."""
        return tuple(found for key in SECRET_KEYS if (found := getattr(self, key)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAccount:
    """What the table `[stream]` of a job profile says of the vendor's API, which manifests may be
    asked of.
    """

    api_key: str = "env:STREAM_API_KEY"
    """As `api_secret` a reference to a secret; the variables are those of the vendor's tools."""
    api_secret: str = "env:STREAM_API_SECRET"
    base_url: str = ""
    """Empty for what STREAM_BASE_URL says, or the SDK."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a key cannot be; no value of one is in the message."""
        for key in ("api_key", "api_secret"):
            if not secrets.is_reference(getattr(self, key)):
                raise ValueError(
                    f"{key} is to be named, not spelled out, expected {secrets.EXPECTED}"
                )
        if self.base_url and not BASE_URL.fullmatch(self.base_url):
            raise ValueError(
                "base_url is no address, expected https://HOST[:PORT], without user, password or "
                "query"
            )

    @property
    def table(self) -> str:
        """The table of a job profile that it stands in."""
        return "[stream]"

    @property
    def references(self) -> tuple[str, ...]:
        """The secrets it names."""
        return self.api_key, self.api_secret


ALL_KEYS = tuple(dict.fromkeys(key for keys in _KEYS_OF.values() for key in keys))
"""The keys of a table."""


def place_of(name: str) -> str:
    """Returns the one spelling of a place that an account is for.

    Raises:
      ValueError: it is none. That is not told as it is spelled: a password or a signature may stand
        in it.
      ConfigError: it is in Azure, and does not say where.
    """
    place = folder(name) if scheme_of(name) else name
    scheme = scheme_of(place)
    if scheme == "gs":
        raise ValueError(
            "gs:// is reached with Google's own credentials alone, which may be let into buckets "
            "of any project: expected no table for it"
        )
    if scheme not in _KEYS_OF or not _PLACE.fullmatch(place):
        raise ValueError(
            "is no place of a store, expected s3://BUCKET, azfs://ACCOUNT/CONTAINER or a folder in "
            "one"
        )
    return place


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """What was asked for of all stores. A process that is sent them, as a worker is with its job,
    uses them from then on.
    """

    accounts: tuple[StoreAccount, ...] = ()
    allow_private_addresses: bool = False
    """Whether links may lead to addresses that are not public."""
    named_hosts: frozenset[str] = frozenset()
    """`host:port` of links that the command line itself named: they may be anywhere."""
    stream: StreamAccount = StreamAccount()

    def account_of(self, uri: str) -> StoreAccount | None:
        """Returns the account of the longest place that a URI lies in; None for none."""
        within = [account for account in self.accounts if is_within(uri, account.place)]
        return max(within, key=lambda account: len(account.place), default=None)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        # Hosts in order: what is pickled is the same each time.
        return _received, (
            self.accounts,
            self.allow_private_addresses,
            tuple(sorted(self.named_hosts)),
            self.stream,
        )


_options = StorageOptions()


def current() -> StorageOptions:
    """Returns the options of this process."""
    return _options


def use(options: StorageOptions) -> None:
    """Has this process use options from now on."""
    global _options
    _options = options


def _received(
    accounts: tuple[StoreAccount, ...],
    allow_private_addresses: bool,
    hosts: tuple[str, ...],
    stream: StreamAccount,
) -> StorageOptions:
    """Returns the options of the process that started the job, which this one uses now."""
    options = StorageOptions(
        accounts=accounts,
        allow_private_addresses=allow_private_addresses,
        named_hosts=frozenset(hosts),
        stream=stream,
    )
    use(options)
    return options
