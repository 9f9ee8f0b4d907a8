"""From placed packets to PCM: positions exact, content by frequency and level, holes faded, FEC and
concealment heard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.builders import (
    APPLICATION_AUDIO,
    APPLICATION_LOW_DELAY,
    Pcm,
    encode_opus,
    noise,
    tone,
)
from tests.support.media import as_windows, best_lag, loudest_hz, rms
from transforms.media.opus.libopus import OpusDecoder, load_libopus
from transforms.media.opus.packet import carries_fec
from transforms.media.sound.decode import CONCEALED_SAMPLES, FADE_SAMPLES, Repairs, decode_track
from transforms.media.track.timeline import Hole, PlacedPacket

LOOK_AHEAD = 312


def place(
    packets: Sequence[bytes],
    *,
    duration: int = 960,
    lost: Sequence[int] = (),
    dtx: dict[int, int] | None = None,
    stalls: dict[int, int] | None = None,
    restarts: dict[int, int] | None = None,
    start: int = 0,
) -> list[PlacedPacket]:
    """Places packets: `lost` ones are missing; `dtx`, `stalls` and `restarts` are samples of hole
    before a packet.
    """
    placed: list[PlacedPacket] = []
    cursor, reached, missing = start, start, 0
    for number, packet in enumerate(packets):
        if number in lost:
            missing += 1
            cursor += duration
            continue
        kinds = ((dtx, Hole.DTX), (stalls, Hole.STALLED), (restarts, Hole.BETWEEN_PACKET_RUNS))
        found = [
            (kind, lengths[number]) for lengths, kind in kinds if lengths and number in lengths
        ]
        hole = Hole.LOST if missing else (found[0][0] if found else Hole.NONE)
        cursor += found[0][1] if found else 0
        if not placed:
            hole = Hole.BETWEEN_PACKET_RUNS
        placed.append(PlacedPacket(0, cursor, cursor, duration, hole, cursor - reached, packet))
        cursor += duration
        reached, missing = cursor, 0
    return placed


def listen(
    placed: Sequence[PlacedPacket], channels: int = 1, repairs: Repairs | None = None
) -> Pcm:
    """Returns a track as one array from sample 0; blocks must come in order and never overlap."""
    blocks, end = list(decode_track(as_windows(placed), channels, repairs or Repairs())), 0
    for _, at, file_at, pcm in blocks:
        assert at == file_at, "both lines begin at 0 here"
        assert at >= end, "blocks overlap"
        assert pcm.dtype == np.float32
        assert pcm.shape[1] == channels
        end = at + len(pcm)
    line = np.zeros((end, channels), dtype=np.float32)
    for _, at, _, pcm in blocks:
        line[at : at + len(pcm)] = pcm
    return line


def smooth(pcm: Pcm, limit: float = 0.03) -> bool:
    """Tells whether no sample steps further from the one before than `limit`; 440 Hz at 0.25 steps
    0.0144.
    """
    return bool(np.abs(np.diff(pcm[:, 0])).max() < limit)


def test_libopus_is_found_once() -> None:
    assert load_libopus() is load_libopus()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60, 120])
def test_length_is_all_packets_less_the_look_ahead(frame_ms: float, channels: int) -> None:
    duration = round(frame_ms * 48)
    packets = encode_opus(tone(440, 1.2, channels), frame_ms=frame_ms)
    pcm = listen(place(packets, duration=duration), channels)
    assert pcm.shape == (len(packets) * duration - LOOK_AHEAD, channels)
    assert loudest_hz(pcm) == pytest.approx(440, abs=2)
    assert rms(pcm) == pytest.approx(0.25 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("start", [0, 1, 7_001, 480_000])
def test_sound_lies_where_it_was_sent(start: int) -> None:
    sent = noise(1.5)
    pcm = listen(place(encode_opus(sent, bitrate_bps=128_000), start=start))
    assert best_lag(pcm[start:], sent) == 0
    assert not pcm[:start].any()


def test_sides_of_stereo_stay_apart() -> None:
    sent = np.concatenate([tone(440, 1), tone(1_000, 1)], axis=1)
    pcm = listen(place(encode_opus(sent, bitrate_bps=96_000)), 2)
    assert loudest_hz(pcm[:, :1]) == pytest.approx(440, abs=2)
    assert loudest_hz(pcm[:, 1:]) == pytest.approx(1_000, abs=2)


def test_stereo_packets_are_heard_in_mono_and_mono_on_both_sides() -> None:
    assert loudest_hz(listen(place(encode_opus(tone(440, 1, 2))), 1)) == pytest.approx(440, abs=2)
    both = listen(place(encode_opus(tone(440, 1))), 2)
    assert (both[:, 0] == both[:, 1]).all()


def test_dtx_is_silence_between_fades() -> None:
    packets = encode_opus(tone(440, 2))
    pcm = listen(place(packets, dtx={50: 48_000}))
    assert len(pcm) == 2 * 48_000 + 48_000 - LOOK_AHEAD
    assert rms(pcm[10_000:46_000]) == pytest.approx(0.177, rel=0.1)
    assert not pcm[48_000 + 960 : 96_000 - LOOK_AHEAD].any()
    assert rms(pcm[100_000:]) == pytest.approx(0.177, rel=0.1)
    assert smooth(pcm[20_000:])


def test_refresh_packet_in_a_pause_is_heard_as_sent_between_fades() -> None:
    """What a sender that pauses (DTX) sends now and then keeps the noise fresh: nothing is made up
    behind it.
    """
    packets = encode_opus(tone(440, 2.02))
    placed = place(packets, dtx={50: 19_200, 51: 19_200})
    pcm = listen(placed)
    begin = 48_000 + 19_200 - LOOK_AHEAD
    assert not pcm[48_000 + 960 : begin].any()
    refreshed = pcm[begin : begin + 960]
    assert rms(refreshed[FADE_SAMPLES:-FADE_SAMPLES]) > 0.02
    assert max(abs(float(refreshed[0, 0])), abs(float(refreshed[-1, 0]))) < 1e-3
    assert not pcm[begin + 960 : begin + 960 + 19_200].any()
    assert smooth(pcm[20_000:])
    # Where it stands in the windows of packets makes no difference.
    for size in (1, 2, 50, 51, 200):
        blocks = list(decode_track(as_windows(placed, size), 1, Repairs()))
        assert sum(float(np.abs(block.pcm).sum()) for block in blocks) == pytest.approx(
            float(np.abs(pcm).sum()), rel=1e-6
        )


def test_stall_is_silence_between_fades() -> None:
    pcm = listen(place(encode_opus(tone(440, 2)), stalls={50: 24_000}))
    assert not pcm[48_000 + 960 : 72_000 - LOOK_AHEAD].any()
    assert smooth(pcm[20_000:])


def test_new_run_begins_at_its_sample() -> None:
    first, second = encode_opus(tone(440, 1)), encode_opus(noise(1), bitrate_bps=128_000)
    pcm = listen(place([*first, *second], restarts={50: 10_001}))
    begin = 48_000 + 10_001
    assert len(pcm) == begin + 48_000 - LOOK_AHEAD
    assert best_lag(pcm[begin:], noise(1)) == 0
    assert not pcm[48_000 + 960 - LOOK_AHEAD : begin].any()
    assert smooth(pcm[20_000 : begin - 100])


def test_new_run_sounds_as_if_nothing_came_before() -> None:
    first, second = encode_opus(tone(440, 1)), encode_opus(noise(1), bitrate_bps=64_000)
    both = listen(place([*first, *second], restarts={50: 4_800}))
    alone = listen(place(second))
    assert np.array_equal(both[52_800 + FADE_SAMPLES :], alone[FADE_SAMPLES:])


def test_new_run_without_a_hole_lets_the_old_one_fade_over_its_look_ahead() -> None:
    first, second = encode_opus(tone(440, 1)), encode_opus(noise(1), bitrate_bps=128_000)
    pcm = listen(place([*first, *second], restarts={50: 0}))
    assert len(pcm) == 96_000 - LOOK_AHEAD
    assert rms(pcm[48_000 - LOOK_AHEAD : 48_000 - LOOK_AHEAD // 2]) > 3 * rms(
        pcm[48_000 - LOOK_AHEAD // 4 : 48_000]
    )
    assert smooth(pcm[20_000:48_000])
    assert best_lag(pcm[48_000:], noise(1)) == 0


@pytest.mark.parametrize("frame_ms", [2.5, 20, 60])
def test_short_loss_is_concealed_by_what_went_on(frame_ms: float) -> None:
    duration = round(frame_ms * 48)
    packets = encode_opus(tone(440, 2.4), frame_ms=frame_ms, application=APPLICATION_AUDIO)
    number = 48_000 // duration
    pcm = listen(place(packets, duration=duration, lost=[number]))
    assert len(pcm) == len(packets) * duration - LOOK_AHEAD
    lost = pcm[number * duration : (number + 1) * duration]
    assert rms(lost) > 0.1


def test_long_loss_is_concealed_for_100_ms_then_silent() -> None:
    packets = encode_opus(tone(440, 3), application=APPLICATION_AUDIO)
    pcm = listen(place(packets, lost=range(50, 100)))
    assert len(pcm) == 144_000 - LOOK_AHEAD
    assert rms(pcm[48_000 : 48_000 + 1_920]) > 0.05
    silent = pcm[48_000 + CONCEALED_SAMPLES : 96_000 - 960 - LOOK_AHEAD]
    assert not silent.any()
    assert rms(pcm[100_000:]) == pytest.approx(0.177, rel=0.1)


def voice(seconds: float, pitch_hz: float) -> Pcm:
    """Returns a buzz of 15 harmonics, louder and softer five times a second, which the codec takes
    for a voice.
    """
    buzz = np.sum([tone(pitch_hz * k, seconds, amplitude=0.25 / k) for k in range(1, 16)], axis=0)
    return (buzz * (1 + 2 * tone(5, seconds))).astype(np.float32)


@pytest.mark.parametrize(
    ("fec", "least", "most"), [(True, 0.95, 1.0), (False, -1.0, 0.5)], ids=["with", "without"]
)
def test_in_band_fec_brings_back_the_packet_before(fec: bool, least: float, most: float) -> None:
    """A voice changes its pitch in the lost packet alone: concealment cannot know it, the next
    packet's copy does.
    """
    sent = voice(2, 150)
    sent[48_000:48_960] = voice(0.02, 260)
    packets = encode_opus(sent, fec=fec, expected_loss_percent=30, bitrate_bps=32_000)
    repairs = Repairs()
    heard, whole = listen(place(packets, lost=[50]), repairs=repairs), listen(place(packets))
    assert repairs == (
        Repairs(fec_packets=1, fec_samples=960) if fec else Repairs(concealed_samples=960)
    )
    assert len(heard) == len(whole) == 96_000 - LOOK_AHEAD
    span = slice(48_100, 48_960 - LOOK_AHEAD)
    assert least <= float(np.corrcoef(heard[span, 0], whole[span, 0])[0, 1]) <= most


def test_fec_is_used_for_the_last_of_several_lost() -> None:
    packets = encode_opus(voice(2, 150), fec=True, expected_loss_percent=30, bitrate_bps=32_000)
    repairs = Repairs()
    last = next(k for k in range(75, 90) if carries_fec(packets[k])) - 1
    pcm = listen(place(packets, lost=range(50, last + 1)), repairs=repairs)
    assert repairs == Repairs(fec_packets=1, fec_samples=960, concealed_samples=CONCEALED_SAMPLES)
    assert len(pcm) == 96_000 - LOOK_AHEAD
    assert not pcm[48_000 + CONCEALED_SAMPLES : last * 960 - LOOK_AHEAD].any()
    assert rms(pcm[last * 960 : (last + 1) * 960 - LOOK_AHEAD]) > 0.02
    # The copy fades in from the silence before it.
    assert abs(float(pcm[last * 960 - LOOK_AHEAD, 0])) < 1e-3


@pytest.mark.parametrize(
    ("frame_ms", "bitrate_bps", "covered"),
    [(40, 20_000, 1_920), (60, 20_000, 2_880), (40, 32_000, 960), (60, 32_000, 960)],
    ids=["40-one-frame", "60-one-frame", "40-two-frames", "60-three-frames"],
)
def test_fec_covers_the_last_frame_of_a_longer_packet(
    frame_ms: int, bitrate_bps: int, covered: int
) -> None:
    duration = frame_ms * 48
    packets = encode_opus(
        voice(3, 150),
        frame_ms=frame_ms,
        fec=True,
        expected_loss_percent=30,
        bitrate_bps=bitrate_bps,
    )
    number = next(k for k in range(20, len(packets)) if carries_fec(packets[k])) - 1
    repairs = Repairs()
    heard = listen(place(packets, duration=duration, lost=[number]), repairs=repairs)
    assert repairs == Repairs(
        fec_packets=1, fec_samples=covered, concealed_samples=duration - covered
    )
    whole = listen(place(packets, duration=duration))
    span = slice((number + 1) * duration - covered + 100, (number + 1) * duration - LOOK_AHEAD)
    # Behind a concealed frame the copy begins from what the decoder made up.
    assert np.corrcoef(heard[span, 0], whole[span, 0])[0, 1] > (0.9 if covered == duration else 0.5)


def test_packet_without_fec_behind_a_long_loss_begins_out_of_silence() -> None:
    packets = encode_opus(voice(2, 150), bitrate_bps=32_000)
    repairs = Repairs()
    pcm = listen(place(packets, lost=range(50, 80)), repairs=repairs)
    assert repairs == Repairs(concealed_samples=CONCEALED_SAMPLES)
    assert not pcm[48_000 + CONCEALED_SAMPLES : 80 * 960 - LOOK_AHEAD].any()
    assert rms(pcm[80 * 960 :]) > 0.05


def test_no_fec_is_taken_after_a_packet_without_silk() -> None:
    speech = encode_opus(voice(2, 150), fec=True, expected_loss_percent=30, bitrate_bps=32_000)
    music = encode_opus(voice(2, 150), application=APPLICATION_LOW_DELAY)
    number = next(k for k in range(20, len(speech)) if carries_fec(speech[k]))
    repairs = Repairs()
    listen(place([*music[: number - 1], b"", *speech[number:]], lost=[number - 1]), repairs=repairs)
    assert repairs == Repairs(concealed_samples=960)


@pytest.mark.parametrize("frame_ms", [2.5, 5])
@pytest.mark.parametrize("hole", ["lost", "dtx"])
def test_hole_within_the_look_ahead_of_a_run_reaches_back_into_nothing(
    frame_ms: float, hole: str
) -> None:
    """The first packet of the second run is shorter than the look-ahead, and nothing follows it at
    once.
    """
    duration = round(frame_ms * 48)
    first = encode_opus(tone(440, 0.2), frame_ms=frame_ms, application=APPLICATION_LOW_DELAY)
    count = len(first)
    placed = place(
        [*first, *first],
        duration=duration,
        restarts={count: 0},
        lost=[count + 1, count + 2] if hole == "lost" else (),
        dtx={count + 1: 4_800} if hole == "dtx" else None,
    )
    pcm = listen(placed)  # which checks that no chunk begins before the one before has ended
    total = 2 * count * duration + (4_800 if hole == "dtx" else 0)
    assert len(pcm) == total - LOOK_AHEAD


def test_broken_packet_is_concealed_and_keeps_its_length() -> None:
    packets = encode_opus(tone(440, 2), application=APPLICATION_AUDIO)
    packets[50] = b"\xfb\x00"  # code 3 without frames: libopus refuses it
    pcm = listen(place(packets))
    assert len(pcm) == 96_000 - LOOK_AHEAD
    assert rms(pcm[50 * 960 : 51 * 960]) > 0.05


def test_edges_are_faded_over_5_ms() -> None:
    pcm = listen(place(encode_opus(tone(440, 2)), dtx={50: 48_000}))
    edge = 96_000 - LOOK_AHEAD
    assert abs(float(pcm[edge, 0])) < 1e-4
    assert np.abs(pcm[edge : edge + FADE_SAMPLES // 4]).max() < 0.05


def test_nothing_placed_gives_nothing() -> None:
    assert list(decode_track([], 1, Repairs())) == []


def test_decoder_forgets_on_reset() -> None:
    packets = encode_opus(tone(440, 0.2))
    decoder = OpusDecoder(1)
    first = [decoder.decode(packet, 960) for packet in packets]
    decoder.reset()
    again = [decoder.decode(packet, 960) for packet in packets]
    for before, after in zip(first, again, strict=True):
        assert before is not None
        assert after is not None
        assert (before == after).all()


def test_decoder_refuses_what_lasts_longer_than_said() -> None:
    (packet,) = encode_opus(tone(440, 0.06), frame_ms=60)
    decoder = OpusDecoder(1)
    assert decoder.decode(packet, 960) is None
    assert decoder.decode(b"\xfb\x00", 960) is None
    found = decoder.decode(packet, 2_880)
    assert found is not None
    assert found.shape == (2_880, 1)
