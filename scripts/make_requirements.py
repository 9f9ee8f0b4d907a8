#!/usr/bin/env python
"""Writes configs/worker-requirements.txt: what a worker has beside Callpress itself, with hashes.

That is what setup.py needs at run time, and what that needs in turn, in the versions of
configs/constraints.txt. Each line has one package and the hash of every file that fits Linux on
x86-64 and CPython 3.11, 3.12 or 3.13. uv resolves (`pip install uv`); it asks the package index, so
no test runs this. tests/test_requirements.py holds the file to setup.py and to the constraints.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from distutils.core import run_setup
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "configs" / "worker-requirements.txt"
PYTHONS = ("3.11", "3.12", "3.13")
SOURCE_ONLY = frozenset({("google-apitools", "0.5.31")})
"""What has no wheel. All of it is plain Python: nothing is compiled."""

_PLATFORM = "x86_64-manylinux_2_28"
_NEWEST_GLIBC = 36  # 2.36 is that of Debian bookworm, which Beam's and our image are made on.
_HEADER = """\
# What a worker has beside Callpress: exact versions, and the hash of every file that fits Linux on
# x86-64 and CPython 3.11, 3.12 or 3.13. Made from setup.py and configs/constraints.txt by
# scripts/make_requirements.py; do not edit.
"""


def run_time_requirements() -> tuple[str, ...]:
    """Returns what setup.py needs at run time, as it says it."""
    return tuple(vars(run_setup(str(ROOT / "setup.py"), stop_after="init"))["install_requires"])


def make_requirements() -> str:
    """Returns the file. Raises: CalledProcessError: uv cannot resolve it. SystemExit: a package has
    no file for a Python.
    """
    lines: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(dict)
    for python in PYTHONS:
        for package in _resolve(python):
            key = (str(canonicalize_name(package["name"])), str(package["version"]))
            lines[key][python] = _hashes(package, python)
    return _HEADER + "".join(
        f"{name}=={version}{_marker(tuple(by_python))}"
        + "".join(f" --hash=sha256:{sha}" for sha in sorted(set().union(*by_python.values())))
        + "\n"
        for (name, version), by_python in sorted(lines.items())
    )


def _resolve(python: str) -> Iterable[Mapping[str, Any]]:
    """Returns the packages of a Python, as PEP 751 lists them."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.in"
        wanted.write_text("\n".join(run_time_requirements()), encoding="utf-8")
        lock = Path(folder) / "pylock.toml"
        subprocess.run(
            [
                *("uv", "pip", "compile", "--quiet", "--no-config", "--format", "pylock.toml"),
                *("--python-version", python, "--python-platform", _PLATFORM),
                *("--constraints", str(ROOT / "configs" / "constraints.txt")),
                *("--output-file", str(lock), str(wanted)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        packages: list[dict[str, Any]] = tomllib.loads(lock.read_text("utf-8"))["packages"]
        return packages


def _hashes(package: Mapping[str, Any], python: str) -> set[str]:
    """Returns the SHA-256 of each file of a package that a Python may install."""
    tags = _tags(python)
    found = {
        wheel["hashes"]["sha256"]
        for wheel in package.get("wheels", ())
        if parse_wheel_filename(_file_name(wheel))[3] & tags
    }
    if not found and (package["name"], package["version"]) in SOURCE_ONLY:
        found = {package["sdist"]["hashes"]["sha256"]}
    if not found:
        sys.exit(f"{package['name']} {package['version']} has no wheel for Python {python}")
    return found


def _file_name(wheel: Mapping[str, Any]) -> str:
    return str(wheel.get("name") or wheel["url"].rpartition("/")[2])


def _tags(python: str) -> frozenset[Tag]:
    major, minor = (int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{glibc}_x86_64" for glibc in range(_NEWEST_GLIBC, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    platforms.append("linux_x86_64")
    return frozenset(
        {
            *cpython_tags((major, minor), platforms=platforms),
            *compatible_tags((major, minor), f"cp{major}{minor}", platforms),
        }
    )


def _marker(pythons: tuple[str, ...]) -> str:
    """Returns the marker of a line that not every Python has."""
    if pythons == PYTHONS:
        return ""
    if pythons == PYTHONS[: len(pythons)]:
        return f' ; python_version < "{PYTHONS[len(pythons)]}"'
    if pythons == PYTHONS[-len(pythons) :]:
        return f' ; python_version >= "{pythons[0]}"'
    return " ; " + " or ".join(f'python_version == "{python}"' for python in pythons)


if __name__ == "__main__":
    REQUIREMENTS.write_text(make_requirements(), encoding="utf-8")
