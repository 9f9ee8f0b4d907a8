"""The commands that read archives and write no catalog: their flags, and what they were asked for.
Beam-free, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.parsing import Commands, UsageError
from transforms.filters import Filters
from transforms.media.errors import ConfigError
from transforms.media.text import printable
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


class Wanted(StrEnum):
    """What is made of archives by themselves, by the name of its command."""

    AUDIO = "extract-audio"
    MIX = "mix-audio"
    ALL = "process-all"


@dataclass(frozen=True, slots=True, kw_only=True)
class PressArguments:
    """What `callpress extract-audio`, `mix-audio` or `process-all` was asked for."""

    wanted: Wanted
    archives: tuple[str, ...] = field(repr=False)
    """Patterns; links have their signatures."""
    output: str
    config: str | None
    filters: Filters
    """Whose individual files are wanted. The mix always has everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracksArguments:
    """What `callpress list-tracks` was asked for."""

    archives: tuple[str, ...] = field(repr=False)
    config: str | None
    shape: str
    """One of `SHAPES`."""
    kind: str | None
    """One of `KINDS`; None for all."""


ArchiveArguments = InspectArguments | PressArguments | TracksArguments
SHAPES = ("table", "json", "users", "sessions", "tracks")
KINDS = ("audio", "video")


def add_all(commands: Commands) -> None:
    """Adds the parsers of these commands."""
    _add_inspect(commands)
    for wanted in Wanted:
        _add_press(commands, wanted)
    _add_list_tracks(commands)


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


_HELP = {
    Wanted.AUDIO: "make the individual files of an archive",
    Wanted.MIX: "make the mix of an archive",
    Wanted.ALL: "make all files of an archive",
}
_DESCRIPTION = {
    Wanted.AUDIO: "Makes one file of each track of an archive, Opus as it was sent, and nothing "
    "else: no catalog, no lock.",
    Wanted.MIX: "Makes one MP3 of each call in an archive, with everybody in it, and nothing else: "
    "no catalog, no lock.",
    Wanted.ALL: "Makes the individual files and the mix of each call in an archive, and nothing "
    "else: no catalog, no lock.",
}
_ALIKE = " They are byte for byte those that run makes of the same archives."
_EXIT = (
    "Exit status: 0 all of it was made, 1 something could not be, is not whole, or is not there "
    "(each thing a line), 2 wrong usage, 129 its terminal was closed, 130 Ctrl-C, 143 SIGTERM."
)


def _add_press(commands: Commands, wanted: Wanted) -> None:
    press = commands.add_parser(
        wanted, help=_HELP[wanted], description=_DESCRIPTION[wanted] + _ALIKE, epilog=_EXIT
    )
    _add_inputs(press)
    press.add_argument(
        "--output",
        metavar="URI",
        help="where the files go, all side by side: a folder on disk or in a store; what is there "
        "under the same name is replaced",
    )
    _add_config(
        press,
        "containers, bit rates, limits and stores are its; what the command is "
        "asked for is made also where it says enabled = false",
    )
    beside = "; the mix stays everybody's" if wanted is Wanted.ALL else ""
    if wanted is not Wanted.MIX:
        for flag, whose in (
            ("--user-id", "this participant"),
            ("--session-id", "this participant session"),
            ("--track-id", "this published track"),
        ):
            press.add_argument(
                flag, action="append", default=[], metavar="ID",
                help=f"only the individual files of {whose}{beside}; may be repeated",
            )  # fmt: skip
    press.set_defaults(read=_read_press, user_id=[], session_id=[], track_id=[])


def _add_inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--input-file", "--input-dir", "--input-s3", action="append", default=[], metavar="ARCHIVE",
        dest="input_file",
        help="archive, unpacked folder or glob, on disk, in a store or behind a link (https://); "
        "may be repeated, for a call of several archives",
    )  # fmt: skip


def _add_config(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--config", metavar="PROFILE", help=f"as of run: {what}")


def _read_press(arguments: argparse.Namespace) -> PressArguments:
    _require_inputs(arguments)
    if not arguments.output:
        raise UsageError("--output is required")
    if uris.is_link(arguments.output):
        shown = printable(uris.shown(arguments.output))
        raise ConfigError(
            f"--output {shown}: https:// is read only, expected a path or a place in a store"
        )
    return PressArguments(
        wanted=Wanted(arguments.command),
        archives=tuple(arguments.input_file),
        output=arguments.output,
        config=arguments.config and uris.without_file(arguments.config),
        filters=Filters(
            participants=tuple(arguments.user_id),
            user_sessions=tuple(arguments.session_id),
            track_ids=tuple(arguments.track_id),
        ),
    )


def _require_inputs(arguments: argparse.Namespace) -> None:
    if not arguments.input_file:
        raise UsageError("--input-file is required")


def _add_list_tracks(commands: Commands) -> None:
    tracks = commands.add_parser(
        "list-tracks",
        help="list the published tracks of archives",
        description="Lists the tracks that the metadata of archives speaks of, and writes nothing; "
        "inspect tells more of them.",
        epilog="Exit status: 0 all could be read, 1 not, or there are none (each thing a line), 2 "
        "wrong usage.",
    )
    _add_inputs(tracks)
    tracks.add_argument(
        "--format", choices=SHAPES, default="table", dest="shape",
        help="a table, JSON, or the ids of users, sessions or tracks, one a line (default: table)",
    )  # fmt: skip
    tracks.add_argument("--track-type", choices=KINDS, help="only tracks of this kind", dest="kind")
    _add_config(
        tracks, "its [limits] bound what is read, and its [stores] say how places are reached"
    )
    tracks.set_defaults(read=_read_list_tracks)


def _read_list_tracks(arguments: argparse.Namespace) -> TracksArguments:
    _require_inputs(arguments)
    return TracksArguments(
        archives=tuple(arguments.input_file),
        config=arguments.config and uris.without_file(arguments.config),
        shape=arguments.shape,
        kind=arguments.kind,
    )
