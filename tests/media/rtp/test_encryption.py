"""Payloads that were encrypted end to end are told by their bytes, and nothing else is taken for
them.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.support import encryption
from tests.support.builders import (
    APPLICATION_AUDIO,
    APPLICATION_LOW_DELAY,
    APPLICATION_VOIP,
    CALL_START_UNIX_MS,
    Segment,
    encode_opus,
    make_rtp_packet,
    make_rtpdump,
    make_segment_dump,
    noise,
    silence,
    tone,
)
from tests.support.encryption import Scheme, encrypt_dump
from tests.support.media import RED_MAPS, ingest, run_packets
from transforms.media.rtp.ingest import IngestedSegment

COUNT = 400
TOLD: dict[str, Scheme] = {
    **{f"sframe_key_{key}": encryption.sframe(key) for key in range(8)},
    "sframe_key_of_2_bytes": encryption.sframe(300),
    **{
        f"sframe_counter_of_{size}_bytes": encryption.sframe(3, (1 << 8 * size) - 200)
        for size in range(1, 9)
    },
    "sframe_with_video": encryption.sframe(1, 300, counts_per_packet=3),
    "sframe_short_tag": encryption.sframe(4, tag_bytes=4),
    "livekit": encryption.trailed(),
    "jitsi": encryption.trailed(timestamp_offset=123_456_789),
    "three_clear_bytes": encryption.trailed(clear_bytes=3),
    "webrtc_example": encryption.example(),
    "whole": encryption.whole(),
    "behind_a_byte": encryption.behind_byte(0x53),
}

TURNED = {
    name: scheme
    for name, scheme in TOLD.items()
    if name in ("sframe_key_3", "sframe_key_4", "livekit", "webrtc_example", "whole")
}


@functools.cache
def _speech(count: int = COUNT) -> tuple[bytes, ...]:
    seconds = count / 50
    rising = (
        tone(200, seconds, amplitude=0.2) * np.linspace(0.1, 1, round(seconds * 48_000))[:, None]
    )
    return tuple(encode_opus((rising + noise(seconds, amplitude=0.02)).astype(np.float32)))


def _dump(packets: tuple[bytes, ...] | list[bytes], **fields: object) -> bytes:
    return make_segment_dump(Segment(packets=packets, **fields))[0]  # type: ignore[arg-type]


def _encrypted(segment: IngestedSegment) -> int:
    return sum(len(run.records) for run in segment.packet_runs if run.is_encrypted)


def _clear(segment: IngestedSegment) -> int:
    return sum(len(run.records) for run in segment.packet_runs if not run.is_encrypted)


@pytest.mark.parametrize("scheme", TOLD.values(), ids=TOLD)
def test_encrypted_packets_are_kept_whole_and_told(scheme: Scheme) -> None:
    dump = encrypt_dump(_dump(_speech()), scheme)
    segment = ingest(dump)
    (run,) = segment.packet_runs
    assert run.is_encrypted
    assert run_packets(segment, dump) == [record[20:] for record in _records(dump)]
    # As long as the time stamps say, whatever the first byte does.
    assert run.records["duration_samples"].tolist() == [960] * COUNT
    assert run.records["media_sample"].tolist() == list(range(0, 960 * COUNT, 960))
    assert segment.counts.invalid == 0
    assert [(type(found).__name__, found.message) for found in segment.findings] == [
        (
            "EncryptedAudioError",
            f"a.rtpdump: {COUNT} of {COUNT} packets are encrypted end to end, expected Opus; the "
            "individual file has them as they were sent, the mix is without them",
        )
    ]


def _records(dump: bytes) -> list[bytes]:
    at, found = dump.index(b"\n") + 17, []
    while at < len(dump):
        size = int.from_bytes(dump[at : at + 2], "big")
        if dump[at + 2 : at + 4] != b"\0\0":
            found.append(dump[at : at + size])
        at += size
    return found


@pytest.mark.parametrize("scheme", TURNED.values(), ids=TURNED)
def test_key_that_is_turned_on_in_mid_call_costs_what_comes_after(scheme: Scheme) -> None:
    dump = encrypt_dump(_dump(_speech(700)), scheme, first=300)
    segment = ingest(dump)
    clear, encrypted = segment.packet_runs
    assert (clear.is_encrypted, encrypted.is_encrypted) == (False, True)
    assert 700 - len(clear.records) == len(encrypted.records)
    # Never too late, which would be noise; and at most 100 ms too early.
    assert 295 <= len(clear.records) <= 300
    assert clear.records["duration_samples"].tolist() == [960] * len(clear.records)


@pytest.mark.parametrize("scheme", TURNED.values(), ids=TURNED)
def test_key_that_is_turned_off_leaves_what_comes_after(scheme: Scheme) -> None:
    segment = ingest(encrypt_dump(_dump(_speech(700)), scheme, first=0, stop=400))
    encrypted, clear = segment.packet_runs
    assert (encrypted.is_encrypted, clear.is_encrypted) == (True, False)
    assert 295 <= len(clear.records) <= 300


@pytest.mark.parametrize(
    ("name", "count"),
    [("sframe_key_0", 32), ("livekit", 8), ("webrtc_example", 8), ("whole", 64)],
)
def test_little_is_enough_to_tell(name: str, count: int) -> None:
    dump = encrypt_dump(_dump(_speech()[:count]), TOLD[name])
    assert _encrypted(ingest(dump)) == count


@pytest.mark.parametrize("name", ["sframe_key_0", "sframe_counter_of_3_bytes", "livekit", "whole"])
def test_encryption_is_told_through_loss_and_disorder(name: str) -> None:
    lost = frozenset(range(7, COUNT, 11)) | frozenset(range(200, 230))
    dump = encrypt_dump(
        _dump(
            list(_speech()),
            lost=lost,
            swapped=frozenset(range(5, COUNT, 40)),
            duplicated=frozenset(range(0, COUNT, 9)),
            first_sequence_number=65_400,
            first_rtp_timestamp=(1 << 32) - 9_600,
        ),
        TOLD[name],
    )
    segment = ingest(dump)
    assert _encrypted(segment) == COUNT - len(lost)
    assert _clear(segment) == 0


@pytest.mark.parametrize("name", ["sframe_key_2", "livekit"])
def test_encrypted_red_is_kept_as_it_was_sent(name: str) -> None:
    dump = encrypt_dump(_dump(list(_speech()), red_copies=2), TOLD[name])
    segment = ingest(dump, RED_MAPS)
    assert _encrypted(segment) == COUNT
    assert (segment.counts.invalid, segment.counts.received) == (0, COUNT)
    assert run_packets(segment, dump) == [record[20:] for record in _records(dump)]


def test_other_durations_are_those_of_the_time_stamps() -> None:
    packets = encode_opus(noise(8), frame_ms=60)
    dump = encrypt_dump(_dump(packets, packet_samples=2_880), encryption.sframe())
    (run,) = ingest(dump).packet_runs
    assert run.records["duration_samples"].tolist() == [2_880] * len(packets)


# --- what is not encrypted ------------------------------------------------------------------------


_MODES = {
    "voip": APPLICATION_VOIP,
    "audio": APPLICATION_AUDIO,
    "low_delay": APPLICATION_LOW_DELAY,
}


@pytest.mark.parametrize("application", _MODES.values(), ids=_MODES)
@pytest.mark.parametrize("bitrate_bps", [6_000, 16_000, 64_000, 256_000])
@pytest.mark.parametrize("frame_ms", [2.5, 10, 20, 60, 120])
def test_what_an_encoder_makes_is_never_taken_for_encrypted(
    application: int, bitrate_bps: int, frame_ms: float
) -> None:
    loud = np.concatenate(
        [
            noise(1.5, 2, amplitude=1.0),
            silence(0.5, 2),
            tone(440, 1, 2),
            noise(1, 2, amplitude=0.001),
        ]
    )
    packets = encode_opus(
        loud, application=application, bitrate_bps=bitrate_bps, frame_ms=frame_ms, fec=True,
        expected_loss_percent=20,
    )  # fmt: skip
    segment = ingest(_dump(packets, packet_samples=round(frame_ms * 48)))
    assert _encrypted(segment) == 0
    assert segment.findings == ()


def test_mode_that_changes_with_every_packet_is_not_encrypted() -> None:
    """Every bandwidth, both numbers of channels and many durations, in an order that is drawn."""
    kinds = [
        (encode_opus(noise(1.2, channels), frame_ms=ms, bandwidth=band, bitrate_bps=rate), ms)
        for channels in (1, 2)
        for ms in (2.5, 5, 10, 20, 40, 60, 120)
        for band in (1101, 1103, 1105)
        for rate in (8_000, 96_000)
    ]
    draw = np.random.default_rng(5)
    records, timestamp = [], 0
    for number in range(2_000):
        packets, frame_ms = kinds[int(draw.integers(len(kinds)))]
        packet = packets[int(draw.integers(len(packets)))] or b"\xf8"
        packet_bytes = make_rtp_packet(packet, sequence_number=number, rtp_timestamp=timestamp)
        records.append((timestamp // 48, packet_bytes, False))
        timestamp += round(frame_ms * 48)
    segment = ingest(make_rtpdump(CALL_START_UNIX_MS * 1000, records))
    assert _encrypted(segment) == 0


@pytest.mark.parametrize("step", [320, 480, 960])
def test_time_stamps_of_a_wrong_rate_are_not_taken_for_encryption(step: int) -> None:
    records = [
        (20 * n, make_rtp_packet(packet, sequence_number=n, rtp_timestamp=step * n), False)
        for n, packet in enumerate(_speech(700))
    ]
    assert _encrypted(ingest(make_rtpdump(CALL_START_UNIX_MS * 1000, records))) == 0


def test_packets_that_come_in_a_burst_are_not_taken_for_encryption() -> None:
    records = []
    for number, packet in enumerate(_speech(700)):
        sent = make_rtp_packet(packet, sequence_number=number, rtp_timestamp=960 * number)
        records.append((max(10_000, 20 * number), sent, False))
    assert _encrypted(ingest(make_rtpdump(CALL_START_UNIX_MS * 1000, records))) == 0


def test_damaged_packets_are_still_dropped() -> None:
    draw = np.random.default_rng(1)
    packets = [
        b"\x7b" + draw.bytes(20) if n % 4 == 0 else packet for n, packet in enumerate(_speech())
    ]
    segment = ingest(_dump(packets))
    assert _encrypted(segment) == 0
    assert segment.counts.invalid > 0


def test_bytes_behind_a_clear_toc_are_not_told() -> None:
    """Any bytes are a valid frame: nothing but their sound would tell."""
    assert _encrypted(ingest(encrypt_dump(_dump(_speech()), encryption.toc_in_the_clear()))) == 0
