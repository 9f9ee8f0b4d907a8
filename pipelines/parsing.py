"""What the parsers of all commands have in common. Beam-free, as they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn


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


class OurParser(StrictParser):
    """The parser of our own flags: none is abbreviated, and a single one is not given twice."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, allow_abbrev=False)
        self.register("action", None, _Once)
        self.register("action", "store_true", _OnceTrue)


Commands = argparse._SubParsersAction  # of `OurParser`
