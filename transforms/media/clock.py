"""Turns RTP time into server time: the lower envelope of the arrivals, and where the sender's media clock stood still.

The server time of a packet is the arrival it would have had with the least network delay. Late packets are the network's
doing and move nothing; a delay that never comes back is the sender's clock standing still (a stalled capture), and is
followed. Rates are taken as nominal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.model import ClockPiece
from transforms.media.opus import SAMPLE_RATE_HZ

NS_PER_SECOND = 1_000_000_000
STEP_NS = 10_000_000
"""A lasting delay below this is not followed: dumps give arrivals in whole ms, and browsers send in 10 ms steps."""
LASTING_NS = NS_PER_SECOND
"""A step must have this much of the run behind it: the last packets of a run cannot tell a late burst from a stall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFit:
    """How one run of media time maps to server time."""

    pieces: tuple[ClockPiece, ...]
    method: str
    """`arrival_envelope`, or `metadata` where the dump has no usable arrivals."""


def samples_to_ns(samples: int) -> int:
    """Returns the length of `samples` at 48 kHz in ns, rounded to the nearest."""
    return (samples * NS_PER_SECOND + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ


def ns_to_samples(ns: int) -> int:
    """Returns a span of time in samples at 48 kHz, rounded to the nearest."""
    return (ns * SAMPLE_RATE_HZ + NS_PER_SECOND // 2) // NS_PER_SECOND


def fit_clock(
    media_sample: npt.NDArray[np.int64],
    duration_samples: npt.NDArray[np.int64],
    arrival_unix_ns: npt.NDArray[np.int64],
) -> ClockFit:
    """Fits one run of one SSRC.

    Args:
      media_sample: unwrapped RTP time of each audio packet in sequence order, counted from the first; shape (packets,).
      duration_samples: each packet's length; a packet arrives once its last sample was captured.
      arrival_unix_ns: server clock at its arrival.
    """
    if media_sample.size == 0:
        raise ValueError("a run without packets has no clock")
    span = int(media_sample[-1])
    if media_sample.size > 1 and span > SAMPLE_RATE_HZ and not np.ptp(arrival_unix_ns):
        # A dump without receive times: only the segment's first arrival is known, from the metadata.
        start = int(arrival_unix_ns[0]) - samples_to_ns(int(duration_samples[0]))
        return ClockFit(pieces=(ClockPiece(media_start_sample=0, server_start_unix_ns=start),), method="metadata")
    media_ns = ((media_sample + duration_samples) * NS_PER_SECOND) // SAMPLE_RATE_HZ
    delay = arrival_unix_ns - media_ns
    # The largest non-decreasing curve under all delays: late packets stay above it, lasting delays lift it.
    envelope = np.minimum.accumulate(delay[::-1])[::-1]
    newest = np.maximum.accumulate(arrival_unix_ns)
    settled = int(np.searchsorted(newest, newest[-1] - LASTING_NS, side="right")) - 1
    envelope = np.minimum(envelope, envelope[max(settled, 0)])
    pieces: list[ClockPiece] = []
    position = 0
    while position < envelope.size:
        level = int(envelope[position])
        start = int(media_sample[position]) if pieces else 0
        pieces.append(ClockPiece(media_start_sample=start, server_start_unix_ns=level + samples_to_ns(start)))
        position = int(np.searchsorted(envelope, level + STEP_NS, side="left"))
    return ClockFit(pieces=tuple(pieces), method="arrival_envelope")
