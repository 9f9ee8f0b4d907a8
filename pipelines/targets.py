"""Who is told of what is made: as a command line and a job profile name them, and what of it can be
found wrong before any work. Beam-free.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transforms import targets
from transforms.media.errors import ConfigError
from transforms.media.text import has_utf8, printable, without_secrets
from transforms.storage import secrets, uris
from transforms.targets import (
    USUAL_AT_A_TIME,
    USUAL_BUDGET_SECONDS,
    USUAL_TIMEOUT_SECONDS,
    Notify,
    Target,
    TargetKind,
)

FLAG = "--notify"
_EXPECTED = (
    "expected https://HOST/PATH, pubsub:projects/PROJECT/topics/TOPIC, a folder, or a reference to "
    f"a URL ({secrets.EXPECTED})"
)
# https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
_PUBSUB = "pubsub:"
_TOPIC = re.compile(
    _PUBSUB + r"(projects/[a-z0-9][a-z0-9.:-]*/topics/(?!goog)[A-Za-z][\w.~+%-]{2,254})", re.ASCII
)
_NO_PLACE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!//)")
"""What begins like a URI and names no place in a store, as `sqs:queue`."""

_LIKE_A_HOST = re.compile(
    r"(?:(?:[\w-]+\.)+[A-Za-z]{2,}|\d+(?:\.\d+){3})(?::\d+)?/.+|(?:[\w-]+\.){2,}[A-Za-z]{2,}",
    re.ASCII,
)
"""What reads as a URL without its `https://`, as `crm.example.com/hook`: as a folder it would be
written to, and nobody be told.
"""
_HAS_A_URL = re.compile(
    r"(?![a-z][a-z0-9+.-]*://)(?:.*?https?[^\w/]*:|.*?://|\s*//)", re.DOTALL | re.IGNORECASE
)
"""What a URL stands in, behind a blank or a quotation mark, say, or in which one is misspelled: as
a folder it would have what is secret in it in its name.
"""
_SECRET_PART = re.compile(r"[?#].*|(?<=[/\\:])[^/\\?#@]+@", re.DOTALL)
_MORE_THAN_A_PLACE = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://[^?#@]*[?#@]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How endpoints are sent to that do not say it themselves."""

    secret: str = ""
    """As the next two a reference; all fields as in `Target`."""
    api_key: str = ""
    webhook_keys: tuple[str, ...] = ()
    timeout_seconds: float = USUAL_TIMEOUT_SECONDS
    at_a_time: int = USUAL_AT_A_TIME


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyTable:
    """What the table `[notify]` of a job profile says."""

    targets: tuple[Target, ...] = ()
    url_base: str = ""
    budget_seconds: float = USUAL_BUDGET_SECONDS
    manner: Manner = field(default_factory=Manner)
    """Of targets that a command line names."""


def parse_target(text: str) -> Target:
    """Returns a target by what names it, sent to in the usual manner. The query and the user of a
    URL are not in it.

    Raises:
      ValueError: it is none; nothing of it is told.
      ConfigError: it is a place in Azure that does not say where.
    """
    if secrets.is_reference(text) and not text.startswith("file://"):
        address = secrets.spelled(text)
        return Target(name=address, kind=TargetKind.HTTPS, place="", address=address)
    if topic := _TOPIC.fullmatch(text):
        return Target(name=text, kind=TargetKind.PUBSUB, place=topic[1])
    if text.startswith(_PUBSUB):
        raise ValueError(
            "is no topic, expected pubsub:projects/PROJECT/topics/TOPIC, with 3 to 255 letters, "
            "digits and -._~+% as TOPIC, which begins with a letter and not with goog"
        )
    if uris.is_link(text):
        place = targets.place_of(targets.endpoint(text))
        return Target(name=place, kind=TargetKind.HTTPS, place=place)
    is_file = text.startswith("file://")
    if not (uris.is_named(text) and has_utf8(text)) or (_NO_PLACE.match(text) and not is_file):
        raise ValueError(f"is no target, {_EXPECTED}")
    if _HAS_A_URL.match(text):
        raise ValueError(f"has a URL within it, {_EXPECTED}")
    if _LIKE_A_HOST.fullmatch(text):
        raise ValueError("may be an endpoint or a folder, expected https:// or ./ before it")
    if _MORE_THAN_A_PLACE.match(text):
        raise ValueError("has a user, a query or a fragment, expected a folder in a store alone")
    folder = uris.folder(text)
    return Target(name=folder, kind=TargetKind.JSON_LINES, place=folder)


