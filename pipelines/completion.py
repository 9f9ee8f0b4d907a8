"""Prints what a shell completes the command by: our commands and flags, and Beam's of this
version.
"""

from __future__ import annotations

import argparse

import shtab

from pipelines.beam_options import beam_parser
from pipelines.parsers import CompletionArguments, make_parsers

_FILES = (
    "config",
    "flags_file",
    "input",
    "manifest",
    "log_file",
    "archives",
    "summary_json",
    "receipt",
    "check",
    "public_key",
    "input_file",
)
_FOLDERS = ("output", "catalog", "copy_raw", "clock_output", "notify")


def print_completion(arguments: CompletionArguments) -> int:
    """Prints the script; returns the exit status."""
    print(script_for(arguments.for_shell))
    return 0


def script_for(shell: str) -> str:
    """Returns the script for a shell, to be read by it whenever it starts."""
    parser, run = make_parsers()
    known = run._option_string_actions
    for action in beam_parser()._actions:
        flags = [flag for flag in action.option_strings if flag.replace("_", "-") not in known]
        if flags and action.dest != argparse.SUPPRESS:
            run.add_argument(
                *flags,
                dest=action.dest,
                # What it does with a value does not matter here; whether it has one does.
                **({"action": "store_true"} if action.nargs == 0 else {"choices": action.choices}),
                help=_first_sentence(action.help),
            )
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in (parser, *commands.choices.values()):
        for action in command._actions:
            if action.dest in _FILES:
                action.complete = shtab.FILE
            elif action.dest in _FOLDERS:
                action.complete = shtab.DIRECTORY
    return str(shtab.complete(parser, shell))


def _first_sentence(text: str | None) -> str:
    """Returns the beginning of Beam's long helps, in a line."""
    line = " ".join((text or "").split()).split(". ")[0]
    return line.replace("%", "%%")
