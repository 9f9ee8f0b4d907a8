"""A file's bytes without its weight: mapped, and let go of as it is read."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt


class MappedFile:
    """A file that is not changed meanwhile; it may be deleted."""

    def __init__(self, path: Path) -> None:
        """Args: path: of a file that is not empty."""
        with path.open("rb") as file:
            # Not closed by hand: the mapping goes with the last array over it.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)

    def let_go(self) -> None:
        """Lets go of the pages that were read: they count as memory of the process. They come back when asked for."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)
