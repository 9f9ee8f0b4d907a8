"""Every object that has a schema in `docs/schemas` is checked against it: no test has to ask.

- What this process writes, by the functions of `WRITERS` and `SPELLERS`: looked at as it goes by.
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
import pyarrow as pa
import pyarrow.parquet as pq
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
SPELLERS = (("transforms.notices.events", "_spelled", "notice"),)
"""The same, but what the function returns is such an object as JSON."""

Printed = Callable[[Any], Sequence[tuple[str, Any]]]
PRINTED: Mapping[str, Printed] = {
    "runs": lambda told: [("run-result", each) for each in told["runs"]],
    "reconcile": lambda told: [("reconcile", told)],
    "recordings": lambda told: [("recordings", told)],
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
    """Has each function of `WRITERS` and `SPELLERS` looked at, in this process."""
    for functions, looked_at in ((WRITERS, _looked_at), (SPELLERS, _looked_at_text)):
        for module_name, function_name, name in functions:
            module = importlib.import_module(module_name)
            patch.setattr(module, function_name, looked_at(getattr(module, function_name), name))


def _looked_at(write: Callable[..., Any], name: str) -> Callable[..., Any]:
    def written(*arguments: Any) -> Any:
        look(name, json.loads(json.dumps(arguments[-1])))
        return write(*arguments)

    return written


def _looked_at_text(spell: Callable[..., str], name: str) -> Callable[..., str]:
    def spelled(*arguments: Any) -> str:
        text = spell(*arguments)
        look(name, json.loads(text))
        return text

    return spelled


def look_at_printed(arguments: Sequence[object], out: str) -> None:
    """Looks at what the command prints: nothing, where it was not asked for JSON."""
    if arguments and str(arguments[0]) in PRINTED and "--json" in arguments and out:
        for name, value in PRINTED[str(arguments[0])](json.loads(out)):
            look(name, value)


def look_at_files(folder: Path) -> None:
    """Looks at the results of runs and at the notices below a folder, one of those that differ in
    figures and names of runs only.
    """
    seen: set[bytes] = set()
    for path, text in _texts(folder):
        form = re.sub(rb"[0-9a-f]*[0-9][0-9a-f]*", b"0", text)
        if form in seen:
            continue
        seen.add(form)
        value = _parsed(text)
        name = "run-result" if _is_of_a_run(value) else "notice" if _is_notice(value) else None
        if name is not None:
            try:
                check(name, value)
            except AssertionError as error:
                _misfits.append(f"{path}: {error}")


def _texts(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yields what may be such an object, and where it is."""
    for root, _, names in os.walk(folder):
        for path in (Path(root, name) for name in names):
            if path.suffix == ".json":
                text = path.read_bytes()
                if b'"exit_status"' in text:
                    yield path, text
            elif path.suffix == ".jsonl":
                yield from ((path, line) for line in path.read_bytes().splitlines())
            elif path.suffix == ".parquet" and path.parents[1].name == "notices":
                yield from ((path, body) for body in _bodies(path))


def _bodies(path: Path) -> list[bytes]:
    """Returns what a table of notices holds as events; nothing of one that a test damaged."""
    try:
        columns = pq.read_table(path, columns=["body"], partitioning=None).columns
        found: list[bytes | None] = columns[0].cast(pa.binary()).to_pylist() if columns else []
    except (pa.ArrowException, OSError):
        return []
    return [body for body in found if body is not None]


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # made so by a test
        return None


def _is_of_a_run(value: Any) -> bool:
    """What the program itself takes for one: tests also damage results."""
    return isinstance(value, Mapping) and ("dry_run" in value or results._is_result(value))


def _is_notice(value: Any) -> bool:
    return isinstance(value, Mapping) and "egress_id" in value and "callpress" in value
