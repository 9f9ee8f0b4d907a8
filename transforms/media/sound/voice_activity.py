"""Finds where a track's owner speaks, by the level of the decoded audio over the noise around it.

The noise of a microphone is what is left when nobody speaks: a low percentile of the levels of the
last half minute, as noise is tracked by minimum statistics (Martin, "Noise Power Spectral Density
Estimation Based on Optimal Smoothing and Minimum Statistics", 2001). Speech stands well above it.
Works window by window, so that memory does not grow with the track.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.sound.levels import CELL_SAMPLES
from transforms.media.units import Ints, Reals

_WINDOW_CELLS = 1_000
"""10 s are judged at a time, by their own noise and that of the two windows before."""
_WINDOWS_BEFORE = 2
_NOISE_PERCENT = 10
_SPEECH_PERCENT = 95
_LEAST_DBFS = -62.0
"""Whoever is quieter than this does not speak to the others."""
_LEAST_MARGIN_DB = 6.0
_MOST_MARGIN_DB = 12.0
_MARGIN_RATIO = 0.35
"""Of the distance between noise and speech: high above a clean floor, less where somebody talks
without a pause.
"""
_LEAST_LOUD_CELLS = 3
"""A click is shorter."""
_JOINED_CELLS = 30
"""Pauses of up to 300 ms belong to the burst: between words, in front of plosives."""
_LEAST_BURST_CELLS = 10
_LOWEST_DB, _HIGHEST_DB = -120, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechBursts:
    """Bursts of speech in order, as parallel arrays: a track of hours has thousands."""

    file_start_sample: Ints
    file_stop_sample: Ints
    server_start_unix_ns: Ints
    server_stop_unix_ns: Ints
    level_dbfs: Reals
    """Mean square of each in dB of full scale, so that a full sine has -3.01."""


@dataclass(slots=True)
class _Burst:
    """One burst of speech, while it is being found."""

    start_cell: int
    stop_cell: int
    file_start_sample: int
    file_stop_sample: int
    server_start_unix_ns: int
    server_stop_unix_ns: int
    energy_before: float
    """Energy of the track before it."""
    energy_until: float


@dataclass(slots=True)
class _Cells:
    """Cells of 10 ms, as parallel arrays."""

    number: Ints
    """Place on a grid of 10 ms in the file."""
    file_sample: Ints
    server_unix_ns: Ints
    level_db: Reals
    """K-weighted."""
    energy: Reals

    def part(self, where: slice) -> _Cells:
        return _Cells(
            self.number[where],
            self.file_sample[where],
            self.server_unix_ns[where],
            self.level_db[where],
            self.energy[where],
        )


class SpeechDetector:
    """Finds bursts of speech in a track given in cells of 10 ms; what is not given is silence."""

    def __init__(self, channels: int) -> None:
        """Args: channels: that the energies were summed over."""
        self._channels = channels
        self._waiting: list[_Cells] = []
        self._waiting_from: int | None = None
        self._histograms: deque[Ints] = deque(maxlen=_WINDOWS_BEFORE)
        self._open: _Burst | None = None
        self._energy = 0.0
        self._found: list[_Burst] = []

    def add(self, file_sample: Ints, server_unix_ns: Ints, weighted: Reals, energy: Reals) -> None:
        """Adds cells in order, none of which overlap.

        Args:
          file_sample: where each begins in the individual file.
          server_unix_ns: and on the server's clock.
          weighted: sum of its K-weighted squares over all channels.
          energy: sum of its squares.
        """
        if not len(file_sample):
            return
        with np.errstate(divide="ignore"):
            level = 10 * np.log10(weighted / (CELL_SAMPLES * self._channels))
        level = np.clip(level, _LOWEST_DB, _HIGHEST_DB)
        cells = _Cells(file_sample // CELL_SAMPLES, file_sample, server_unix_ns, level, energy)
        if self._waiting_from is None:
            self._waiting_from = int(cells.number[0])
        self._waiting.append(cells)
        while (
            self._waiting
            and int(self._waiting[-1].number[-1]) - self._waiting_from >= _WINDOW_CELLS
        ):
            self._judge_window()

    def finish(self, end_sample: int) -> SpeechBursts:
        """Returns all bursts; nothing may be added after.

        Args: end_sample: end of the file, where a last cell may reach beyond it.
        """
        while self._waiting:
            self._judge_window()
        if self._open is not None:
            self._close(self._open)
        found = self._found
        samples = np.array(
            [s.file_stop_sample - s.file_start_sample for s in found], dtype=np.float64
        )
        energy = np.array([s.energy_until - s.energy_before for s in found], dtype=np.float64)
        return SpeechBursts(
            file_start_sample=np.array([s.file_start_sample for s in found], dtype=np.int64),
            file_stop_sample=np.minimum(
                np.array([s.file_stop_sample for s in found], dtype=np.int64), end_sample
            ),
            server_start_unix_ns=np.array([s.server_start_unix_ns for s in found], dtype=np.int64),
            server_stop_unix_ns=np.array([s.server_stop_unix_ns for s in found], dtype=np.int64),
            level_dbfs=10 * np.log10(np.maximum(energy, 1e-12) / (samples * self._channels)),
        )

    def _judge_window(self) -> None:
        """Judges the first window of what waits, and keeps the rest."""
        assert self._waiting_from is not None
        names = ("number", "file_sample", "server_unix_ns", "level_db", "energy")
        whole = _Cells(
            *(np.concatenate([getattr(cells, name) for cells in self._waiting]) for name in names)
        )
        stop = int(np.searchsorted(whole.number, self._waiting_from + _WINDOW_CELLS))
        window, rest = whole.part(slice(0, stop)), whole.part(slice(stop, None))
        self._waiting = [rest] if len(rest.number) else []
        self._waiting_from = int(rest.number[0]) if len(rest.number) else None
        histogram = _histogram(window)
        threshold = _threshold_db(sum(self._histograms, histogram))
        self._histograms.append(histogram)
        self._follow(window, window.level_db >= threshold)

    def _follow(self, cells: _Cells, loud: npt.NDArray[np.bool_]) -> None:
        energy_so_far = self._energy + np.concatenate([[0.0], np.cumsum(cells.energy)])
        self._energy = float(energy_so_far[-1])
        follows = np.diff(cells.number, prepend=-2) == 1
        starts = np.flatnonzero(loud & ~(np.concatenate([[False], loud[:-1]]) & follows))
        ends = np.flatnonzero(
            loud & ~(np.concatenate([loud[1:], [False]]) & np.concatenate([follows[1:], [False]]))
        )
        for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
            start_cell, stop_cell = int(cells.number[first]), int(cells.number[last]) + 1
            at_edge = (
                first == 0 or last == len(loud) - 1
            )  # a part of it may lie in the window beside
            if stop_cell - start_cell < _LEAST_LOUD_CELLS and not at_edge:
                continue
            file_stop = int(cells.file_sample[last]) + CELL_SAMPLES
            server_stop = int(cells.server_unix_ns[last]) + 10_000_000
            if self._open is not None and start_cell - self._open.stop_cell <= _JOINED_CELLS:
                self._open.stop_cell, self._open.file_stop_sample = stop_cell, file_stop
                self._open.server_stop_unix_ns, self._open.energy_until = (
                    server_stop,
                    float(energy_so_far[last + 1]),
                )
                continue
            if self._open is not None:
                self._close(self._open)
            self._open = _Burst(
                start_cell=start_cell,
                stop_cell=stop_cell,
                file_start_sample=int(cells.file_sample[first]),
                file_stop_sample=file_stop,
                server_start_unix_ns=int(cells.server_unix_ns[first]),
                server_stop_unix_ns=server_stop,
                energy_before=float(energy_so_far[first]),
                energy_until=float(energy_so_far[last + 1]),
            )

    def _close(self, burst: _Burst) -> None:
        self._open = None
        if burst.stop_cell - burst.start_cell >= _LEAST_BURST_CELLS:
            self._found.append(burst)


def _histogram(cells: _Cells) -> Ints:
    """Returns how many cells have each level, by the dB.

    Where a sender paused for less than a second (DTX), the noise went on as it was before.
    """
    pause = np.diff(cells.number, append=cells.number[-1] + 1)
    weight = np.where(pause <= 100, pause, 1)
    counts: Ints = np.bincount(
        (cells.level_db - _LOWEST_DB).astype(np.int64),
        weights=weight,
        minlength=_HIGHEST_DB - _LOWEST_DB + 1,
    ).astype(np.int64)
    return counts


def _threshold_db(histogram: Ints) -> float:
    """Returns the level from which on a cell is speech."""
    share = np.cumsum(histogram) / max(1, int(histogram.sum()))
    noise = float(np.searchsorted(share, _NOISE_PERCENT / 100) + _LOWEST_DB)
    speech = float(np.searchsorted(share, _SPEECH_PERCENT / 100) + _LOWEST_DB)
    margin = min(max(_MARGIN_RATIO * (speech - noise), _LEAST_MARGIN_DB), _MOST_MARGIN_DB)
    return max(noise + margin, _LEAST_DBFS)
