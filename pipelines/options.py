"""The flags of `callpress` and its exit statuses. Beam-free, so that `--help` and usage errors
answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

from pipelines import flags_file
from pipelines.flags_file import FlagLine
from transforms.bounds import Bounds, parse_count, parse_duration, parse_size
from transforms.filters import Filters, parse_since
from transforms.media.errors import ConfigError
from transforms.media.values import OutputType
from transforms.storage import uris

_MOST_CODEC_PROCESSES = 1_024

SHELLS = ("bash", "zsh")
LOG_FORMATS = ("text", "json")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class UsageError(Exception):
    """Wrong flags; the message is one line."""


class StrictParser(argparse.ArgumentParser):
    """A parser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _Once(argparse.Action):
    """A flag that stands once on a command line: of two values one would be passed over unsaid."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if self.dest in given:
            raise argparse.ArgumentError(self, "given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, True if self.nargs == 0 else values)


class _OnceTrue(_Once):
    """The same without a value: it is there or not."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)


class _OurParser(StrictParser):
    """The parser of our own flags: none is abbreviated, and a single one is not given twice."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, allow_abbrev=False)
        self.register("action", None, _Once)
        self.register("action", "store_true", _OnceTrue)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArguments:
    """What `callpress run` was asked for."""

    inputs: tuple[str, ...]
    output: str
    catalog: str | None
    config: str | None
    filters: Filters
    bounds: Bounds
    portion_archives: int | None
    """How many archives are pressed and published at a time; None for what the engine does."""
    overwrite: bool
    repress: bool
    codec_processes: int | None
    """As many codec jobs at work on a machine at a time; None for as many as fit."""
    dry_run: bool
    detach: bool
    """Whether the job is started and left to itself."""
    summary_json: str | None
    log_file: str | None
    verbose: bool
    log_format: str
    """`text` or `json`."""
    worker_memory_bytes: int | None
    """Memory of a worker's machine that unpacking and mixing ask the engine for; None to ask for
    none.
    """
    beam_args: tuple[str, ...]
    """All of the command line that is not ours, for Beam."""
    beam_lines: tuple[FlagLine, ...]
    """The same of `--flags-file`. What the command line gives as well comes before it."""

    @property
    def names_runner(self) -> bool:
        """Whether Beam's runner is named."""
        given = (*self.beam_args, *(line.argument for line in self.beam_lines))
        return any(argument.startswith("--runner") for argument in given)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """What `callpress verify` was asked for."""

    catalog: str
    output: str | None
    fast: bool
    repair: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsArguments:
    """What `callpress runs` was asked for."""

    catalog: str
    last: int
    """How many runs, at most."""
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionArguments:
    """What `callpress completion` was asked for."""

    for_shell: str
    """One of `SHELLS`."""


