"""What the machine ran out of is told from what is a bug of ours."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from transforms.media.errors import exhausted_resource


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "no memory left"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "no memory left"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (
            RuntimeError("OSError: [Errno 24] Too many open files [while running 'Mix']"),
            "ulimit -n",
        ),
    ],
)
def test_what_ran_out_is_named_also_behind_other_errors(error: Exception, says: str) -> None:
    assert says in (exhausted_resource(error) or "")
    outer = RuntimeError("the engine failed")
    outer.__cause__ = error
    assert says in (exhausted_resource(outer) or "")


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), OSError(errno.ENOENT, "No such file"), RuntimeError("[Errno 1] no"), OSError()],
)
def test_other_errors_are_what_they_are(error: Exception) -> None:
    assert exhausted_resource(error) is None


def test_descriptors_that_ran_out_are_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open(tmp_path, os.O_RDONLY)
    os.close(first)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            os.open(tmp_path, os.O_RDONLY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit -n" in (exhausted_resource(raised.value) or "")
