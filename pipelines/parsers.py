"""The parser of `callpress` and those of `run` and `completion`; the other commands have theirs in
`archive_commands`, `catalog_commands` and `recording_commands`. Beam-free, so that `--help` and
usage errors answer at once.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines import archive_commands, catalog_commands, recording_commands
from pipelines.notify_flags import add_notify_flags
from pipelines.parsing import Commands, OurParser, UsageError
from pipelines.tell_command import add_tell
from transforms.media.values import OutputType

_MOST_CODEC_PROCESSES = 1_024

SHELLS = ("bash", "zsh")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionArguments:
    """What `callpress completion` was asked for."""

    for_shell: str
    """One of `SHELLS`."""


class _Version(argparse.Action):
    """Prints the version, looked up when it is asked for: that takes as long as all the parsers."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"callpress {version('callpress')}")
        parser.exit()


def make_parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Returns the parser of the whole command, and that of `run` within it."""
    parser = OurParser(
        prog="callpress",
        description="Presses raw call recordings into an MKV per participant, an MP3 per call and "
        "Parquet catalogs.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=OurParser)
    run = _add_run(commands)
    archive_commands.add_all(commands)
    catalog_commands.add_all(commands)
    recording_commands.add_all(commands)
    add_tell(commands)
    _add_completion(commands)
    return parser, run


def _add_run(commands: Commands) -> argparse.ArgumentParser:
    run = commands.add_parser(
        "run",
        help="press archives",
        description="Presses raw archives. Options of Apache Beam (--runner, --project, ...) may "
        "follow in any order.",
        epilog="Exit status: 0 done, 1 too many archives failed for the first time, something "
        "named is nowhere, much to press anew, or nothing could be done, 2 wrong usage, 130 "
        "Ctrl-C, 143 SIGTERM.",
    )
    run.add_argument(
        "--input", action="append", default=[], metavar="PATTERN",
        help="archive, unpacked folder or glob, on disk or in a store (gs://bucket/raw/**); may be "
        "repeated",
    )  # fmt: skip
    run.add_argument(
        "--manifest", action="append", default=[], metavar="WHERE",
        help="a listing of recordings: a file, a URI, a folder of such, - for standard input, or "
        "the vendor's API itself (stream:TYPE:ID, stream:since=36h); may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--output", metavar="URI",
        help="where recordings go: a folder, gs://bucket/prefix, s3://bucket/prefix or "
        "azfs://account/container/prefix",
    )  # fmt: skip
    run.add_argument(
        "--catalog", metavar="URI", help="where the tables go (default: <output>/catalog)"
    )
    run.add_argument(
        "--config",
        metavar="PROFILE",
        help="a TOML file, or the name of a profile that comes with the program, such as podcast "
        "(default: default)",
    )
    run.add_argument(
        "--copy-raw", metavar="URI",
        help="copy each archive there before it is pressed, once and byte for byte, and read the "
        "copy from then on",
    )  # fmt: skip
    add_notify_flags(run)
    run.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="let links of a manifest lead to, and targets be at, addresses that are not public",
    )
    run.add_argument(
        "--secrets-in-image",
        action="store_true",
        help="the workers' image has the secrets that the profile and --notify name by env: and "
        "file:",
    )
    run.add_argument(
        "--since",
        metavar="WHEN",
        help="only archives modified after: 2026-11-20, 2026-11-20T06:00:00Z, 36h, 7d",
    )
    run.add_argument(
        "--call",
        action="append",
        default=[],
        metavar="TYPE:ID",
        help="only this call, or those that a glob matches ('support:*'); may be repeated",
    )
    run.add_argument(
        "--exclude-call",
        action="append",
        default=[],
        metavar="GLOB",
        help="not this call, nor those that a glob matches, whatever --call says; may be repeated",
    )
    run.add_argument(
        "--participant", action="append", default=[], metavar="ID",
        help="only this participant's files, no mix; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--exclude-participant", action="append", default=[], metavar="ID",
        help="only the others' files, no mix; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--user-session",
        action="append",
        default=[],
        metavar="ID",
        help="only this session's files, no mix; may be repeated",
    )
    run.add_argument(
        "--track-id",
        action="append",
        default=[],
        metavar="ID",
        help="only the files this track is in, whole, no mix; may be repeated",
    )
    run.add_argument(
        "--output-type", action="append", default=[], choices=[str(kind) for kind in OutputType],
        help="only these individual files, no mix; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--stop-after", metavar="TIME",
        help="start no more after this time (5h, 90m); what is done is published, the rest waits "
        "for the next run",
    )  # fmt: skip
    run.add_argument(
        "--max-archives", metavar="N", help="press so many archives at most; the rest waits"
    )
    run.add_argument(
        "--max-bytes", metavar="SIZE",
        help="press archives of so many bytes at most (20GB, 500MiB); the rest waits",
    )  # fmt: skip
    run.add_argument(
        "--portion-archives", metavar="N",
        help="press and publish so many archives at a time, on the local engine (default: 1000 or "
        "20 GB, a twentieth of a larger night; 100 or 2 GB with --stop-after)",
    )  # fmt: skip
    run.add_argument(
        "--overwrite", action="store_true", help="press again what the catalog has already"
    )
    run.add_argument(
        "--repress",
        action="store_true",
        help="press anew also more than 5 %% of a catalog of 200 archives or more, for other "
        "settings or what an older version left failed or partial",
    )
    run.add_argument(
        "--codec-processes",
        type=_codec_processes,
        metavar="N",
        help="so many recordings are worked on at a time on each machine, by all runs on it "
        "(default: as many as it has cores, and 256 MB of free memory for each)",
    )
    run.add_argument(
        "--worker-memory", metavar="SIZE",
        help="ask the engine for machines of so much memory where archives are unpacked and calls "
        "mixed (16GB); on Dataflow that is right fitting, which FlexRS excludes",
    )  # fmt: skip
    run.add_argument(
        "--flags-file", metavar="FILE",
        help="take flags from a file, ours and Beam's, one a line (--name=value), or from one that "
        "comes with the program: dataflow-cheap, dataflow-sized. Of a flag that the command line "
        "gives as well, the file's lines do not count, also where it may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be pressed and what not, with sizes; write nothing",
    )
    run.add_argument(
        "--detach",
        action="store_true",
        help="start the job on an engine elsewhere and leave it to itself: callpress runs tells "
        "how it goes",
    )
    run.add_argument("--summary-json", metavar="URI", help="write the end result as JSON")
    run.add_argument("--log-file", metavar="FILE", help="write the log there")
    run.add_argument(
        "--log-format", choices=LOG_FORMATS, default="text",
        help="text; or json: all that goes to standard error or --log-file is an object a line "
        "with time, severity, logger and message, as Cloud Logging reads them; the result is one "
        "of them, in place of bar and table (default: text)",
    )  # fmt: skip
    run.add_argument("-v", "--verbose", action="store_true", help="write the log to the terminal")
    return run


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="print what a shell completes the command by",
        description="Prints a script by which your shell completes commands and flags, Beam's too: "
        "for ~/.local/share/bash-completion/completions/callpress, or for a file _callpress in a "
        "folder of fpath (zsh).",
    )
    completion.add_argument("shell", choices=SHELLS, help=" or ".join(SHELLS))
    completion.set_defaults(read=lambda arguments: CompletionArguments(for_shell=arguments.shell))


def command_names(parser: argparse.ArgumentParser) -> str:
    """Returns the commands of `callpress`, as people list them."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    *names, last = commands.choices
    return f"{', '.join(names)} or {last}"


