"""What a step gathers of the elements that are done, before it gives them out: their rows and notes
go into staging together, as one bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from transforms.catalog.bundles import Bundle, OwnedRows
from transforms.elements import SectionRef

MOST_PIECES = 200
"""Pieces in a bundle: a night of 100,000 calls is 500 of them."""
_BYTES = 32 << 20
"""In a bundle, but for the last piece: an ordinary call has some kB, one of a thousand people who
speak for hours tens of MB.
"""
_SECONDS = 30.0
"""For which the first of them waits at most: what a killed run loses of what it had done."""


class Gathered:
    """Pieces for the next bundle, and what is to be given out once it is written."""

    def __init__(self) -> None:
        self._bundle = Bundle()
        self._outputs: list[Any] = []
        self._since = 0.0

    def add(
        self, rows: Iterable[OwnedRows], notes: Mapping[str, bytes], outputs: Iterable[Any] = ()
    ) -> None:
        """Takes a piece. Args: rows, notes: as in `Bundle.add`. outputs: what waits for them."""
        if self.is_empty:
            self._since = time.monotonic()
        self._bundle.add(rows, notes)
        self._outputs += outputs

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing; then no run may be known, either."""
        return not self._bundle.count

    @property
    def is_due(self) -> bool:
        """Whether it is to be written now."""
        bundle = self._bundle
        return (
            bundle.count >= MOST_PIECES or bundle.size_bytes >= _BYTES or self.seconds_left == 0.0
        )

    @property
    def seconds_left(self) -> float | None:
        """For how long it may wait; None where there is nothing."""
        if self.is_empty:
            return None
        return max(0.0, self._since + _SECONDS - time.monotonic())

    def write(self, staging_uri: str) -> tuple[list[SectionRef], list[Any]]:
        """Writes what there is; returns the references to its rows, and what waited for them.
        Raises: StorageError.
        """
        bundle, outputs = self._bundle, self._outputs
        self._bundle, self._outputs = Bundle(), []
        return bundle.write(staging_uri), outputs
