"""The Opus packets that the material is made of: real speech, encoded by libopus as a browser does.

The voices are those of the shipped sample, repeated, over noise of a microphone at -72 dBFS, so
that no pause is digital silence. Encoded at 32 kbit/s, complexity 9 (a browser's on a desktop), 20
ms, VoIP.
"""

from __future__ import annotations

import functools

import numpy as np

from tests.support.builders import APPLICATION_AUDIO, SAMPLE_RATE_HZ, Pcm, encode_opus
from tests.support.media import SAMPLES
from tests.support.quality import decode_archive

NOISE_AMPLITUDE = 10 ** (-72 / 20) * 3**0.5
"""Of uniform noise at -72 dBFS."""
COMPLEXITY = 9
PACKETS_PER_SECOND = 50
TALK_SECONDS = 600
IN_TURNS_SECONDS = 300
TURN_SECONDS = 5
TURN_EVERY_SECONDS = 50
"""So a tenth of the time is talk."""
STEREO_SECONDS = 60
STEREO_BITRATE_BPS = 256_000
PAUSE_LEVEL_DBFS = -52.0
PAUSE_SECONDS = 0.3
"""What is quieter than that for longer than that is left out of the turns."""


@functools.cache
def talk(number: int) -> tuple[bytes, ...]:
    """Returns 10 minutes of one of four voices: sentences with pauses between, each packet sent."""
    return tuple(
        encode_opus(_with_noise(_voices()[number], TALK_SECONDS, number), complexity=COMPLEXITY)
    )


@functools.cache
def talk_in_turns(number: int) -> tuple[bytes, ...]:
    """Returns 5 minutes of a speaker who talks a tenth of the time; packets that libopus's DTX
    withholds are empty.

    It withholds all but one each 400 ms, from 200 ms after each turn on: 15 % of the packets are
    sent.
    """
    voice = _without_pauses(_voices()[number % 4])
    pcm = _with_noise(np.zeros((1, 1), dtype=np.float32), IN_TURNS_SECONDS, number)
    turn, every = TURN_SECONDS * SAMPLE_RATE_HZ, TURN_EVERY_SECONDS * SAMPLE_RATE_HZ
    # One after the other; of twenty speakers two talk at a time.
    for count, start in enumerate(range(number * every * 7 // 20 % every, len(pcm), every)):
        said = np.roll(voice, -(count + number) * turn, axis=0)[: min(turn, len(pcm) - start)]
        pcm[start : start + len(said)] += said
    # Noise it hears before it ever heard speech, libopus takes for speech; so it hears a turn first
    # that is not sent.
    packets = encode_opus(np.concatenate([voice[:turn], pcm]), complexity=COMPLEXITY, dtx=True)
    return tuple(packets[-IN_TURNS_SECONDS * PACKETS_PER_SECOND :])


@functools.cache
def stereo_talk(number: int) -> tuple[bytes, ...]:
    """Returns a minute of two voices, left and right, at 256 kbit/s."""
    sides = [
        _with_noise(_voices()[(number + side) % 4], STEREO_SECONDS, number + side)
        for side in range(2)
    ]
    pcm = np.concatenate(sides, axis=1)
    return tuple(
        encode_opus(
            pcm,
            application=APPLICATION_AUDIO,
            bitrate_bps=STEREO_BITRATE_BPS,
            complexity=COMPLEXITY,
        )
    )


@functools.cache
def _voices() -> tuple[Pcm, ...]:
    """Returns what the four microphones of the sample heard, half a minute each, in the order of
    names.
    """
    heard = decode_archive((SAMPLES / "weekly_sync.tar.gz").read_bytes())
    return tuple(heard[who] for who in sorted(heard))


def _with_noise(voice: Pcm, seconds: int, seed: int) -> Pcm:
    """Returns a voice, repeated, with noise of its own."""
    shape = (seconds * SAMPLE_RATE_HZ, 1)
    noise = np.random.default_rng(seed).uniform(-NOISE_AMPLITUDE, NOISE_AMPLITUDE, shape)
    return np.resize(voice, shape) + noise.astype(np.float32)


def _without_pauses(voice: Pcm) -> Pcm:
    block = SAMPLE_RATE_HZ // PACKETS_PER_SECOND
    blocks = voice[: len(voice) // block * block].reshape(-1, block)
    level_dbfs = 10 * np.log10(np.square(blocks).mean(axis=1) + 1e-12)
    reach = round(PAUSE_SECONDS * PACKETS_PER_SECOND / 2)
    is_near_talk = np.convolve(level_dbfs > PAUSE_LEVEL_DBFS, np.ones(2 * reach + 1), "same") > 0
    return np.ascontiguousarray(blocks[is_near_talk].reshape(-1, 1))