def make_parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Returns the parser of the whole command, and that of `run` within it."""
    parser = _OurParser(
        prog="callpress",
        description="Presses raw call recordings into an MKV per participant, an MP3 per call and "
        "Parquet catalogs.",
    )
    parser.add_argument("--version", action="version", version=f"callpress {version('callpress')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_OurParser)
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
        help="archive, unpacked folder or glob, on disk or gs://; may be repeated",
    )  # fmt: skip
    run.add_argument("--output", metavar="URI", help="folder or gs://bucket/prefix for recordings")
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
        "--since",
        metavar="WHEN",
        help="only archives modified after: 2026-11-20, 2026-11-20T06:00:00Z, 36h, 7d",
    )
    run.add_argument(
        "--call",
        action="append",
        default=[],
        metavar="TYPE:ID",
        help="only this call; may be repeated",
    )
    run.add_argument(
        "--participant", action="append", default=[], metavar="ID",
        help="only this participant's files, no mix; may be repeated",
    )  # fmt: skip
    run.add_argument(
        "--user-session",
        action="append",
        default=[],
        metavar="ID",
        help="only this session's files, no mix; may be repeated",
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
        "--config", metavar="PROFILE", help="as of run: its [limits] bound what is read"
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
    verify = commands.add_parser(
        "verify",
        help="compare a catalog with its files",
        description="Checks that each row of a catalog has its file, unchanged, and each file its "
        "row, and that the tables agree; says how to heal what is wrong. Writes nothing without "
        "--repair.",
        epilog="Exit status: 0 all as it should be, 1 something is wrong (each thing a line), 2 "
        "wrong usage, 130 Ctrl-C.",
    )
    verify.add_argument(
        "--catalog", metavar="URI", help="the tables; with --output alone <output>/catalog"
    )
    verify.add_argument(
        "--output", metavar="URI", help="where recordings lie (default: where the rows say)"
    )
    verify.add_argument("--fast", action="store_true", help="compare sizes only, read no recording")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="note the calls of which something is wrong, for the next run to press them anew",
    )
    verify.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of lines"
    )
    runs = commands.add_parser(
        "runs",
        help="list runs and how they went",
        description="Lists the last runs over a catalog, those too that nobody waited for, and the "
        "one that is at work.",
    )
    runs.add_argument("--catalog", metavar="URI", help="the tables")
    runs.add_argument(
        "--last", type=int, default=20, metavar="N", help="how many, of 400 at most (default: 20)"
    )
    runs.add_argument(
        "--json", action="store_true", dest="as_json", help="as JSON instead of a table"
    )
    completion = commands.add_parser(
        "completion",
        help="print what a shell completes the command by",
        description="Prints a script by which your shell completes commands and flags, Beam's too: "
        "for ~/.local/share/bash-completion/completions/callpress, or for a file _callpress in a "
        "folder of fpath (zsh).",
    )
    completion.add_argument("shell", choices=SHELLS, help=" or ".join(SHELLS))
    return parser, run


Arguments = RunArguments | InspectArguments | VerifyArguments | RunsArguments | CompletionArguments


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Returns what a command line asks for. `--help` and `--version` print and exit.

    Raises:
      UsageError: wrong flags.
      ConfigError: a flag's value cannot be.
    """
    parser, run = make_parsers()
    argv = [our_spelling(argument) for argument in argv]
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise UsageError("a command is needed: run, inspect, verify, runs or completion")
    _refuse_nameless(arguments)
    if arguments.command == "inspect":
        if rest:
            raise UsageError(f"inspect does not know {rest[0]}")
        if arguments.clock_output is not None and not arguments.clock:
            raise UsageError("--clock-output draws what --clock tells, expected --clock beside it")
        return InspectArguments(
            archives=tuple(arguments.archives),
            config=arguments.config and uris.without_file(arguments.config),
            as_json=arguments.as_json,
            clock=arguments.clock,
            clock_output=arguments.clock_output,
        )
    if arguments.command == "verify":
        if rest:
            raise UsageError(f"verify does not know {rest[0]}")
        if not (arguments.catalog or arguments.output):
            raise UsageError("--catalog is required")
        return VerifyArguments(
            catalog=arguments.catalog or arguments.output.rstrip("/") + "/catalog",
            output=arguments.output,
            fast=arguments.fast,
            repair=arguments.repair,
            as_json=arguments.as_json,
        )
    if arguments.command == "completion":
        if rest:
            raise UsageError(f"completion does not know {rest[0]}")
        return CompletionArguments(for_shell=arguments.shell)
    if arguments.command == "runs":
        if rest:
            raise UsageError(f"runs does not know {rest[0]}")
        if not arguments.catalog:
            raise UsageError("--catalog is required")
        if arguments.last < 1:
            raise UsageError(f"--last {arguments.last}: expected a positive number")
        return RunsArguments(
            catalog=arguments.catalog, last=arguments.last, as_json=arguments.as_json
        )
    beam_lines: tuple[FlagLine, ...] = ()
    if arguments.flags_file is not None:
        from_file, beam_lines = _choose_lines(arguments, run)
        arguments, rest = parser.parse_known_args([argv[0], *from_file, *argv[1:]])
    for name in ("input", "output"):
        if not getattr(arguments, name):
            for line in beam_lines:
                with told_with(line):
                    refuse_unknown(_misspelt([line.name]))
            # Most often the flag is there, but misspelt: say that rather than what follows from it.
            refuse_unknown(_misspelt(rest))
            raise UsageError(f"--{name} is required")
    if arguments.detach and (arguments.summary_json or arguments.dry_run):
        other = "--summary-json" if arguments.summary_json else "--dry-run"
        raise UsageError(
            f"{other} is for a command that waits, expected none beside --detach: what comes of "
            "the job will lie in <catalog>/results"
        )
    _refuse_wrong_filters(arguments)
    return RunArguments(
        inputs=tuple(arguments.input),
        output=arguments.output,
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        filters=Filters(
            calls=tuple(arguments.call),
            participants=tuple(arguments.participant),
            user_sessions=tuple(arguments.user_session),
            output_types=tuple(OutputType(kind) for kind in arguments.output_type),
            since=arguments.since or "",
        ),
        bounds=_bounds_of(arguments),
        portion_archives=_portion_archives_of(arguments),
        overwrite=arguments.overwrite,
        repress=arguments.repress,
        codec_processes=arguments.codec_processes,
        dry_run=arguments.dry_run,
        detach=arguments.detach,
        summary_json=arguments.summary_json,
        log_file=arguments.log_file,
        verbose=arguments.verbose,
        log_format=arguments.log_format,
        worker_memory_bytes=_worker_memory_of(arguments),
        beam_args=tuple(beam_spelling(argument) for argument in rest),
        beam_lines=beam_lines,
    )


