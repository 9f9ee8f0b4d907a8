"""How S3 is reached and by whose credentials, as AWS's own tools find both, and soon where there
are none.

In this order: keys of the account (`storage_options`), its profile, `AWS_ACCESS_KEY_ID`,
`AWS_PROFILE`, a web identity, a container's role, the files of `~/.aws`, an instance's role.
Profiles and those files are read by boto3 (the extra `s3`); all else by `obstore` itself.
`AWS_SKIP_SIGNATURE` asks without credentials, as for a public bucket.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.storage import secrets
from transforms.storage.storage_options import StoreAccount
from transforms.storage.surroundings import first_set, has_metadata_server, is_made_by, is_true

if TYPE_CHECKING:
    from obstore.store import S3Credential

_METADATA = "/latest/api/token"
_METADATA_HEADERS = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
_DEFAULT_REGION = "us-east-1"
_EXTRA = "pip install 'callpress[s3]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsAccess:
    """How a bucket is reached, and by whose credentials."""

    endpoint: str
    """URL of the service; empty for Amazon's."""
    region: str
    provider: Callable[[], S3Credential] | None = field(repr=False)
    """Gives credentials; None where `obstore` finds them itself."""
    skips_signature: bool


def find_access(account: StoreAccount | None) -> AwsAccess:
    """Returns how a bucket is reached. Raises: ConfigError: there are no credentials, or something
    named does not exist.
    """
    account = account or StoreAccount(place="s3://any")
    provider, region_of_profile = _find_provider(account)
    return AwsAccess(
        endpoint=account.endpoint
        or first_set("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        region=account.region
        or first_set("AWS_REGION", "AWS_DEFAULT_REGION")
        or region_of_profile
        or _DEFAULT_REGION,
        provider=provider,
        skips_signature=provider is None and is_true("AWS_SKIP_SIGNATURE"),
    )


def _find_provider(account: StoreAccount) -> tuple[Callable[[], S3Credential] | None, str]:
    """Returns what gives credentials, and the region that it names."""
    if account.access_key_id:
        return _keys_of(account), ""
    if account.profile:
        return _of_boto3(account.profile, f'profile = "{account.profile}" of {account.place}')
    if is_true("AWS_SKIP_SIGNATURE"):
        return None, ""
    if first_set("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            if not os.environ.get(name):
                raise ConfigError(f"{name} is not set, though the other one of the two is")
        return None, ""
    if profile := first_set("AWS_PROFILE"):
        return _of_boto3(profile, f"AWS_PROFILE {printable(profile)}")
    if first_set(
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ):
        return None, ""
    if files := [str(path) for path in _files() if path.is_file()]:
        return _of_boto3(None, files[0])
    if _is_on_amazon():
        return None, ""
    raise ConfigError(
        "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
        "run where a role is given; a public bucket is asked without any where AWS_SKIP_SIGNATURE "
        "is true"
    )


def _keys_of(account: StoreAccount) -> Callable[[], S3Credential]:
    found: S3Credential = {
        "access_key_id": secrets.read(account.access_key_id),
        "secret_access_key": secrets.read(account.secret_access_key),
        "token": secrets.read(account.session_token) if account.session_token else None,
        "expires_at": None,
    }
    return lambda: found


def _of_boto3(profile: str | None, what: str) -> tuple[Callable[[], S3Credential], str]:
    """Returns what a profile gives, the default one for None, and its region."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise ConfigError(f"{what}: needs boto3 to be read: {_EXTRA}") from None
    try:
        session = boto3.Session(profile_name=profile)
        return Boto3CredentialProvider(session), session.region_name or ""
    except BotoCoreError as error:
        raise ConfigError(f"{what}: {printable(str(error))}") from None
    except ValueError:
        raise ConfigError(f"{what}: holds no credentials") from None


def _files() -> list[Path]:
    home = os.path.expanduser("~/.aws")
    return [
        Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/credentials"),
        Path(os.environ.get("AWS_CONFIG_FILE") or f"{home}/config"),
    ]


def _is_on_amazon() -> bool:
    """Whether this machine is Amazon's, and so may have a role of its own."""
    if is_true("AWS_EC2_METADATA_DISABLED"):
        return False
    return is_made_by("amazon") or has_metadata_server("PUT", _METADATA, _METADATA_HEADERS)
