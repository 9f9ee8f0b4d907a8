"""The flags that say who is told, of `run` and of `tell`. Beam-free, so that `--help` and usage
errors answer at once.
"""

from __future__ import annotations

import argparse

from pipelines import targets
from transforms.targets import parse_url_base

_URL_BASE = "--url-base"


def add_notify_flags(command: argparse.ArgumentParser, events: str = "events") -> None:
    """Adds the flags that say who is told, and by which URLs. Args: events: those whose URLs the
    command makes.
    """
    command.add_argument(
        targets.FLAG,
        action="append",
        default=[],
        metavar="TARGET",
        help="tell there which files were made: https://HOST/PATH, pubsub:projects/P/topics/T, a "
        "folder for JSON Lines, or a reference to a URL (env:NAME); may be repeated",
    )
    command.add_argument(
        _URL_BASE,
        metavar="URL",
        help=f"what stands in the url of {events} for the root of the output (default: the files' "
        "own gs://, s3://, azfs:// or file:// names)",
    )


def check_notify_flags(arguments: argparse.Namespace) -> None:
    """Checks what these flags say, each by itself. Raises: ConfigError."""
    targets.check_named(arguments.notify)
    url_base_of(arguments)


def url_base_of(arguments: argparse.Namespace) -> str | None:
    """Returns the base of URLs that a command line gives. Raises: ConfigError: it is none."""
    if arguments.url_base is None:
        return None
    return parse_url_base(_URL_BASE, arguments.url_base)
