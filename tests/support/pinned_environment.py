"""An environment with what a worker has, made once as Dockerfile makes it and kept between runs.

`python -m tests.support.pinned_environment` makes it beforehand. pip checks what it fetches against
the hashes in configs/worker-requirements.txt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MADE_FROM = (
    "scripts/image_layers", "scripts/build-requirements.txt", "configs/worker-requirements.txt"
)  # fmt: skip


def pinned_environment() -> Path:
    """Returns its folder; it is made where it is not there. Raises: CalledProcessError."""
    digest = hashlib.sha256(sys.version.encode())
    for name in _MADE_FROM:
        digest.update((ROOT / name).read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = base / "callpress" / "pinned" / digest.hexdigest()[:16]
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run of the tests come at once
        if not (kept / "made").exists():
            print("callpress: making a worker's environment (a minute, once)", file=sys.stderr)
            subprocess.run(
                [ROOT / "scripts" / "image_layers", "pins", kept / "env"],
                env={**os.environ, "PYTHON": sys.executable},
                check=True,
            )
            (kept / "made").touch()
    return kept / "env"


if __name__ == "__main__":
    pinned_environment()
