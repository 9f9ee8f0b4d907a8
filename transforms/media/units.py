"""The units of numbers (samples at 48 kHz, nanoseconds), and the array types they come in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 48_000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000
NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Pcm = npt.NDArray[np.float32]
"""float32, (samples, channels), full scale 1.0."""


def samples_to_ns(samples: int) -> int:
    """Returns the length of `samples` at 48 kHz in ns, rounded to the nearest."""
    return (samples * NS_PER_SECOND + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ


def ns_to_samples(ns: int) -> int:
    """Returns how many samples at 48 kHz last `ns`, rounded to the nearest."""
    return (ns * SAMPLE_RATE_HZ + NS_PER_SECOND // 2) // NS_PER_SECOND