def _choose_lines(
    arguments: argparse.Namespace, run: argparse.ArgumentParser
) -> tuple[list[str], tuple[FlagLine, ...]]:
    """Returns the flags of ours that a file gives and the command line does not, and the lines that
    are Beam's. Args: arguments: of the command line. run: the parser of our flags.

    Raises:
      UsageError, ConfigError: what is wrong in the file, by its line.
    """
    ours: list[tuple[str, FlagLine]] = []
    others = []
    for line in flags_file.read(arguments.flags_file):
        action = run._option_string_actions.get(line.name)
        if action is None:
            others.append(line)
            continue
        with told_with(line):
            of_line = run.parse_args([line.argument])
            _refuse_nameless(of_line)
            _refuse_wrong_filters(of_line)
            _bounds_of(of_line)
            _portion_archives_of(of_line)
            _worker_memory_of(of_line)
        ours.append((action.dest, line))
    lists = {action.dest for action in run._actions if isinstance(action, argparse._AppendAction)}
    flags_file.refuse_twice((what, line) for what, line in ours if what not in lists)
    given = arguments.given | {what for what in lists if getattr(arguments, what)}
    return [line.argument for what, line in ours if what not in given], tuple(others)


@contextmanager
def told_with(line: FlagLine) -> Iterator[None]:
    """Tells of a wrong flag within the block in which line of a file it stands."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{line.where}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{line.where}: {error}") from None


def _misspelt(flags: Sequence[str]) -> list[str]:
    """Returns those that are nearly ours."""
    return [flag for flag in flags if difflib.get_close_matches(flag, _our_flags(), 1, 0.7)]


def _codec_processes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_CODEC_PROCESSES):
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected a number from 1 to {_MOST_CODEC_PROCESSES}"
        )
    return int(text)


def _refuse_wrong_filters(arguments: argparse.Namespace) -> None:
    if arguments.since is not None:
        parse_since(arguments.since, time.time_ns())  # what it is, the run itself finds out
    for call in arguments.call:
        if ":" not in call:
            raise ConfigError(f"--call {call}: expected TYPE:ID, for example default:{call}")


def _portion_archives_of(arguments: argparse.Namespace) -> int | None:
    text = arguments.portion_archives
    return None if text is None else parse_count("--portion-archives", text)


def _worker_memory_of(arguments: argparse.Namespace) -> int | None:
    text = arguments.worker_memory
    return None if text is None else parse_size("--worker-memory", text)


def _bounds_of(arguments: argparse.Namespace) -> Bounds:
    """Raises: ConfigError: a bound is none."""
    stop_after, max_archives = arguments.stop_after, arguments.max_archives
    max_bytes = arguments.max_bytes
    return Bounds(
        stop_after_seconds=None
        if stop_after is None
        else parse_duration("--stop-after", stop_after),
        max_archives=None if max_archives is None else parse_count("--max-archives", max_archives),
        max_bytes=None if max_bytes is None else parse_size("--max-bytes", max_bytes),
    )


def _refuse_nameless(arguments: argparse.Namespace) -> None:
    """Checks that each place has a name: an empty one, as of a variable of a shell that is not set,
    would stand for the folder one is in.

    Raises:
      UsageError: one has none.
    """
    places = ("input", "output", "catalog", "archives", "summary_json", "log_file", "config")
    for name in (*places, "clock_output", "flags_file"):
        found = getattr(arguments, name, None)
        for uri in found if isinstance(found, list) else [found]:
            if uri is not None and not uris.is_named(uri):
                flag = "ARCHIVE" if name == "archives" else f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} {uri!r} names nothing, expected a path or URI")


def value_in(argv: Sequence[str], flag: str) -> str | None:
    """Returns what a `run` is told by a flag, on the command line or in its file of flags, also
    where these are wrong otherwise; None where that cannot be made out.

    Args:
      flag: `--summary-json`, say.
    """
    arguments = [our_spelling(argument) for argument in argv]
    if arguments[:1] != ["run"]:
        return None
    found = _last_value(arguments, flag)
    if found is None and (file := _last_value(arguments, "--flags-file")):
        found = flags_file.value_in(file, flag)
    return found


def _last_value(arguments: Sequence[str], flag: str) -> str | None:
    found = None
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != flag:
            continue
        if not equals:
            value = next(iter(arguments[number + 1 :]), "")
            value = "" if value.startswith("-") else value
        found = value or found
    return found


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
