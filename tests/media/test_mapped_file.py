"""Mapped files: the bytes are there whatever was let go, and let go is what the process is charged
for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from transforms.media.buffers import MappedFile


def charged_bytes() -> int:
    """Returns how much of mapped files counts as memory of this process."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssFile")
    ]
    return int(line.split()[1]) << 10


def test_bytes_are_those_of_the_file_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    mapped = MappedFile(path)
    mapped.let_go()
    path.unlink()
    assert mapped.bytes.tobytes() == b"some bytes"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is charged")
def test_what_was_read_is_charged_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(32 << 20))
    mapped = MappedFile(path)
    before = charged_bytes()
    assert int(np.add.reduce(mapped.bytes)) == 0
    read = charged_bytes()
    mapped.let_go()
    assert read - before > 24 << 20
    assert charged_bytes() - before < 8 << 20
