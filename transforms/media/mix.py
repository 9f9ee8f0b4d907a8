"""Sums tracks block by block at unity gain and keeps the sum under a ceiling."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt
import soxr

from transforms.media.clock import ns_to_samples, samples_to_ns
from transforms.media.decode import FADE_SAMPLES, Chunk, Pcm, ramp
from transforms.media.opus import SAMPLE_RATE_HZ
from transforms.media.timeline import Piece

BLOCK_SAMPLES = SAMPLE_RATE_HZ
CEILING = 10 ** (-1 / 20)
"""-1 dBFS: what lossy coding adds on top of a limited signal stays below full scale."""
_MOST_DRIFT_SAMPLES = 6
"""Skew is made up for when a track has drifted by this much (0.125 ms): to resample all of it costs a third of decoding it."""
_MOST_BEND_SAMPLES = 12
"""Where the clock bends by less in sound that runs on, the sound runs on."""
_LEAST_CONTEXT_SAMPLES = 512
"""What the resampler has to hear on both sides of what it is to change."""
_CELL_SAMPLES = 48
"""The limiter's gain is worked out once per ms."""
_ATTACK_CELLS = 5
_RELEASE_PER_CELL = float(np.exp(-1 / 80))
"""Gain comes back with a time constant of 80 ms."""


def place_audio(chunks: Iterable[Chunk], pieces: Sequence[Piece], origin_unix_ns: int) -> Iterator[tuple[int, Pcm]]:
    """Yields a track's audio on the call's line as (first sample, PCM): in order, not overlapping, at the server's rate.

    Audio that runs on unbroken is kept in step with its clock, so skew never accumulates and nothing clicks; each stretch after
    a hole begins at its own server time.

    Args:
      chunks: on media time, in order; of about a second where audio runs on, as `decode_track` gives them.
      pieces: what maps media time to server time.
      origin_unix_ns: server time of sample 0.
    """
    cursor = 0
    held: tuple[int, Pcm] | None = None  # handed out once it is known whether it has to end
    for stretch in _unbroken(chunks, pieces):
        first = next(stretch)
        start = ns_to_samples(pieces[first.piece].server_unix_ns(first.media_sample) - origin_unix_ns)
        # Where the stretch before reaches further than its clock says, that much is left out here: both are cut in full sound.
        is_cut = start < cursor
        if held is not None:
            yield (held[0], _faded(held[1][::-1])[::-1]) if is_cut else held
            held = None
        for pcm in _in_step(itertools.chain([first], stretch), pieces, start, origin_unix_ns):
            skipped = min(max(cursor - start, 0), len(pcm))
            heard = pcm[skipped:]
            if len(heard):
                if is_cut:
                    heard, is_cut = _faded(heard), False
                if held is not None and len(heard) < FADE_SAMPLES:  # too short to fade by itself
                    held = (held[0], np.concatenate([held[1], heard]))
                else:
                    if held is not None:
                        yield held
                    held = (start + skipped, heard)
            start += len(pcm)
            cursor = max(cursor, start)
    if held is not None:
        yield held


def _faded(pcm: Pcm) -> Pcm:
    """Returns audio that comes in softly."""
    fade = min(FADE_SAMPLES, len(pcm))
    faded: Pcm = np.concatenate([pcm[:fade] * ramp(fade)[:, None], pcm[fade:]])
    return faded


def _unbroken(chunks: Iterable[Chunk], pieces: Sequence[Piece]) -> Iterator[Iterator[Chunk]]:
    """Groups chunks that follow each other without a hole; each group is used up before the next is asked for."""
    source = iter(chunks)
    ahead = next(source, None)

    def run(first: Chunk) -> Iterator[Chunk]:
        nonlocal ahead
        current: Chunk | None = first
        while current is not None:
            yield current
            end = current.media_sample + len(current.pcm)
            ahead = next(source, None)
            follows = ahead is not None and ahead.media_sample == end and _runs_on(pieces, current.piece, ahead.piece, end)
            current = ahead if follows else None

    while ahead is not None:
        yield run(ahead)


def _runs_on(pieces: Sequence[Piece], piece: int, following: int, media_sample: int) -> bool:
    """Whether sound that goes on from one piece to another at a sample does so in server time, too."""
    before, after = pieces[piece], pieces[following]
    if piece == following:
        return True
    apart_ns = after.server_unix_ns(media_sample) - before.server_unix_ns(media_sample)
    return after.run is before.run and abs(apart_ns) <= samples_to_ns(_MOST_BEND_SAMPLES)


