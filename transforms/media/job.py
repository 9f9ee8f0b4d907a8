"""What a job is given besides its arguments: a way to its inputs, and an ear for how far it is.

A job is a function that a codec process runs. It names its inputs and never opens them by itself:
whoever runs it knows whether a name is a file of this machine or an object in a store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

CODEC_MEMORY_BYTES = 1 << 30
"""Private memory of a codec process, where no profile says otherwise."""


def _tell_nobody(_count: int) -> None:
    pass


def _one(_most: int) -> int:
    return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHost:
    """Whoever runs a job. May be called from any of the job's threads."""

    open_input: Callable[[str], BinaryIO]
    """Opens an input by name for reading; raises `StorageError`."""
    tell_progress: Callable[[int], None] = _tell_nobody
    """Is told how much more is done, in what the job counts: samples, or bytes of an archive."""
    cores: Callable[[int], int] = _one
    """Is told how many cores the job could keep busy; returns how many it may from now on. That
    changes: to be asked again every second or so.
    """
