"""What a sender says: markers, noise, and the Opus packets of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tests.support.builders import APPLICATION_AUDIO, SAMPLE_RATE_HZ, encode_opus
from tests.support.simulation.sender import Ints, Sender, Wave

MARKER_S = 0.2
_LEAD_S = 0.08
"""Silence encoded around each marker, for the codec to settle."""


@functools.lru_cache(maxsize=4_096)
def chirp(seed: int) -> Wave:
    """Returns a marker's waveform: five sweeps in a row, bands and slopes its own, so that no two
    markers are alike.
    """
    rng = np.random.default_rng([seed, 7])
    count = round(MARKER_S / 5 * SAMPLE_RATE_HZ)
    low, high = rng.uniform(300, 4_000, 5), rng.uniform(4_000, 10_000, 5)
    swap = rng.random(5) < 0.5
    begin, stop = np.where(swap, high, low), np.where(swap, low, high)
    place = np.arange(count) / count
    hz = (begin[:, None] + (stop - begin)[:, None] * place).ravel()
    wave = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ + rng.uniform(0, 6))
    time = np.arange(len(wave)) / SAMPLE_RATE_HZ
    edge = np.clip(np.minimum(time, MARKER_S - time) / 0.01, 0, 1)
    return (0.3 * wave * np.sin(edge * np.pi / 2)).astype(np.float32)


def _noise(seed: int, samples: int) -> Wave:
    return np.random.default_rng([seed, 8]).uniform(-0.15, 0.15, samples).astype(np.float32)


def make_content(sender: Sender) -> list[tuple[int, Wave]]:
    """Returns (first sample, waveform) of all that is said."""
    said = [
        (round(at * SAMPLE_RATE_HZ), chirp(sender.seed * 100_003 + number))
        for number, at in enumerate(sender.markers_s, sender.first_marker)
    ]
    said += [
        (
            round(at * SAMPLE_RATE_HZ),
            _noise(sender.seed * 100_003 + number, round(length * SAMPLE_RATE_HZ)),
        )
        for number, (at, length) in enumerate(sender.sound)
    ]
    return sorted(said, key=lambda item: item[0])


@functools.lru_cache(maxsize=64)
def _silent_packet(packet_ms: float, bitrate_bps: int) -> bytes:
    silence = np.zeros((round(packet_ms * 48) * 6, 1), dtype=np.float32)
    return encode_opus(
        silence, frame_ms=packet_ms, application=APPLICATION_AUDIO, bitrate_bps=bitrate_bps
    )[-1]


def encode_content(
    sender: Sender, said: Sequence[tuple[int, Wave]], count: int
) -> tuple[list[bytes], Ints]:
    """Returns distinct Opus packets, and which of them each of `count` packets is."""
    size = round(sender.packet_ms * 48)
    pool = [_silent_packet(sender.packet_ms, sender.bitrate_bps)]
    which = np.zeros(count, dtype=np.int64)
    lead = -(-round(_LEAD_S * SAMPLE_RATE_HZ) // size)
    windows: list[list[int]] = []
    for at, wave in said:
        first, last = max(0, at // size - lead), min(count, (at + len(wave)) // size + 1 + lead)
        if windows and first <= windows[-1][1]:
            windows[-1][1] = max(last, windows[-1][1])
        else:
            windows.append([first, last])
    for first, last in windows:
        pcm = np.zeros(((last - first) * size, 1), dtype=np.float32)
        for at, wave in said:
            start = at - first * size
            if 0 <= start < len(pcm):
                part = wave[: len(pcm) - start]
                pcm[start : start + len(part), 0] += part
        packets = encode_opus(
            pcm,
            frame_ms=sender.packet_ms,
            application=APPLICATION_AUDIO,
            bitrate_bps=sender.bitrate_bps,
        )
        which[first:last] = len(pool) + np.arange(last - first)
        pool += packets
    return pool, which
