"""Who is told of what a run makes. Pickled into jobs: secrets stand here by reference only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.storage import uris

_PATH = re.compile(r"[\x21-\x7e]*")
LEAST_TIMEOUT_SECONDS, MOST_TIMEOUT_SECONDS = 1, 300
MOST_AT_A_TIME = 256
"""Each is a thread of one worker, and a connection."""
MOST_BUDGET_SECONDS = 24 * 3600
USUAL_TIMEOUT_SECONDS, USUAL_AT_A_TIME, USUAL_BUDGET_SECONDS = 6.0, 32, 300.0
PUBSUB_EMULATOR = "PUBSUB_EMULATOR_HOST"
"""The variable by which all of Google's clients are sent to an emulator, as `HOST:PORT`."""


class TargetKind(StrEnum):
    """How a target is told."""

    JSON_LINES = "json_lines"
    HTTPS = "https"
    PUBSUB = "pubsub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One who is told."""

    name: str
    """What rows, logs and results call it: no query, no key."""
    kind: TargetKind
    place: str
    """A folder; `https://HOST[:PORT]/PATH`, or empty where `address` alone has it;
    `projects/PROJECT/topics/TOPIC`.
    """
    address: str = ""
    """Of an endpoint whose URL nobody is to read: the reference to it."""
    secret: str = ""
    """The reference to what the vendor calls the API secret, for `X-SIGNATURE`; empty for none, as
    are the next two.
    """
    api_key: str = ""
    """The reference to `X-API-KEY`."""
    webhook_keys: tuple[str, ...] = ()
    """The references to keys of Standard Webhooks, `whsec_...`; more than one to change them."""
    timeout_seconds: float = USUAL_TIMEOUT_SECONDS
    at_a_time: int = USUAL_AT_A_TIME
    """How many requests are under way at once."""

    @property
    def table(self) -> str:
        """How messages name it."""
        return f"target {self.name}"

    @property
    def references(self) -> tuple[str, ...]:
        """The secrets it names."""
        return tuple(filter(None, (self.address, self.secret, self.api_key, *self.webhook_keys)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told, and how."""

    targets: tuple[Target, ...] = ()
    url_base: str = ""
    """What stands in the `url` of events for the root of the output; empty for the files' own
    URIs.
    """
    budget_seconds: float = USUAL_BUDGET_SECONDS
    """For how long a run sends; what is left then waits for the next."""


def endpoint(url: str) -> uris.Link:
    """Returns the parts of the URL of an endpoint. Raises: ValueError: it is none; the message has
    nothing of it.
    """
    link = uris.split_link(url)
    if link is None or link.scheme != "https":
        raise ValueError("is no URL of an endpoint, expected https://HOST[:PORT]/PATH")
    if "#" in url:
        raise ValueError("has a fragment, which no server is sent, expected none")
    if not _PATH.fullmatch(link.path + link.query):
        raise ValueError(
            "has a blank or another character that no URL has, expected it percent-encoded"
        )
    return link


def place_of(link: uris.Link) -> str:
    """Returns what an endpoint is known by: no query, no user."""
    return uris.without_signature(f"https://{link.host_and_port}{link.path or '/'}")


def parse_url_base(flag: str, text: str) -> str:
    """Returns what stands in URLs of recordings for the root of the output, without a slash at its
    end. Args: flag: to begin a message with. Raises: ConfigError: it is none.
    """
    link = uris.split_link(text)
    if link is None or link.query or link.user_info or "#" in text or not _PATH.fullmatch(text):
        raise ConfigError(
            f"{flag} {printable(uris.shown(text))}: expected https://HOST[:PORT][/PATH], without "
            "user, query or fragment"
        )
    return text.rstrip("/")
