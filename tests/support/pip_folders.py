"""Packages for the tests in folders of their own, beside our environment, fetched once and kept
between runs.

`python -m tests.support.pip_folders` fetches them all beforehand. pip checks them against the
hashes in their lists.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

_SUPPORT = Path(__file__).parent
STREAM_SDK = _SUPPORT / "stream-sdk-requirements.txt"
"""The vendor's SDK, and what it needs."""
STANDARD_WEBHOOKS = _SUPPORT / "standard-webhooks-requirements.txt"
"""What checks their signatures, by those who specify them."""


def pip_folder(requirements: Path) -> Path:
    """Returns the folder of a list of packages; it is filled where it is not there. Raises:
    CalledProcessError.
    """
    name = requirements.stem.removesuffix("-requirements")
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = base / "callpress" / name / digest
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not (kept / "made").exists():
            print(f"callpress: fetching {requirements.name} for the tests (once)", file=sys.stderr)
            options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet"]
            where = ["--upgrade", f"--target={kept / 'site'}", f"--requirement={requirements}"]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, *where], check=True)
            (kept / "made").touch()
    return kept / "site"


if __name__ == "__main__":
    for each in (STREAM_SDK, STANDARD_WEBHOOKS):
        pip_folder(each)
