"""The sum of the tracks, its limiter, and 16-bit samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import Pcm, noise, tone
from tests.support.media import best_lag, make_clock
from transforms.media.clock.model import ClockPiece
from transforms.media.sound.decode import FADE_SAMPLES, Chunk
from transforms.media.sound.limiter import CEILING, Limiter
from transforms.media.sound.mix import BLOCK_SAMPLES, Silence, TrackPlayer, mix_tracks, to_pcm16
from transforms.media.sound.place import lengthened, place_audio
from transforms.media.track.staged_packets import StagedPacketRun
from transforms.media.track.timeline import Piece


def play(*blocks: tuple[int, Pcm]) -> TrackPlayer:
    return TrackPlayer(iter(blocks))


def mix(players: Sequence[TrackPlayer], channels: int = 1) -> Pcm:
    return np.concatenate(
        [
            np.zeros((0, channels), dtype=np.float32),
            *(spelled_out(block, channels) for block in mix_tracks(players, channels)),
        ]
    )


def spelled_out(block: Pcm | Silence, channels: int = 1) -> Pcm:
    if isinstance(block, Silence):
        return np.zeros((block.samples, channels), dtype=np.float32)
    return block


def limit(audio: Pcm, block_samples: int = BLOCK_SAMPLES) -> tuple[Pcm, Limiter]:
    limiter = Limiter(audio.shape[1])
    blocks = [
        limiter.process(audio[at : at + block_samples])
        for at in range(0, len(audio), block_samples)
    ]
    return np.concatenate(
        [np.zeros((0, audio.shape[1]), dtype=np.float32), *blocks, limiter.flush()]
    ), limiter


@pytest.mark.parametrize("length", [1, 47_999, 48_000, 48_001, 96_000, 100_000])
@pytest.mark.parametrize("block", [120, 960, 5_760, 100_000])
def test_one_track_comes_out_as_it_went_in(length: int, block: int) -> None:
    sent = noise(length / 48_000)
    blocks = [(at, sent[at : at + block]) for at in range(0, length, block)]
    assert np.array_equal(mix([play(*blocks)]), sent)


def test_blocks_are_a_second_each_and_the_last_is_shorter() -> None:
    blocks = [spelled_out(block) for block in mix_tracks([play((0, noise(2.5)))], 1)]
    assert [len(block) for block in blocks] == [48_000, 48_000, 24_000]


def test_what_no_track_has_is_told_and_not_made() -> None:
    """Two blocks of it are, for what comes behind to come to rest, and one in which sound begins;
    then also where one of two goes on sooner.
    """
    one, two, hour = noise(0.5, seed=1), noise(0.5, seed=2), 3_600 * 48_000
    sound = [play((hour, one), (3 * hour + 7, one)), play((hour + 48_000, two), (2 * hour, two))]
    blocks = list(mix_tracks(sound, 1))
    silences = [block.samples for block in blocks if isinstance(block, Silence)]
    assert silences == [hour - 96_000, hour - 4 * 48_000, hour - 3 * 48_000]
    assert len(blocks) - len(silences) == 2 + 4 + 3 + 1
    whole = np.zeros((3 * hour + 7 + 24_000, 1), dtype=np.float32)
    for at, pcm in [(hour, one), (hour + 48_000, two), (2 * hour, two), (3 * hour + 7, one)]:
        whole[at : at + len(pcm)] += pcm
    position = 0
    for block in blocks:
        length = block.samples if isinstance(block, Silence) else len(block)
        expected = whole[position : position + length]
        if isinstance(block, Silence):
            assert not expected.any()
        else:
            assert np.array_equal(block, expected)
        position += length
    assert position == len(whole)


def test_tracks_are_summed_at_their_samples_at_unity_gain() -> None:
    one, two = noise(1, seed=1), noise(2, seed=2)
    expected = np.zeros((30_001 + 96_000, 1), dtype=np.float32)
    expected[7 : 7 + 48_000] += one
    expected[30_001:] += two
    assert np.array_equal(mix([play((7, one)), play((30_001, two))]), expected)


def test_track_with_long_holes_keeps_its_places() -> None:
    sent = noise(0.1)
    line = mix([play((0, sent), (480_000, sent), (500_000, sent))])
    assert len(line) == 504_800
    for at in (0, 480_000, 500_000):
        assert np.array_equal(line[at : at + 4_800], sent)
    assert not line[4_800:480_000].any()


def test_mono_sounds_on_both_sides_of_stereo() -> None:
    mono, stereo = noise(0.5, seed=1), noise(0.5, 2, seed=2)
    assert np.array_equal(mix([play((0, mono)), play((0, stereo))], 2), stereo + mono)


def test_audio_before_the_line_is_cut_off() -> None:
    sent = noise(0.5)
    assert np.array_equal(mix([play((-100, sent))]), sent[100:])


def test_no_tracks_mix_to_nothing() -> None:
    assert list(mix_tracks([], 2)) == []


def test_empty_track_adds_nothing() -> None:
    sent = noise(1.5)
    assert np.array_equal(mix([play(), play((0, sent))]), sent)
    assert len(mix([play()])) == 0


def test_audio_is_fetched_no_further_than_the_block_needs() -> None:
    fetched = []

    def audio() -> Iterator[tuple[int, Pcm]]:
        for second in range(10):
            fetched.append(second)
            yield second * 48_000, noise(1)

    next(mix_tracks([TrackPlayer(audio())], 1))
    assert len(fetched) == 2


# --- the limiter ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 287, 288, 289, 48_000, 48_001, 100_003])
def test_limiter_keeps_every_sample_when_nothing_is_loud(length: int) -> None:
    sent = noise(length / 48_000, 2, amplitude=CEILING)
    out, limiter = limit(sent)
    assert np.array_equal(out, sent)
    assert limiter.limited_samples == 0


@pytest.mark.parametrize("block", [1, 47, 48, 480, 1_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_limiter_passes_no_sample_over_the_ceiling(block: int, channels: int) -> None:
    sent = noise(0.2, channels, amplitude=4)
    out, limiter = limit(sent, block)
    assert out.shape == sent.shape
    assert np.abs(out).max() <= CEILING * (1 + 1e-6)
    assert limiter.limited_samples > 0


@settings(max_examples=40)
@given(
    st.integers(0, 5_000),
    st.lists(
        # A gain makes zero, which has no sign, of what is below the least normal number.
        st.tuples(st.integers(0, 4_999), st.floats(-8, 8, width=32, allow_subnormal=False)),
        max_size=10,
    ),
    st.data(),
)
def test_limiter_keeps_length_sign_and_ceiling(
    length: int, peaks: list[tuple[int, float]], data: st.DataObject
) -> None:
    sent = noise(length / 48_000, seed=length)
    for at, value in peaks:
        if at < length:
            sent[at] = value
    out, _ = limit(sent, data.draw(st.integers(1, 2_000)))
    assert len(out) == length
    assert (np.abs(out) <= CEILING * (1 + 1e-6)).all()
    assert (np.abs(out) <= np.abs(sent) * (1 + 1e-6)).all()
    assert (np.sign(out) == np.sign(sent)).all()


def test_blocks_do_not_change_what_the_limiter_does() -> None:
    sent = noise(0.5, 2, amplitude=0.5)
    sent[10_000:12_000] *= 5
    whole, _ = limit(sent)
    for block in (100, 960, 7_777):
        assert np.allclose(limit(sent, block)[0], whole, atol=1e-6)


def test_gain_falls_just_before_a_peak_and_comes_back() -> None:
    sent = tone(1_000, 2, amplitude=0.5)
    sent[48_000:48_480] *= 4
    out, _ = limit(sent)
    assert np.array_equal(out[: 48_000 - 6 * 48], sent[: 48_000 - 6 * 48])
    assert np.abs(out[48_000:48_480]).max() == pytest.approx(CEILING, rel=0.02)
    assert (
        np.abs(out[48_480 + 3_840 : 48_480 + 4_800]).max() < 0.5 * 0.9
    )  # after 80 ms still on the way back
    assert np.array_equal(out[-4_800:], sent[-4_800:])


def test_gain_falls_without_a_step() -> None:
    sent = np.full((9_600, 1), 0.5, dtype=np.float32)
    sent[4_800:5_280] *= 4
    out, _ = limit(sent)
    gain = out[:, 0] / sent[:, 0]
    assert gain.min() == pytest.approx(CEILING / 2, rel=1e-3)
    assert np.abs(np.diff(gain)).max() < (1 - CEILING / 2) / 200


def test_both_sides_get_the_same_gain() -> None:
    sent = np.concatenate([tone(440, 0.5, amplitude=2), tone(440, 0.5, amplitude=0.2)], axis=1)
    out, _ = limit(sent)
    assert np.allclose(out[:, 0], out[:, 1] * 10, atol=1e-5)


# --- 16 bits --------------------------------------------------------------------------------------


def test_samples_become_16_bit_rounded_and_clipped() -> None:
    sent = np.array([[0, 1], [-1, 2], [-2, 0.5], [0.4 / 32_767, 0.6 / 32_767]], dtype=np.float32)
    out = to_pcm16(sent)
    assert out.dtype == np.int16
    assert out.tolist() == [[0, 32_767], [-32_767, 32_767], [-32_768, 16_384], [0, 1]]


def _piece(skew_ppm: float, server_start_ns: int = 0) -> Piece:
    clock = ClockPiece(
        media_start_sample=0,
        server_start_unix_ns=server_start_ns,
        skew_ppm=skew_ppm,
        is_fitted=True,
        sync_error_ns=0,
    )
    packet_run = StagedPacketRun(
        base_filename="a",
        track_id="t",
        ssrc=1,
        packet_count=1,
        packets_lost=0,
        media_stop_sample=1 << 40,
        file_offset_bytes=0,
        clock=make_clock(),
    )
    return Piece(
        part=0, packet_run=packet_run, clock=clock, media_stop_sample=1 << 40, opens_packet_run=True
    )


def _chunks(pcm: Pcm, size: int = 960, piece: int = 0, start: int = 0) -> list[Chunk]:
    return [
        Chunk(piece, start + at, start + at, pcm[at : at + size]) for at in range(0, len(pcm), size)
    ]


def _laid(chunks: list[Chunk], pieces: list[Piece], origin_ns: int = 0) -> Pcm:
    line = np.zeros((0, 1), dtype=np.float32)
    for at, pcm in place_audio(chunks, pieces, origin_ns):
        assert at >= len(line), "audio overlaps"
        line = np.concatenate([line, np.zeros((at - len(line), 1), dtype=np.float32), pcm])
    return line


def test_audio_without_skew_is_laid_as_it_is() -> None:
    sent = noise(1)
    assert np.array_equal(_laid(_chunks(sent), [_piece(0, 2_000_000_000)], 2_000_000_000), sent)


@pytest.mark.parametrize("skew_ppm", [12, 100, -100, 500, -500])
def test_skewed_audio_stays_in_step_with_the_servers_seconds(skew_ppm: float) -> None:
    sent = noise(60)
    piece = _piece(skew_ppm)
    heard = _laid(_chunks(sent, 48_000), [piece])
    assert abs(len(heard) - len(sent) * piece.clock.clock_rate_ratio) <= 6.5
    for at in range(1_000, len(heard) - 5_000, 12_000):
        said = round(at / piece.clock.clock_rate_ratio)
        assert abs(best_lag(heard[at : at + 2_400], sent[said : said + 2_400])) <= 9, (
            f"at {at / 48_000:.2f} s"
        )


@pytest.mark.parametrize("skew_ppm", [30, -500])
def test_keeping_in_step_is_not_heard(skew_ppm: float) -> None:
    """A pure tone stays one: no sample bends the line more than the tone does, and nothing else is
    in its spectrum.
    """
    heard = _laid(_chunks(tone(1_000, 20), 48_000), [_piece(skew_ppm)])[:, 0]
    bend = np.abs(np.diff(heard, 2)).max()
    assert bend <= 0.25 * (2 * np.pi * 1_000 / 48_000) ** 2 * 1.002
    spectrum = np.abs(np.fft.rfft(heard * np.blackman(len(heard))))
    beside = np.concatenate([spectrum[: 900 * 20], spectrum[1_100 * 20 :]])
    assert 20 * np.log10(beside.max() / spectrum.max()) < -90


@pytest.mark.parametrize("skew_ppm", [20, 100, 300, -300])
def test_sound_that_runs_on_is_not_cut_where_its_clock_bends(skew_ppm: float) -> None:
    """A second straight line of the same run goes on where the first ends, at another rate."""
    before = _piece(skew_ppm)
    bend = 10 * 48_000
    clock = replace(_piece(30, before.server_unix_ns(bend)).clock, media_start_sample=bend)
    after = replace(before, clock=clock, opens_packet_run=False)
    sent = tone(440, 20, amplitude=0.5)
    chunks = [*_chunks(sent[:bend], 48_000), *_chunks(sent[bend:], 48_000, piece=1, start=bend)]
    heard = _laid(chunks, [before, after])
    assert np.abs(np.diff(heard[:, 0])).max() <= 0.5 * 2 * np.pi * 440 / 48_000 * 1.001
    assert (
        abs(len(heard) - 10 * 48_000 * (before.clock.clock_rate_ratio + clock.clock_rate_ratio))
        <= 7
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [13, -13, 30])
def test_lengthened_audio_begins_and_ends_as_it_was(samples: int, channels: int) -> None:
    sent = noise(1, channels)
    heard = lengthened(sent, samples)
    assert heard.shape == (48_000 + samples, channels)
    edge = 48_000 // (abs(samples) + 2) - 1
    assert np.array_equal(heard[:edge], sent[:edge])
    assert np.array_equal(heard[-edge:], sent[-edge:])


@pytest.mark.parametrize(
    ("seconds", "is_left"), [(0.02, True), (0.2, True), (0.4, False), (1.5, False), (4.0, False)]
)
def test_short_piece_is_left_as_it_is_where_its_drift_is_nothing(
    seconds: float, is_left: bool
) -> None:
    sent = noise(seconds)
    heard = _laid(_chunks(sent, 48_000), [_piece(500)])
    assert (len(heard) == len(sent)) is is_left
    assert abs(len(heard) - len(sent) / (1 + 500e-6)) <= 7


def test_audio_behind_a_hole_begins_at_its_own_time() -> None:
    piece = _piece(200)
    sent = noise(0.5)
    chunks = [*_chunks(sent), *_chunks(sent, start=48_000 * 100)]
    heard = _laid(chunks, [piece])
    begins = round(48_000 * 100 * piece.clock.clock_rate_ratio)
    assert not heard[len(sent) + 100 : begins - 1].any()
    assert (
        best_lag(heard[begins : begins + 2_400], sent[:2_400]) == 0
    )  # so short a part becomes longer by half a sample


def test_overlap_of_two_packet_runs_sounds_once() -> None:
    first, second = tone(440, 1), noise(1)
    pieces = [_piece(0), _piece(0, 900_000_000)]  # the second begins 100 ms before the first ends
    heard = _laid([*_chunks(first), *_chunks(second, piece=1)], pieces)
    assert len(heard) == 48_000 + 43_200
    # Where both are cut the one fades out and the other in, over 5 ms each.
    assert np.array_equal(heard[: 48_000 - FADE_SAMPLES], first[:-FADE_SAMPLES])
    assert np.array_equal(heard[48_000 + FADE_SAMPLES :], second[4_800 + FADE_SAMPLES :])
    assert np.abs(heard[48_000 - 12 : 48_000 + 12]).max() < 0.01
