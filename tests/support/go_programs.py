"""Programs for the tests that come as Go modules only, built once and kept between runs.

`python -m tests.support.go_programs` builds them all beforehand. Go checks what it fetches against
its checksum database.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.version import __version__ as beam_version

FAKE_GCS_SERVER = "github.com/fsouza/fake-gcs-server@v1.56.1"
"""A storage server that honours preconditions on uploads."""
PRISM = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{beam_version}"
"""Beam's own portable engine, of the same version as its Python package."""


def go_program(package: str) -> Path:
    """Returns a program that `go install` makes of a package; skips the test without Go.

    Args:
      package: a path and a version.
    """
    if shutil.which("go") is None:
        pytest.skip(f"needs {package}, which needs Go to build: https://go.dev/dl")
    return _built(package)


def _built(package: str) -> Path:
    """Returns a program, which is built if it is not there. Raises: CalledProcessError."""
    path, _, version = package.partition("@")
    name = path.rpartition("/")[2]
    folder = _cache_folder() / f"{name}@{version}"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not program.exists():
            print(f"callpress: building {package} for the tests (minutes, once)", file=sys.stderr)
            subprocess.run(
                ["go", "install", package], env={**os.environ, "GOBIN": str(folder)}, check=True
            )
    return program


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "callpress" / "go"


if __name__ == "__main__":
    for each in (FAKE_GCS_SERVER, PRISM):
        _built(each)
