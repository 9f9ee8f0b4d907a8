"""The vendor's SDK in a folder of its own, fetched once and kept between runs.

`python -m tests.support.stream_sdk` fetches it beforehand. pip checks it against the hashes in
stream-requirements.txt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REQUIREMENTS = Path(__file__).with_name("stream-requirements.txt")


def sdk_folder() -> Path:
    """Returns its folder; it is filled where it is not there. Raises: CalledProcessError."""
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = base / "callpress" / "stream-sdk" / digest
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not (kept / "made").exists():
            print("callpress: fetching the vendor's SDK for the tests (once)", file=sys.stderr)
            options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--quiet"]
            where = ["--upgrade", f"--target={kept / 'site'}", f"--requirement={_REQUIREMENTS}"]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, *where], check=True)
            (kept / "made").touch()
    return kept / "site"


@contextmanager
def importable_sdk() -> Iterator[None]:
    """Lets this process import the SDK, if its own environment has none, until the block ends."""
    folder = str(sdk_folder())
    sys.path.append(folder)  # last: what the environment itself has comes first
    try:
        yield
    finally:
        sys.path.remove(folder)


if __name__ == "__main__":
    sdk_folder()
