"""The options that are Beam's: checked, where Beam itself only warns of what it does not know."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.runners.runner import create_runner

from pipelines import flags_file
from pipelines.flags_file import FlagLine
from pipelines.options import RunArguments, told_with
from pipelines.parsers import beam_spelling, refuse_unknown
from pipelines.parsing import StrictParser, UsageError
from pipelines.runners.beam import BeamEngine
from pipelines.runners.engine import Engine
from pipelines.runners.local import LocalEngine, is_local
from transforms.media.errors import ConfigError


def beam_options(arguments: Sequence[str], lines: Sequence[FlagLine] = ()) -> PipelineOptions:
    """Returns Beam's options.

    Args:
      arguments: of the command line, for Beam.
      lines: of a file of flags. Those that set what the command line sets as well do not count.

    Raises:
      UsageError: a flag that no runner knows, a word that belongs to none, a value that cannot be,
        or Beam's own number of workers.
      ConfigError: no such runner.
    """
    parser = beam_parser()
    known = {flag for action in parser._actions for flag in action.option_strings}
    _, strays = parser.parse_known_args(list(arguments))
    refuse_unknown(strays, known)
    _refuse_twice(arguments, parser)
    for line in lines:
        with told_with(line):
            _, strays = parser.parse_known_args([beam_spelling(line.argument)])
            refuse_unknown(strays, known)
    given = [*_not_given(lines, arguments, parser), *arguments]
    if any(argument.split("=", 1)[0] == "--direct_num_workers" for argument in given):
        raise UsageError(
            "--direct-num-workers: the local engine is one process, expected --codec-processes N "
            "for how many recordings are worked on at a time"
        )
    options = PipelineOptions(given)
    setup = options.view_as(SetupOptions)
    if setup.save_main_session is None:
        # Beam would on Dataflow: nothing of ours is defined in the module that was started.
        setup.save_main_session = False
    runner = options.view_as(StandardOptions).runner
    if not is_local(runner):
        try:
            create_runner(runner)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--runner {runner}: {str(error).split(chr(10))[0]}") from None
    return options


def beam_parser() -> StrictParser:
    """Returns a parser of all options that Beam has."""
    parser = StrictParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        add = getattr(kind, "_add_argparse_args", None)
        if add is not None:
            add(parser)
    return parser


def _not_given(
    lines: Sequence[FlagLine], arguments: Sequence[str], parser: argparse.ArgumentParser
) -> list[str]:
    """Returns the flags of a file that set what the command line does not.

    Raises:
      ConfigError: two lines set the same one value.
    """
    actions = [(parser._option_string_actions[beam_spelling(line.name)], line) for line in lines]
    single = (argparse._StoreAction, argparse._StoreConstAction)
    flags_file.refuse_twice(
        (action.dest, line) for action, line in actions if isinstance(action, single)
    )
    names = (argument.split("=", 1)[0] for argument in arguments)
    given = {action.dest for name in names if (action := parser._option_string_actions.get(name))}
    return [beam_spelling(line.argument) for action, line in actions if action.dest not in given]


def _refuse_twice(arguments: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Raises: UsageError: an option that has one value stands twice; the first would be passed over
    unsaid.
    """
    given = set()
    for flag in (argument.split("=", 1)[0] for argument in arguments):
        action = parser._option_string_actions.get(flag)
        if isinstance(action, argparse._StoreAction) and action.nargs is None:
            if action.dest in given:
                raise UsageError(f"argument {flag}: given twice")
            given.add(action.dest)


def engine_of(options: PipelineOptions, arguments: RunArguments) -> Engine:
    """Returns the engine that a command line asks for.

    Raises:
      ConfigError: it is not one that presses a night in portions, or that has machines of more than
        one kind, and is asked to.
    """
    if is_local(options.view_as(StandardOptions).runner):
        if arguments.worker_memory_bytes is not None:
            raise ConfigError(
                "--worker-memory is for engines with machines of their own, such as "
                "--runner=DataflowRunner; --codec-processes bounds what a run takes here"
            )
        return LocalEngine(options, arguments.codec_processes)
    if arguments.portion_archives is not None:
        raise ConfigError(
            "--portion-archives is for the local engine: others press a night in one job; "
            "--max-archives bounds it"
        )
    if arguments.worker_memory_bytes and options.view_as(GoogleCloudOptions).flexrs_goal:
        raise ConfigError(
            "--worker-memory and --flexrs_goal: Dataflow gives no machines by a step's needs under "
            "FlexRS, expected one of them"
        )
    return BeamEngine(options)
