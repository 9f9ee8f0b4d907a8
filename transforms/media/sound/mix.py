"""Sums the tracks of a call block by block at unity gain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.media.units import SAMPLE_RATE_HZ, Pcm

BLOCK_SAMPLES = SAMPLE_RATE_HZ
_QUIET_BLOCKS = 2
"""Of blocks in which no track has anything so many are handed out as zeros: time for what comes
behind, such as the limiter, to come to rest.
"""


@dataclass(frozen=True, slots=True)
class Silence:
    """Stands for blocks in which no track has anything."""

    samples: int
    """A multiple of `BLOCK_SAMPLES`."""


class TrackPlayer:
    """Hands out one track's audio block by block."""

    def __init__(self, audio: Iterator[tuple[int, Pcm]]) -> None:
        """Args: audio: (first sample, PCM) in order, as `place_audio` yields it."""
        self._audio = audio
        self._rest: tuple[int, Pcm] | None = None
        self.has_ended = False
        self.end_sample = 0
        """End of what was handed out so far."""

    def take(self, start_sample: int) -> list[tuple[int, Pcm]]:
        """Returns what falls into the block that begins at a sample, as (place in it, PCM)."""
        parts: list[tuple[int, Pcm]] = []
        while True:
            found = self._rest or next(self._audio, None)
            self._rest = None
            if found is None:
                self.has_ended = True
                return parts
            at, pcm = found
            if at < start_sample:  # before the line begins, or reaching back over an overlap
                pcm, at = pcm[start_sample - at :], start_sample
            place = at - start_sample
            if place >= BLOCK_SAMPLES:
                self._rest = (at, pcm)
                return parts
            part = pcm[: BLOCK_SAMPLES - place]
            parts.append((place, part))
            self.end_sample = at + len(part)
            if len(part) < len(pcm):
                self._rest = (self.end_sample, pcm[len(part) :])
                return parts

    @property
    def next_sample(self) -> int:
        """Where the audio goes on behind the block taken last. Not once it has ended."""
        assert self._rest is not None
        return self._rest[0]


def _no_threads() -> None:
    return None


def mix_tracks(
    players: Sequence[TrackPlayer],
    channels: int,
    pool_now: Callable[[], Executor | None] = _no_threads,
) -> Iterator[Pcm | Silence]:
    """Yields the sum of all tracks in blocks of `BLOCK_SAMPLES`, the last one shorter.

    Where no track has anything for longer, one `Silence` stands for the blocks: what is not there
    costs nothing.

    Args:
      players: one per track.
      channels: of the mix; mono tracks sound on both sides of a stereo mix.
      pool_now: asked for each block, gives threads that decode it while the caller is busy with
        the one before; None decodes when asked. The sum is made in the order of the tracks, so both
        give the same samples.
    """
    start = quiet = 0
    playing = list(players)
    found = _take_all(playing, start, pool_now())
    while playing:
        taken = [parts() for parts in found]
        still = [player for player in playing if not player.has_ended]
        block = np.zeros((BLOCK_SAMPLES, channels), dtype=np.float32)
        for parts in taken:
            for place, pcm in parts:
                block[place : place + len(pcm)] += pcm
        if not still:
            block = block[: max(player.end_sample for player in players) - start]
        quiet = 0 if any(taken) else quiet + 1
        playing, start = still, start + BLOCK_SAMPLES
        silent = 0
        if playing and quiet >= _QUIET_BLOCKS:
            ahead = min(player.next_sample for player in playing) - start
            silent = ahead - ahead % BLOCK_SAMPLES
            start += silent
        found = _take_all(playing, start, pool_now())
        yield block
        if silent:
            yield Silence(silent)


def _take_all(
    players: Sequence[TrackPlayer], start_sample: int, pool: Executor | None
) -> list[Callable[[], list[tuple[int, Pcm]]]]:
    """Has each track's part of a block made, at once on threads or when it is asked for."""
    if pool is None:
        return [functools.partial(player.take, start_sample) for player in players]
    return [pool.submit(player.take, start_sample).result for player in players]


def to_pcm16(audio: Pcm) -> npt.NDArray[np.int16]:
    """Returns 16-bit samples, shape kept; float32 full scale 1.0 becomes 32767."""
    samples: npt.NDArray[np.int16] = np.clip(np.rint(audio * 32767.0), -32768, 32767).astype(
        np.int16
    )
    return samples
