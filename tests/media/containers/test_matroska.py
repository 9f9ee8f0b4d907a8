"""Individual files: packets as they were sent, holes filled, lengths exact, read back by PyAV,
ffmpeg and ffprobe.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.builders import encode_opus, noise, tone
from tests.support.media import (
    best_lag,
    decode_with_ffmpeg,
    decode_with_pyav,
    loudest_hz,
    probe,
    rms,
    run_program,
)
from transforms.media.containers.matroska import OpusFile
from transforms.media.values import Container

LOOK_AHEAD = 312
FORMATS = {Container.MKV: "matroska,webm", Container.WEBM: "matroska,webm", Container.OGG: "ogg"}
containers = pytest.mark.parametrize("container", list(Container))


def write_file(
    path: Path,
    container: Container,
    packets: list[bytes],
    *,
    channels: int = 1,
    fills: dict[int, int] | None = None,
    uid: int = 1,
) -> int:
    """Writes 20 ms packets; `fills` are samples before a packet. Returns the length in samples, the
    pre-skip included.
    """
    tags = {"title": "Stand-up é", "artist": "alice"}
    with OpusFile(path, container, channels, tags, uid) as file:
        for number, packet in enumerate(packets):
            if number in (fills or {}):
                file.fill((fills or {})[number])
            file.write(packet, 960)
    return file.duration_samples


@containers
@pytest.mark.parametrize("channels", [1, 2])
def test_packets_come_back_as_they_were_sent(
    tmp_path: Path, container: Container, channels: int
) -> None:
    packets = encode_opus(tone(440, 2, channels))
    path = tmp_path / f"a.{container}"
    assert write_file(path, container, packets, channels=channels) == 96_000
    with av.open(str(path)) as opened:
        assert opened.format.name == FORMATS[container]
        (stream,) = opened.streams.audio
        found = [bytes(packet) for packet in opened.demux(stream) if packet.size]
        assert (stream.codec_context.name, stream.codec_context.layout.nb_channels) == (
            "opus",
            channels,
        )
        assert stream.codec_context.sample_rate == 48_000
    assert found == packets


@containers
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 50, 101])
def test_file_decodes_to_all_samples_less_the_look_ahead(
    tmp_path: Path, container: Container, channels: int, count: int
) -> None:
    path = tmp_path / f"a.{container}"
    write_file(path, container, encode_opus(tone(440, count / 50, channels)), channels=channels)
    assert len(decode_with_pyav(path)) == count * 960 - LOOK_AHEAD
    assert decode_with_ffmpeg(path, channels).shape == (count * 960 - LOOK_AHEAD, channels)


@containers
def test_decoded_audio_lies_where_it_was_sent(tmp_path: Path, container: Container) -> None:
    sent = noise(2)
    path = tmp_path / f"a.{container}"
    write_file(path, container, encode_opus(sent, bitrate_bps=96_000))
    assert best_lag(decode_with_ffmpeg(path, 1), sent) == 0


@containers
@pytest.mark.parametrize("hole", [120, 480, 960, 1_080, 48_120])
def test_hole_lasts_exactly_as_long_as_it_should(
    tmp_path: Path, container: Container, hole: int
) -> None:
    path = tmp_path / f"a.{container}"
    packets = encode_opus(tone(440, 1)) + encode_opus(tone(880, 1))
    length = write_file(path, container, packets, fills={50: hole})
    assert length == 96_000 + hole
    for pcm in (decode_with_pyav(path), decode_with_ffmpeg(path, 1)):
        assert len(pcm) == length - LOOK_AHEAD
        assert loudest_hz(pcm[:40_000]) == pytest.approx(440, abs=2)
        assert loudest_hz(pcm[-40_000:]) == pytest.approx(880, abs=2)
        if hole > 40_000:
            assert rms(pcm[48_000 + 24_000 : 48_000 + 46_000]) < 0.001


@containers
def test_hole_before_the_first_packet_is_silence(tmp_path: Path, container: Container) -> None:
    path = tmp_path / f"a.{container}"
    length = write_file(path, container, encode_opus(tone(440, 1)), fills={0: 24_000})
    pcm = decode_with_ffmpeg(path, 1)
    assert len(pcm) == length - LOOK_AHEAD
    assert rms(pcm[:23_000]) == 0


@containers
def test_timestamps_run_on_without_holes(tmp_path: Path, container: Container) -> None:
    path = tmp_path / f"a.{container}"
    write_file(path, container, encode_opus(tone(440, 1)), fills={10: 2_400})
    with av.open(str(path)) as opened:
        packets = [packet for packet in opened.demux(audio=0) if packet.size]
        times = [
            float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None
        ]
    assert len(times) == len(packets) == 50 + 1 + 1  # a filler of 40 ms and one of 10 ms
    steps = {round((later - earlier) * 1_000) for earlier, later in itertools.pairwise(times)}
    assert steps == {10, 20, 40}


@containers
def test_tags_and_length_are_read_by_ffprobe(tmp_path: Path, container: Container) -> None:
    path = tmp_path / f"a.{container}"
    length = write_file(path, container, encode_opus(tone(440, 2)))
    found = probe(path)
    (stream,) = found["streams"]
    tags = {
        name.lower(): text
        for name, text in {**stream.get("tags", {}), **found["format"].get("tags", {})}.items()
    }
    assert (tags["title"], tags["artist"]) == ("Stand-up é", "alice")
    assert stream["codec_name"] == "opus"
    assert float(found["format"]["duration"]) == pytest.approx(length / 48_000, abs=0.008)


@containers
def test_same_packets_give_the_same_bytes(tmp_path: Path, container: Container) -> None:
    packets = encode_opus(tone(440, 1))
    for name in ("a", "b"):
        write_file(tmp_path / name, container, packets, fills={3: 960})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_mkvinfo_reads_codec_delay_and_seek_pre_roll(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_file(path, Container.MKV, encode_opus(tone(440, 1)))
    text = run_program("mkvinfo", path).decode()
    assert "Codec ID: A_OPUS" in text
    assert re.search(r"Codec-inherent delay: 00:00:00\.006500000", text)
    assert re.search(r"Seek pre-roll: 00:00:00\.080000000", text)


UID = 0xFEDC_BA98_7654_3210


@pytest.mark.parametrize("container", [Container.MKV, Container.WEBM])
def test_track_has_the_uid_it_was_given_and_is_the_default(
    tmp_path: Path, container: Container
) -> None:
    path, other = tmp_path / f"a.{container}", tmp_path / f"b.{container}"
    packets = encode_opus(tone(440, 1))
    write_file(path, container, packets, uid=UID)
    write_file(other, container, packets, uid=UID - 1)
    text = run_program("mkvinfo", "-v", "-v", path).decode()
    assert set(re.findall(r"Track UID: (\d+)", text)) == {str(UID)}
    assert "Default track" not in text or '"Default track" flag: 1' in text
    assert "CRC" not in text or "mismatch" not in text
    (stream,) = probe(path)["streams"]
    assert stream["disposition"]["default"] == 1
    one, two = path.read_bytes(), other.read_bytes()
    assert len(one) == len(two)
    # The UID ends in another byte; of each part that it is in, the four bytes that check it follow.
    assert 2 <= sum(a != b for a, b in zip(one, two, strict=True)) <= 15
    # A reader that checks them: FFmpeg's says so of a part that does not agree.
    said = run_program("ffmpeg", "-v", "warning", "-err_detect", "crccheck+explode", "-i", path,
                       "-f", "null", "-")  # fmt: skip
    assert said == b""


def test_ogg_stream_has_a_serial_number_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    write_file(path, Container.OGG, encode_opus(tone(440, 3)), uid=UID)
    data = path.read_bytes()
    pages = [found.start() for found in re.finditer(rb"OggS\0", data)]
    serials = {int.from_bytes(data[page + 14 : page + 18], "little") for page in pages}
    assert len(pages) > 3
    assert serials == {UID & 0x7FFF_FFFF}


@pytest.mark.parametrize("uid", [0, -1, 1 << 64])
def test_uid_that_matroska_cannot_hold_is_refused(tmp_path: Path, uid: int) -> None:
    with pytest.raises(ValueError, match="track UID"):
        write_file(tmp_path / "a.mkv", Container.MKV, encode_opus(tone(440, 0.1)), uid=uid)


def test_file_seeks_to_the_asked_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_file(path, Container.MKV, encode_opus(tone(440, 10)) + encode_opus(tone(880, 10)))
    out = run_program(
        "ffmpeg", "-v", "error", "-ss", "15", "-i", path, "-t", "1", "-f", "f32le", "-"
    )
    pcm = np.frombuffer(out, dtype="<f4").reshape(-1, 1)
    assert len(pcm) == 48_000
    assert loudest_hz(pcm) == pytest.approx(880, abs=2)


@pytest.mark.parametrize("samples", [1, 119, 121])
def test_hole_off_the_grid_is_refused(tmp_path: Path, samples: int) -> None:
    with (
        OpusFile(tmp_path / "a.mkv", Container.MKV, 1, {}) as file,
        pytest.raises(ValueError, match=rf"a hole of {samples} samples is not whole Opus frames"),
    ):
        file.fill(samples)
