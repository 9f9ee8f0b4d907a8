"""Every object that has a schema in `docs/schemas` is checked against it: no test has to ask.

- What this process writes, by the functions of `WRITERS`: looked at as it goes by.
- What the command prints (`PRINTED`), in this process or one that `callpress_process` starts.
- What other processes wrote, however they were started: looked for among the tests' files at the
  end.

What does not fit fails the test that is at work, the last kind the last test.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from transforms.catalog import results

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
_ENDING = ".schema.json"
NAMES = tuple(sorted(path.name.removesuffix(_ENDING) for path in FOLDER.glob(f"*{_ENDING}")))

WRITERS = (
    ("pipelines.ending", "_write", "run-result"),
    ("transforms.catalog.results", "write", "run-result"),
    ("transforms.proof.receipt", "write", "receipt"),
)
"""Module, function and schema: the function's last argument is an object of that schema. Other
modules must call it by way of its own.
"""

Printed = Callable[[Any], Sequence[tuple[str, Any]]]
PRINTED: Mapping[str, Printed] = {
    "runs": lambda told: [("run-result", each) for each in told["runs"]],
    "reconcile": lambda told: [("reconcile", told)],
    # What `--check` tells of a receipt is none.
    "prove": lambda told: [("receipt", told)] if "format" in told else [],
}
"""By command, what there is of which schema in what it prints with `--json`."""

_misfits: list[str] = []


def schema(name: str) -> dict[str, Any]:
    """Returns a schema as it is published."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}{_ENDING}").read_text("utf-8"))
    return found


def examples(name: str) -> dict[str, Any]:
    """Returns the published examples of a schema, by the name of their file."""
    paths = sorted((FOLDER / "examples").glob(f"{name}*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def check(name: str, value: Any) -> None:
    """Raises: AssertionError: the value, as JSON has it, is no object of the schema."""
    error = jsonschema.exceptions.best_match(_validator(name).iter_errors(value))
    if error is not None:
        raise AssertionError(f"{name}{_ENDING}: {error.json_path}: {error.message}")


@cache
def _validator(name: str) -> Any:
    """Each schema is parsed once; it may refer to its neighbours by their file names."""
    of_names = [(f"{each}{_ENDING}", DRAFT202012.create_resource(schema(each))) for each in NAMES]
    registry: Registry[Any] = Registry().with_resources(of_names)
    return jsonschema.Draft202012Validator(schema(name), registry=registry)


def look(name: str, value: Any) -> None:
    """Remembers a value that does not fit, for `fail_on_misfits`: what is raised here might be
    taken for an end of the run that the test expects.
    """
    try:
        check(name, value)
    except AssertionError as error:
        _misfits.append(str(error))


def fail_on_misfits() -> None:
    """Fails the test that is at work where anything did not fit since the last call."""
    misfits = list(dict.fromkeys(_misfits))
    _misfits.clear()
    if misfits:
        pytest.fail("\n".join(misfits), pytrace=False)


def look_at_writers(patch: pytest.MonkeyPatch) -> None:
    """Has each function of `WRITERS` looked at, in this process."""
    for module_name, function_name, name in WRITERS:
        module = importlib.import_module(module_name)
        patch.setattr(module, function_name, _looked_at(getattr(module, function_name), name))


def _looked_at(write: Callable[..., Any], name: str) -> Callable[..., Any]:
    def written(*arguments: Any) -> Any:
        look(name, json.loads(json.dumps(arguments[-1])))
        return write(*arguments)

    return written


def look_at_printed(arguments: Sequence[object], out: str) -> None:
    """Looks at what the command prints: nothing, where it was not asked for JSON."""
    if arguments and str(arguments[0]) in PRINTED and "--json" in arguments and out:
        for name, value in PRINTED[str(arguments[0])](json.loads(out)):
            look(name, value)


def look_at_files(folder: Path) -> None:
    """Looks at the results of runs below a folder, one of those that differ in figures and names of
    runs only.
    """
    seen: set[bytes] = set()
    for path in _files(folder):
        text = path.read_bytes()
        if b'"exit_status"' not in text:
            continue
        form = re.sub(rb"[0-9a-f]*[0-9][0-9a-f]*", b"0", text)
        if form in seen:
            continue
        seen.add(form)
        if _is_of_a_run(value := _parsed(text)):
            try:
                check("run-result", value)
            except AssertionError as error:
                _misfits.append(f"{path}: {error}")


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names if name.endswith(".json"))


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # made so by a test
        return None


def _is_of_a_run(value: Any) -> bool:
    """What the program itself takes for one: tests also damage results."""
    return isinstance(value, Mapping) and ("dry_run" in value or results._is_result(value))
