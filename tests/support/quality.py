"""What is measured of how a call sounds: PESQ under loss, steps at joins, samples at full scale.

Shared by the tests and by the benchmarks. Everything goes the way of a real call: built segments
are dumped, put in an archive, unpacked, placed and decoded by the project's own code; only the
reference (`decode_plainly`) is written here.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soxr

from tests.support.builders import (
    SAMPLE_RATE_HZ,
    Participant,
    Pcm,
    Segment,
    encode_opus,
    make_call_archive,
)
from tests.support.media import SAMPLES, open_in, part_files, unpack
from transforms.media.extract_track import load_parts
from transforms.media.opus.libopus import OpusDecoder
from transforms.media.sound.decode import Repairs, decode_track
from transforms.media.sound.mix import TrackPlayer, mix_tracks
from transforms.media.sound.place import place_audio
from transforms.media.track.lanes import plan_lanes
from transforms.media.track.timeline import place_packets
from transforms.media.values import PartFiles

LOOK_AHEAD_SAMPLES = 312
FADE_SAMPLES = 240
"""5 ms, and not taken from the code under test."""
CONCEALED_SAMPLES = 4_800
"""The design's "about 100 ms" of concealment, then silence."""
PESQ_RATE_HZ = 16_000
SPEAKERS = ("alice", "bob", "carol")
"""Who is taken of `samples/weekly_sync.tar.gz`."""
SPEECH_SECONDS = 20.0
"""How much of each: sentences with pauses between, 24 dB below full scale."""
BITRATE_BPS = 32_000
EXPECTED_LOSS_PERCENT = 10
"""What encoders are told: libopus weighs it against the bit rate, and sends no FEC (LBRR) when it
is told too little.
"""


# --- decoding -------------------------------------------------------------------------------------


def decode_parts(folder: Path, parts: Sequence[PartFiles], channels: int = 1) -> Pcm:
    """Returns one track as the mix holds it before the limiter, but for what sounds at the same
    time: sample 0 is its first, the codec's look-ahead dropped.

    Args:
      folder: where the parts are staged.
      parts: all of one track.
      channels: of what is returned, 1 or 2.
    """

    def open_packets(part: int) -> BinaryIO:
        return open_in(folder)(parts[part].packets)

    pieces = plan_lanes(load_parts(parts, open_in(folder)), open_packets).lanes[0]
    packets = place_packets(pieces, open_packets)
    audio = place_audio(
        decode_track(packets, channels, Repairs()), pieces, pieces[0].clock.server_start_unix_ns
    )
    return np.concatenate(list(mix_tracks([TrackPlayer(audio)], channels)))


def decode_archive(data: bytes, channels: int = 1) -> dict[str, Pcm]:
    """Returns the tracks of an archive as `decode_parts` does, by participant; nothing in it may
    fail.
    """
    with tempfile.TemporaryDirectory() as name:
        unpacked = unpack(data, Path(name))
        if unpacked.findings:
            raise ValueError(f"the archive has findings: {unpacked.findings}")
        people = [
            session.key.participant_id
            for session in unpacked.sessions
            for part in session.parts
            if part.packets_file
        ]
        return {
            # The microphone's track comes before the shared screen's.
            who: decode_parts(Path(name), [files], channels)
            for who, files in reversed(list(zip(people, part_files(unpacked), strict=True)))
        }


def decode_segments(*segments: Segment, channels: int = 1) -> Pcm:
    """Returns what a participant who sent these segments is heard as."""
    (pcm,) = decode_archive(
        make_call_archive([Participant(participant_id="a", segments=segments)]), channels
    ).values()
    return pcm


def decode_plainly(
    packets: Sequence[bytes],
    lost: Collection[int] = (),
    *,
    packet_samples: int | Sequence[int] = 960,
    channels: int = 1,
) -> Pcm:
    """Returns what the loop of libopus's own documentation gives, to compare ours with.

    For a lost packet: when the next one is there, what that carries of it (`opus_decode(next,
    fec=1)`), which without a copy is concealment; else concealment (`opus_decode(NULL)`), for as
    long as the loss lasts.

    Args:
      packets: without a pause, the lost ones too.
      lost: indices of those that are not looked at.
      packet_samples: how long a packet lasts, or each of them.
      channels: of what is returned, 1 or 2.
    """
    decoder = OpusDecoder(channels)
    durations = (
        [packet_samples] * len(packets) if isinstance(packet_samples, int) else packet_samples
    )
    blocks = []
    for number, (packet, duration) in enumerate(zip(packets, durations, strict=True)):
        if number not in lost:
            pcm = decoder.decode(packet, duration)
        elif number + 1 < len(packets) and number + 1 not in lost:
            pcm = decoder.decode(packets[number + 1], duration, fec=True)
        else:
            pcm = decoder.decode(None, duration)
        if pcm is None:
            raise ValueError(f"libopus refuses packet {number}")
        blocks.append(pcm)
    return np.concatenate(blocks)[LOOK_AHEAD_SAMPLES:]


