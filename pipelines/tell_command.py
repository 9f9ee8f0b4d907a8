"""The command that sends what is pending: its flags, and what it was asked for. Beam-free, so that
`--help` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

from pipelines.notify_flags import add_notify_flags, check_notify_flags, url_base_of
from pipelines.parsing import Commands, UsageError
from transforms.filters import parse_since
from transforms.storage import uris


@dataclass(frozen=True, slots=True, kw_only=True)
class TellArguments:
    """What `callpress tell` was asked for."""

    catalog: str
    config: str | None
    notify: tuple[str, ...] = field(repr=False)
    """Targets beside those of the profile; a URL may have a secret in its query."""
    url_base: str | None
    since_unix_ns: int | None
    """From when on files are told that nobody was to be told of; None to tell none of them."""
    allow_private_addresses: bool


def add_tell(commands: Commands) -> None:
    """Adds the parser of `tell`."""
    tell = commands.add_parser(
        "tell",
        help="send the events that are pending",
        description="Sends the events of recordings that targets have not taken yet, those of "
        "[notify] in the profile and of --notify, and notes in the catalog what became of them. "
        "No run may be at work.",
        epilog="Exit status: 0 nothing is pending and nothing failed, 1 something is, or did, "
        "or could not be read (a line for each target), or a run is at work, 2 wrong usage, 130 "
        "Ctrl-C.",
    )
    tell.add_argument("--catalog", metavar="URI", help="the tables")
    tell.add_argument(
        "--since",
        metavar="WHEN",
        help="also tell of files of runs that began since then, where a target was never to be "
        "told of them: 2026-11-20, 2026-11-20T06:00:00Z, 36h, 7d",
    )
    add_notify_flags(tell, "events that --since makes (others are sent as they stand)")
    tell.add_argument(
        "--config",
        metavar="PROFILE",
        help="as of run: its [notify] says who is told, its [stores] how places are reached",
    )
    tell.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="as of run: let targets be at addresses that are not public",
    )
    tell.set_defaults(read=_read_tell)


def _read_tell(arguments: argparse.Namespace) -> TellArguments:
    if not arguments.catalog:
        raise UsageError("--catalog is required")
    check_notify_flags(arguments)
    since = arguments.since
    return TellArguments(
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        notify=tuple(arguments.notify),
        url_base=url_base_of(arguments),
        since_unix_ns=None if since is None else parse_since(since, time.time_ns()),
        allow_private_addresses=arguments.allow_private_addresses,
    )
