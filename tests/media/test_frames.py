"""Every kind of packet a sender may make, from the dump to the individual file and the mix: bytes,
lengths, places, joins.

Each stream is dumped, put in an archive, unpacked, extracted and mixed by the real code, and read
back with PyAV and the ffmpeg program.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.builders import (
    APPLICATION_AUDIO,
    APPLICATION_VOIP,
    CALL_START_UNIX_MS,
    SAMPLE_RATE_HZ,
    Participant,
    Pcm,
    Segment,
    encode_opus,
    make_call_archive,
    make_rtp_packet,
    make_rtpdump,
    noise,
    silence,
)
from tests.support.media import (
    best_lag,
    decode_with_ffmpeg,
    decode_with_pyav,
    is_filler,
    mix_parts,
    open_in,
    part_files,
    rms,
    unpack,
)
from tests.support.quality import (
    CONCEALED_SAMPLES,
    FADE_SAMPLES,
    burst_losses,
    clean_step,
    decode_parts,
    decode_plainly,
    lag_in_samples,
    largest_step,
    random_losses,
    runs_of,
    speakers,
)
from transforms.media.extract_track import extract_track
from transforms.media.job import JobHost
from transforms.media.opus.libopus import load_libopus
from transforms.media.opus.packet import is_valid_packet, packet_samples
from transforms.media.values import Container

LOOK_AHEAD = 312
DURATIONS_MS = (2.5, 5, 10, 20, 40, 60, 80, 100, 120)
OPUS_BUFFER_BYTES = 61_440

# Request numbers of opus_defines.h and opus_private.h.
SET_BITRATE, SET_VBR, SET_BANDWIDTH, SET_FORCE_CHANNELS, SET_FORCE_MODE = (
    4002,
    4006,
    4008,
    4022,
    11002,
)
SILK, HYBRID, CELT = 1000, 1001, 1002
WIDE_BAND, FULL_BAND = 1103, 1105


# --- making packets -------------------------------------------------------------------------------


class Encoder:
    """One libopus encoder that is told of changes between packets, as `encode_opus` is not."""

    def __init__(self, channels: int = 1, application: int = APPLICATION_AUDIO) -> None:
        encode_opus(silence(0.02))  # types the library's functions
        self._library = load_libopus()
        error = ctypes.c_int()
        state = self._library.opus_encoder_create(
            SAMPLE_RATE_HZ, channels, application, ctypes.byref(error)
        )
        assert error.value == 0
        self._state = ctypes.c_void_p(state)
        self._channels = channels

    def __del__(self) -> None:
        self._library.opus_encoder_destroy(self._state)

    def set(self, request: int, value: int) -> None:
        assert (
            self._library.opus_encoder_ctl(
                self._state, ctypes.c_int(request), ctypes.c_int32(value)
            )
            == 0
        )

    def encode(self, pcm: Pcm) -> bytes:
        """Returns one packet of all of `pcm`."""
        block = np.ascontiguousarray(pcm, dtype=np.float32)
        assert block.shape[1] == self._channels
        buffer = ctypes.create_string_buffer(4_000)
        size = self._library.opus_encode_float(
            self._state, block.ctypes.data, len(block), buffer, len(buffer)
        )
        assert size > 0
        return buffer.raw[:size]

    def encode_all(self, pcm: Pcm, frame_ms: float = 20) -> list[bytes]:
        """Returns packets of equal duration."""
        size = round(frame_ms * 48)
        return [self.encode(pcm[at : at + size]) for at in range(0, len(pcm) - size + 1, size)]


def join_packets(packets: Sequence[bytes]) -> bytes:
    """Returns the frames of some packets in one, as libopus's repacketizer puts them: code 0, 1, 2
    or 3.
    """
    library = load_libopus()
    library.opus_repacketizer_create.restype = ctypes.c_void_p
    maker = ctypes.c_void_p(library.opus_repacketizer_create())
    held = [
        ctypes.create_string_buffer(packet, len(packet)) for packet in packets
    ]  # it keeps pointers to them
    try:
        for packet in held:
            assert library.opus_repacketizer_cat(maker, packet, ctypes.c_int32(len(packet))) == 0
        out = ctypes.create_string_buffer(OPUS_BUFFER_BYTES)
        size = library.opus_repacketizer_out(maker, out, ctypes.c_int32(len(out)))
        assert size > 0
        return out.raw[:size]
    finally:
        library.opus_repacketizer_destroy(maker)


def pad_packet(packet: bytes, by: int) -> bytes:
    """Returns a packet made longer by so many bytes, as libopus pads: code 3."""
    buffer = ctypes.create_string_buffer(packet, len(packet) + by)
    assert (
        load_libopus().opus_packet_pad(
            buffer, ctypes.c_int32(len(packet)), ctypes.c_int32(len(packet) + by)
        )
        == 0
    )
    return buffer.raw


def frame_length(size: int) -> bytes:
    """Returns a frame's length as RFC 6716 s3.2.1 codes it."""
    return (
        bytes([size]) if size < 252 else bytes([252 + (size & 3), (size - 252 - (size & 3)) // 4])
    )


def code_2(packets: Sequence[bytes]) -> bytes:
    """Returns two frames of any sizes by hand (RFC 6716 s3.2.4)."""
    first, second = packets
    return bytes([first[0] & 0xFC | 2]) + frame_length(len(first) - 1) + first[1:] + second[1:]


def code_3(packets: Sequence[bytes], *, vbr: bool, padding: int | None = None) -> bytes:
    """Returns frames by hand (RFC 6716 s3.2.5). Args: padding: bytes of it; None leaves out even
    its length.
    """
    out = bytes([packets[0][0] | 3, vbr << 7 | (padding is not None) << 6 | len(packets)])
    if padding is not None:
        chain, rest = divmod(padding, 254)
        out += b"\xff" * chain + bytes([rest])
    if vbr:
        out += b"".join(frame_length(len(packet) - 1) for packet in packets[:-1])
    return out + b"".join(packet[1:] for packet in packets) + bytes(padding or 0)


def samples_of(packet: bytes) -> int:
    """Returns a packet's duration."""
    toc, second = (np.array([byte], dtype=np.uint8) for byte in (packet + b"\0")[:2])
    return int(packet_samples(toc, second)[0])


# --- sending and hearing --------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One packet of a stream whose packets may last unlike times."""

    media_sample: int
    packet: bytes


def in_a_row(packets: Iterable[bytes]) -> list[Sent]:
    """Puts packets one behind the other by their own durations."""
    sent, at = [], 0
    for packet in packets:
        sent.append(Sent(at, packet))
        at += samples_of(packet)
    return sent


def with_dtx(packets: Sequence[bytes], duration: int) -> list[Sent]:
    """Puts packets in their places, leaving out what is empty: withheld by DTX."""
    return [Sent(number * duration, packet) for number, packet in enumerate(packets) if packet]


def press(folder: Path, sent: Sequence[Sent], lost: Collection[int] = (), channels: int = 1) -> Pcm:
    """Sends a stream through everything; returns what the mix holds before the limiter.

    What is true of every stream is checked here: the file's packets are the sent ones byte for byte
    and in their places, and every decoder gives the exact length.

    Args:
      folder: to work in.
      sent: the stream; numbers of packets run on, so a hole in its time is DTX.
      lost: indices into `sent` that never arrive.
      channels: of what was sent.
    """
    arrived = [(number, packet) for number, packet in enumerate(sent) if number not in lost]
    records = []
    for number, packet in arrived:
        rtp = make_rtp_packet(
            packet.packet,
            sequence_number=65_500 + number,
            rtp_timestamp=4_294_900_000 + packet.media_sample,
        )
        records.append(
            (
                (packet.media_sample + samples_of(packet.packet)) * 1_000 // SAMPLE_RATE_HZ,
                rtp,
                False,
            )
        )
    first = sent[0].packet
    # The metadata states the first packet as it is; the dump in the archive is the one made above.
    segment = Segment(
        packets=[first], packet_samples=samples_of(first), with_dump=False, base_filename="a"
    )
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    archive = make_call_archive(
        [Participant(participant_id="a", segments=[segment])], extra_members={"a.rtpdump": dump}
    )
    unpacked = unpack(archive, folder)
    assert unpacked.findings == ()
    parts = part_files(unpacked)

    total = sent[-1].media_sample + samples_of(sent[-1].packet) - LOOK_AHEAD
    track = extract_track(
        JobHost(open_input=open_in(folder)), tuple(parts), folder / "a.mkv", Container.MKV, {}
    )
    assert (track.duration_samples, track.channels) == (total, channels)
    assert (track.counts.received, track.counts.lost) == (len(arrived), len(lost))
    assert packets_in_file(folder / "a.mkv") == [
        (packet.media_sample, packet.packet) for _, packet in arrived
    ]
    from_file = decode_with_pyav(folder / "a.mkv")
    assert from_file.shape == (total, channels)
    assert len(decode_with_ffmpeg(folder / "a.mkv", channels)) == total

    mix = mix_parts([parts], folder, folder / "a.mp3")
    assert (mix.file.duration_samples, mix.file.channels) == (total, channels)
    assert decode_with_pyav(folder / "a.mp3").shape == (total, channels)
    heard = decode_with_ffmpeg(folder / "a.mp3", channels)
    assert len(heard) == total

    pcm = decode_parts(folder, parts, channels)
    assert pcm.shape == (total, channels)
    assert best_lag(heard, pcm) == 0
    assert (
        abs(lag_in_samples(from_file, pcm)) <= 1
    )  # FFmpeg's SILK comes a sample later than libopus's
    return pcm


def packets_in_file(path: Path) -> list[tuple[int, bytes]]:
    """Returns a file's packets with their places by the durations of all that came before, the
    fillers left out.
    """
    found, at = [], 0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            data = bytes(packet)
            if not data:  # PyAV's flush
                continue
            # Cluster times are whole ms.
            assert packet.pts is not None
            assert packet.time_base is not None
            assert abs(float(packet.pts * packet.time_base) - at / SAMPLE_RATE_HZ) < 0.001
            if not is_filler(data):
                found.append((at, data))
            at += samples_of(data)
    return found


def mode_of(packet: bytes) -> str:
    """Returns which of its codecs a packet uses (RFC 6716 s3.1, table 2)."""
    config = packet[0] >> 3
    return "silk" if config < 12 else "hybrid" if config < 16 else "celt"


LAG = {"silk": -2, "hybrid": -2, "celt": 0}
"""libopus's SILK part comes out two samples earlier than its CELT part, which is exact: what its
resamplers round.
"""


def lag_near(heard: Pcm, sent: Pcm, start_sample: int, stop_sample: int) -> int:
    """Returns by how many samples that part sounds later than it was sent."""
    return lag_in_samples(heard[start_sample:stop_sample], sent[start_sample:stop_sample])


@pytest.fixture(scope="module")
def speech() -> Pcm:
    """3 s of a voice, mono."""
    return speakers()["alice"][:144_000]


# --- DTX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_ms", DURATIONS_MS)
def test_dtx_of_every_packet_duration_keeps_time(
    tmp_path: Path, speech: Pcm, frame_ms: float
) -> None:
    duration = round(frame_ms * 48)
    sound = np.concatenate([speech[:72_000], silence(1.8), speech[72_000:]])
    sound = sound[: len(sound) // duration * duration]
    packets = encode_opus(sound, frame_ms=frame_ms, dtx=True)
    withheld = {number for number, packet in enumerate(packets) if not packet}
    assert len(withheld) * frame_ms > 700  # the encoder did hold back most of the pause
    pcm = press(tmp_path, with_dtx(packets, duration))
    for start, stop in ((0, 72_000), (72_000 + 86_400, len(pcm))):
        assert lag_near(pcm, sound, start, stop) == LAG[mode_of(packets[0])]
    assert rms(pcm[90_000:150_000]) < 1e-3
    whole = decode_plainly(encode_opus(sound, frame_ms=frame_ms), packet_samples=duration)
    assert largest_step(pcm) <= clean_step(whole)


# --- frame-count codes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A way to put frames together."""

    frames: int
    join: Callable[[Sequence[bytes]], bytes]
    code: int
    vbr: bool = True
    frame_ms: float = 20


SHAPES = {
    "code-0": Shape(1, join_packets, 0),
    "code-1": Shape(2, join_packets, 1, vbr=False),
    "code-2": Shape(2, code_2, 2),
    "code-2-of-libopus": Shape(2, join_packets, 2),
    "code-3-cbr": Shape(3, join_packets, 3, vbr=False),
    "code-3-vbr": Shape(3, join_packets, 3),
    "code-3-of-one": Shape(1, lambda packets: code_3(packets, vbr=True), 3),
    "code-3-of-two-cbr": Shape(2, lambda packets: code_3(packets, vbr=False), 3, vbr=False),
    "code-3-120-ms": Shape(6, join_packets, 3),
    "code-3-48-frames": Shape(48, join_packets, 3, frame_ms=2.5),
    "padded-by-1": Shape(3, lambda packets: pad_packet(join_packets(packets), 1), 3),
    "padded-by-255": Shape(1, lambda packets: pad_packet(join_packets(packets), 255), 3),
    "padded-by-600": Shape(2, lambda packets: pad_packet(join_packets(packets), 600), 3),
    "padding-of-none": Shape(2, lambda packets: code_3(packets, vbr=True, padding=0), 3),
    "padding-254": Shape(2, lambda packets: code_3(packets, vbr=False, padding=254), 3, vbr=False),
    "padding-chain": Shape(3, lambda packets: code_3(packets, vbr=True, padding=3 * 254 + 7), 3),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_frames_sound_the_same_in_whatever_packets(
    tmp_path: Path, speech: Pcm, shape: Shape
) -> None:
    encoder = Encoder()
    encoder.set(SET_VBR, int(shape.vbr))
    encoder.set(SET_BITRATE, 40_000)
    sound = speech[:96_480]
    frames = encoder.encode_all(sound, shape.frame_ms)
    frames = frames[: len(frames) // shape.frames * shape.frames]
    if shape.code in (1, 2):  # sizes as the code needs them, whatever the encoder chose
        assert (len({len(frame) for frame in frames}) == 1) is not shape.vbr
    packets = [
        shape.join(frames[at : at + shape.frames]) for at in range(0, len(frames), shape.frames)
    ]
    codes = [packet[0] & 3 for packet in packets]
    assert codes.count(shape.code) > 0.9 * len(codes)  # two frames may be of one size by chance
    assert all(is_valid_packet(packet) for packet in packets)
    pcm = press(tmp_path, in_a_row(packets))
    whole = decode_plainly(frames, packet_samples=round(shape.frame_ms * 48))
    assert np.array_equal(pcm[FADE_SAMPLES:], whole[FADE_SAMPLES:])
    assert lag_near(pcm, sound, 0, len(pcm)) == LAG[mode_of(packets[0])]


# --- changes in mid-stream ------------------------------------------------------------------------


def hear_whole(packets: Sequence[bytes], channels: int = 1) -> Pcm:
    """Returns what libopus makes of packets that may last unlike times."""
    return decode_plainly(
        packets, packet_samples=[samples_of(packet) for packet in packets], channels=channels
    )


def largest_step_near(pcm: Pcm, changes: Iterable[int]) -> float:
    """Returns the largest step within 20 ms of these samples."""
    return max(largest_step(pcm, at - 960, at + 960) for at in changes)


def test_packet_duration_may_change_in_mid_stream(tmp_path: Path, speech: Pcm) -> None:
    encoder = Encoder()
    packets, changes = [], [0]
    for frame_ms, samples in (
        (20, 38_400),
        (60, 43_200),
        (10, 24_000),
        (2.5, 9_600),
        (120, 28_800),
    ):
        packets += encoder.encode_all(speech[changes[-1] : changes[-1] + samples], frame_ms)
        changes.append(changes[-1] + samples)
    assert {samples_of(packet) for packet in packets} == {960, 2_880, 480, 120, 5_760}
    pcm = press(tmp_path, in_a_row(packets))
    assert np.array_equal(pcm[FADE_SAMPLES:], hear_whole(packets)[FADE_SAMPLES:])
    for start, stop, mode in zip(
        changes, changes[1:], ("hybrid", "hybrid", "hybrid", "celt", "hybrid"), strict=False
    ):
        assert lag_near(pcm, speech, start + 960, stop - 960) == LAG[mode]
    assert largest_step_near(pcm, changes[1:-1]) <= largest_step(speech)


def test_mode_may_change_in_mid_stream(tmp_path: Path, speech: Pcm) -> None:
    encoder = Encoder(application=APPLICATION_VOIP)
    packets = []
    plan = (
        (SILK, WIDE_BAND, 16_000),
        (HYBRID, FULL_BAND, 32_000),
        (CELT, FULL_BAND, 96_000),
        (SILK, WIDE_BAND, 20_000),
    )
    for number, (mode, bandwidth, bitrate_bps) in enumerate(plan):
        encoder.set(SET_FORCE_MODE, mode)
        encoder.set(SET_BANDWIDTH, bandwidth)
        encoder.set(SET_BITRATE, bitrate_bps)
        packets += encoder.encode_all(speech[number * 36_480 : (number + 1) * 36_480])
    modes = [mode_of(packet) for packet in packets]
    assert [
        mode for number, mode in enumerate(modes) if number == 0 or mode != modes[number - 1]
    ] == [
        "silk",
        "hybrid",
        "celt",
        "silk",
    ]
    pcm = press(tmp_path, in_a_row(packets))
    assert np.array_equal(pcm[FADE_SAMPLES:], hear_whole(packets)[FADE_SAMPLES:])
    for number, name in enumerate(("silk", "hybrid", "celt", "silk")):
        assert (
            lag_near(pcm, speech, number * 36_480 + 2_880, (number + 1) * 36_480 - 960) == LAG[name]
        )
    assert largest_step_near(pcm, (36_480, 72_960, 109_440)) <= largest_step(speech)


@pytest.mark.parametrize("bitrate_bps", [32_000, 96_000])
def test_channels_may_change_in_mid_stream(tmp_path: Path, bitrate_bps: int) -> None:
    voices = speakers()
    sound = np.concatenate([voices["alice"][:144_000], voices["bob"][:144_000]], axis=1)
    encoder = Encoder(channels=2)
    encoder.set(SET_BITRATE, bitrate_bps)
    packets = []
    for number, channels in enumerate((1, 2, 1)):
        encoder.set(SET_FORCE_CHANNELS, channels)
        packets += encoder.encode_all(sound[number * 48_000 : (number + 1) * 48_000])
    assert [bool(packet[0] & 4) for packet in packets[10::50]] == [False, True, False]
    pcm = press(tmp_path, in_a_row(packets), channels=2)
    assert np.array_equal(pcm[FADE_SAMPLES:], hear_whole(packets, 2)[FADE_SAMPLES:])
    middle = sound.mean(axis=1, keepdims=True)
    for number in (0, 2):
        start, stop = number * 48_000 + 4_800, (number + 1) * 48_000 - 960
        assert lag_near(pcm, middle, start, stop) == LAG[mode_of(packets[start // 960])]
        assert np.array_equal(pcm[start:stop, 0], pcm[start:stop, 1])
    for side in range(2):
        assert lag_near(pcm[:, side:], sound[:, side:], 52_800, 95_040) == LAG[mode_of(packets[75])]
    assert largest_step_near(pcm, (48_000, 96_000)) <= largest_step(sound)


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fec", [False, True], ids=["plain", "fec"])
@pytest.mark.parametrize("percent", [1, 5, 10, 20])
def test_random_loss_keeps_time(tmp_path: Path, speech: Pcm, percent: int, fec: bool) -> None:
    packets = encode_opus(speech, fec=fec, expected_loss_percent=percent)
    lost = random_losses(len(packets), percent, seed=percent)
    assert lost
    whole = hear_whole(packets)
    pcm = press(tmp_path, in_a_row(packets), lost)
    assert lag_in_samples(pcm, whole) == 0
    assert largest_step(pcm) <= clean_step(whole)


@pytest.mark.parametrize("frame_ms", [10, 20, 60])
@pytest.mark.parametrize("burst_ms", [100, 200, 500])
def test_burst_loss_keeps_time(tmp_path: Path, speech: Pcm, frame_ms: float, burst_ms: int) -> None:
    packets = encode_opus(speech, frame_ms=frame_ms, fec=True, expected_loss_percent=10)
    burst = round(burst_ms / frame_ms)
    lost = burst_losses(len(packets), burst, round(1_200 / frame_ms), seed=burst_ms)
    assert [stop - start for start, stop in runs_of(lost)] == [burst, burst]
    whole = hear_whole(packets)
    pcm = press(tmp_path, in_a_row(packets), lost)
    assert lag_in_samples(pcm, whole) == 0
    assert largest_step(pcm) <= clean_step(whole)


@pytest.mark.parametrize("frame_ms", [2.5, 20, 120])
def test_outage_of_3_s_keeps_time(tmp_path: Path, speech: Pcm, frame_ms: float) -> None:
    duration = round(frame_ms * 48)
    sound = np.concatenate([speech[:48_000], noise(3, amplitude=0.01), speech[48_000:]])
    packets = encode_opus(sound[: len(sound) // duration * duration], frame_ms=frame_ms)
    lost = range(48_000 // duration, 192_000 // duration)
    whole = hear_whole(packets)
    pcm = press(tmp_path, in_a_row(packets), lost)
    start, stop = lost[0] * duration, (lost[-1] + 1) * duration
    assert np.array_equal(
        pcm[FADE_SAMPLES : start - LOOK_AHEAD], whole[FADE_SAMPLES : start - LOOK_AHEAD]
    )
    assert lag_near(pcm, whole, stop, len(pcm)) == 0
    assert not pcm[start + CONCEALED_SAMPLES : stop - duration - LOOK_AHEAD].any()
    assert largest_step(pcm) <= clean_step(whole)
