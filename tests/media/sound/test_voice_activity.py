"""Bursts of speech: their ends against the truth, what is no speech, windows, pauses and
memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.builders import Pcm, encode_opus, noise, silence, tone
from tests.support.quality import sentences
from transforms.media.opus.libopus import OpusDecoder
from transforms.media.sound.levels import LevelMeter
from transforms.media.sound.voice_activity import SpeechBursts, SpeechDetector

NS_PER_SAMPLE = 1e9 / 48_000
Spans = list[tuple[float, float]]


def detect(audio: Pcm, starts: Sequence[tuple[int, Pcm]] = ()) -> SpeechBursts:
    """Returns the speech in some audio, or in pieces of it at their samples; the server's clock is
    100 s ahead.
    """
    meter, detector = LevelMeter(audio.shape[1]), SpeechDetector(audio.shape[1])
    end = 0
    for at, piece in starts or [(at, audio[at : at + 960]) for at in range(0, len(audio), 960)]:
        for cells in (meter.end(), meter.add(at, piece)) if at != end else (meter.add(at, piece),):
            detector.add(
                cells[0],
                100 * 10**9 + np.rint(cells[0] * NS_PER_SAMPLE).astype(np.int64),
                *cells[1:],
            )
        end = at + len(piece)
    cells = meter.end()
    detector.add(
        cells[0], 100 * 10**9 + np.rint(cells[0] * NS_PER_SAMPLE).astype(np.int64), *cells[1:]
    )
    return detector.finish(end)


def spans(bursts: SpeechBursts) -> Spans:
    return list(
        zip(
            (bursts.file_start_sample / 48_000).tolist(),
            (bursts.file_stop_sample / 48_000).tolist(),
            strict=True,
        )
    )


def conversation(pause_s: float) -> tuple[Pcm, Spans]:
    """Returns sentences between pauses, and where they are."""
    line, truth, position = [silence(pause_s)], [], pause_s
    for clip in sentences() * 2:
        line += [clip, silence(pause_s)]
        truth.append((position, position + len(clip) / 48_000))
        position += len(clip) / 48_000 + pause_s
    return np.concatenate(line), truth


def through_opus(audio: Pcm, *, dtx: bool = False) -> list[tuple[int, Pcm]]:
    """Returns pieces of audio as a receiver has them: coded, and nothing where the sender sent
    nothing.
    """
    decoder, pieces = OpusDecoder(1), []
    for number, packet in enumerate(encode_opus(audio, dtx=dtx)):
        pcm = decoder.decode(packet or None, 960)
        if packet and pcm is not None:
            pieces.append((number * 960, pcm))
    return pieces


@pytest.mark.parametrize("pause_s", [0.6, 1.3, 4.0])
@pytest.mark.parametrize("dtx", [False, True], ids=["all-sent", "dtx"])
def test_ends_of_clean_speech_are_within_100_ms(pause_s: float, dtx: bool) -> None:
    audio, truth = conversation(pause_s)
    found = spans(detect(audio, through_opus(audio, dtx=dtx)))
    assert len(found) == len(truth)
    assert np.array(found) == pytest.approx(np.array(truth), abs=0.1)


@pytest.mark.parametrize("noise_dbfs", [-60, -50])
def test_ends_of_speech_in_noise_are_near(noise_dbfs: int) -> None:
    audio, truth = conversation(1.3)
    audio = (
        audio
        + noise(len(audio) / 48_000, amplitude=10 ** (noise_dbfs / 20) * np.sqrt(3))[: len(audio)]
    )
    found = spans(detect(audio, through_opus(audio)))
    assert len(found) == len(truth)
    assert np.array(found) == pytest.approx(
        np.array(truth), abs=0.25
    )  # weak ends of words are below the noise


@pytest.mark.parametrize("gain_db", [-20, 0, 6])
def test_quiet_and_loud_voices_are_found_alike(gain_db: int) -> None:
    audio, truth = conversation(1.3)
    found = spans(detect((audio * 10 ** (gain_db / 20)).astype(np.float32)))
    assert np.array(found) == pytest.approx(np.array(truth), abs=0.15)


@pytest.mark.parametrize(
    "audio",
    [
        silence(30),
        noise(30, amplitude=0.001),
        noise(30, amplitude=0.1),
        tone(100, 30, amplitude=0.1),
        tone(50, 30, amplitude=0.5) + noise(30, amplitude=0.01),
        tone(440, 0.3, amplitude=0.0005),
    ],
    ids=["silence", "faint-noise", "loud-noise", "hum", "mains", "whisper-of-a-tone"],
)
def test_what_does_not_change_is_no_speech(audio: Pcm) -> None:
    assert spans(detect(audio)) == []


def test_click_is_no_speech() -> None:
    audio = silence(3)
    audio[70_000:70_600] = noise(600 / 48_000, amplitude=0.5)
    assert spans(detect(audio)) == []


@pytest.mark.parametrize(("pause_ms", "count"), [(250, 1), (400, 2)])
def test_short_pauses_belong_to_the_burst(pause_ms: int, count: int) -> None:
    word = noise(0.4, amplitude=0.2)
    audio = np.concatenate([silence(1), word, silence(pause_ms / 1000), word, silence(1)])
    assert len(spans(detect(audio))) == count


def test_burst_over_several_windows_is_one() -> None:
    syllables = np.concatenate([noise(0.2, amplitude=0.2), silence(0.1)] * 100)
    (found,) = spans(detect(np.concatenate([silence(3.333), syllables, silence(20)])))
    assert found == pytest.approx((3.333, 33.233), abs=0.05)


@pytest.mark.parametrize("start_s", [9.5, 9.97, 9.99, 10.0, 10.02, 19.98])
def test_edge_of_a_window_does_not_cut(start_s: float) -> None:
    audio = np.concatenate([silence(start_s), noise(0.5, amplitude=0.2), silence(12)])
    (found,) = spans(detect(audio))
    assert found == pytest.approx((start_s, start_s + 0.5), abs=0.02)


def test_level_is_the_mean_square_of_the_burst() -> None:
    bursts = detect(
        np.concatenate([silence(1), tone(1_000, 2, 2, amplitude=0.5)[:, :1], silence(1)])
    )
    assert bursts.level_dbfs.tolist() == [pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.1)]


def test_server_time_goes_with_file_time_and_hours_of_silence_cost_nothing() -> None:
    word = np.concatenate(
        [silence(0.2), noise(0.5, amplitude=0.2), silence(0.2)]
    )  # as much as a sender with DTX sends of it
    hours = 7 * 3600 * 48_000
    bursts = detect(word, [(48_000, word), (hours, word)])
    assert spans(bursts) == [
        pytest.approx((1.2, 1.7), abs=0.02),
        pytest.approx((7 * 3600.0 + 0.2, 7 * 3600 + 0.7), abs=0.02),
    ]
    assert (bursts.server_start_unix_ns / 1e9).tolist() == pytest.approx(
        [101.2, 100.2 + 7 * 3600], abs=0.02
    )
    assert (bursts.server_stop_unix_ns - bursts.server_start_unix_ns).tolist() == pytest.approx(
        [5e8, 5e8], abs=2e7
    )


def test_speech_never_reaches_beyond_the_file() -> None:
    audio = np.concatenate([silence(1), noise(0.5, amplitude=0.2)[:-100]])
    assert detect(audio).file_stop_sample.tolist() == [len(audio)]


def test_nothing_given_is_nothing_found() -> None:
    bursts = SpeechDetector(1).finish(0)
    assert len(bursts.file_start_sample) == len(bursts.level_dbfs) == 0
