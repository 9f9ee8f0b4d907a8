"""Who is told of what a run makes. Pickled into jobs: secrets stand here by reference only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    """A folder; `https://HOST[:PORT]/PATH`; `projects/PROJECT/topics/TOPIC`."""
    address: str = ""
    """Of an endpoint that has a query or a user: the reference to its whole URL."""
    secret: str = ""
    """The reference to what the vendor calls the API secret, for `X-SIGNATURE`; empty for none, as
    are the next two.
    """
    api_key: str = ""
    """The reference to `X-API-KEY`."""
    webhook_keys: tuple[str, ...] = ()
    """The references to keys of Standard Webhooks, `whsec_...`; more than one to change them."""
    timeout_seconds: float = 6.0
    at_a_time: int = 32
    """How many requests are under way at once."""

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
    budget_seconds: float = 300.0
    """For how long a run sends; what is left then waits for the next."""
