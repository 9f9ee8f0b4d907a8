"""Short ways into the media code, and what its outputs are read and measured with."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.builders import (
    OPUS_PAYLOAD_TYPE,
    SAMPLE_RATE_HZ,
    Participant,
    Pcm,
    Segment,
    make_call_archive,
    make_segment_dump,
)
from transforms.media.archive.read_members import ArchiveInput
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import (
    ClockMethod,
    ClockPiece,
    PacketRunClock,
    Plateau,
    StepEvidence,
)
from transforms.media.clock.server_clocks import CallPart
from transforms.media.findings import Finding
from transforms.media.job import JobHost
from transforms.media.mix_call import MixedCall, MixStats, TrackToMix, mix_call
from transforms.media.rtp.fates import Tally
from transforms.media.rtp.ingest import IngestedSegment, ingest_segment
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.settings import CompositeSettings, LimitSettings, Mp3Settings
from transforms.media.track.stage_track import StagedPart
from transforms.media.track.staged_packets import (
    PacketWindow,
    StagedPacketRun,
    load_index,
    read_packet_run,
)
from transforms.media.track.timeline import Hole, PlacedPacket, PlacedPackets
from transforms.media.unpack_archive import UnpackedArchive, unpack_archive
from transforms.media.values import PartFiles

DATA = Path(__file__).parents[1] / "data"
CAPTURES = DATA / "captures"
SAMPLES = Path(__file__).parents[2] / "samples"
LIMITS = LimitSettings()
OPUS_MAP = {
    OPUS_PAYLOAD_TYPE: RtpMap(
        payload_type=OPUS_PAYLOAD_TYPE, encoding="opus", clock_rate_hz=48_000, channels=2
    )
}
RED_MAPS = {
    63: RtpMap(payload_type=63, encoding="red", clock_rate_hz=48_000, channels=2),
    **OPUS_MAP,
}


def make_clock(
    base_unix_ns: int = 5,
    steps: Sequence[tuple[int, int]] = ((0, 0),),
    method: ClockMethod = ClockMethod.ARRIVAL_ENVELOPE,
) -> PacketRunClock:
    """Returns a clock at the nominal rate. Args: steps: (media sample, delay in ns from there on),
    confirmed by reports.
    """
    return PacketRunClock(
        base_unix_ns=base_unix_ns,
        plateaus=tuple(
            Plateau(
                media_start_sample=media,
                media_stop_sample=media + 960,
                point_count=1,
                mean_media_ns=0,
                mean_delay_ns=delay_ns,
                spread_media_ns=0,
                hull=((0, delay_ns),),
                evidence=StepEvidence.CONFIRMED if number else StepEvidence.NONE,
            )
            for number, (media, delay_ns) in enumerate(steps)
        ),
        method=method,
    )


def pieces_of(clock: PacketRunClock) -> tuple[ClockPiece, ...]:
    """Returns what a clock comes to when it is fitted alone."""
    return fit_clocks([clock])[0]


def make_timing(**changes: Any) -> SegmentTiming:
    """Returns a segment as metadata that knows no times states it, with `changes` on top."""
    fields: dict[str, Any] = {
        "base_filename": "a",
        "codec": "audio/opus",
        "track_id": "track",
        "track_type": "TRACK_TYPE_AUDIO",
        "first_rtp_timestamp": None,
        "last_rtp_timestamp": None,
        "first_rtp_unix_ms": None,
        "last_rtp_unix_ms": None,
    }
    return SegmentTiming(**{**fields, **changes})


def ingest(
    dump: bytes,
    maps: dict[int, RtpMap] | None = None,
    timing: SegmentTiming | None = None,
    limits: LimitSettings = LIMITS,
) -> IngestedSegment:
    """Ingests a dump; without more said its payload type 111 is Opus, and its own clock counts."""
    return ingest_segment(
        partial(io.BytesIO, dump),
        np.frombuffer(dump, dtype=np.uint8),
        "a.rtpdump",
        OPUS_MAP if maps is None else maps,
        timing or make_timing(),
        limits,
        Tally(),
    )


def ingest_built(segment: Segment, **changes: Any) -> tuple[IngestedSegment, bytes]:
    """Ingests a built segment with the metadata it would have, less the sender reports that the
    dump has; returns it with the dump.
    """
    dump, numbers = make_segment_dump(segment)
    timing = make_timing(
        codec="audio/red" if segment.red_copies else "audio/opus",
        first_rtp_timestamp=numbers.get("first_rtp_rtp_timestamp"),
        last_rtp_timestamp=numbers.get("last_rtp_rtp_timestamp"),
        first_rtp_unix_ms=numbers.get("first_rtp_unix_timestamp"),
        last_rtp_unix_ms=numbers.get("last_rtp_unix_timestamp"),
        **changes,
    )
    return ingest(dump, RED_MAPS if segment.red_copies else OPUS_MAP, timing), dump


def run_packets(segment: IngestedSegment, dump: bytes, number: int = 0) -> list[bytes]:
    """Returns the Opus packets of a run as bytes."""
    found = segment.packet_runs[number]
    sizes = found.records["packet_bytes"].tolist()
    return [
        dump[at : at + size] for at, size in zip(found.source_offset.tolist(), sizes, strict=True)
    ]


Packet = tuple[int, int, int, bytes]
"""media_sample, duration_samples, lost_before, opus_packet."""


def staged_packet_run(file: BinaryIO, packet_run: StagedPacketRun) -> list[Packet]:
    """Returns a staged run packet by packet."""
    return [
        packet for window in read_packet_run(file, packet_run) for packet in _packets_of(window)
    ]


def _packets_of(window: PacketWindow) -> list[Packet]:
    payload, found, at = window.payload.tobytes(), [], 0
    for media_sample, duration, lost, size, _ in window.records.tolist():
        found.append((media_sample, duration, lost, payload[at : at + size]))
        at += size
    assert at == len(payload)
    return found


def each_placed(windows: Iterable[PlacedPackets]) -> list[PlacedPacket]:
    """Returns placed packets one by one."""
    return [window[index] for window in windows for index in range(len(window))]


def as_windows(placed: Sequence[PlacedPacket], size: int = 7) -> list[PlacedPackets]:
    """Returns placed packets as windows of at most so many, none of which spans two runs."""
    starts = [n for n, packet in enumerate(placed) if packet.hole == Hole.BETWEEN_PACKET_RUNS]
    edges = sorted({*starts, *range(0, len(placed), size), len(placed)})
    return [_window_of(placed[start:stop]) for start, stop in itertools.pairwise(edges)]


def _window_of(placed: Sequence[PlacedPacket]) -> PlacedPackets:
    sizes = np.array([len(packet.opus_packet) for packet in placed], dtype=np.int64)

    def column(name: str) -> npt.NDArray[np.int64]:
        return np.array([getattr(packet, name) for packet in placed], dtype=np.int64)

    return PlacedPackets(
        piece=column("piece"),
        media_sample=column("media_sample"),
        start_sample=column("start_sample"),
        duration_samples=column("duration_samples"),
        hole=column("hole"),
        hole_samples=column("hole_samples"),
        left_out_samples=np.zeros(len(placed), dtype=np.int64),
        payload=np.frombuffer(b"".join(packet.opus_packet for packet in placed), dtype=np.uint8),
        payload_start=np.cumsum(sizes) - sizes,
        payload_bytes=sizes,
    )


def is_filler(packet: bytes) -> bool:
    """Tells whether a packet holds empty CELT frames alone: one (code 0), or several of one size
    (code 3).
    """
    is_empty = len(packet) == 1 or (
        len(packet) == 2 and packet[0] & 3 == 3 and packet[1] & 0xC0 == 0
    )
    return is_empty and packet[0] >> 3 >= 16


def make_input(data: bytes = b"") -> ArchiveInput:
    """Returns an archive of that content as a file to be read."""
    return ArchiveInput(name="call.tar.gz", size_bytes=len(data))


def unpack(data: bytes, folder: Path, limits: LimitSettings = LIMITS) -> UnpackedArchive:
    """Unpacks an archive into a folder, which is made."""
    folder.mkdir(exist_ok=True)
    return unpack_archive(
        JobHost(open_input=lambda name: io.BytesIO(data)), make_input(data), folder, limits
    )


def participant_of(finding: Finding) -> str | None:
    """Returns whom a finding is about, None for the archive."""
    return finding.owner.participant_id if finding.owner else None


def open_in(folder: Path) -> Callable[[str], BinaryIO]:
    """Returns what opens a staged file of that folder by name."""
    return lambda name: (folder / name).open("rb")


def part_files(unpacked: UnpackedArchive) -> list[PartFiles]:
    """Returns the staged files of every track with audio, in the order of the sessions."""
    return [
        PartFiles(packets=part.packets_file, index=part.index_file)
        for session in unpacked.sessions
        for part in session.parts
        if part.packets_file
    ]


def stage_call(participants: Sequence[Participant], folder: Path, **names: Any) -> list[PartFiles]:
    """Builds a call, unpacks it into a folder, and returns its tracks' staged files; nothing may
    fail.
    """
    unpacked = unpack(make_call_archive(participants, **names), folder)
    assert unpacked.findings == ()
    return part_files(unpacked)


def as_witness(archive_uri: str, part: StagedPart) -> CallPart:
    """Returns a part as what it tells of its server's clock."""
    return CallPart(
        archive_uri=archive_uri,
        participant_id=part.track.participant_id,
        user_session_id=part.track.user_session_id,
        output_type=str(part.track.output_type),
        first_unix_ns=part.first_server_unix_ns,
        watch=part.watch,
    )


