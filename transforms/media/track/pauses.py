"""Leaves long pauses out of an individual file that would be longer than it may be.

Audio never is: every packet stays, and a short pause stays for each that is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from transforms.media.track.timeline import PlacedPackets
from transforms.media.units import SAMPLE_RATE_HZ, Ints

_LONGEST_SAMPLES = tuple(round(seconds * SAMPLE_RATE_HZ) for seconds in (600, 60, 10, 1, 0.12))
"""Pauses longer than the first are left out; where that is not enough, than the next, and so on.
The last leaves 49 times its audio of a file of the shortest packets, 2.5 ms each.
"""
_KEPT_SAMPLES = SAMPLE_RATE_HZ
"""What stays of a pause, at most: enough for all that a decoder makes up behind a loss and for both
edges to fade.
"""


def longest_pause_that_fits(windows: Iterable[PlacedPackets], allowed_samples: int) -> int:
    """Returns how long pauses may be for a file to be no longer than allowed.

    The shortest there is where even that is not enough.
    """
    lengths = np.zeros(len(_LONGEST_SAMPLES), dtype=np.int64)
    for window in windows:
        for number, longest in enumerate(_LONGEST_SAMPLES):
            holes = window.hole_samples - _left_out(window.hole_samples, longest)
            lengths[number] += int(holes.sum() + window.duration_samples.sum())
    fits = np.flatnonzero(lengths <= allowed_samples)
    return _LONGEST_SAMPLES[int(fits[0]) if len(fits) else -1]


def leave_out_pauses(
    windows: Iterable[PlacedPackets], longest_samples: int
) -> Iterator[PlacedPackets]:
    """Yields packets, those behind a pause of more than `longest_samples` moved up."""
    moved = 0
    for window in windows:
        left_out = _left_out(window.hole_samples, longest_samples)
        moved_by = moved + np.cumsum(left_out)
        moved = int(moved_by[-1])
        yield replace(
            window,
            start_sample=window.start_sample - moved_by,
            hole_samples=window.hole_samples - left_out,
            left_out_samples=left_out,
        )


class MovedUp:
    """Where in a file that leaves out pauses lies what is at a place of the whole one."""

    def __init__(self, longest_samples: int) -> None:
        """Args: longest_samples: longer pauses are left out."""
        self._longest_samples = longest_samples
        self._from_sample: list[int] = []
        """In the midst of each pause of the whole file that is left out."""
        self._moved_samples: list[int] = []

    def note(self, windows: Iterable[PlacedPackets]) -> Iterator[PlacedPackets]:
        """Yields packets as they are, all of a track; once."""
        for window in windows:
            left_out = _left_out(window.hole_samples, self._longest_samples)
            for packet in np.flatnonzero(left_out).tolist():
                hole = int(window.hole_samples[packet])
                self._from_sample.append(int(window.start_sample[packet]) - hole // 2)
                self._moved_samples.append(int(left_out[packet]))
            yield window

    def place(self, samples: Ints) -> Ints:
        """Returns the places in the file of places in the whole one."""
        moved: Ints = np.cumsum([0, *self._moved_samples])
        places: Ints = samples - moved[np.searchsorted(self._from_sample, samples, side="right")]
        return places


def _left_out(hole_samples: Ints, longest_samples: int) -> Ints:
    kept = min(longest_samples, _KEPT_SAMPLES)
    return np.where(hole_samples > longest_samples, hole_samples - kept, 0)
