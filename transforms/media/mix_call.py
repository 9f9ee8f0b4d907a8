"""Mixes all tracks of a call into one MP3, and measures the sound of each.

A job: it runs in a codec process. Every track is decoded once (twice for a loudness target) and
measured (loudness, speech, repairs) as its audio passes by on the way into the mix. Memory is a
block of a second and a window of packets per track.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transforms.media.containers.mp3 import Mp3File
from transforms.media.extract_track import load_parts
from transforms.media.job import JobHost
from transforms.media.lane_file import MediaFile, describe_file
from transforms.media.opus.packet import LOOK_AHEAD_SAMPLES, SHORTEST_FILE_SAMPLES
from transforms.media.settings import CompositeSettings, Mp3Settings
from transforms.media.sound.decode import Chunk, Repairs, decode_track
from transforms.media.sound.levels import Cells, LevelMeter
from transforms.media.sound.limiter import Limiter
from transforms.media.sound.mix import Silence, TrackPlayer, mix_tracks, to_pcm16
from transforms.media.sound.place import place_audio
from transforms.media.sound.voice_activity import SpeechBursts, SpeechDetector
from transforms.media.track.lanes import plan_lanes
from transforms.media.track.pauses import MovedUp
from transforms.media.track.timeline import (
    Piece,
    PlacedPackets,
    file_begin_unix_ns,
    place_packets,
)
from transforms.media.units import SAMPLE_RATE_HZ, Pcm, ns_to_samples
from transforms.media.values import FileTime, PartFiles, Tags

_MOST_THREADS = 8
"""One thread encodes and all share an interpreter: more would wait for each other."""
_ASKING_SECONDS = 1.0
"""Between two questions for how many cores there are: a slot that others wait for is kept so long.
"""
_MOST_GAIN_DB = 20.0
"""A call that is nearly silent is not blown up into noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackToMix:
    """One of a call's tracks, as the job is given it."""

    parts: tuple[PartFiles, ...]
    """At least one, with packets."""
    is_mixed: bool
    """Whether it sounds in the mix."""
    file_times: tuple[FileTime, ...] = ()
    """Of its individual files, one for each lane; none where all begin with their first packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSoundStats:
    """Figures of a track's sound."""

    repairs: Repairs
    loudness_lufs: float | None
    """EBU R128 integrated loudness of the track alone; None when it is silent."""
    peak_dbfs: float | None
    speech: SpeechBursts
    is_encrypted: bool
    """Whether all of it is: nothing can be said of its sound then."""
    beside: tuple[TrackSoundStats, ...] = ()
    """Of what sounds at the same time and has files of its own, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixStats:
    """Figures of a mix, and the file that was written of it."""

    file: MediaFile
    bitrate_bps: int
    start_unix_ns: int
    """Server time of the file's first sample."""
    loudness_lufs: float | None
    peak_dbfs: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCall:
    """What the job gives: the mix, and figures of all tracks."""

    tracks: tuple[TrackSoundStats, ...]
    """In the order the tracks were given; none where no figures were wanted."""
    mix: MixStats | None
    """None when none was asked for, no track is to sound in it, or it would be too long."""
    too_long_samples: int | None = None
    """About how long the mix would be that was not written for its length."""


def mix_call(
    host: JobHost,
    tracks: tuple[TrackToMix, ...],
    output: Path | None,
    mp3: Mp3Settings,
    composite: CompositeSettings,
    tags: Tags,
    uses_free_cores: bool = False,
    allowed_samples: int | None = None,
    measures: bool = True,
) -> MixedCall:
    """Measures all tracks of a call, and mixes them into one file.

    The file begins with the earliest media of all. With a loudness target the tracks are decoded
    twice: the gain is known only when everything was measured.

    Args:
      host: gives the staged files, on several threads at a time. Told the samples of each finished
        block of the mix, twice for a loudness target; without a mix those of each block of any
        track.
      tracks: each with packets.
      output: the local MP3 to write; None only measures the tracks.
      mp3: how to encode it.
      composite: what it is to be like.
      tags: title, artist, date and so on.
      uses_free_cores: whether the host is asked, now and then, for more than one core; then tracks
        are decoded on as many threads while the mix is encoded.
      allowed_samples: how long the mix may be; None for as long as it is. A longer one is not
        written.
      measures: whether figures of the sound are wanted; without them the mix is the same, and
        sooner.
    """
    most = min(len(tracks), _MOST_THREADS) if uses_free_cores else 1
    with contextlib.closing(_Threads(host, most)) as threads:
        return _mix(
            host, tracks, output, mp3, composite, tags, threads, allowed_samples, measures=measures
        )


