"""The Opus packet from outside, judged against libopus's own reading of it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import encode_opus, tone
from tests.support.media import is_filler
from transforms.media.opus.libopus import load_libopus
from transforms.media.opus.packet import (
    FRAME_SAMPLES_BY_CONFIG,
    GRID_SAMPLES,
    MAX_PACKET_SAMPLES,
    carries_fec,
    filler_packets,
    is_valid_packet,
    packet_samples,
    widest_bandwidth_hz,
)

BANDWIDTHS_HZ = {1101: 4_000, 1102: 6_000, 1103: 8_000, 1104: 12_000, 1105: 20_000}
"""By their numbers in opus_defines.h."""


def samples_of(packet: bytes) -> int:
    """Returns the duration `packet_samples` gives for one packet."""
    toc = np.array([packet[0]], dtype=np.uint8)
    second = np.array([packet[1] if len(packet) > 1 else 0], dtype=np.uint8)
    return int(packet_samples(toc, second)[0])


def parses_in_libopus(packet: bytes) -> bool:
    library = load_libopus()
    sizes = (ctypes.c_int16 * 48)()
    frames = (ctypes.c_void_p * 48)()
    toc, offset = ctypes.c_ubyte(), ctypes.c_int()
    return bool(
        library.opus_packet_parse(
            packet,
            ctypes.c_int32(len(packet)),
            ctypes.byref(toc),
            frames,
            sizes,
            ctypes.byref(offset),
        )
        > 0
    )


def bandwidth_of(toc_byte: int) -> int:
    return int(load_libopus().opus_packet_get_bandwidth(bytes([toc_byte])))


@pytest.mark.parametrize("config", range(32))
@pytest.mark.parametrize("code", range(4))
def test_duration_of_every_configuration_is_libopus_s(config: int, code: int) -> None:
    # One frame of code 3, so that it is within 120 ms.
    packet = bytes([config << 3 | code, 1]) + bytes(2)
    expected = load_libopus().opus_packet_get_nb_samples(
        packet, ctypes.c_int32(len(packet)), ctypes.c_int32(48_000)
    )
    assert samples_of(packet) == expected


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60))
def test_any_packet_carries_fec_as_libopus_says(toc_byte: int, second: int, rest: bytes) -> None:
    packet = bytes([toc_byte, second]) + rest
    if is_valid_packet(packet):
        assert carries_fec(packet) == (
            load_libopus().opus_packet_has_lbrr(packet, ctypes.c_int32(len(packet))) == 1
        )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60])
def test_fec_is_seen_where_the_encoder_put_it(frame_ms: float, channels: int) -> None:
    voice = np.concatenate(
        [tone(150 * k, 1, channels, amplitude=0.25 / k)[None] for k in range(1, 16)]
    ).sum(axis=0)
    with_fec = encode_opus(
        voice, frame_ms=frame_ms, bitrate_bps=32_000, fec=True, expected_loss_percent=20
    )
    assert np.mean([carries_fec(packet) for packet in with_fec]) >= 0.5
    assert not any(
        carries_fec(packet) for packet in encode_opus(voice, frame_ms=frame_ms, bitrate_bps=32_000)
    )


@pytest.mark.parametrize(
    ("config", "samples"),
    [
        (0, 480),
        (3, 2_880),
        (12, 480),
        (15, 960),
        (16, 120),
        (17, 240),
        (18, 480),
        (19, 960),
        (31, 960),
    ],
)
def test_frame_samples_follow_table_2_of_the_rfc(config: int, samples: int) -> None:
    assert FRAME_SAMPLES_BY_CONFIG[config] == samples
    assert len(FRAME_SAMPLES_BY_CONFIG) == 32


@pytest.mark.parametrize("toc_byte", range(256))
def test_bandwidth_of_every_toc_is_libopus_s(toc_byte: int) -> None:
    found = widest_bandwidth_hz(np.array([toc_byte], dtype=np.uint8))
    assert found == BANDWIDTHS_HZ[bandwidth_of(toc_byte)]


def test_widest_bandwidth_need_not_be_that_of_the_highest_toc() -> None:
    super_wide_hybrid, wide_celt = 12 << 3, 20 << 3
    toc = np.array([super_wide_hybrid, wide_celt], dtype=np.uint8)
    assert widest_bandwidth_hz(toc) == 12_000


@pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60, 80, 100, 120])
def test_encoded_packets_are_valid_and_last_what_was_asked(frame_ms: float) -> None:
    for packet in encode_opus(tone(440, 0.5), frame_ms=frame_ms):
        assert is_valid_packet(packet)
        assert samples_of(packet) == frame_ms * 48


def test_durations_of_many_packets_keep_their_order() -> None:
    toc = np.array([0xF8, 0xFB, 0x18, 0x83], dtype=np.uint8)
    second = np.array([9, 6, 9, 0x80 | 48], dtype=np.uint8)
    assert packet_samples(toc, second).tolist() == [960, 5_760, 2_880, 5_760]


FULL = bytes([0xF8])  # CELT, full band, 20 ms, one frame
TWO_EQUAL, TWO, MANY = bytes([0xF9]), bytes([0xFA]), bytes([0xFB])


@pytest.mark.parametrize(
    ("packet", "valid"),
    [
        (b"", False),
        (FULL, True),
        (FULL + bytes(1_275), True),
        (FULL + bytes(1_276), False),
        (TWO_EQUAL + bytes(2_550), True),
        (TWO_EQUAL + bytes(3), False),
        (TWO_EQUAL + bytes(2_552), False),
        (TWO, False),
        (TWO + b"\x00", True),
        (TWO + b"\x02ab", True),
        (TWO + b"\x03ab", False),
        (TWO + b"\xfc", False),
        (TWO + b"\xfc\x00" + bytes(252), True),
        (TWO + b"\xfc\x00" + bytes(251), False),
        (TWO + b"\x00" + bytes(1_276), False),
        (MANY, False),
        (MANY + b"\x00", False),
        (MANY + b"\x06" + bytes(6), True),
        (MANY + b"\x07" + bytes(7), False),
        (MANY + b"\x02" + bytes(3), False),
        (MANY + b"\x41", False),
        (MANY + b"\x41\x02ab\x00\x00", True),
        (MANY + b"\x41\x03\x00\x00", False),
        (MANY + b"\x41\xff\x00" + bytes(254), True),
        (MANY + b"\x41\xff\x00" + bytes(253), False),
        (MANY + b"\x41\xff", False),
        (MANY + b"\x82\x01a", True),
        (MANY + b"\x82\x02a", False),
        (MANY + b"\x82", False),
        (MANY + b"\x81" + bytes(1_276), False),
    ],
)
def test_framing_is_judged_by_the_seven_rules(packet: bytes, valid: bool) -> None:
    assert is_valid_packet(packet) is valid
    assert parses_in_libopus(packet) is valid


@given(st.binary(min_size=1, max_size=80))
def test_any_packet_is_judged_as_by_libopus(packet: bytes) -> None:
    assert is_valid_packet(packet) is parses_in_libopus(packet)


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=600))
def test_any_packet_of_many_frames_is_judged_as_by_libopus(
    toc_byte: int, second: int, rest: bytes
) -> None:
    packet = bytes([toc_byte | 3, second]) + rest
    assert is_valid_packet(packet) is parses_in_libopus(packet)


@given(st.integers(0, 255), st.integers(0, 400))
def test_fillers_last_exactly_the_hole_and_are_valid(toc_byte: int, units: int) -> None:
    fillers = filler_packets(toc_byte, units * GRID_SAMPLES)
    assert sum(duration for _, duration in fillers) == units * GRID_SAMPLES
    assert len(fillers) <= -(-units * GRID_SAMPLES // MAX_PACKET_SAMPLES) + 4
    for packet, duration in fillers:
        assert is_filler(packet)
        assert is_valid_packet(packet)
        assert samples_of(packet) == duration <= MAX_PACKET_SAMPLES


@given(st.integers(0, 255), st.integers(1, 400))
def test_fillers_keep_channels_and_bandwidth(toc_byte: int, units: int) -> None:
    medium_band, wide_band = 1102, 1103  # opus_defines.h
    own = bandwidth_of(toc_byte)
    for packet, _ in filler_packets(toc_byte, units * GRID_SAMPLES):
        assert packet[0] & 4 == toc_byte & 4
        found = bandwidth_of(packet[0])
        assert found == own or (own == medium_band and found == wide_band)


def test_fillers_are_celt_frames_the_longest_first() -> None:
    # Silk of 60 ms, narrow band: FFmpeg would take an empty frame of its own configuration for
    # sound.
    assert filler_packets(0x18 | 1, 9 * 960 + 480 + 120) == [
        (bytes([19 << 3 | 3, 6]), 6 * 960),
        (bytes([19 << 3 | 3, 3]), 3 * 960),
        (bytes([18 << 3]), 480),
        (bytes([16 << 3]), 120),
    ]


@pytest.mark.parametrize("samples", [1, 119, 121])
def test_hole_off_the_grid_is_refused(samples: int) -> None:
    with pytest.raises(ValueError, match=rf"a hole of {samples} samples is not a multiple of 120"):
        filler_packets(0xF8, samples)
