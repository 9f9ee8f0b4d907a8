"""Reads a file of flags (`--flags-file`): ours and Beam's, one a line, with the place of each, so
that what is wrong with one can be told by file and line. Beam-free.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import nearest
from transforms.media.errors import ConfigError
from transforms.storage import uris

ENDING = ".flags"
_MOST_BYTES = 1 << 20
_LONGEST_NAME = 100
_NEVER = ("--flags-file", "--help")
"""What only a command line can ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagLine:
    """A line of such a file."""

    name: str
    """With dashes: `--machine-type`."""
    value: str | None
    """What stands behind the first `=`; None where there is none."""
    where: str
    """File and line, to begin a message with."""

    @property
    def argument(self) -> str:
        """The flag as a command line has it."""
        return self.name if self.value is None else f"{self.name}={self.value}"


def read(name: str) -> tuple[FlagLine, ...]:
    """Returns the flags of a file, at least one.

    A line is `--name=value` or `--name`, a comment that begins with `#`, or empty. What a shell
    would do (quotes, variables, blanks between name and value) is refused or left as it is.

    Args:
      name: a path; or the name of a file that comes with the program, such as `dataflow-cheap`. It
        is a path when there is such a file, when it ends in `.flags` or has a slash.

    Raises:
      ConfigError: no such file, or one that cannot be read; a line that is none of these.
    """
    lines = tuple(_parse(name, _read(name)))
    if not lines:
        raise ConfigError(f"--flags-file {name}: holds no flag, expected one a line: --name=value")
    return lines


def value_in(name: str, flag: str) -> str | None:
    """Returns what a file of flags gives a flag, also where other lines are wrong; None where that
    cannot be made out.
    """
    try:
        lines = _read(name).split("\n")
    except ConfigError:
        return None
    found = None
    for line in lines:
        spelled, equals, value = line.strip().partition("=")
        if equals and spelled.replace("_", "-") == flag:
            found = value or found
    return found


def refuse_twice(lines: Iterable[tuple[str, FlagLine]]) -> None:
    """Checks that no flag stands twice in a file. Args: lines: those of flags that have one value,
    each with what its flag sets: two names may set the same.

    Raises:
      ConfigError: one does.
    """
    seen: dict[str, FlagLine] = {}
    for what, line in lines:
        if what in seen:
            raise ConfigError(
                f"{line.where}: {line.name}: given twice, first in "
                f"{seen[what].where.rpartition(', ')[2]}"
            )
        seen[what] = line


def _read(name: str) -> str:
    shipped = _shipped()
    if name in shipped and not os.path.isfile(name):
        content = shipped[name].read_bytes()
    elif os.path.exists(name) or name.endswith(ENDING) or "/" in name:
        content = _content_of(name)
    else:
        raise ConfigError(
            f"--flags-file {name}: no such file, and none that comes with the program has this "
            f"name{nearest.hint(name, shipped, '.')} There are {', '.join(sorted(shipped))}"
        )
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"--flags-file {name}: has more than {_MOST_BYTES} bytes, expected flags")
    try:
        return content.decode("utf-8-sig")  # some editors begin it with a mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"--flags-file {name}, line {line}: not UTF-8") from None


def _content_of(name: str) -> bytes:
    path = Path(uris.without_file(name))
    try:
        if path.is_dir():
            raise ConfigError(f"--flags-file {name}: is a folder, expected a file")
        # Not a pipe: the file is read once more for what a command that is wrong is to tell
        # programs.
        if path.exists() and not path.is_file():
            raise ConfigError(f"--flags-file {name}: is no regular file, expected one")
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--flags-file {name}: {error.strerror}") from None


def _shipped() -> dict[str, Any]:
    """Returns the files that come with the program, by their names."""
    from importlib import resources  # late: most commands have no such file

    return {
        file.name.removesuffix(ENDING): file
        for file in resources.files("configs").iterdir()
        if file.name.endswith(ENDING)
    }


def _parse(file_name: str, text: str) -> Iterator[FlagLine]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"--flags-file {file_name}, line {number}"
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.replace("_", "-")
        is_flag = (
            name.startswith("--") and 2 < len(name) <= _LONGEST_NAME and name.split() == [name]
        )
        if not is_flag:
            # Not the line: it may hold a key, which is wrong where it stands only.
            begun = line.partition("=")[0].split()[0] if line.startswith("-") else ""
            found = f"{begun[:_LONGEST_NAME]!r}, " if begun else ""
            raise ConfigError(f"{where}: {found}expected --name=value, --name or # comment")
        if name in _NEVER:
            raise ConfigError(f"{where}: {name} stands on a command line only")
        if not all(" " <= character != "\x7f" for character in value):
            raise ConfigError(f"{where}: {name}: holds a control character")
        if " #" in value:
            raise ConfigError(f"{where}: {name}: a comment stands on a line of its own")
        if value[:1] in ("'", '"') and value[-1:] == value[0]:
            raise ConfigError(f"{where}: {name}: expected a value without quotes")
        yield FlagLine(name=name, value=value.strip() if equals else None, where=where)
