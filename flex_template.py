"""What Dataflow's template launcher starts: `callpress run` with the template's parameters.

The launcher gives each parameter as `--name=value`, and Beam's options with them. A template has no
parameter that stands several times and none without a value, so here a list is one parameter, and a
switch is `true` or `false`. Which is which is asked of the parser of `run`. What neither `run` nor
Beam knows is passed over and told: the service has refused parameters that the template does not
have, so it is the launcher's own. It ends as the command does: what is wrong with the parameters is
one line on standard error, exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from pipelines.beam_options import beam_parser
from pipelines.cli import main
from pipelines.options import EXIT_USAGE
from pipelines.parsers import make_parsers, our_spelling


class ParameterError(Exception):
    """A parameter's value cannot be; the message is one line."""


def run_arguments(parameters: Sequence[str]) -> list[str]:
    """Returns the arguments of `callpress run` that stand for a template's parameters.

    Raises:
      ParameterError: a switch is neither `true` nor `false`.
    """
    _, run = make_parsers()
    actions = {flag: action for action in run._actions for flag in action.option_strings}
    of_beam = beam_parser()._option_string_actions
    arguments: list[str] = []
    for parameter in parameters:
        flag = parameter.partition("=")[0]
        if flag.startswith("--") and not (our_spelling(flag) in actions or flag in of_beam):
            print(f"callpress: warning: nobody knows {flag}: passed over", file=sys.stderr)
            continue
        arguments += _arguments_of(parameter, actions)
    return arguments


def _arguments_of(parameter: str, actions: dict[str, argparse.Action]) -> Iterator[str]:
    name, equals, value = parameter.partition("=")
    flag = our_spelling(name)
    action = actions.get(flag)
    if action is None or not equals:
        yield parameter  # Beam's, or no flag: `run` says what it is
    elif isinstance(action, argparse._AppendAction):
        for item in split_list(value) or [value]:
            yield f"{flag}={item}"
    elif action.nargs == 0:
        if value not in ("true", "false"):
            raise ParameterError(f"parameter {name[2:]}: {value!r}, expected true or false")
        if value == "true":
            yield flag
    else:
        yield f"{flag}={value}"


def split_list(text: str) -> list[str]:
    """Returns the items of a list: separated by commas, or by new lines where there is one, so that
    a name with a comma in it can be given (with a new line behind it, where it is the only one).
    """
    items = text.split("\n" if "\n" in text else ",")
    return [item.strip() for item in items if item.strip()]


def launch(parameters: Sequence[str]) -> int:
    """Runs the template; returns the exit status."""
    try:
        arguments = run_arguments(parameters)
    except ParameterError as error:
        print(f"callpress: {error}", file=sys.stderr)
        return EXIT_USAGE
    return main(["run", *arguments])


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
