"""A limiter that looks ahead: it keeps a mix under its ceiling."""

from __future__ import annotations

import functools

import numpy as np

from transforms.media.units import Pcm

CEILING = 10 ** (-1 / 20)
"""-1 dBFS: what lossy coding adds on top of a limited signal stays below full scale."""
_CELL_SAMPLES = 48
"""The limiter's gain is worked out once per ms."""
_ATTACK_CELLS = 5
_RELEASE_PER_CELL = float(np.exp(-1 / 80))
"""Gain comes back with a time constant of 80 ms."""


class Limiter:
    """A look-ahead limiter for the blocks of one mix.

    Gain falls within 5 ms before a peak, comes back slowly, and is 1 exactly while nothing is near.
    It is set per cell of 1 ms and goes straight between cells, so no sample passes the ceiling.
    Output lags by the look-ahead; `flush` gives the rest.
    """

    def __init__(self, channels: int) -> None:
        self._held = np.zeros((0, channels), dtype=np.float32)
        self._gain = 1.0
        """Gain at the edge where the held audio begins."""
        self.limited_samples = 0

    def process(self, block: Pcm) -> Pcm:
        """Returns limited audio, as much as the look-ahead allows."""
        return self._limit(np.concatenate([self._held, block]), keep_cells=_ATTACK_CELLS + 1)

    def flush(self) -> Pcm:
        """Returns what is left."""
        return self._limit(self._held, keep_cells=0)

    def _limit(self, audio: Pcm, keep_cells: int) -> Pcm:
        """Returns limited audio, and holds back `keep_cells` of it."""
        cells = -(-len(audio) // _CELL_SAMPLES) if not keep_cells else len(audio) // _CELL_SAMPLES
        ready = cells - keep_cells
        if ready <= 0:
            self._held = audio
            return audio[:0]
        out_samples = min(ready * _CELL_SAMPLES, len(audio))
        out = audio[:out_samples]
        self._held = audio[out_samples:]
        if self._gain == 1.0 and max(audio.max(), -audio.min()) <= CEILING:
            return out
        whole = np.abs(audio[: cells * _CELL_SAMPLES])
        padded = np.zeros(cells * _CELL_SAMPLES, dtype=np.float32)
        padded[: len(whole)] = functools.reduce(np.maximum, whole.T)
        peaks = padded.reshape(cells, _CELL_SAMPLES).max(axis=1)
        target = np.minimum(1.0, CEILING / np.maximum(peaks.astype(np.float64), CEILING))
        # An edge lies between two cells and must suit both; ramps reach down to it over the cells
        # before.
        edges = np.minimum(np.append(target, 1.0), np.insert(target, 0, 1.0))
        slopes = np.ones_like(edges)
        for back in range(1, _ATTACK_CELLS + 1):
            weight = back / (_ATTACK_CELLS + 1)
            slopes[:-back] = np.minimum(
                slopes[:-back], edges[back:] + (1.0 - edges[back:]) * weight
            )
        wanted = np.minimum(edges, slopes)
        gains = np.empty(ready + 1)
        gains[0] = min(self._gain, wanted[0])
        for cell in range(1, ready + 1):
            risen = 1.0 - (1.0 - gains[cell - 1]) * _RELEASE_PER_CELL
            gains[cell] = min(wanted[cell], risen if risen < 0.9999 else 1.0)
        self._gain = float(gains[ready])
        steps = np.interp(np.arange(out_samples) / _CELL_SAMPLES, np.arange(ready + 1), gains)
        self.limited_samples += int((steps < 1.0).sum())
        limited: Pcm = (out * steps[:, None]).astype(np.float32)
        return limited
