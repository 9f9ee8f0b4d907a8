"""MP3 files: exactly the samples put in, in every reader; the LAME header's numbers and checksums;
tags.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.builders import Pcm, noise, tone
from tests.support.media import (
    best_lag,
    decode_with_ffmpeg,
    decode_with_pyav,
    loudest_hz,
    probe,
    rms,
    run_program,
)
from transforms.media.containers.mp3 import Mp3File, write_id3
from transforms.media.settings import MP3_BITRATES_KBPS, Mp3Mode, Mp3Settings
from transforms.media.sound.mix import to_pcm16

CBR, VBR = Mp3Settings(), Mp3Settings(mode=Mp3Mode.VBR)
TAGS = {"title": "Stand-up é", "artist": "alice, bob", "CALL_CID": "default:standup"}
modes = pytest.mark.parametrize("settings", [CBR, VBR], ids=["cbr", "vbr"])
both_channels = pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])


def write_mp3(
    path: Path, audio: Pcm, settings: Mp3Settings = CBR, block_samples: int = 48_000
) -> Mp3File:
    """Writes audio in blocks; returns the closed file."""
    with Mp3File(path, settings, audio.shape[1], TAGS) as file:
        for at in range(0, len(audio), block_samples):
            file.write(to_pcm16(audio[at : at + block_samples]))
    return file


def decode_with_mpg123(path: Path, channels: int) -> Pcm:
    out = run_program(
        "mpg123", "-q", "-s", "--stereo" if channels == 2 else "--mono", "-e", "s16", path
    )
    return (np.frombuffer(out, dtype="<i2").reshape(-1, channels) / 32_768).astype(np.float32)


def lengths(path: Path, channels: int) -> dict[str, int]:
    """Returns how many samples each reader gets."""
    return {
        "PyAV": len(decode_with_pyav(path)),
        "ffmpeg": len(decode_with_ffmpeg(path, channels)),
        "mpg123": len(decode_with_mpg123(path, channels)),
    }


@modes
@both_channels
@pytest.mark.parametrize(
    "samples", [1, 2, 575, 1_151, 1_152, 1_153, 2_304, 47_999, 48_000, 100_003]
)
def test_every_reader_gets_exactly_the_samples_put_in(
    tmp_path: Path, settings: Mp3Settings, channels: int, samples: int
) -> None:
    path = tmp_path / "a.mp3"
    file = write_mp3(path, noise(samples / 48_000, channels), settings)
    assert file.samples == samples
    assert lengths(path, channels) == {"PyAV": samples, "ffmpeg": samples, "mpg123": samples}


@modes
@both_channels
def test_empty_file_holds_one_sample_of_silence(
    tmp_path: Path, settings: Mp3Settings, channels: int
) -> None:
    path = tmp_path / "a.mp3"
    file = write_mp3(path, noise(0, channels), settings)
    assert file.samples == 1
    assert lengths(path, channels) == {"PyAV": 1, "ffmpeg": 1, "mpg123": 1}
    assert rms(decode_with_pyav(path)) < 1e-4


@pytest.mark.parametrize("kbps", MP3_BITRATES_KBPS)
@both_channels
def test_every_bit_rate_is_exact_in_length_and_rate(
    tmp_path: Path, kbps: int, channels: int
) -> None:
    path = tmp_path / "a.mp3"
    file = write_mp3(path, tone(440, 1, channels), Mp3Settings(bitrate_kbps=kbps))
    assert lengths(path, channels) == {"PyAV": 48_000, "ffmpeg": 48_000, "mpg123": 48_000}
    assert file.bitrate_bps == kbps * 1_000
    (stream,) = probe(path)["streams"]
    assert (stream["sample_rate"], stream["channels"]) == ("48000", channels)
    assert loudest_hz(decode_with_ffmpeg(path, channels)) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("quality", range(10))
def test_every_vbr_quality_is_exact_in_length(tmp_path: Path, quality: int) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, noise(1), Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=quality))
    assert lengths(path, 1) == {"PyAV": 48_000, "ffmpeg": 48_000, "mpg123": 48_000}


@modes
@both_channels
def test_sound_lies_where_it_was_put(tmp_path: Path, settings: Mp3Settings, channels: int) -> None:
    path, sent = tmp_path / "a.mp3", noise(2, channels)
    write_mp3(path, sent, settings)
    for heard in (
        decode_with_pyav(path),
        decode_with_ffmpeg(path, channels),
        decode_with_mpg123(path, channels),
    ):
        assert best_lag(heard, sent) == 0
        assert rms(heard) == pytest.approx(rms(sent), rel=0.2)  # LAME takes the highest band off


def test_sides_of_stereo_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, np.concatenate([tone(440, 1), tone(1_000, 1)], axis=1))
    heard = decode_with_ffmpeg(path, 2)
    assert loudest_hz(heard[:, :1]) == pytest.approx(440, abs=2)
    assert loudest_hz(heard[:, 1:]) == pytest.approx(1_000, abs=2)


@modes
def test_blocks_do_not_change_the_file(tmp_path: Path, settings: Mp3Settings) -> None:
    sent = noise(1.5, 2)
    write_mp3(tmp_path / "a", sent, settings)
    write_mp3(tmp_path / "b", sent, settings, block_samples=777)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- silence --------------------------------------------------------------------------------------


def write_around_silence(path: Path, parts: Sequence[Pcm | int], settings: Mp3Settings) -> Mp3File:
    """Writes sound, and for each number so many samples of silence; returns the closed file."""
    channels = next(part.shape[1] for part in parts if not isinstance(part, int))
    with Mp3File(path, settings, channels, TAGS) as file:
        for part in parts:
            if isinstance(part, int):
                file.write_silence(part)
            else:
                file.write(to_pcm16(part))
    return file


@both_channels
@pytest.mark.parametrize(
    "settings",
    [
        Mp3Settings(bitrate_kbps=32),
        Mp3Settings(),
        Mp3Settings(bitrate_kbps=320, lame_level=9),
        VBR,
        Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=9, lame_level=2),
    ],
    ids=["32", "128", "320", "vbr-2", "vbr-9"],
)
def test_long_silence_is_written_as_it_is_encoded(
    tmp_path: Path, settings: Mp3Settings, channels: int
) -> None:
    """To the byte, bit reservoir, header and all: also where it begins or ends the file, and where
    its edges lie within a frame.
    """
    sound = [noise(0.7 + n / 7, channels, amplitude=0.3, seed=n) for n in range(3)]
    parts: list[Pcm | int] = [
        600_001, sound[0], 700_777, sound[1], 589_824, sound[2], 30 * 1_152 + 1, sound[0], 900_000,
    ]  # fmt: skip
    write_around_silence(tmp_path / "a", parts, settings)
    spelled_out = [
        np.zeros((part, channels), dtype=np.float32) if isinstance(part, int) else part
        for part in parts
    ]
    write_mp3(tmp_path / "b", np.concatenate(spelled_out), settings)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@modes
@both_channels
def test_every_reader_gets_the_silence_and_the_sound_at_its_edges(
    tmp_path: Path, settings: Mp3Settings, channels: int
) -> None:
    path, gap = tmp_path / "a.mp3", 60 * 48_000 + 5
    before, after = tone(440, 2, channels), noise(2, channels)
    file = write_around_silence(path, [before, gap, after], settings)
    assert file.samples == 4 * 48_000 + gap
    for heard in (
        decode_with_pyav(path),
        decode_with_ffmpeg(path, channels),
        decode_with_mpg123(path, channels),
    ):
        assert len(heard) == file.samples
        assert best_lag(heard[: 2 * 48_000], before) == 0
        assert best_lag(heard[2 * 48_000 + gap :], after) == 0
        assert not heard[2 * 48_000 + 2 * 1_152 : 2 * 48_000 + gap - 2 * 1_152].any()


# --- the header -----------------------------------------------------------------------------------


def crc16_arc(data: bytes) -> int:
    """CRC-16 with polynomial 0x8005 reflected, as LAME's `VbrTag.c` computes it."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def frames_of(data: bytes) -> list[bytes]:
    """Returns the MPEG frames behind the ID3 tag; nothing may lie between or behind them."""
    assert data[:3] == b"ID3"
    position = 10 + sum(
        (byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True)
    )
    frames = []
    while position < len(data):
        (header,) = struct.unpack_from(">I", data, position)
        assert header & 0xFFFF_0C00 == 0xFFFB_0400, "MPEG-1 layer III at 48 kHz without a CRC"
        size = 144 * MP3_BITRATES_KBPS[(header >> 12 & 15) - 1] * 1_000 // 48_000 + (
            header >> 9 & 1
        )
        frames.append(data[position : position + size])
        position += size
    assert position == len(data)
    return frames


