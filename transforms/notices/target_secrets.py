"""What the references of a target stand for, read where it is sent to and looked at before: keys of
the right shape, an address that is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from transforms import targets
from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.notices import signatures
from transforms.storage import secrets, uris
from transforms.storage.secrets import SecretError
from transforms.targets import Target, TargetKind

_OF_CERTIFICATE = re.compile(r"(?<=certificate is not valid for )'.*'")
"""The host as OpenSSL spells it, which may be another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSecrets:
    """What the references of a target stand for; empty where it has none."""

    url: str = field(default="", repr=False)
    """Of an endpoint, whole."""
    secret: str = field(default="", repr=False)
    """By which `X-SIGNATURE` is made."""
    api_key: str = field(default="", repr=False)
    webhook_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Of Standard Webhooks."""


def read_secrets(target: Target) -> TargetSecrets:
    """Returns what the references of a target stand for.

    Raises:
      SecretError: one cannot be read, or is not what it is to be. The reference is named; nothing
        of a secret is told.
    """
    return TargetSecrets(
        url=_url_of(target) if target.kind is TargetKind.HTTPS else "",
        secret=secrets.read(target.secret) if target.secret else "",
        api_key=secrets.read(target.api_key) if target.api_key else "",
        webhook_keys=tuple(map(_webhook_key, target.webhook_keys)),
    )


def check_secrets(target: Target) -> None:
    """Finds out whether the references of a target stand for what they are to. Raises: ConfigError:
    as `read_secrets`; the target is named, too.
    """
    try:
        read_secrets(target)
    except SecretError as error:
        raise ConfigError(f"{printable(target.table)}: {error}") from None


def without_host(target: Target, url: str, text: str) -> str:
    """Returns a text without the host of an endpoint, where that is known by a reference alone: the
    names of some hosts are all that keeps others from sending to them.

    Args:
      target: the endpoint.
      url: what its reference stands for; empty where that is not known.
      text: about it.
    """
    link = uris.split_link(url)
    if target.place or link is None:
        return text
    text = re.sub(re.escape(link.host), "[hidden]", text, flags=re.IGNORECASE)
    return _OF_CERTIFICATE.sub("[hidden]", text)


def _webhook_key(reference: str) -> bytes:
    try:
        return signatures.webhook_key(secrets.read(reference))
    except ValueError as error:
        raise SecretError(f"{printable(reference)}: {error}") from None


def _url_of(target: Target) -> str:
    if not target.address:
        return target.place
    url = secrets.read(target.address)
    try:
        targets.endpoint(url)
    except ValueError as error:
        raise SecretError(f"{printable(target.address)}: {error}") from None
    return url