def load_part(folder: Path, part: PartFiles) -> Any:
    """Returns a part's index."""
    return load_index((folder / part.index).read_bytes())


def hear_parts(
    tracks: Sequence[Sequence[PartFiles]],
    folder: Path,
    output: Path | None,
    mp3: Mp3Settings | None = None,
    composite: CompositeSettings | None = None,
    **track_fields: Any,
) -> MixedCall:
    """Hears staged tracks, each of its parts, and mixes them to a file when there is one named."""
    fields: dict[str, Any] = {"is_mixed": True, **track_fields}
    return mix_call(
        JobHost(open_input=open_in(folder)),
        tuple(TrackToMix(parts=tuple(parts), **fields) for parts in tracks),
        output,
        mp3 or Mp3Settings(),
        composite or CompositeSettings(),
        {"title": "x"},
    )


def mix_parts(
    tracks: Sequence[Sequence[PartFiles]],
    folder: Path,
    output: Path,
    mp3: Mp3Settings | None = None,
    composite: CompositeSettings | None = None,
) -> MixStats:
    """Mixes staged tracks, each of its parts, to a file."""
    mix = hear_parts(tracks, folder, output, mp3, composite).mix
    assert mix is not None
    return mix


def run_program(*command: str | Path) -> bytes:
    """Returns a program's output; skips the test when it is not installed, fails when it
    complains.
    """
    name = str(command[0])
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def decode_with_ffmpeg(path: Path, channels: int) -> Pcm:
    """Returns what the ffmpeg program decodes, float32, (samples, channels)."""
    out = run_program("ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-ac", str(channels), "-")
    return np.frombuffer(out, dtype="<f4").reshape(-1, channels)