@modes
@both_channels
@pytest.mark.parametrize("kbps", [32, 128, 320])
def test_lame_header_states_what_the_file_holds(
    tmp_path: Path, settings: Mp3Settings, channels: int, kbps: int
) -> None:
    path, samples = tmp_path / "a.mp3", 100_003
    settings = Mp3Settings(mode=settings.mode, bitrate_kbps=kbps)
    cbr = settings.mode == Mp3Mode.CBR
    write_mp3(path, noise(samples / 48_000, channels), settings)
    header, *frames = frames_of(path.read_bytes())
    music = b"".join(frames)
    at = 4 + (17 if channels == 1 else 32)
    assert header[at : at + 4] == (b"Info" if cbr else b"Xing")
    flags, frame_count, byte_count = struct.unpack_from(">III", header, at + 4)
    assert (flags, frame_count, byte_count) == (15, len(frames), len(header) + len(music))
    lame = at + 4 + 12 + 100 + 4
    assert header[lame : lame + 4] == b"LAME"
    assert header[lame + 9] == (0x01 if cbr else 0x04)
    assert header[lame + 20] == (min(kbps, 255) if cbr else 0)
    delay_and_padding = int.from_bytes(header[lame + 21 : lame + 24], "big")
    assert delay_and_padding >> 12 == 576
    assert len(frames) * 1_152 - 576 - (delay_and_padding & 0xFFF) == samples
    music_length, music_crc, header_crc = struct.unpack_from(">IHH", header, lame + 28)
    assert music_length == byte_count
    assert music_crc == crc16_arc(music)
    assert header_crc == crc16_arc(header[: lame + 34])


