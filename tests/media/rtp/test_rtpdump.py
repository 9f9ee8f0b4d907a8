"""rtpdump files: header, records, window borders, and each way a dump can be broken."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import make_rtp_packet, make_rtpdump
from tests.support.media import DATA
from transforms.media.errors import RtpdumpError
from transforms.media.rtp import rtpdump
from transforms.media.rtp.rtpdump import read_rtpdump

START_US = 1_767_607_200_123_456
HEADER_BYTES = len(make_rtpdump(START_US, []))


def read_all(dump: bytes) -> tuple[int, list[tuple[int, int, bytes, int]]]:
    """Returns the start time, and of each record arrival, plen, packet and its position in the
    file.
    """
    opened = read_rtpdump(io.BytesIO(dump), "a.rtpdump")
    records = []
    for window in opened.windows:
        for at, stop, size, arrival in zip(
            window.start.tolist(),
            window.stop.tolist(),
            window.packet_bytes.tolist(),
            window.arrival_offset_ms.tolist(),
            strict=True,
        ):
            records.append(
                (arrival, size, window.buffer[at:stop].tobytes(), window.buffer_offset + at)
            )
    return opened.start_unix_ns, records


def test_every_field_of_a_dump_is_read() -> None:
    packet, report = make_rtp_packet(b"abc"), b"\x80\xc8\x00\x00rtcp"
    dump = make_rtpdump(START_US, [(0, packet, False), (4_294_967_295, report, True)])
    start, records = read_all(dump)
    assert start == START_US * 1_000
    assert records == [
        (0, len(packet), packet, HEADER_BYTES + 8),
        (4_294_967_295, 0, report, HEADER_BYTES + 8 + len(packet) + 8),
    ]
    assert all(dump[at : at + len(data)] == data for _, _, data, at in records)


def test_golden_dump_reads_and_serialises_back() -> None:
    golden = (DATA / "two_packets_and_report.rtpdump").read_bytes()
    start, records = read_all(golden)
    assert start == 1_767_607_200_250_000_000
    assert [(arrival, size, len(data)) for arrival, size, data, _ in records] == [
        (20, 16, 16),
        (40, 0, 28),
        (41, 18, 18),
    ]
    again = make_rtpdump(
        start // 1_000, [(arrival, data, size == 0) for arrival, size, data, _ in records]
    )
    assert again == golden


def test_dump_without_records_is_empty() -> None:
    assert read_all(make_rtpdump(START_US, [])) == (START_US * 1_000, [])


def test_captured_less_than_received_keeps_both_lengths() -> None:
    dump = make_rtpdump(START_US, []) + struct.pack(">HHI", 8 + 12, 500, 9) + bytes(12)
    assert [(arrival, size, len(data)) for arrival, size, data, _ in read_all(dump)[1]] == [
        (9, 500, 12)
    ]


def test_record_without_packet_is_a_record() -> None:
    dump = make_rtpdump(START_US, [(3, b"", True), (4, b"x" * 12, False)])
    assert [(arrival, data) for arrival, _, data, _ in read_all(dump)[1]] == [
        (3, b""),
        (4, b"x" * 12),
    ]


@pytest.mark.parametrize("missing", range(1, 20))
def test_last_record_cut_off_is_dropped(missing: int) -> None:
    whole = make_rtpdump(START_US, [(0, b"a" * 12, False), (20, b"b" * 12, False)])
    assert [data for _, _, data, _ in read_all(whole[:-missing])[1]] == [b"a" * 12]


@pytest.mark.parametrize(
    ("dump", "message"),
    [
        (b"", r"a\.rtpdump: begins with b'', expected #!rtpplay1\.0 <address>/<port>"),
        (b"#!rtpplay2.0 1/1\n" + bytes(16), r"begins with b'#!rtpplay2\.0 1/1', expected"),
        (b"#!rtpplay1.0 " + b"x" * 300, r"no end of line in the first 256 bytes"),
        (
            b"#!rtpplay1.0 1/1\n" + bytes(15),
            r"ends at byte 32, expected a header of 16 bytes at byte 17",
        ),
    ],
    ids=["empty", "other_magic", "endless_line", "short_header"],
)
def test_malformed_head_raises_rtpdump_error(dump: bytes, message: str) -> None:
    with pytest.raises(RtpdumpError, match=message) as caught:
        read_rtpdump(io.BytesIO(dump), "a.rtpdump")
    assert caught.value.member == "a.rtpdump"
    assert caught.value.byte_offset is not None


@pytest.mark.parametrize("length", [0, 7])
def test_record_shorter_than_its_header_raises_after_those_before(length: int) -> None:
    good = make_rtpdump(START_US, [(0, b"a" * 12, False), (20, b"b" * 12, False)])
    opened = read_rtpdump(
        io.BytesIO(good + struct.pack(">HHI", length, 0, 40) + bytes(40)), "a.rtpdump"
    )
    assert len(next(opened.windows).start) == 2
    message = rf"a\.rtpdump: record 2 at byte {len(good)}: length {length}, need at least 8"
    with pytest.raises(RtpdumpError, match=message) as caught:
        next(opened.windows)
    assert caught.value.byte_offset == len(good)


@pytest.mark.parametrize(
    ("read_bytes", "window_records"),
    [(64, 65_536), (100, 3), (1 << 20, 2), (1 << 20, 1)],
    ids=["tiny", "odd", "two", "one"],
)
def test_window_borders_lose_no_record(
    monkeypatch: pytest.MonkeyPatch, read_bytes: int, window_records: int
) -> None:
    monkeypatch.setattr(rtpdump, "_READ_BYTES", read_bytes)
    monkeypatch.setattr(rtpdump, "WINDOW_RECORDS", window_records)
    sent = [
        (20 * number, bytes([number]) * (12 + number % 40), number % 9 == 0)
        for number in range(200)
    ]
    dump = make_rtpdump(START_US, sent)
    _, records = read_all(dump)
    assert [(arrival, data, size == 0) for arrival, size, data, _ in records] == sent
    assert all(dump[at : at + len(data)] == data for _, _, data, at in records)


def test_window_holds_at_most_its_number_of_records() -> None:
    dump = make_rtpdump(
        START_US, [(number, b"", True) for number in range(rtpdump.WINDOW_RECORDS + 5)]
    )
    windows = list(read_rtpdump(io.BytesIO(dump), "a.rtpdump").windows)
    assert [len(window.start) for window in windows] == [rtpdump.WINDOW_RECORDS, 5]
    arrivals = np.concatenate([window.arrival_offset_ms for window in windows])
    assert arrivals.tolist() == list(range(rtpdump.WINDOW_RECORDS + 5))


# --- a length that lies ---------------------------------------------------------------------------

SENT = [
    (
        20 * n,
        make_rtp_packet(bytes([n % 256]) * (40 + n % 30), sequence_number=n, rtp_timestamp=960 * n),
        False,
    )
    for n in range(60)
]
PLACES = np.cumsum([HEADER_BYTES, *(len(packet) + 8 for _, packet, _ in SENT)]).tolist()


def read_on(dump: bytes) -> tuple[list[bytes], list[str]]:
    """Returns the packets of a dump, and what it says of places that were passed over."""
    opened = read_rtpdump(io.BytesIO(dump), "a.rtpdump")
    packets = [
        window.buffer[at:stop].tobytes()
        for window in opened.windows
        for at, stop in zip(window.start.tolist(), window.stop.tolist(), strict=True)
    ]
    return packets, [error.message for error in opened.findings]


@pytest.mark.parametrize("bit", range(16))
def test_flipped_bit_of_a_length_costs_its_packet_and_no_other(bit: int) -> None:
    dump = bytearray(make_rtpdump(START_US, SENT))
    dump[PLACES[20] + bit // 8] ^= 0x80 >> bit % 8
    packets, (message,) = read_on(bytes(dump))
    # Of the packet itself a part may be left, which is no RTP or said to be cut short.
    assert {packet for _, packet, _ in SENT} - set(packets) == {SENT[20][1]}
    assert len(set(packets) - {packet for _, packet, _ in SENT}) <= 1
    assert re.fullmatch(
        r"a\.rtpdump: record 2[01] at byte \d+: its length does not lead to another record; "
        r"\d+ bytes were passed over",
        message,
    )


@pytest.mark.parametrize(
    "junk", [b"\0" * 50, b"\xff" * 7, bytes(range(256)) * 300], ids=["zeros", "ones", "much"]
)
def test_bytes_that_are_no_records_are_passed_over(junk: bytes) -> None:
    dump = make_rtpdump(START_US, SENT)
    packets, findings = read_on(dump[: PLACES[30]] + junk + dump[PLACES[30] :])
    assert {packet for _, packet, _ in SENT} - set(packets) == set()
    assert len(findings) == 1


def test_bytes_missing_in_the_middle_cost_two_packets_at_most() -> None:
    dump = make_rtpdump(START_US, SENT)
    packets, findings = read_on(dump[: PLACES[30] + 5] + dump[PLACES[31] - 9 :])
    assert len({packet for _, packet, _ in SENT} - set(packets)) <= 2
    assert len(findings) == 1


def test_damage_all_over_is_told_up_to_a_number() -> None:
    sent = [(n, make_rtp_packet(b"x" * 30, sequence_number=n), False) for n in range(3_000)]
    dump = bytearray(make_rtpdump(START_US, sent))
    size = len(sent[0][1]) + 8
    for n in range(5, 3_000, 10):
        dump[HEADER_BYTES + n * size] ^= 1
    packets, findings = read_on(bytes(dump))
    assert len(packets) == 2_700
    assert len(findings) == 100


@pytest.mark.parametrize("row", [1, 3, 60])
def test_records_cut_short_by_the_capture_are_believed(row: int) -> None:
    dump = make_rtpdump(START_US, [])
    for n, (at, packet, _) in enumerate(SENT):
        kept = packet[:30] if n % 60 < row else packet
        dump += struct.pack(">HHI", len(kept) + 8, len(packet), at) + kept
    packets, findings = read_on(dump)
    assert (len(packets), findings) == (60, [])


def test_records_padded_by_the_writer_are_believed() -> None:
    dump = make_rtpdump(START_US, [])
    for at, packet, _ in SENT:
        pad = -len(packet) % 4
        dump += struct.pack(">HHI", len(packet) + pad + 8, len(packet), at) + packet + bytes(pad)
    packets, findings = read_on(dump)
    assert [packet[: len(sent)] for packet, (_, sent, _) in zip(packets, SENT, strict=True)] == [
        sent for _, sent, _ in SENT
    ]
    assert findings == []


@given(st.lists(st.tuples(st.integers(0, PLACES[-1]), st.integers(0, 7)), max_size=6))
def test_flipped_bits_anywhere_cost_a_few_packets(flips: list[tuple[int, int]]) -> None:
    dump = bytearray(make_rtpdump(START_US, SENT))
    for at, bit in flips:
        dump[max(HEADER_BYTES, at) % len(dump)] ^= 1 << bit
    try:
        packets, _ = read_on(bytes(dump))
    except RtpdumpError:
        return  # nothing behind the place
    # Three records in a row, and the one hit, are the most that a place can cost.
    assert len({packet for _, packet, _ in SENT} - set(packets)) <= 5 * len(flips)


@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 32) - 1), st.binary(max_size=60), st.booleans()), max_size=20
    )
)
def test_reading_inverts_writing(sent: list[tuple[int, bytes, bool]]) -> None:
    sent = [(arrival, packet, rtcp or not packet) for arrival, packet, rtcp in sent]
    _, records = read_all(make_rtpdump(START_US, sent))
    assert [(arrival, data, size == 0) for arrival, size, data, _ in records] == sent


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_raise_nothing_but_rtpdump_error(data: bytes, with_head: bool) -> None:
    dump = make_rtpdump(START_US, []) + data if with_head else data
    try:
        _, records = read_all(dump)
    except RtpdumpError:
        return
    assert sum(len(packet) + 8 for _, _, packet, _ in records) <= len(dump)