def _codec_processes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_CODEC_PROCESSES):
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected a number from 1 to {_MOST_CODEC_PROCESSES}"
        )
    return int(text)


def misspelt(flags: Sequence[str]) -> list[str]:
    """Returns those that are nearly ours."""
    return [flag for flag in flags if difflib.get_close_matches(flag, _our_flags(), 1, 0.7)]


def refuse_unknown(strays: Sequence[str], known: Iterable[str] = ()) -> None:
    """Checks that nothing is left over: Beam itself only warns.

    Args:
      strays: arguments that nobody took.
      known: Beam's flags, with dashes.

    Raises:
      UsageError: an unknown flag, with the nearest there is, or a word that belongs to none.
    """
    for argument in strays:
        if not argument.startswith("-"):
            raise UsageError(
                f"{argument!r} belongs to no option; each pattern goes behind an --input of its own"
            )
        name = argument.split("=", 1)[0].replace("_", "-")
        flags = {flag.replace("_", "-") for flag in known} | _our_flags()
        near = sorted(flag for flag in _our_flags() if flag.startswith(name))
        near += difflib.get_close_matches(name, flags, 1, 0.6)
        raise UsageError(f"unknown option {name}" + (f", did you mean {near[0]}?" if near else ""))


def _our_flags() -> set[str]:
    _, run = make_parsers()
    return {flag for action in run._actions for flag in action.option_strings}


def our_spelling(argument: str) -> str:
    """Spells a flag with dashes, as we do, whichever way it came."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def beam_spelling(argument: str) -> str:
    """Spells a flag with underscores, as Beam does."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
