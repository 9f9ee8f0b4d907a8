"""The options that are Beam's: checked, where Beam itself only warns of what it does not know."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from pipelines.options import RunArguments, StrictParser, UsageError, refuse_unknown
from pipelines.runners.beam import BeamEngine
from pipelines.runners.engine import Engine
from pipelines.runners.local import LocalEngine, is_local
from transforms.media.errors import ConfigError


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options.

    Raises:
      UsageError: a flag that no runner knows, a word that belongs to none, a value that cannot be,
        or Beam's own number of workers.
      ConfigError: no such runner.
    """
    parser = StrictParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        add = getattr(kind, "_add_argparse_args", None)
        if add is not None:
            add(parser)
    _, strays = parser.parse_known_args(list(arguments))
    refuse_unknown(strays, {flag for action in parser._actions for flag in action.option_strings})
    _refuse_twice(arguments, parser)
    if any(argument.split("=", 1)[0] == "--direct_num_workers" for argument in arguments):
        raise UsageError(
            "--direct-num-workers: the local engine is one process, expected --codec-processes N "
            "for how many recordings are worked on at a time"
        )
    options = PipelineOptions(list(arguments))
    runner = options.view_as(StandardOptions).runner
    if not is_local(runner):
        try:
            create_runner(runner)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"--runner {runner}: {str(error).split(chr(10))[0]}") from None
    return options


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
      ConfigError: it is not one that presses a night in portions, which are asked for.
    """
    if is_local(options.view_as(StandardOptions).runner):
        return LocalEngine(options, arguments.codec_processes)
    if arguments.portion_archives is not None:
        raise ConfigError(
            "--portion-archives is for the local engine: others press a night in one job; "
            "--max-archives bounds it"
        )
    return BeamEngine(options)
