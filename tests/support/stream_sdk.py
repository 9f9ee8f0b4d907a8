"""The vendor's SDK, for this process to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.pip_folders import STREAM_SDK, pip_folder


@contextmanager
def importable_sdk() -> Iterator[None]:
    """Lets this process import the SDK, if its own environment has none, until the block ends."""
    folder = str(pip_folder(STREAM_SDK))
    sys.path.append(folder)  # last: what the environment itself has comes first
    try:
        yield
    finally:
        sys.path.remove(folder)
