"""Puts a track's decoded audio on the call's time line, in step with its clock for hours.

The call's time line is the server's. A sender's clock is some parts in a million faster or slower,
so audio that goes on for long is made longer or shorter by a few samples now and then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import soxr

from transforms.media.sound.decode import FADE_SAMPLES, Chunk, ramp
from transforms.media.track.timeline import Piece
from transforms.media.units import SAMPLE_RATE_HZ, Pcm, ns_to_samples, samples_to_ns

_MOST_DRIFT_SAMPLES = 6
"""Skew is made up for when a track has drifted by this much (0.125 ms): to resample all of it costs
a third of decoding it.
"""
_MOST_BEND_SAMPLES = 12
"""Where the clock bends by less in audio that goes on, the audio goes on."""
_LEAST_CONTEXT_SAMPLES = 512
"""What the resampler needs on both sides of what it is to change."""


def place_audio(
    chunks: Iterable[Chunk], pieces: Sequence[Piece], origin_unix_ns: int
) -> Iterator[tuple[int, Pcm]]:
    """Yields a track's audio on the call's time line as (first sample, PCM).

    It is in order, does not overlap, and has the server's rate. Audio that goes on unbroken is kept
    in step with its clock, so skew never accumulates and nothing clicks; what comes after a hole
    begins at its own server time.

    Args:
      chunks: on media time, in order; of about a second where audio goes on, as `decode_track`
        gives them.
      pieces: what maps media time to server time.
      origin_unix_ns: server time of sample 0.
    """
    cursor = 0
    held: tuple[int, Pcm] | None = None  # handed out once it is known whether it has to end
    for unbroken in _group_unbroken(chunks, pieces):
        first = next(unbroken)
        start = ns_to_samples(
            pieces[first.piece].server_unix_ns(first.media_sample) - origin_unix_ns
        )
        # Where the audio before reaches further than its clock says, that much is left out here:
        # both are cut in full sound.
        is_cut = start < cursor
        if held is not None:
            yield (held[0], _faded(held[1][::-1])[::-1]) if is_cut else held
            held = None
        for pcm in _in_step(itertools.chain([first], unbroken), pieces, start, origin_unix_ns):
            skipped = min(max(cursor - start, 0), len(pcm))
            kept = pcm[skipped:]
            if len(kept):
                if is_cut:
                    kept, is_cut = _faded(kept), False
                if held is not None and len(kept) < FADE_SAMPLES:  # too short to fade by itself
                    held = (held[0], np.concatenate([held[1], kept]))
                else:
                    if held is not None:
                        yield held
                    held = (start + skipped, kept)
            start += len(pcm)
            cursor = max(cursor, start)
    if held is not None:
        yield held


def _faded(pcm: Pcm) -> Pcm:
    """Returns audio that comes in softly."""
    fade = min(FADE_SAMPLES, len(pcm))
    faded: Pcm = np.concatenate([pcm[:fade] * ramp(fade)[:, None], pcm[fade:]])
    return faded


def _group_unbroken(chunks: Iterable[Chunk], pieces: Sequence[Piece]) -> Iterator[Iterator[Chunk]]:
    """Yields chunks that follow each other without a hole, a group at a time.

    Each group is used up before the next is asked for.
    """
    source = iter(chunks)
    ahead = next(source, None)

    def follow_on(first: Chunk) -> Iterator[Chunk]:
        nonlocal ahead
        current: Chunk | None = first
        while current is not None:
            yield current
            end = current.media_sample + len(current.pcm)
            ahead = next(source, None)
            follows = (
                ahead is not None
                and ahead.media_sample == end
                and _goes_on(pieces, current.piece, ahead.piece, end)
            )
            current = ahead if follows else None

    while ahead is not None:
        yield follow_on(ahead)


def _goes_on(pieces: Sequence[Piece], piece: int, following: int, media_sample: int) -> bool:
    """Tells whether audio that goes on from one piece to another does so in server time, too.

    Args:
      pieces: of the track.
      piece: number of the one it comes from.
      following: number of the one it goes on to.
      media_sample: where it goes over.
    """
    before, after = pieces[piece], pieces[following]
    if piece == following:
        return True
    bend_ns = after.server_unix_ns(media_sample) - before.server_unix_ns(media_sample)
    is_slight = abs(bend_ns) <= samples_to_ns(_MOST_BEND_SAMPLES)
    return after.packet_run is before.packet_run and is_slight


def _in_step(
    unbroken: Iterable[Chunk], pieces: Sequence[Piece], start: int, origin_unix_ns: int
) -> Iterator[Pcm]:
    """Yields audio that goes on from sample `start`, never further off its clock than 0.2 ms.

    Blocks pass as they are until the drift is too large; then one is made longer or shorter by
    whole samples, as many as bring it to the other side. The pitch changes by a hundredth of a
    semitone within it.
    """
    end = start
    for chunk in unbroken:
        piece = pieces[chunk.piece]
        end += len(chunk.pcm)
        begun = (piece.server_unix_ns(chunk.media_sample) - origin_unix_ns) * (SAMPLE_RATE_HZ / 1e9)
        drift = begun + len(chunk.pcm) * piece.clock.clock_rate_ratio - end
        samples = round(drift + math.copysign(_MOST_DRIFT_SAMPLES, drift))
        # A short block is left to the next one, or is the last.
        has_room = len(chunk.pcm) >= (abs(samples) + 2) * _LEAST_CONTEXT_SAMPLES
        if abs(drift) <= _MOST_DRIFT_SAMPLES or not has_room:
            yield chunk.pcm
            continue
        end += samples
        yield lengthened(chunk.pcm, samples)


def lengthened(pcm: Pcm, samples: int) -> Pcm:
    """Returns audio made longer by whole samples, or shorter by negative ones; its edges stay.

    The part resampled is so long that a sample comes out on every sample's place at both its ends,
    and so nothing clicks.
    """
    context = len(pcm) // (abs(samples) + 2)
    first = (len(pcm) - abs(samples) * context) // 2
    stop = first + abs(samples) * context
    sign = 1 if samples > 0 else -1
    changed = soxr.resample(pcm[first - context : stop + context], context, context + sign)
    kept = changed[context + sign :][: stop - first + samples]
    return np.concatenate([pcm[:first], kept, pcm[stop:]])
