"""All tracks of a call -> one MP3, and what is heard in each. Runs in a codec process.

Every track is decoded once (twice for a loudness target) and measured (loudness, speech, repairs)
as its audio passes by on the way into the mix. Memory is a block of a second and a window of
packets per track.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.containers.mp3 import Mp3File
from transforms.media.extract_track import MediaFile, load_parts
from transforms.media.job import JobHost
from transforms.media.settings import CompositeSettings, Mp3Settings
from transforms.media.sound.decode import Chunk, Repairs, decode_track
from transforms.media.sound.levels import Cells, LevelMeter
from transforms.media.sound.limiter import Limiter
from transforms.media.sound.mix import TrackPlayer, mix_tracks, to_pcm16
from transforms.media.sound.place import place_audio
from transforms.media.sound.voice_activity import SpeechBursts, SpeechDetector
from transforms.media.track.timeline import Piece, place_packets, plan_pieces
from transforms.media.units import SAMPLE_RATE_HZ, Pcm
from transforms.media.values import PartFiles, Tags

_MOST_THREADS = 8
"""One thread encodes and all share an interpreter: more would wait for each other."""
_MOST_GAIN_DB = 20.0
"""A call in which hardly anything is heard is not blown up into noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackToMix:
    """A track to be heard, as one of a call's."""

    parts: tuple[PartFiles, ...]
    """At least one, with packets."""
    begin_unix_ns: int | None
    """Server time at which its individual file begins; None for that of its first packet."""
    is_mixed: bool
    """Whether it sounds in the mix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSoundStats:
    """What is heard in a track."""

    repairs: Repairs
    loudness_lufs: float | None
    """EBU R128 integrated loudness of the track alone; None when it is silent."""
    peak_dbfs: float | None
    speech: SpeechBursts


@dataclass(frozen=True, slots=True, kw_only=True)
class MixStats:
    """What a mix turned out to be."""

    file: MediaFile
    bitrate_bps: int
    start_unix_ns: int
    """Server time of the file's first sample."""
    loudness_lufs: float | None
    peak_dbfs: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCall:
    """What a call turned out to be."""

    tracks: tuple[TrackSoundStats, ...]
    """In the order the tracks were given."""
    mix: MixStats | None
    """None when none was asked for, or no track is to sound in it."""


def mix_call(
    host: JobHost,
    tracks: tuple[TrackToMix, ...],
    output: Path | None,
    mp3: Mp3Settings,
    composite: CompositeSettings,
    tags: Tags,
    threads: int = 1,
) -> MixedCall:
    """Listens to all tracks of a call, and mixes them into one file that begins with the earliest
    media of all.

    With a loudness target the tracks are decoded twice: the gain is known only when everything was
    heard.

    Args:
      host: gives the staged files, on several threads at a time. Told the samples of each finished
        block of the mix, twice for a loudness target; without a mix those of each block heard of
        any track.
      tracks: each with packets.
      output: the local MP3 to write; None only listens.
      mp3: how to encode it.
      composite: what it is to be like.
      tags: title, artist, date and so on.
      threads: how many cores it may keep busy: with more than one, tracks are decoded on threads
        while the mix is encoded.
    """
    threads = min(threads, len(tracks), _MOST_THREADS)
    with ThreadPoolExecutor(threads) if threads > 1 else contextlib.nullcontext() as pool:
        return _hear(host, tracks, output, mp3, composite, tags, pool)


