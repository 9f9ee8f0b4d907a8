"""Finds markers in decoded audio, to a fraction of a sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.support.builders import SAMPLE_RATE_HZ, Pcm
from tests.support.simulation.sender import Wave
from tests.support.simulation.sending import Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerMatch:
    """Where a marker was found."""

    error_ms: float
    """How much later than it belongs; meaningless unless found."""
    gain: float
    """Its level relative to what was sent: 1 unchanged, 2 when it sounds twice at once."""
    likeness: float
    """Correlation with what was sent, 0 to 1."""

    @property
    def is_found(self) -> bool:
        return self.likeness > 0.3


def measure(
    pcm: Pcm, first_unix_ns: float, markers: Iterable[Marker], *, reach_s: float = 0.5
) -> list[MarkerMatch]:
    """Returns where each marker is in decoded audio.

    Args:
      pcm: float32, (samples, channels); the first channel is listened to.
      first_unix_ns: server time of its first sample.
      markers: what to look for.
      reach_s: how far from its place each is looked for.
    """
    return [
        locate(
            pcm, (marker.unix_ns - first_unix_ns) * SAMPLE_RATE_HZ / 1e9, marker.waveform, reach_s
        )
        for marker in markers
    ]


def locate(pcm: Pcm, expected_sample: float, waveform: Wave, reach_s: float = 0.5) -> MarkerMatch:
    """Returns where a waveform is near a sample of decoded audio, by cross-correlation and a
    parabola through its peak.
    """
    reach = round(reach_s * SAMPLE_RATE_HZ)
    first = round(expected_sample) - reach
    window = np.zeros(len(waveform) + 2 * reach, dtype=np.float64)
    begin, stop = max(first, 0), min(first + len(window), len(pcm))
    if stop > begin:
        window[begin - first : stop - first] = pcm[begin:stop, 0]
    size = 1 << (len(window) - 1).bit_length()
    product = np.fft.rfft(window, size) * np.conj(np.fft.rfft(waveform.astype(np.float64), size))
    correlation = np.fft.irfft(product, size)[: 2 * reach + 1]
    energy = float(np.square(waveform, dtype=np.float64).sum())
    running = np.concatenate([[0.0], np.cumsum(np.square(window))])
    around = running[len(waveform) :] - running[: -len(waveform)]
    peak = int(correlation.argmax())
    likeness = float(correlation[peak] / np.sqrt(energy * max(float(around[peak]), 1e-12)))
    shift = 0.0
    if 0 < peak < len(correlation) - 1:
        left, top, right = correlation[peak - 1 : peak + 2]
        bend = left - 2 * top + right
        shift = float(0.5 * (left - right) / bend) if bend else 0.0
    at = first + peak + shift
    return MarkerMatch(
        error_ms=(at - expected_sample) * 1000 / SAMPLE_RATE_HZ,
        gain=float(correlation[peak] / energy),
        likeness=likeness,
    )
