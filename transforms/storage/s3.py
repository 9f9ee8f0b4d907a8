"""Buckets of Amazon S3, and of services that speak its language: R2, MinIO and others."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store as _Client

from transforms.media.text import printable
from transforms.storage.aws_account import AwsAccess, find_access
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

_PREFIX = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_UNORDERED_BUCKET = "--x-s3"
"""How names of directory buckets end (S3 Express), whose listings have no order."""


class S3Store(CloudStore):
    """Buckets of S3."""

    _batch_objects = 1_000

    def split(self, uri: str) -> tuple[str, str]:
        """Returns the URI of a bucket and the name in it. Raises: OSError: there can be no such
        bucket.
        """
        bucket, _, name = uri.removeprefix(_PREFIX).partition("/")
        refuse_user(uri, bucket)
        if not _BUCKET.fullmatch(bucket):
            raise OSError(errno.EINVAL, f"{printable(bucket)!r} is no name of a bucket", uri)
        return f"{_PREFIX}{bucket}", name

    def connect(self, bucket_uri: str, account: StoreAccount | None) -> Bucket:
        """Returns a bucket as its account and the environment have it. Raises: ConfigError."""
        access = find_access(account)
        bucket = bucket_uri.removeprefix(_PREFIX)
        path_style = account.path_style if account else None
        endpoint, is_virtual = _endpoint(access, bucket, path_style)

        def client(options: ClientConfig, retries: RetryConfig) -> _Client:
            config: dict[str, Any] = {"region": access.region}
            if access.endpoint:  # both, since a variable for the second would win over the first
                config.update(endpoint=endpoint, aws_endpoint_url_s3=endpoint)
            return _Client(
                bucket,
                virtual_hosted_style_request=is_virtual,
                skip_signature=access.skips_signature,
                client_options=options,
                retry_config=retries,
                credential_provider=access.provider,
                **config,
            )

        return Bucket(
            uri=bucket_uri,
            client=client(client_options(endpoint), ONE_ATTEMPT),
            swap_client=client(swap_client_options(endpoint), ONE_ATTEMPT),
            patient_client=client(client_options(endpoint), FEW_ATTEMPTS),
            endpoint=endpoint,
            lists_in_order=not bucket.endswith(_UNORDERED_BUCKET),
            signs_links=not access.skips_signature,
        )


def _endpoint(access: AwsAccess, bucket: str, path_style: bool | None) -> tuple[str, bool]:
    """Returns the URL of the service, and whether the bucket stands in the name of its host: at
    Amazon it does, unless its dots would not fit a certificate; elsewhere only where asked for.
    """
    if not access.endpoint:
        is_virtual = "." not in bucket if path_style is None else not path_style
        host = f"s3.{access.region}.amazonaws.com"
        return f"https://{bucket}.{host}" if is_virtual else f"https://{host}", is_virtual
    found = split_endpoint(access.endpoint, "https://HOST or http://HOST:PORT")
    endpoint = access.endpoint.rstrip("/")
    if path_style is False:
        return f"{found.scheme}://{bucket}.{found.netloc}{found.path.rstrip('/')}", True
    return endpoint, False