@functools.cache
def speakers(seconds: float = SPEECH_SECONDS) -> dict[str, Pcm]:
    """Returns the beginning of what `SPEAKERS` say in the sample call: synthesised speech as a
    browser encoded it.

    float32, (samples, 1), 48 kHz, peaks at 0.5. It has been through Opus once, at 28 kbit/s and
    without a loss.
    """
    tracks = decode_archive((SAMPLES / "weekly_sync.tar.gz").read_bytes())
    return {who: tracks[who][: round(seconds * SAMPLE_RATE_HZ)] for who in SPEAKERS}


# --- losses ---------------------------------------------------------------------------------------


@functools.cache
def sentences() -> tuple[Pcm, ...]:
    """Returns a sentence of each speaker, cut where it begins and ends: where its level comes
    within 35 dB of its loudest.
    """
    found = []
    # Well within the pauses around one of each, looked up in a plot of their waveforms.
    for voice, (start_s, stop_s) in zip(
        speakers().values(), ((4.8, 9.5), (4.8, 10.6), (5.4, 10.5)), strict=True
    ):
        clip = voice[round(start_s * SAMPLE_RATE_HZ) : round(stop_s * SAMPLE_RATE_HZ)]
        level = np.sqrt(np.square(clip[: len(clip) // 480 * 480, 0]).reshape(-1, 480).mean(axis=1))
        heard = np.flatnonzero(level > level.max() * 10 ** (-35 / 20))
        found.append(clip[heard[0] * 480 : (heard[-1] + 1) * 480])
    return tuple(found)


def random_losses(count: int, percent: float, seed: int) -> frozenset[int]:
    """Returns which of `count` packets are lost, each by the same chance; the first and the last
    never are.
    """
    drawn = np.random.default_rng(seed).random(count) * 100 < percent
    return frozenset(np.flatnonzero(drawn[1:-1]) + 1)


def burst_losses(count: int, burst_packets: int, every_packets: int, seed: int) -> frozenset[int]:
    """Returns which of `count` packets are lost: a burst in every `every_packets`, at a
    random place in it.
    """
    if burst_packets > every_packets - 2:
        raise ValueError(f"a burst of {burst_packets} does not fit into {every_packets} packets")
    draw = np.random.default_rng(seed)
    lost: set[int] = set()
    for start in range(0, count - every_packets + 1, every_packets):
        first = start + 1 + int(draw.integers(every_packets - burst_packets - 1))
        lost.update(range(first, first + burst_packets))
    return frozenset(lost)


# --- PESQ -----------------------------------------------------------------------------------------


def pesq_wide_band(reference: Pcm, degraded: Pcm) -> float:
    """Returns PESQ wide-band (ITU-T P.862.2), 1.0 to 4.64, of two recordings at 48 kHz of the same
    length.
    """
    from pesq import (
        pesq,
    )  # here, so that the other measures work where it is not installed: it needs a C compiler

    if reference.shape != degraded.shape:
        raise ValueError(
            f"the reference has shape {reference.shape}, what is judged {degraded.shape}"
        )
    sides = [
        soxr.resample(pcm[:, 0], SAMPLE_RATE_HZ, PESQ_RATE_HZ, quality="VHQ")
        for pcm in (reference, degraded)
    ]
    return float(pesq(PESQ_RATE_HZ, *sides, "wb"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LossScore:
    """One speaker heard through one pattern of losses, against the same stream heard whole."""

    speaker: str
    seed: int
    fec: bool
    packets: int
    packets_lost: int
    ours: float
    """PESQ wide-band of what the mix holds."""
    plain: float
    """PESQ wide-band of `decode_plainly` over the same losses."""


def pesq_under_loss(
    *,
    fec: bool,
    loss_percent: float = 5,
    seeds: Iterable[int] = range(4),
    seconds: float = SPEECH_SECONDS,
    frame_ms: float = 20,
    bitrate_bps: int = BITRATE_BPS,
    complexity: int = 5,
    burst_ms: float | None = None,
) -> tuple[LossScore, ...]:
    """Scores every speaker with every seed.

    Args:
      fec: whether the sender adds in-band FEC; it is told to expect 10 % of loss either way.
      loss_percent: of the packets.
      seeds: of the losses.
      seconds: how much speech of each.
      frame_ms: duration of a packet.
      bitrate_bps: of the sender.
      complexity: of the sender, 0 to 10; browsers take 9 on a desktop and 5 on a phone.
      burst_ms: None loses packets one by one; else they are lost in bursts of that length, as often
        as `loss_percent` says.
    """
    scores = []
    packet_samples = round(frame_ms * SAMPLE_RATE_HZ / 1000)
    for who, speech in speakers(seconds).items():
        packets = encode_opus(
            speech,
            frame_ms=frame_ms,
            bitrate_bps=bitrate_bps,
            fec=fec,
            expected_loss_percent=EXPECTED_LOSS_PERCENT,
            complexity=complexity,
        )
        whole = decode_segments(Segment(packets=packets, packet_samples=packet_samples))
        for seed in seeds:
            if burst_ms is None:
                lost = random_losses(len(packets), loss_percent, seed)
            else:
                burst = round(burst_ms / frame_ms)
                lost = burst_losses(len(packets), burst, round(burst * 100 / loss_percent), seed)
            ours = decode_segments(
                Segment(packets=packets, packet_samples=packet_samples, lost=lost)
            )
            plain = decode_plainly(packets, lost, packet_samples=packet_samples)
            scores.append(
                LossScore(
                    speaker=who,
                    seed=seed,
                    fec=fec,
                    packets=len(packets),
                    packets_lost=len(lost),
                    ours=pesq_wide_band(whole, ours),
                    plain=pesq_wide_band(whole, plain),
                )
            )
    return tuple(scores)


def mean_scores(scores: Sequence[LossScore]) -> dict[str, tuple[float, float]]:
    """Returns the mean (ours, plain) of each speaker, and of everyone as `all`."""
    people = dict.fromkeys(score.speaker for score in scores)
    groups = {who: [score for score in scores if score.speaker == who] for who in people} | {
        "all": list(scores)
    }
    return {
        who: (
            float(np.mean([score.ours for score in group])),
            float(np.mean([score.plain for score in group])),
        )
        for who, group in groups.items()
    }


# --- steps and full scale -------------------------------------------------------------------------


def largest_step(pcm: Pcm, start_sample: int = 0, stop_sample: int | None = None) -> float:
    """Returns the largest difference of two samples next to each other that lie in that range, over
    all channels.
    """
    part = pcm[max(start_sample, 0) : stop_sample].astype(np.float64)
    return float(np.abs(np.diff(part, axis=0)).max(initial=0.0))


def clean_step(*wholes: Pcm) -> float:
    """Returns the largest step that audio may have where it was cut and faded: its own, heard
    whole, and the fade's.

    A raised cosine of 5 ms is steepest in its middle: pi / 2 by its length.
    """
    own = max(largest_step(whole) for whole in wholes)
    peak = max(float(np.abs(whole).max()) for whole in wholes)
    return own + peak * np.pi / 2 / FADE_SAMPLES


def lag_in_samples(heard: Pcm, sent: Pcm) -> int:
    """Returns by how many samples `heard` comes later than `sent`, by the phase of their first
    channels from 300 to 6,000 Hz.

    Every frequency counts alike, so that it is exact for speech too: a plain correlation is misled
    by its few loud harmonics and by the encoder's high-pass.
    """
    size = 1 << (len(heard) + len(sent)).bit_length()
    product = np.fft.rfft(heard[:, 0], size) * np.conj(np.fft.rfft(sent[:, 0], size))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    product = np.where((hertz > 300) & (hertz < 6_000), product / (np.abs(product) + 1e-9), 0)
    found = int(np.fft.irfft(product, size).argmax())
    return found if found < size // 2 else found - size


def full_scale_samples(audio: npt.NDArray[np.int16]) -> int:
    """Returns how many 16-bit samples are as large as they can be."""
    return int(((audio == 32_767) | (audio == -32_768)).sum())


def runs_of(samples: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yields the unbroken runs of some numbers as half-open ranges, in order."""
    ordered = sorted(samples)
    start = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at] != ordered[at - 1] + 1:
            yield ordered[start], ordered[at - 1] + 1
            start = at
