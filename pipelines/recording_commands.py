"""The commands about the recordings of a catalog: their flags, and what they were asked for.
Beam-free, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from pipelines.notify_flags import url_base_of
from pipelines.parsing import Commands, UsageError
from transforms.bounds import parse_duration
from transforms.media.errors import ConfigError
from transforms.media.text import printable
from transforms.retrieval.wanted import Wanted, parse_bound
from transforms.storage import objects, uris

_TYPES = ("composite", "individual")
_STATUSES = ("ok", "partial", "failed", "empty")
_LONGEST_LINK_SECONDS = 7 * 86_400
"""Links of Cloud Storage (V4) and of S3 (version 4) are good for a week at most."""


class Shape(StrEnum):
    """How recordings are listed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingsArguments:
    """What `callpress recordings` was asked for."""

    catalog: str
    config: str | None
    wanted: Wanted
    url_base: str
    """Empty for none, as for the files' own URIs."""
    signed_seconds: int | None
    """For how long links are good; None to sign none."""
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class GetArguments:
    """What `callpress get` was asked for."""

    catalog: str
    config: str | None
    wanted: Wanted
    output: str
    """A folder of this machine."""


RecordingArguments = RecordingsArguments | GetArguments


def add_all(commands: Commands) -> None:
    """Adds the parsers of these commands."""
    _add_recordings(commands)
    _add_get(commands)


def _add_recordings(commands: Commands) -> None:
    command = commands.add_parser(
        "recordings",
        help="list recordings, and what opens them",
        description="Lists the recordings of a catalog, the newest first: those of a call, or all. "
        "Their url is the name of the file (gs://, s3://, azfs://, file://), which opens it for "
        "whoever may read there; --url-base or --signed-urls make links for others.",
        epilog="Exit status: 0 listed, 1 the call has no recording, there is no catalog, or part "
        "of it cannot be read (each thing a line), 2 wrong usage, or links that cannot be signed, "
        "130 Ctrl-C.",
    )
    command.add_argument(
        "call", nargs="?", metavar="TYPE:ID", help="only this call, or those that a glob matches"
    )
    _add_catalog(command)
    _add_filters(command)
    command.add_argument(
        "--url-base",
        metavar="URL",
        help="where the output is served: urls are URL/recordings/...",
    )
    command.add_argument(
        "--signed-urls",
        metavar="TIME",
        help="sign urls that are good for so long (1h, 7d at most), for recordings in gs://, s3:// "
        "or azfs://; whoever has one can read the file",
    )
    command.add_argument(
        "--csv", action="store_true", dest="as_csv", help="as CSV instead of a table"
    )
    command.add_argument(
        "--json",
        action="store_true",
        dest="as_json",
        help="as JSON in the vendor's shape instead of a table",
    )
    command.set_defaults(read=_read_recordings)


def _add_get(commands: Commands) -> None:
    command = commands.add_parser(
        "get",
        help="copy the recordings of a call",
        description="Copies the recordings of a call into a folder, with names that people can "
        "read, and what the tables say of the call as JSON. A file that is there already with the "
        "same bytes is not copied again, another one of its name is replaced.",
        epilog="Exit status: 0 all are there, 1 one could not be copied, or there is none (each "
        "thing a line), 2 wrong usage, 130 Ctrl-C.",
    )
    command.add_argument("call", nargs="?", metavar="TYPE:ID", help="the call")
    _add_catalog(command)
    _add_filters(command)
    command.add_argument(
        "--output", metavar="DIR", help="the folder they go to; made where it is not there"
    )
    command.set_defaults(read=_read_get)


def _add_catalog(command: argparse.ArgumentParser) -> None:
    command.add_argument("--catalog", metavar="URI", help="the tables")
    command.add_argument(
        "--config", metavar="PROFILE", help="as of run: its [stores] say how places are reached"
    )


def _add_filters(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--since",
        metavar="WHEN",
        help="only recordings that begin then or later: 2026-11-20, 2026-11-20T06:00:00Z, 36h, 7d",
    )
    command.add_argument(
        "--until",
        metavar="WHEN",
        help="only recordings that begin before; a day is in (--since 2026-11-20 --until "
        "2026-11-20 is that day, in UTC)",
    )
    command.add_argument(
        "--type", action="append", default=[], choices=_TYPES, dest="types",
        help="only mixes (composite) or the files of tracks (individual)",
    )  # fmt: skip
    command.add_argument(
        "--participant", action="append", default=[], metavar="ID",
        help="only this participant's files, no mix; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--status", action="append", default=[], choices=_STATUSES, dest="statuses",
        help="only files whose track, or for a mix whose call, is that; may be repeated",
    )  # fmt: skip


def _wanted_of(arguments: argparse.Namespace) -> Wanted:
    """Returns what is asked for. Raises: ConfigError: a call or a time is none."""
    call = arguments.call or ""
    if arguments.call is not None and ":" not in call:
        raise ConfigError(f"{call}: expected TYPE:ID, for example default:{call}")
    now = time.time_ns()
    since, until = (
        None if text is None else parse_bound(flag, text, now)
        for flag, text in (("--since", arguments.since), ("--until", arguments.until))
    )
    return Wanted(
        call=call,
        since_unix_ns=since,
        until_unix_ns=until,
        recording_types=tuple(arguments.types),
        participants=tuple(arguments.participant),
        statuses=tuple(arguments.statuses),
    )


def _read_recordings(arguments: argparse.Namespace) -> RecordingsArguments:
    _require_catalog(arguments)
    for one, other in (("csv", "json"), ("url_base", "signed_urls")):
        flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
        given = [
            getattr(arguments, name, None) or getattr(arguments, f"as_{name}", None)
            for name in (one, other)
        ]
        if all(given):
            raise UsageError(f"{' and '.join(flags)} exclude each other, expected one of them")
    shape = Shape.CSV if arguments.as_csv else Shape.JSON if arguments.as_json else Shape.TABLE
    return RecordingsArguments(
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        wanted=_wanted_of(arguments),
        url_base=url_base_of(arguments) or "",
        signed_seconds=_signed_seconds_of(arguments),
        shape=shape,
    )


def _signed_seconds_of(arguments: argparse.Namespace) -> int | None:
    if arguments.signed_urls is None:
        return None
    seconds = parse_duration("--signed-urls", arguments.signed_urls)
    if not 0 < seconds <= _LONGEST_LINK_SECONDS:
        raise ConfigError(
            f"--signed-urls {arguments.signed_urls}: expected more than nothing and 7d at most, "
            "for longer no store signs"
        )
    return seconds


def _read_get(arguments: argparse.Namespace) -> GetArguments:
    if arguments.call is None:
        raise UsageError("get needs a call, expected TYPE:ID")
    _require_catalog(arguments)
    wanted = replace(_wanted_of(arguments), takes_globs=False)
    if not arguments.output:
        raise UsageError("--output is required")
    if not objects.is_on_this_machine(arguments.output):
        raise ConfigError(
            f"--output {printable(uris.shown(arguments.output))}: expected a folder of this machine"
        )
    return GetArguments(
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        wanted=wanted,
        output=uris.folder(arguments.output),
    )


def _require_catalog(arguments: argparse.Namespace) -> None:
    if not arguments.catalog:
        raise UsageError("--catalog is required")
