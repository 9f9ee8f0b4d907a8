"""Servers that stand in for S3 and Azure in tests, each in an environment of its own, made once and
kept between runs.

`python -m tests.support.store_programs` makes them beforehand. pip and npm check what they fetch
against the hashes that are kept here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent
_MOTO = _FOLDER / "moto-requirements.txt"
_AZURITE = _FOLDER / "azurite"


def moto_environment() -> Path:
    """Returns the folder of an environment that has moto and boto3; it is made where it is not
    there. Raises: CalledProcessError.
    """

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet",
             "--disable-pip-version-check", "--require-hashes", "--no-deps", "-r", _MOTO],
            check=True,
        )  # fmt: skip

    return _kept("moto", sys.version.encode() + _MOTO.read_bytes(), make)


def azurite_program() -> list[str | Path]:
    """Returns how to start Azurite's server of blobs; skips the test without Node."""
    if shutil.which("npm") is None:
        pytest.skip("needs Azurite, which needs Node and npm: https://nodejs.org")
    return ["node", _azurite_folder() / "node_modules/azurite/dist/src/blob/main.js"]


def _azurite_folder() -> Path:
    """Returns the folder that Azurite lies in. Raises: CalledProcessError."""
    files = [_AZURITE / "package.json", _AZURITE / "package-lock.json"]

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        subprocess.run(
            ["npm", "ci", "--silent", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
        )

    return _kept("azurite", b"".join(file.read_bytes() for file in files), make)


def _kept(name: str, made_from: bytes, make: Callable[[Path], None]) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = base / "callpress" / name / hashlib.sha256(made_from).hexdigest()[:16]
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not (kept / "made").exists():
            print(f"callpress: fetching {name} for the tests (a minute, once)", file=sys.stderr)
            make(kept / "env")
            (kept / "made").touch()
    return kept / "env"


if __name__ == "__main__":
    moto_environment()
    if shutil.which("npm") is not None:
        _azurite_folder()