def decode_with_pyav(path: Path) -> Pcm:
    """Returns what PyAV decodes, float32, (samples, channels)."""
    pcm, channels = bytearray(), 1  # an hour is 691 MB: it is there once
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            channels = frame.layout.nb_channels
            if channels == 1 and frame.format.name == "fltp":
                pcm += memoryview(frame.planes[0])[: 4 * frame.samples]
                continue
            array = frame.to_ndarray()
            if not frame.format.is_planar:
                array = array.reshape(-1, channels).T
            pcm += array.T.astype(np.float32).tobytes()
    return np.frombuffer(pcm, dtype=np.float32).reshape(-1, channels)


def probe(path: Path) -> Mapping[str, Any]:
    """Returns what the ffprobe program says of a file: `format` and `streams`."""
    out = run_program(
        "ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", path
    )
    return dict(json.loads(out))


def rms(pcm: Pcm) -> float:
    """Returns the root mean square over all samples and channels."""
    return float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64)))) if pcm.size else 0.0


def loudest_hz(pcm: Pcm) -> float:
    """Returns the strongest frequency of the first channel."""
    wave = pcm[:, 0] * np.hanning(len(pcm))
    return float(np.abs(np.fft.rfft(wave)).argmax() * SAMPLE_RATE_HZ / len(wave))


def level_at(pcm: Pcm, frequency_hz: float) -> float:
    """Returns the amplitude of one frequency in the first channel."""
    phase = 2j * np.pi * frequency_hz * np.arange(len(pcm)) / SAMPLE_RATE_HZ
    return float(2 * np.abs(np.mean(pcm[:, 0] * np.exp(-phase))))


def best_lag(heard: Pcm, sent: Pcm, reach: int = 2_000) -> int:
    """Returns by how many samples `heard` comes later than `sent`, by correlation of their first
    channels.
    """
    size = 1 << (len(heard) + len(sent)).bit_length()
    product = np.fft.rfft(heard[:, 0], size) * np.conj(np.fft.rfft(sent[:, 0], size))
    correlation = np.fft.irfft(product, size)
    lags = np.concatenate([np.arange(reach), np.arange(-reach, 0)])
    return int(lags[correlation[lags].argmax()])
