"""The commands that read archives and write no catalog: their flags, and what they were asked for.
Beam-free, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from pipelines.parsing import Commands, UsageError
from transforms.storage import uris


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectArguments:
    """What `callpress inspect` was asked for."""

    archives: tuple[str, ...]
    config: str | None
    as_json: bool
    clock: bool
    """Whether the clocks of the tracks are told, too."""
    clock_output: str | None
    """The folder their drawings go to; None to draw none."""


ArchiveArguments = InspectArguments


def add_all(commands: Commands) -> None:
    """Adds the parsers of these commands."""
    _add_inspect(commands)


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="list what archives hold",
        description="Lists users, sessions, tracks, codecs, segments and times of archives; "
        "writes nothing but the drawings of --clock-output.",
    )
    inspect.add_argument(
        "archives", nargs="+", metavar="ARCHIVE", help="archive, unpacked folder or glob"
    )
    inspect.add_argument(
        "--config",
        metavar="PROFILE",
        help="as of run: its [limits] bound what is read, and "
        "its [stores] say how places are reached",
    )
    inspect.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of a table"
    )
    inspect.add_argument(
        "--clock",
        action="store_true",
        help="tell how the clock of each track was read: its pieces with their sync_error_ms, its "
        "steps, what sender reports say of them and what became of them",
    )
    inspect.add_argument(
        "--clock-output",
        metavar="DIR",
        help="with --clock: write a drawing (SVG) of each track there",
    )
    inspect.set_defaults(read=_read_inspect)


def _read_inspect(arguments: argparse.Namespace) -> InspectArguments:
    if arguments.clock_output is not None and not arguments.clock:
        raise UsageError("--clock-output draws what --clock tells, expected --clock beside it")
    return InspectArguments(
        archives=tuple(arguments.archives),
        config=arguments.config and uris.without_file(arguments.config),
        as_json=arguments.as_json,
        clock=arguments.clock,
        clock_output=arguments.clock_output,
    )
