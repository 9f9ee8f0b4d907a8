"""What workers get: the run-time dependencies, all of them and nothing else, as they are pinned."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.make_requirements import PYTHONS, run_time_requirements

ROOT = Path(__file__).parents[1]
LINES = [
    line
    for line in (ROOT / "configs" / "worker-requirements.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]


def _requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line.partition(" --hash")[0]) for line in lines]


def _pins(requirements: list[Requirement], python: str) -> dict[str, str]:
    """Returns the version of each package that a Python gets."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    chosen = [each for each in requirements if not each.marker or each.marker.evaluate(environment)]
    pins = {str(canonicalize_name(each.name)): str(each.specifier) for each in chosen}
    assert len(pins) == len(chosen), "a package has two lines"
    return pins


def _constraints() -> list[Requirement]:
    text = (ROOT / "configs" / "constraints.txt").read_text("utf-8")
    return [Requirement(line) for line in text.splitlines() if not line.startswith("#")]


def _closure() -> set[str]:
    """Returns what setup.py needs at run time, and that in turn, as what is installed says."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(each) for each in run_time_requirements()]
    while waiting:
        each = waiting.pop()
        for extra in ("", *each.extras):
            name = str(canonicalize_name(each.name))
            if (name, extra) in found:
                continue
            found.add((name, extra))
            waiting += [
                needed
                for needed in map(Requirement, requires(name) or ())
                if needed.marker is None or needed.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in found}


@pytest.mark.parametrize("python", PYTHONS)
def test_versions_are_those_of_the_constraints(python: str) -> None:
    pinned = _pins(_constraints(), python)
    worker = _pins(_requirements(LINES), python)
    assert worker.items() <= pinned.items()


def test_all_that_is_needed_at_run_time_is_there_and_no_more() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert set(_pins(_requirements(LINES), python)) == _closure()


@pytest.mark.parametrize("python", PYTHONS)
def test_versions_are_in_the_ranges_of_setup(python: str) -> None:
    worker = _pins(_requirements(LINES), python)
    for each in map(Requirement, run_time_requirements()):
        version = worker[canonicalize_name(each.name)].removeprefix("==")
        assert each.specifier.contains(version), f"{each.name} {version}: expected {each.specifier}"


def test_each_line_has_hashes_and_no_host() -> None:
    for line in LINES:
        hashes = line.partition(" --hash")[1:]
        assert re.fullmatch(r"( --hash=sha256:[0-9a-f]{64})+", "".join(hashes)), line
        assert "://" not in line