def has_secret(text: str) -> bool:
    """Whether what names a target is a URL with a query or a user, which nobody is to read."""
    link = uris.split_link(text)
    return link is not None and bool(link.query or link.user_info)


def shown(text: str) -> str:
    """Returns what names a target as messages have it: it may be a URL that is misspelled, or a
    place that has what no place has.
    """
    told = uris.shown(text)
    if told == text:
        told = _SECRET_PART.sub("[hidden]", text)
    return printable(without_secrets(told))[:200]


def check_named(named: Sequence[str]) -> None:
    """Checks the targets of a command line, each by itself. Raises: ConfigError."""
    for text in named:
        try:
            parse_target(text)
        except (ValueError, ConfigError) as error:
            raise ConfigError(f"{FLAG} {shown(text)}: {error}") from None


def notify_of(
    table: NotifyTable, named: Sequence[str], url_base: str | None, *, keeps_secrets: bool
) -> Notify:
    """Returns who is told: the targets of the profile, and those of the command line.

    Args:
      table: of the profile.
      named: by the command line.
      url_base: the command line's; None for that of the profile.
      keeps_secrets: whether all that sends lives in this process: then it keeps what a URL of the
        command line has in its query.

    Raises:
      ConfigError: one is none, has a secret that others would need, or there are two of one name.
    """
    check_named(named)
    found = list(table.targets)
    names = {target.name for target in found}
    for text in named:
        if text in names:
            raise ConfigError(
                f"{FLAG} {shown(text)}: is a target of the profile, which is told anyway; a folder "
                f"of this name is ./{shown(text)}"
            )
        target = in_manner(parse_target(text), table.manner)
        if has_secret(text):
            if not keeps_secrets:
                raise ConfigError(
                    f"{FLAG} {shown(text)}: has a query or a user, and all who may see the job "
                    f"would see them, expected a reference to the URL ({secrets.EXPECTED})"
                )
            target = replace(target, address=secrets.keep(text))
        found.append(target)
        if target.name in names:
            raise ConfigError(f"{FLAG} {shown(text)}: there are two targets of this name")
        names.add(target.name)
    return Notify(
        targets=tuple(found),
        url_base=table.url_base if url_base is None else url_base,
        budget_seconds=table.budget_seconds,
    )


def in_manner(target: Target, manner: Manner) -> Target:
    """Returns a target as it is sent to: what only endpoints have, no other gets."""
    if target.kind is TargetKind.JSON_LINES:
        return target
    target = replace(target, timeout_seconds=manner.timeout_seconds, at_a_time=manner.at_a_time)
    if target.kind is TargetKind.PUBSUB:
        return target
    return replace(
        target, secret=manner.secret, api_key=manner.api_key, webhook_keys=manner.webhook_keys
    )


def hosts_of(named: Sequence[str]) -> frozenset[str]:
    """Returns the hosts of endpoints that the command line itself names: they may be anywhere."""
    links = (uris.split_link(text) for text in named)
    return frozenset(link.host_and_port for link in links if link is not None)


def folders_of(notify: Notify) -> tuple[str, ...]:
    """Returns the folders that are written to."""
    return tuple(target.place for target in notify.targets if target.kind is TargetKind.JSON_LINES)