class _Threads:
    """Threads to decode on: as many as there are cores for at the time."""

    def __init__(self, host: JobHost, most: int) -> None:
        self._host = host
        self._most = most
        self._cores = 1
        self._pool: ThreadPoolExecutor | None = None
        self._asked_at: float | None = None

    def now(self) -> Executor | None:
        """Returns them; None where a single core does all. What was begun on others comes to its
        end.
        """
        if self._most > 1 and self._is_to_ask():
            cores = max(1, min(self._most, self._host.cores(self._most)))
            if cores != self._cores:
                self.close()
                self._cores = cores
                self._pool = ThreadPoolExecutor(cores) if cores > 1 else None
        return self._pool

    def _is_to_ask(self) -> bool:
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _ASKING_SECONDS:
            return False
        self._asked_at = now
        return True

    def close(self) -> None:
        """Ends them, once they have done what was begun."""
        if self._pool is not None:
            self._pool.shutdown()


def _mix(
    host: JobHost,
    tracks: tuple[TrackToMix, ...],
    output: Path | None,
    mp3: Mp3Settings,
    composite: CompositeSettings,
    tags: Tags,
    threads: _Threads,
    allowed_samples: int | None,
    *,
    measures: bool,
) -> MixedCall:
    readers_of = [_read_lanes(track, host.open_input) for track in tracks]
    readers = [reader for lanes in readers_of for reader in lanes]
    mixed = [reader for reader in readers if reader.is_mixed and not reader.is_encrypted]
    mix = too_long_samples = None
    origin_unix_ns = min(reader.first_unix_ns for reader in readers)
    if output is not None and mixed and allowed_samples is not None:
        samples = ns_to_samples(max(reader.stop_unix_ns for reader in mixed) - origin_unix_ns)
        too_long_samples = samples if samples > allowed_samples else None
    if output is not None and mixed and too_long_samples is None:
        sent = max(reader.channels for reader in mixed)
        wanted = mp3.fixed_channels or sent
        # Tracks that are all mono are mixed once for both sides.
        channels, copies = min(sent, wanted), -(-wanted // sent)
        gain = 1.0
        if composite.wanted_lufs is not None:
            blocks = _mixed(mixed, origin_unix_ns, channels, threads, is_measured=False)
            gain = _gain_to(
                composite.wanted_lufs,
                blocks,
                LevelMeter(channels, copies),
                host.tell_progress,
            )
        blocks = _mixed(mixed, origin_unix_ns, channels, threads, is_measured=measures)
        levels, limiter = LevelMeter(channels, copies), Limiter(channels)
        with Mp3File(output, mp3, wanted, tags) as file:
            for block in _limited(blocks, gain, limiter):
                if isinstance(block, Silence):  # the levels need not be given it
                    file.write_silence(block.samples)
                    host.tell_progress(block.samples)
                    continue
                if measures:
                    levels.add(file.samples, block)
                file.write(to_pcm16(block).repeat(copies, axis=1))
                host.tell_progress(len(block))
            if measures:
                levels.end()
            if not file.samples:  # all packets together are shorter than their look-ahead
                shortest = SHORTEST_FILE_SAMPLES - LOOK_AHEAD_SAMPLES
                file.write(np.zeros((shortest, wanted), dtype=np.int16))
        mix = MixStats(
            file=describe_file(output, file.samples, file.channels),
            bitrate_bps=file.bitrate_bps,
            start_unix_ns=origin_unix_ns,
            loudness_lufs=levels.loudness_lufs,
            peak_dbfs=levels.peak_dbfs,
        )
    for reader in readers if measures else ():
        if mix is None or reader not in mixed:
            for chunk in reader.measure():
                if mix is None:
                    host.tell_progress(len(chunk.pcm))
    return MixedCall(
        tracks=tuple(
            replace(first.stats(), beside=tuple(reader.stats() for reader in others))
            for first, *others in (readers_of if measures else ())
        ),
        mix=mix,
        too_long_samples=too_long_samples,
    )


def _read_lanes(track: TrackToMix, open_input: Callable[[str], BinaryIO]) -> list[_TrackReader]:
    """Returns what reads each lane of a track, the same lanes that its files have."""
    indexes = load_parts(track.parts, open_input)
    plan = plan_lanes(indexes, lambda part: open_input(track.parts[part].packets))
    channels = max(index.channels for index in indexes)
    times = track.file_times or (FileTime(),) * len(plan.lanes)
    return [
        _TrackReader(track, pieces, time, channels, open_input)
        for pieces, time in zip(plan.lanes, times, strict=True)
    ]


class _TrackReader:
    """Decodes one lane of a track, and measures it once."""

    def __init__(
        self,
        track: TrackToMix,
        pieces: Sequence[Piece],
        time: FileTime,
        channels: int,
        open_input: Callable[[str], BinaryIO],
    ) -> None:
        self._track = track
        self._open_input = open_input
        self._pieces = pieces
        self._begin_unix_ns = time.begin_unix_ns
        self.channels = channels
        self.is_mixed = track.is_mixed
        self.is_encrypted = all(piece.packet_run.is_encrypted for piece in pieces)
        self.first_unix_ns = file_begin_unix_ns(pieces, None)
        self.stop_unix_ns = max(piece.server_unix_ns(piece.media_stop_sample) for piece in pieces)
        self._meter = _TrackMeter(self._pieces, self.channels)
        self._repairs = Repairs()
        longest_samples = time.longest_pause_samples
        self._moved_up = None if longest_samples is None else MovedUp(longest_samples)

    def _packets(self) -> Iterator[PlacedPackets]:
        parts = self._track.parts
        return place_packets(
            self._pieces, lambda part: self._open_input(parts[part].packets), self._begin_unix_ns
        )

    def measure(self) -> Iterator[Chunk]:
        """Yields the track's audio, measuring it; once."""
        packets = self._packets()
        if self._moved_up is not None:
            packets = self._moved_up.note(packets)
        return self._meter.measure(self._decode(packets, self._repairs))

    def _decode(self, packets: Iterator[PlacedPackets], repairs: Repairs) -> Iterator[Chunk]:
        # Encrypted, it would be noise: it has its place in the file, and is not heard.
        clear = (
            window
            for window in packets
            if not self._pieces[int(window.piece[0])].packet_run.is_encrypted
        )
        return decode_track(clear, self.channels, repairs)

    def play(
        self, origin_unix_ns: int, channels: int, *, is_measured: bool
    ) -> Iterator[tuple[int, Pcm]]:
        """Yields the track's audio on the mix's time line, in its number of channels or in one."""
        chunks = self.measure() if is_measured else self._decode(self._packets(), Repairs())
        return place_audio(
            _folded(chunks) if self.channels > channels else chunks, self._pieces, origin_unix_ns
        )

    def stats(self) -> TrackSoundStats:
        """Returns the figures of the track, once it was measured."""
        stats = self._meter.stats(self._repairs, is_encrypted=self.is_encrypted)
        if self._moved_up is None:
            return stats
        # What a file leaves out changes nothing of what is heard, only where it lies in the file.
        speech = replace(
            stats.speech,
            file_start_sample=self._moved_up.place(stats.speech.file_start_sample),
            file_stop_sample=self._moved_up.place(stats.speech.file_stop_sample),
        )
        return replace(stats, speech=speech)


class _TrackMeter:
    """Measures a track as its audio passes by."""

    def __init__(self, pieces: Sequence[Piece], channels: int) -> None:
        self._pieces = pieces
        self._levels = LevelMeter(channels)
        self._speech = SpeechDetector(channels)
        self._anchors: list[tuple[int, int, float]] = []
        """Of all audio that goes on unbroken and has cells to come: where it begins in the file,
        server time there, and ns per sample.
        """
        self._piece = -1
        self._end_sample = 0

    def measure(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yields the chunks as they are."""
        for chunk in chunks:
            if chunk.piece != self._piece or chunk.file_sample != self._end_sample:
                self._piece = chunk.piece
                piece = self._pieces[chunk.piece]
                server_unix_ns = piece.server_unix_ns(chunk.media_sample)
                ns_per_sample = piece.clock.clock_rate_ratio * 1e9 / SAMPLE_RATE_HZ
                self._anchors.append((chunk.file_sample, server_unix_ns, ns_per_sample))
            self._take(self._levels.add(chunk.file_sample, chunk.pcm))
            self._end_sample = chunk.file_sample + len(chunk.pcm)
            yield chunk
        self._take(self._levels.end())

    def _take(self, cells: Cells) -> None:
        """Gives cells to the speech detector, with their server time."""
        if not len(cells.start_sample):
            return
        begins, server_unix_ns, ns_per_sample = map(np.array, zip(*self._anchors, strict=True))
        of = np.searchsorted(begins, cells.start_sample, side="right") - 1
        past_ns = np.rint((cells.start_sample - begins[of]) * ns_per_sample[of]).astype(np.int64)
        self._speech.add(
            cells.start_sample, server_unix_ns[of] + past_ns, cells.weighted, cells.energy
        )
        del self._anchors[: int(of[-1])]

    def stats(self, repairs: Repairs, *, is_encrypted: bool) -> TrackSoundStats:
        """Returns the figures; nothing may be measured after."""
        return TrackSoundStats(
            repairs=repairs,
            loudness_lufs=self._levels.loudness_lufs,
            peak_dbfs=None if is_encrypted else self._levels.peak_dbfs,
            is_encrypted=is_encrypted,
            speech=self._speech.finish(self._end_sample),
        )


def _folded(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yields chunks in mono, the mean of both channels."""
    for chunk in chunks:
        yield chunk._replace(pcm=chunk.pcm.mean(axis=1, keepdims=True))


def _mixed(
    readers: Sequence[_TrackReader],
    origin_unix_ns: int,
    channels: int,
    threads: _Threads,
    *,
    is_measured: bool,
) -> Iterator[Pcm | Silence]:
    """Yields the sum of tracks, block by block."""
    players = [
        TrackPlayer(reader.play(origin_unix_ns, channels, is_measured=is_measured))
        for reader in readers
    ]
    return mix_tracks(players, channels, threads.now)


def _gain_to(
    target_lufs: float,
    blocks: Iterable[Pcm | Silence],
    levels: LevelMeter,
    tell_progress: Callable[[int], None],
) -> float:
    """Returns the one gain that brings a mix to a loudness."""
    position = 0
    for block in blocks:
        if isinstance(block, Silence):
            samples = block.samples
        else:
            samples = len(block)
            levels.add(position, block)
        position += samples
        tell_progress(samples)
    levels.end()
    if levels.loudness_lufs is None:
        return 1.0
    return float(10 ** (min(target_lufs - levels.loudness_lufs, _MOST_GAIN_DB) / 20))


def _limited(
    blocks: Iterable[Pcm | Silence], gain: float, limiter: Limiter
) -> Iterator[Pcm | Silence]:
    """Yields blocks with a gain, under the limiter's ceiling."""
    for block in blocks:
        if isinstance(block, Silence):
            # The limiter is at rest and holds zeros only: the blocks before were silent, too.
            yield limiter.flush()
            yield block
            continue
        yield limiter.process(block * np.float32(gain) if gain != 1.0 else block)
    yield limiter.flush()