@modes
def test_table_of_contents_says_where_each_hundredth_is(
    tmp_path: Path, settings: Mp3Settings
) -> None:
    path = tmp_path / "a.mp3"
    loud_then_quiet = np.concatenate([noise(10, 2, amplitude=0.5), noise(10, 2, amplitude=0.001)])
    write_mp3(path, loud_then_quiet, settings)
    header, *frames = frames_of(path.read_bytes())
    table = header[4 + 32 + 16 :][:100]
    ends = list(itertools.accumulate(map(len, [header, *frames])))
    assert table[0] == 0
    assert list(table) == sorted(table)
    for entry in range(1, 100):
        assert table[entry] == min(255, ends[entry * len(frames) // 100] * 256 // ends[-1])


def test_seeking_by_the_table_lands_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, np.concatenate([tone(440, 10), tone(880, 10)]), VBR)
    out = run_program(
        "ffmpeg", "-v", "error", "-ss", "12", "-i", path, "-t", "1", "-f", "f32le", "-"
    )
    assert loudest_hz(np.frombuffer(out, dtype="<f4").reshape(-1, 1)) == pytest.approx(880, abs=2)


def test_nothing_is_written_over_the_header_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"

    def fail() -> None:
        with Mp3File(path, CBR, 1, TAGS) as file:
            file.write(to_pcm16(noise(1)))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert b"Info" not in path.read_bytes()


# --- tags -----------------------------------------------------------------------------------------


def test_tags_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, tone(440, 1))
    tags = {name.lower(): text for name, text in probe(path)["format"]["tags"].items()}
    assert tags["title"] == "Stand-up é"
    assert tags["artist"] == "alice, bob"
    assert tags["call_cid"] == "default:standup"
    with av.open(str(path)) as opened:
        assert opened.metadata["title"] == "Stand-up é"


def test_tag_is_id3_version_2_4_and_the_same_every_time() -> None:
    tag = write_id3(TAGS)
    assert tag[:5] == b"ID3\x04\x00"
    assert tag == write_id3(TAGS)


def test_length_is_told_without_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, noise(5, 2), VBR)
    assert float(probe(path)["format"]["duration"]) == pytest.approx(5, abs=0.05)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bitrate_kbps": 100}, r"bitrate_kbps is 100, expected one of \[32, 40"),
        ({"vbr_quality": 10}, r"vbr_quality is 10, expected 0 \(best\) to 9 \(smallest\)"),
        ({"vbr_quality": -1}, r"vbr_quality is -1"),
        ({"channels": 3}, r'channels is 3, expected "auto", 1 or 2'),
        ({"channels": "stereo"}, r"channels is 'stereo'"),
        ({"lame_level": 10}, r"lame_level is 10, expected 0 \(best\) to 9 \(fastest\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mp3Settings(**changes)  # type: ignore[arg-type]
