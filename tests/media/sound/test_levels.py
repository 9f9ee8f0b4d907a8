"""Loudness and peak: against the standard's own signals, a plain recursive filter, and the ffmpeg
program.
"""

from __future__ import annotations

import re
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import Pcm, noise, silence, tone
from tests.support.media import SAMPLES, open_in, part_files, unpack
from transforms.media.sound.decode import Repairs, decode_track
from transforms.media.sound.levels import CELL_SAMPLES, QUANTUM_SAMPLES, KWeighting, LevelMeter
from transforms.media.track.staged_packets import load_index
from transforms.media.track.timeline import place_packets, plan_pieces


def measure(audio: Pcm, size: int = 48_000, start: int = 0) -> LevelMeter:
    meter = LevelMeter(audio.shape[1])
    for at in range(0, len(audio), size):
        meter.add(start + at, audio[at : at + size])
    meter.end()
    return meter


def at_dbfs(level: float, seconds: float, channels: int = 2) -> Pcm:
    return tone(1_000, seconds, channels, amplitude=10 ** (level / 20))


def ask_ffmpeg(audio: Pcm, path: Path) -> float:
    """Returns the integrated loudness the ffmpeg program measures."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(audio.shape[1])
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.rint(audio * 32_767).astype("<i2").tobytes())
    command = ["ffmpeg", "-nostats", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.findall(r"I:\s+(-?[\d.]+) LUFS", said)[-1])


def test_weighting_is_the_recursive_filter_of_the_standard() -> None:
    sent = noise(0.25)[:, 0].astype(np.float64)
    expected = sent
    for b, a in (
        (
            (1.53512485958697, -2.69169618940638, 1.19839281085285),
            (1.0, -1.69065929318241, 0.73248077421585),
        ),
        ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
    ):
        out = np.zeros_like(expected)
        for n in range(len(expected)):
            out[n] = sum(b[k] * expected[n - k] for k in range(3) if n >= k) - sum(
                a[k] * out[n - k] for k in (1, 2) if n >= k
            )
        expected = out
    weighting = KWeighting()
    single = sent.astype(np.float32)
    found = np.concatenate(
        [weighting.filter(single[:QUANTUM_SAMPLES]), weighting.filter(single[QUANTUM_SAMPLES:])]
    )
    assert 20 * np.log10(np.abs(found - expected).max() / np.abs(expected).max()) < -115


def test_weighting_refuses_what_is_no_whole_quantum() -> None:
    with pytest.raises(ValueError, match="2399 samples are not a multiple of 2400"):
        KWeighting().filter(np.zeros(QUANTUM_SAMPLES - 1, dtype=np.float32))


# EBU Tech 3341 table 1, cases 1 to 5: (dBFS, seconds) of a stereo sine of 1 kHz, and the loudness
# expected.
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
    ids=["1", "2", "3", "4", "5"],
)
def test_signals_of_the_standard_are_as_loud_as_it_says(
    parts: Sequence[tuple[float, float]], expected: float
) -> None:
    audio = np.concatenate([at_dbfs(level, seconds) for level, seconds in parts])
    assert measure(audio).loudness_lufs == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_of_bursts_is_ffmpegs(channels: int, tmp_path: Path) -> None:
    bursts = [
        part
        for number in range(20)
        for part in (
            noise(0.3 + 0.13 * (number % 5), channels, amplitude=0.4 / (number + 1), seed=number),
            silence(0.37, channels),
        )
    ]
    audio = np.concatenate(bursts)
    assert measure(audio).loudness_lufs == pytest.approx(
        ask_ffmpeg(audio, tmp_path / "a.wav"), abs=0.1
    )


def test_loudness_of_speech_is_ffmpegs(tmp_path: Path) -> None:
    unpacked = unpack((SAMPLES / "weekly_sync.tar.gz").read_bytes(), tmp_path / "u")
    part = part_files(unpacked)[0]
    pieces = plan_pieces([load_index((tmp_path / "u" / part.index).read_bytes())])
    chunks = decode_track(
        place_packets(pieces, lambda _: open_in(tmp_path / "u")(part.packets)), 1, Repairs()
    )
    audio = np.concatenate([chunk.pcm for chunk in chunks])
    meter = measure(audio)
    assert meter.loudness_lufs == pytest.approx(ask_ffmpeg(audio, tmp_path / "a.wav"), abs=0.1)
    assert meter.peak_dbfs == pytest.approx(20 * np.log10(np.abs(audio).max()))


@pytest.mark.parametrize("size", [120, 960, 2_881, 48_000, 500_000])
def test_pieces_of_any_size_measure_the_same(size: int) -> None:
    audio = np.concatenate([noise(3, amplitude=0.3), silence(1), noise(2.2, amplitude=0.05)])
    assert measure(audio, size).loudness_lufs == pytest.approx(
        measure(audio).loudness_lufs, abs=1e-4
    )


def test_silence_that_is_not_given_counts_as_silence() -> None:
    first, second = noise(2, amplitude=0.3), noise(1.3, seed=2)
    given = measure(np.concatenate([first, silence(100), second]))
    skipped = LevelMeter(1)
    skipped.add(0, first)
    skipped.add(102 * 48_000, second)
    skipped.end()
    assert skipped.loudness_lufs == pytest.approx(given.loudness_lufs, abs=0.01)
    assert skipped.peak_dbfs == given.peak_dbfs


@pytest.mark.parametrize("gap", [1, 479, 480, 2_399, 2_400, 4_799, 4_801, 20_000])
def test_pieces_may_follow_each_other_closely(gap: int) -> None:
    line = np.zeros((20 * (5_000 + gap), 1), dtype=np.float32)
    meter = LevelMeter(1)
    for number in range(20):
        at = number * (5_000 + gap)
        line[at : at + 5_000] = noise(5_000 / 48_000, amplitude=0.3, seed=number)
        meter.add(at, line[at : at + 5_000])
    meter.end()
    assert meter.loudness_lufs == pytest.approx(measure(line).loudness_lufs, abs=0.15)


def test_cells_tell_where_and_how_loud() -> None:
    meter = LevelMeter(1)
    audio = tone(1_000, 1.005, amplitude=0.5)
    parts = [meter.add(1_000, audio[:30_000]), meter.add(31_000, audio[30_000:]), meter.end()]
    starts, weighted, plain = (np.concatenate(found) for found in zip(*parts, strict=True))
    assert starts.tolist() == [1_000 + CELL_SAMPLES * k for k in range(101)]
    assert plain[5:-1] / CELL_SAMPLES == pytest.approx(0.125, rel=0.01)
    assert plain[-1] / CELL_SAMPLES == pytest.approx(0.0625, rel=0.01)
    # 1 kHz is weighted by 0.691 dB, which the definition of LUFS takes off again.
    assert -0.691 + 10 * np.log10(weighted[20] / CELL_SAMPLES) == pytest.approx(
        10 * np.log10(0.125), abs=0.05
    )


def test_filter_runs_on_in_sound_that_does() -> None:
    """Cells are told of every ten seconds or so; a low hum would show where the filter began
    anew.
    """
    meter, hum = LevelMeter(1), tone(50, 35, amplitude=0.3)
    told = [meter.add(at, hum[at : at + 48_000]) for at in range(0, len(hum), 48_000)]
    weighted = np.concatenate([cells.weighted for cells in [*told, meter.end()]])
    assert weighted[50:-5] == pytest.approx(weighted[100], rel=0.01)


@pytest.mark.parametrize("size", [960, 2_400, 7_001, 48_000, 100_000])
def test_cells_of_each_piece_are_those_it_has_alone(size: int) -> None:
    """Twenty pieces with holes between: however they share blocks, none is measured in another."""
    draw = np.random.default_rng(size)
    together, alone, at = LevelMeter(1), [], 0
    told = []
    for number in range(20):
        audio = noise(size / 48_000, amplitude=10 ** draw.uniform(-4, -0.5), seed=number)
        told.append(together.add(at, audio))
        by_itself = LevelMeter(1)
        alone += [by_itself.add(at, audio), by_itself.end()]
        at += size + int(draw.integers(1, 30_000))
    told.append(together.end())
    for found, expected in zip(zip(*told, strict=True), zip(*alone, strict=True), strict=True):
        assert np.concatenate(found) == pytest.approx(np.concatenate(expected), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("audio", [silence(0), silence(3)], ids=["nothing", "zeros"])
def test_silence_has_neither_loudness_nor_peak(audio: Pcm) -> None:
    meter = measure(audio)
    assert meter.loudness_lufs is None
    assert meter.peak_dbfs is None


def test_what_is_shorter_than_a_block_has_a_peak_but_no_loudness() -> None:
    meter = measure(tone(1_000, 0.2, amplitude=0.5))
    assert meter.loudness_lufs is None
    assert meter.peak_dbfs == pytest.approx(-6.02, abs=0.01)


def test_loudest_audio_there_can_be_is_measured() -> None:
    square = np.sign(tone(60, 3, 2)) * 40
    assert measure(square.astype(np.float32)).loudness_lufs is not None