def _in_step(stretch: Iterable[Chunk], pieces: Sequence[Piece], start: int, origin_unix_ns: int) -> Iterator[Pcm]:
    """Yields audio that runs on from sample `start`: never further off its clock than about 0.2 ms, however long it is.

    Blocks pass as they are until the drift is too large; then one is made longer or shorter by whole samples, as many as bring
    it to the other side. The pitch changes by a hundredth of a semitone within it.
    """
    end = start
    for chunk in stretch:
        piece = pieces[chunk.piece]
        end += len(chunk.pcm)
        begun = (piece.server_unix_ns(chunk.media_sample) - origin_unix_ns) * (SAMPLE_RATE_HZ / 1e9)
        drift = begun + len(chunk.pcm) * piece.clock.stretch - end
        samples = round(drift + math.copysign(_MOST_DRIFT_SAMPLES, drift))
        # A short block is left to the next one, or is the last.
        has_room = len(chunk.pcm) >= (abs(samples) + 2) * _LEAST_CONTEXT_SAMPLES
        if abs(drift) <= _MOST_DRIFT_SAMPLES or not has_room:
            yield chunk.pcm
            continue
        end += samples
        yield lengthened(chunk.pcm, samples)


def lengthened(pcm: Pcm, samples: int) -> Pcm:
    """Returns audio that is longer by whole samples (shorter by negative ones), its edges as they were.

    The part resampled is so long that a sample comes out on every sample's place at both its ends, and so nothing clicks.
    """
    context = len(pcm) // (abs(samples) + 2)
    first = (len(pcm) - abs(samples) * context) // 2
    stop = first + abs(samples) * context
    sign = 1 if samples > 0 else -1
    changed = soxr.resample(pcm[first - context : stop + context], context, context + sign)
    kept = changed[context + sign :][: stop - first + samples]
    return np.concatenate([pcm[:first], kept, pcm[stop:]])


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
        """Returns what falls into the block that begins at `start_sample`, as (place in the block, PCM)."""
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


def mix_tracks(players: Sequence[TrackPlayer], channels: int, pool: Executor | None = None) -> Iterator[Pcm]:
    """Yields the sum of all tracks in blocks of `BLOCK_SAMPLES`, the last one shorter.

    Args:
      players: one per track.
      channels: of the mix; mono tracks sound on both sides of a stereo mix.
      pool: threads that decode the next block while the caller is busy with this one; None decodes when asked. The sum is
        made in the order of the tracks, so both give the same samples.
    """
    start = 0
    playing = list(players)
    found = _take_all(playing, start, pool)
    while playing:
        taken = [parts() for parts in found]
        still = [player for player in playing if not player.has_ended]
        block = np.zeros((BLOCK_SAMPLES, channels), dtype=np.float32)
        for parts in taken:
            for place, pcm in parts:
                block[place : place + len(pcm)] += pcm
        if not still:
            block = block[: max(player.end_sample for player in players) - start]
        playing, start = still, start + BLOCK_SAMPLES
        found = _take_all(playing, start, pool)
        yield block


def _take_all(
    players: Sequence[TrackPlayer], start_sample: int, pool: Executor | None
) -> list[Callable[[], list[tuple[int, Pcm]]]]:
    """Has each track's part of a block made, at once on threads or when it is asked for."""
    if pool is None:
        return [functools.partial(player.take, start_sample) for player in players]
    return [pool.submit(player.take, start_sample).result for player in players]


class Limiter:
    """A look-ahead limiter: gain falls within 5 ms before a peak, comes back slowly, and is 1 exactly while nothing is near.

    Gain is set per cell of 1 ms and runs straight between cells, so no sample passes the ceiling. Output lags by the
    look-ahead; `flush` gives the rest.
    """

    def __init__(self, channels: int) -> None:
        self._held = np.zeros((0, channels), dtype=np.float32)
        self._gain = 1.0
        """Gain at the edge where the held audio begins."""
        self.limited_samples = 0

    def process(self, block: Pcm) -> Pcm:
        """Returns limited audio, as much as the look-ahead allows."""
        return self._run(np.concatenate([self._held, block]), keep_cells=_ATTACK_CELLS + 1)

    def flush(self) -> Pcm:
        """Returns what is left."""
        return self._run(self._held, keep_cells=0)

    def _run(self, audio: Pcm, keep_cells: int) -> Pcm:
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
        # An edge lies between two cells and must suit both; ramps reach down to it over the cells before.
        edges = np.minimum(np.append(target, 1.0), np.insert(target, 0, 1.0))
        slopes = np.ones_like(edges)
        for back in range(1, _ATTACK_CELLS + 1):
            weight = back / (_ATTACK_CELLS + 1)
            slopes[:-back] = np.minimum(slopes[:-back], edges[back:] + (1.0 - edges[back:]) * weight)
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


def to_pcm16(audio: Pcm) -> npt.NDArray[np.int16]:
    """Returns 16-bit samples, shape kept; float32 full scale 1.0 becomes 32767."""
    samples: npt.NDArray[np.int16] = np.clip(np.rint(audio * 32767.0), -32768, 32767).astype(np.int16)
    return samples
