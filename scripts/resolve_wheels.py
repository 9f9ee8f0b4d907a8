#!/usr/bin/env python
"""Fetches what configs/worker-requirements.txt names, for each Python as pip does on its workers.

    python -m scripts.resolve_wheels [3.12 3.13]

That the files are there and have their hashes is all that it tells: nothing is installed or run. It
asks the package index, so no test runs it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from scripts.make_requirements import PYTHONS, REQUIREMENTS, SOURCE_ONLY


def resolve(python: str) -> str:
    """Returns what was found for a Python. Raises: CalledProcessError: not all of it was."""
    wanted = [_without_marker(line) for line in _lines_of(python)]
    pinned = {line.partition(" ")[0] for line in wanted}
    source_only = [name for name, version in SOURCE_ONLY if f"{name}=={version}" in pinned]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(wanted), encoding="utf-8")
        files = Path(folder) / "files"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(files)),
                *("--require-hashes", "--no-deps", "--python-version", python),
                *("--only-binary", ":all:", "--no-binary", ",".join(source_only) or ":none:"),
                *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"),
                *("--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"),
                *("--requirement", str(listed)),
            ],
            check=True,
        )
        found = list(files.iterdir())
        source = sum(file.suffix != ".whl" for file in found)
        mib = sum(file.stat().st_size for file in found) >> 20
    return f"Python {python}: {len(found) - source} wheels, {source} as source, {mib} MiB"


def _lines_of(python: str) -> list[str]:
    """Returns the lines that hold for a Python: pip itself asks the Python that it runs on."""
    lines = [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line[0] != "#"]
    return [line for line in lines if _holds(line, python)]


def _holds(line: str, python: str) -> bool:
    marker = Requirement(line.partition(" --hash")[0]).marker
    return marker is None or marker.evaluate({"python_version": python})


def _without_marker(line: str) -> str:
    requirement, hashes, rest = line.partition(" --hash")
    return requirement.partition(" ;")[0] + hashes + rest


if __name__ == "__main__":
    for each in sys.argv[1:] or PYTHONS:
        print(resolve(each), flush=True)
