"""What `callpress` was asked for, and its exit statuses. Beam-free, so that usage errors answer at
once.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines import flags_file
from pipelines.archive_commands import ArchiveArguments
from pipelines.catalog_commands import CatalogArguments
from pipelines.flags_file import FlagLine
from pipelines.notify_flags import check_notify_flags, url_base_of
from pipelines.parsers import (
    CompletionArguments,
    beam_spelling,
    command_names,
    make_parsers,
    misspelt,
    our_spelling,
    refuse_unknown,
)
from pipelines.parsing import UsageError
from pipelines.recording_commands import RecordingArguments
from pipelines.tell_command import TellArguments
from transforms.bounds import Bounds, parse_count, parse_duration, parse_size
from transforms.filters import Filters, parse_since
from transforms.media.errors import ConfigError
from transforms.media.values import OutputType
from transforms.storage import uris

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArguments:
    """What `callpress run` was asked for."""

    inputs: tuple[str, ...]
    manifests: tuple[str, ...]
    """Listings of recordings; of inputs and these at least one is there."""
    output: str
    catalog: str | None
    config: str | None
    copy_raw: str | None
    """Where archives are copied to before they are pressed; None to copy none."""
    notify: tuple[str, ...] = field(repr=False)
    """Who is told of what is made, beside those of the profile; a URL may have a secret in its
    query.
    """
    url_base: str | None
    """What stands in the `url` of events for the root of the output; None for what the profile
    says.
    """
    allow_private_addresses: bool
    """Whether links of a manifest may lead to, and targets be at, addresses that are not public."""
    secrets_in_image: bool
    """Whether the workers' image sets what the profile names by `env:`."""
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


Arguments = (
    RunArguments
    | CompletionArguments
    | ArchiveArguments
    | CatalogArguments
    | RecordingArguments
    | TellArguments
)


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
        raise UsageError(f"a command is needed: {command_names(parser)}")
    _refuse_nameless(arguments)
    if arguments.command != "run":
        if rest:
            raise UsageError(f"{arguments.command} does not know {rest[0]}")
        found: Arguments = arguments.read(arguments)
        return found
    beam_lines: tuple[FlagLine, ...] = ()
    if arguments.flags_file is not None:
        from_file, beam_lines = _choose_lines(arguments, run)
        arguments, rest = parser.parse_known_args([argv[0], *from_file, *argv[1:]])
    needed = {
        "--input or --manifest": arguments.input or arguments.manifest,
        "--output": arguments.output,
    }
    for name, given in needed.items():
        if not given:
            for line in beam_lines:
                with told_with(line):
                    refuse_unknown(misspelt([line.name]))
            # Most often the flag is there, but misspelt: say that rather than what follows from it.
            refuse_unknown(misspelt(rest))
            raise UsageError(f"{name} is required")
    if arguments.detach and (arguments.summary_json or arguments.dry_run):
        other = "--summary-json" if arguments.summary_json else "--dry-run"
        raise UsageError(
            f"{other} is for a command that waits, expected none beside --detach: what comes of "
            "the job will lie in <catalog>/results"
        )
    _refuse_wrong_filters(arguments)
    check_notify_flags(arguments)
    return RunArguments(
        inputs=tuple(arguments.input),
        manifests=tuple(arguments.manifest),
        output=arguments.output,
        catalog=arguments.catalog,
        config=arguments.config and uris.without_file(arguments.config),
        copy_raw=arguments.copy_raw,
        notify=tuple(arguments.notify),
        url_base=url_base_of(arguments),
        allow_private_addresses=arguments.allow_private_addresses,
        secrets_in_image=arguments.secrets_in_image,
        filters=Filters(
            calls=tuple(arguments.call),
            excluded_calls=tuple(arguments.exclude_call),
            participants=tuple(arguments.participant),
            excluded_participants=tuple(arguments.exclude_participant),
            user_sessions=tuple(arguments.user_session),
            track_ids=tuple(arguments.track_id),
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
            check_notify_flags(of_line)
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


def _refuse_wrong_filters(arguments: argparse.Namespace) -> None:
    if arguments.since is not None:
        parse_since(arguments.since, time.time_ns())  # what it is, the run itself finds out
    for flag, calls in (("--call", arguments.call), ("--exclude-call", arguments.exclude_call)):
        for call in calls:
            if ":" not in call:
                raise ConfigError(f"{flag} {call}: expected TYPE:ID, for example default:{call}")
    if (
        "" in arguments.exclude_participant
    ):  # as of a variable that is not set: it leaves out nobody
        raise ConfigError("--exclude-participant '': expected an id")


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


_PLACES = (
    *("input", "manifest", "copy_raw", "output", "catalog", "archives", "summary_json", "log_file"),
    *("config", "clock_output", "flags_file", "receipt", "check", "public_key", "input_file"),
    "notify",
)
_SHOWN = {"archives": "ARCHIVE", "receipt": "--output"}
"""Of these, those whose flags have another name."""


def _refuse_nameless(arguments: argparse.Namespace) -> None:
    """Checks that each place has a name: an empty one, as of a variable of a shell that is not set,
    would stand for the folder one is in.

    Raises:
      UsageError: one has none.
    """
    for name in _PLACES:
        found = getattr(arguments, name, None)
        for uri in found if isinstance(found, list) else [found]:
            if uri is not None and not uris.is_named(uri):
                flag = _SHOWN.get(name, f"--{name.replace('_', '-')}")
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
