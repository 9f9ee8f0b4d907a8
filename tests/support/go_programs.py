"""Programs for the tests that come as Go modules only, built once and kept between runs.

`python -m tests.support.go_programs` builds them all beforehand. Go checks what it fetches against
its checksum database, or the `go.sum` of a program of ours.
"""

from __future__ import annotations

import fcntl
import hashlib
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
PUBSUB = Path(__file__).with_name("pubsub")
"""A server of Pub/Sub: `pstest` of Google's Go client, with a few lines of ours to start it."""


def go_program(source: str | Path) -> Path:
    """Returns a program that Go makes of a package; skips the test without Go.

    Args:
      source: path and version of a package, or the folder of a module of ours.
    """
    if shutil.which("go") is None:
        pytest.skip(f"needs {_name(source)}, which needs Go to build: https://go.dev/dl")
    return _built(source)


def _built(source: str | Path) -> Path:
    """Returns a program, which is built if it is not there. Raises: CalledProcessError."""
    name = _name(source)
    folder = _cache_folder() / f"{name}@{_version(source)}"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not program.exists():
            print(f"callpress: building {name} for the tests (minutes, once)", file=sys.stderr)
            _build(source, folder)
    return program


def _name(source: str | Path) -> str:
    return source.name if isinstance(source, Path) else source.partition("@")[0].split("/")[-1]


def _version(source: str | Path) -> str:
    """Returns what is another where the program would be."""
    if isinstance(source, str):
        return source.partition("@")[2]
    texts = [(source / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def _build(source: str | Path, folder: Path) -> None:
    """Leaves the program in a folder. Raises: CalledProcessError."""
    command: list[str]
    if isinstance(source, str):
        command, where = ["go", "install", source], None
    else:
        command, where = ["go", "install", "-mod=readonly", "."], source
    subprocess.run(command, cwd=where, env={**os.environ, "GOBIN": str(folder)}, check=True)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "callpress" / "go"


if __name__ == "__main__":
    for each in (FAKE_GCS_SERVER, PRISM, PUBSUB):
        _built(each)