def _hear(
    host: JobHost,
    tracks: tuple[TrackToMix, ...],
    output: Path | None,
    mp3: Mp3Settings,
    composite: CompositeSettings,
    tags: Tags,
    pool: Executor | None,
) -> MixedCall:
    voices = [_Voice(track, host.open_input) for track in tracks]
    mixed = [voice for voice, track in zip(voices, tracks, strict=True) if track.is_mixed]
    mix = None
    if output is not None and mixed:
        origin = min(voice.first_unix_ns for voice in voices)
        sent = max(voice.channels for voice in mixed)
        wanted = mp3.fixed_channels or sent
        channels, copies = (
            min(sent, wanted),
            -(-wanted // sent),
        )  # voices that are all mono are mixed once for both sides
        gain = 1.0
        if composite.wanted_lufs is not None:
            blocks = _mixed(mixed, origin, channels, pool, is_measured=False)
            gain = _gain_to(
                composite.wanted_lufs,
                blocks,
                LevelMeter(channels, copies),
                host.tell_progress,
            )
        blocks = _mixed(mixed, origin, channels, pool, is_measured=True)
        levels, limiter = LevelMeter(channels, copies), Limiter(channels)
        with Mp3File(output, mp3, wanted, tags) as file:
            for block in _limited(blocks, gain, limiter):
                levels.add(file.samples, block)
                file.write(to_pcm16(block).repeat(copies, axis=1))
                host.tell_progress(len(block))
            levels.end()
        mix = _facts_of(file, output, levels, origin)
    for voice in voices:
        if mix is None or voice not in mixed:
            for chunk in voice.listen():
                if mix is None:
                    host.tell_progress(len(chunk.pcm))
    return MixedCall(tracks=tuple(voice.facts() for voice in voices), mix=mix)


class _Voice:
    """One track being heard."""

    def __init__(self, track: TrackToMix, open_input: Callable[[str], BinaryIO]) -> None:
        self._track = track
        self._open_input = open_input
        indexes = load_parts(track.parts, open_input)
        self._pieces = plan_pieces(indexes)
        self.channels = max(index.channels for index in indexes)
        self.first_unix_ns = self._pieces[0].clock.server_start_unix_ns
        self._ears = _Ears(self._pieces, self.channels)
        self._repairs = Repairs()

    def _decode(self, repairs: Repairs) -> Iterator[Chunk]:
        parts, begin = self._track.parts, self._track.begin_unix_ns
        packets = place_packets(
            self._pieces, lambda part: self._open_input(parts[part].packets), begin
        )
        return decode_track(packets, self.channels, repairs)

    def listen(self) -> Iterator[Chunk]:
        """Yields the track's audio, measuring it; once."""
        return self._ears.listen(self._decode(self._repairs))

    def play(
        self, origin_unix_ns: int, channels: int, *, is_measured: bool
    ) -> Iterator[tuple[int, Pcm]]:
        """Yields the track's audio on the mix's line, in its number of channels or in one."""
        chunks = self.listen() if is_measured else self._decode(Repairs())
        return place_audio(
            _folded(chunks) if self.channels > channels else chunks, self._pieces, origin_unix_ns
        )

    def facts(self) -> TrackSoundStats:
        return self._ears.facts(self._repairs)


class _Ears:
    """Measures a track as its audio passes by."""

    def __init__(self, pieces: Sequence[Piece], channels: int) -> None:
        self._pieces = pieces
        self._levels = LevelMeter(channels)
        self._speech = SpeechDetector(channels)
        self._anchors: list[tuple[int, int, float]] = []
        """Of each unbroken stretch not all told of yet: where it begins in the file, server time
        there, and ns per sample.
        """
        self._piece = -1
        self._end_sample = 0

    def listen(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.piece != self._piece or chunk.file_sample != self._end_sample:
                self._piece = chunk.piece
                piece = self._pieces[chunk.piece]
                server_unix_ns = piece.server_unix_ns(chunk.media_sample)
                self._anchors.append(
                    (
                        chunk.file_sample,
                        server_unix_ns,
                        piece.clock.clock_rate_ratio * 1e9 / SAMPLE_RATE_HZ,
                    )
                )
            self._take(self._levels.add(chunk.file_sample, chunk.pcm))
            self._end_sample = chunk.file_sample + len(chunk.pcm)
            yield chunk
        self._take(self._levels.end())

    def _take(self, cells: Cells) -> None:
        if not len(cells.start_sample):
            return
        begins, server_unix_ns, ns_per_sample = map(np.array, zip(*self._anchors, strict=True))
        of = np.searchsorted(begins, cells.start_sample, side="right") - 1
        past_ns = np.rint((cells.start_sample - begins[of]) * ns_per_sample[of]).astype(np.int64)
        self._speech.add(
            cells.start_sample, server_unix_ns[of] + past_ns, cells.weighted, cells.energy
        )
        del self._anchors[: int(of[-1])]

    def facts(self, repairs: Repairs) -> TrackSoundStats:
        return TrackSoundStats(
            repairs=repairs,
            loudness_lufs=self._levels.loudness_lufs,
            peak_dbfs=self._levels.peak_dbfs,
            speech=self._speech.finish(self._end_sample),
        )


def _folded(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk._replace(pcm=chunk.pcm.mean(axis=1, keepdims=True))


def _mixed(
    voices: Sequence[_Voice],
    origin_unix_ns: int,
    channels: int,
    pool: Executor | None,
    *,
    is_measured: bool,
) -> Iterator[Pcm]:
    players = [
        TrackPlayer(voice.play(origin_unix_ns, channels, is_measured=is_measured))
        for voice in voices
    ]
    return mix_tracks(players, channels, pool)


def _gain_to(
    target_lufs: float,
    blocks: Iterable[Pcm],
    levels: LevelMeter,
    on_progress: Callable[[int], None],
) -> float:
    """Returns the one gain that brings a mix to a loudness."""
    position = 0
    for block in blocks:
        levels.add(position, block)
        position += len(block)
        on_progress(len(block))
    levels.end()
    if levels.loudness_lufs is None:
        return 1.0
    return float(10 ** (min(target_lufs - levels.loudness_lufs, _MOST_GAIN_DB) / 20))


def _limited(blocks: Iterable[Pcm], gain: float, limiter: Limiter) -> Iterator[Pcm]:
    for block in blocks:
        yield limiter.process(block * np.float32(gain) if gain != 1.0 else block)
    yield limiter.flush()


def _facts_of(file: Mp3File, output: Path, levels: LevelMeter, origin_unix_ns: int) -> MixStats:
    with output.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return MixStats(
        file=MediaFile(
            size_bytes=output.stat().st_size,
            sha256=digest,
            duration_samples=file.samples,
            channels=file.channels,
        ),
        bitrate_bps=file.bitrate_bps,
        start_unix_ns=origin_unix_ns,
        loudness_lufs=levels.loudness_lufs,
        peak_dbfs=levels.peak_dbfs,
    )
