"""All tracks of a call -> one MP3. Runs in a codec process; memory is a block of a second and a window per track."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from transforms.media.decode import Pcm, decode_track
from transforms.media.errors import TimelineError
from transforms.media.extract import FileFacts, PartFiles, load_parts
from transforms.media.mix import Limiter, TrackPlayer, mix_tracks, place_audio, to_pcm16
from transforms.media.model import Mp3Settings, Tags
from transforms.media.mp3 import Mp3File
from transforms.media.timeline import place_packets, plan_pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCallFacts:
    """What a mix turned out to be."""

    file: FileFacts
    bitrate_bps: int
    start_unix_ns: int
    """Server time of the file's first sample."""


def mix_call(
    tracks: tuple[tuple[PartFiles, ...], ...],
    output: Path,
    settings: Mp3Settings,
    tags: Tags,
    *,
    open_input: Callable[[str], BinaryIO],
    on_progress: Callable[[int], None],
) -> MixedCallFacts:
    """Mixes a call, beginning with its earliest media.

    Args:
      tracks: the parts of each track; at least one track has packets.
      output: the local MP3 to write.
      settings: how to encode it.
      tags: title, artist, date and so on.
      open_input: opens a staged file by name.
      on_progress: told the number of samples of each finished block.

    Raises:
      TimelineError: no track has packets.
    """
    indexes = [load_parts(parts, open_input) for parts in tracks]
    planned = [plan_pieces(parts) for parts in indexes]
    starts = [pieces[0].clock.server_start_unix_ns for pieces in planned if pieces]
    if not starts:
        raise TimelineError("no packets to mix, expected at least one track with audio")
    origin = min(starts)
    widest = max(index.channels for parts in indexes for index in parts)
    channels = widest if settings.channels == "auto" else int(settings.channels)

    def play(number: int) -> Iterator[tuple[int, Pcm]]:
        parts, pieces = tracks[number], planned[number]
        packets = place_packets(pieces, lambda part: open_input(parts[part].packets))
        heard = min(channels, max(index.channels for index in indexes[number]))
        return place_audio(decode_track(packets, heard), pieces, origin)

    players = [TrackPlayer(play(number)) for number in range(len(tracks)) if planned[number]]
    limiter = Limiter(channels)
    with Mp3File(output, settings, channels, tags) as mp3:
        for block in mix_tracks(players, channels):
            mp3.write(to_pcm16(limiter.process(block)))
            on_progress(len(block))
        mp3.write(to_pcm16(limiter.flush()))
    with output.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return MixedCallFacts(
        file=FileFacts(size_bytes=output.stat().st_size, sha256=digest, duration_samples=mp3.samples, channels=channels),
        bitrate_bps=mp3.bitrate_bps,
        start_unix_ns=origin,
    )
