"""RTP headers and RTCP sender reports: every field, every length that can lie."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.builders import (
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    ntp_time_of_unix_ms,
)
from tests.support.media import DATA
from transforms.media.rtp.packets import RtpWindow, parse_rtp_window
from transforms.media.rtp.rtpdump import RecordWindow, read_rtpdump


def parse(*packets: bytes) -> tuple[RtpWindow, bytes]:
    """Parses packets that arrive 20 ms apart in one window; returns the dump too."""
    dump = make_rtpdump(0, [(20 * number, packet, False) for number, packet in enumerate(packets)])
    (window,) = read_rtpdump(io.BytesIO(dump), "a").windows
    return parse_rtp_window(window), dump


def only_payload(packet: bytes) -> bytes:
    """Returns the payload of the one packet, which must be valid."""
    parsed, dump = parse(packet)
    assert parsed.invalid_count == 0
    (at,), (size,) = parsed.payload_offset.tolist(), parsed.payload_bytes.tolist()
    return dump[at : at + size]


def test_every_header_field_is_read() -> None:
    packets = [
        make_rtp_packet(b"one", sequence_number=1, rtp_timestamp=2, ssrc=3, payload_type=4),
        make_rtp_packet(
            b"",
            sequence_number=0xFFFF,
            rtp_timestamp=0xFFFF_FFFF,
            ssrc=0xFFFF_FFFE,
            payload_type=127,
        ),
        make_rtp_packet(
            b"x" * 1_300,
            sequence_number=0x1234,
            rtp_timestamp=0x8765_4321,
            ssrc=0xABCD_EF01,
            marker=True,
            payload_type=0,
        ),
    ]
    parsed, dump = parse(*packets)
    assert parsed.sequence_number.tolist() == [1, 0xFFFF, 0x1234]
    assert parsed.rtp_timestamp.tolist() == [2, 0xFFFF_FFFF, 0x8765_4321]
    assert parsed.ssrc.tolist() == [3, 0xFFFF_FFFE, 0xABCD_EF01]
    assert parsed.payload_type.tolist() == [4, 127, 0]
    assert parsed.arrival_offset_ms.tolist() == [0, 20, 40]
    assert parsed.payload_bytes.tolist() == [3, 0, 1_300]
    assert [dump[at : at + 3] for at in parsed.payload_offset.tolist()][::2] == [b"one", b"xxx"]
    assert (parsed.invalid_count, parsed.sender_reports) == (0, ())
    types = [
        parsed.sequence_number.dtype,
        parsed.rtp_timestamp.dtype,
        parsed.ssrc.dtype,
        parsed.payload_type.dtype,
    ]
    assert types == [np.uint16, np.uint32, np.uint32, np.uint8]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"csrcs": [1]},
        {"csrcs": list(range(15))},
        {"one_byte_extension": [(1, b"\x99")]},
        {"one_byte_extension": [(1, b"abc"), (14, b"0123456789abcdef")]},
        {"two_byte_extension": [(1, b""), (200, b"x" * 255)]},
        {"padding_bytes": 1},
        {"padding_bytes": 255},
        {
            "csrcs": [7, 8],
            "two_byte_extension": [(3, b"level")],
            "padding_bytes": 3,
            "marker": True,
        },
    ],
    ids=[
        "plain",
        "csrc",
        "most_csrcs",
        "one_byte",
        "one_byte_two",
        "two_byte",
        "padding_1",
        "padding_255",
        "all",
    ],
)
def test_payload_is_what_lies_between_headers_and_padding(options: dict[str, Any]) -> None:
    assert only_payload(make_rtp_packet(b"opus packet", **options)) == b"opus packet"
    assert only_payload(make_rtp_packet(b"", **options)) == b""


def test_golden_packet_with_everything_parses_and_is_built_again() -> None:
    golden = (DATA / "rtp_csrcs_extension_padding.bin").read_bytes()
    parsed, dump = parse(golden)
    (at,) = parsed.payload_offset.tolist()
    assert dump[at : at + int(parsed.payload_bytes[0])] == b"\xf8\xff\xfe"
    assert (parsed.sequence_number[0], parsed.rtp_timestamp[0]) == (0xBEEF, 0xDEAD_BEEF)
    assert (parsed.ssrc[0], parsed.payload_type[0]) == (0xCAFE_F00D, 111)
    built = make_rtp_packet(
        b"\xf8\xff\xfe",
        sequence_number=0xBEEF,
        rtp_timestamp=0xDEAD_BEEF,
        ssrc=0xCAFE_F00D,
        marker=False,
        csrcs=[0x0102_0304, 0x0506_0708],
        one_byte_extension=[(1, b"\x8a"), (3, b"\x01\x02")],
        padding_bytes=4,
    )
    assert built == golden


def test_golden_packet_of_padding_only_has_no_payload() -> None:
    golden = (DATA / "rtp_only_padding.bin").read_bytes()
    assert only_payload(golden) == b""
    assert (
        make_rtp_packet(sequence_number=515, rtp_timestamp=960, ssrc=0x1234_5678, padding_bytes=255)
        == golden
    )


PLAIN = make_rtp_packet(b"abcd")
MALFORMED = {
    "empty": b"",
    "one_byte": b"\x80",
    "fixed_header_cut": PLAIN[:11],
    "version_0": make_rtp_packet(b"abcd", version=0),
    "version_1": make_rtp_packet(b"abcd", version=1),
    "version_3": make_rtp_packet(b"abcd", version=3),
    "csrc_list_cut": make_rtp_packet(csrcs=[1, 2])[:-1],
    "csrc_list_missing": bytes([0x8F]) + PLAIN[1:],
    "extension_header_cut": bytes([0x90]) + PLAIN[1:12] + b"\xbe\xde\x00",
    "extension_cut": make_rtp_packet(one_byte_extension=[(1, b"abcdefgh")])[:-1],
    "extension_length_lies": bytes([0x90]) + PLAIN[1:12] + b"\xbe\xde\xff\xff" + bytes(40),
    "padding_of_0": bytes([0xA0]) + PLAIN[1:12] + b"abc\x00",
    "padding_over_payload": bytes([0xA0]) + PLAIN[1:12] + b"abc\x05",
    "padding_without_byte": bytes([0xA0]) + PLAIN[1:12],
}


@pytest.mark.parametrize(
    "packet", [pytest.param(data, id=name) for name, data in MALFORMED.items() if name != "empty"]
)
def test_malformed_packet_is_counted_and_left_out(packet: bytes) -> None:
    parsed, dump = parse(PLAIN, packet, make_rtp_packet(b"next", sequence_number=2))
    assert parsed.invalid_count == 1
    assert parsed.sequence_number.tolist() == [0, 2]
    assert [dump[at : at + 4] for at in parsed.payload_offset.tolist()] == [b"abcd", b"next"]


def test_padding_of_the_whole_payload_is_valid() -> None:
    assert only_payload(bytes([0xA0]) + PLAIN[1:12] + b"abc\x04") == b""


def test_packet_cut_by_the_capture_is_invalid() -> None:
    record = struct.pack(">HHI", 8 + len(PLAIN) - 1, len(PLAIN), 0) + PLAIN[:-1]
    (window,) = read_rtpdump(io.BytesIO(make_rtpdump(0, []) + record), "a").windows
    parsed = parse_rtp_window(window)
    assert (parsed.invalid_count, len(parsed.ssrc)) == (1, 0)


def test_packet_ends_where_plen_says_in_a_padded_record() -> None:
    record = struct.pack(">HHI", 8 + len(PLAIN) + 3, len(PLAIN), 0) + PLAIN + b"\xff\xff\xff"
    dump = make_rtpdump(0, []) + record
    (window,) = read_rtpdump(io.BytesIO(dump), "a").windows
    parsed = parse_rtp_window(window)
    assert parsed.payload_bytes.tolist() == [4]


@pytest.mark.parametrize("second_byte", [192, 200, 201, 223])
def test_rtcp_behind_a_length_is_not_rtp(second_byte: int) -> None:
    parsed, _ = parse(bytes([0x80, second_byte]) + bytes(26))
    assert (parsed.invalid_count, len(parsed.ssrc)) == (0, 0)


@pytest.mark.parametrize(("second_byte", "payload_type"), [(191, 63), (224, 96), (239, 111)])
def test_marked_rtp_beside_the_rtcp_range_is_rtp(second_byte: int, payload_type: int) -> None:
    parsed, _ = parse(bytes([0x80, second_byte]) + bytes(26))
    assert parsed.payload_type.tolist() == [payload_type]


def test_sender_report_gives_both_clocks() -> None:
    unix_ms = 1_767_607_200_250
    report = make_rtcp_sender_report(
        ssrc=0xABCD_EF01, ntp_time=ntp_time_of_unix_ms(unix_ms), rtp_timestamp=0xFFFF_FFF0
    )
    dump = make_rtpdump(0, [(1_234, report, True)])
    (window,) = read_rtpdump(io.BytesIO(dump), "a").windows
    parsed = parse_rtp_window(window)
    (found,) = parsed.sender_reports
    assert (found.ssrc, found.rtp_timestamp, found.arrival_offset_ms) == (
        0xABCD_EF01,
        0xFFFF_FFF0,
        1_234,
    )
    assert found.ntp_time >> 32 == unix_ms // 1_000 + 2_208_988_800
    assert found.ntp_time & 0xFFFF_FFFF == 1 << 30
    assert found.sender_unix_ns == unix_ms * 1_000_000
    assert (parsed.invalid_count, len(parsed.ssrc)) == (0, 0)


def reports_of(compound: bytes) -> list[int]:
    """Returns the SSRCs of the sender reports in a compound packet."""
    (window,) = read_rtpdump(io.BytesIO(make_rtpdump(0, [(0, compound, True)])), "a").windows
    return [report.ssrc for report in parse_rtp_window(window).sender_reports]


def test_sender_report_behind_other_packets_is_found() -> None:
    receiver_report = struct.pack(">BBHI", 0x80, 201, 1, 9)
    first, second = make_rtcp_sender_report(ssrc=1), make_rtcp_sender_report(ssrc=2, cname=None)
    assert reports_of(receiver_report + first + second) == [1, 2]


SENDER_REPORT = make_rtcp_sender_report(ssrc=1, cname=None)


@pytest.mark.parametrize(
    ("compound", "ssrcs"),
    [
        (b"", []),
        (SENDER_REPORT[:27], []),
        (bytes([0x40]) + SENDER_REPORT[1:], []),
        (SENDER_REPORT[:2] + b"\x00\x05" + SENDER_REPORT[4:24], []),
        (SENDER_REPORT + SENDER_REPORT[:20], [1]),
        (SENDER_REPORT + b"\x80", [1]),
    ],
    ids=["empty", "cut", "version", "too_short_for_a_report", "second_cut", "trailing_byte"],
)
def test_damaged_rtcp_gives_what_came_before_it(compound: bytes, ssrcs: list[int]) -> None:
    assert reports_of(compound) == ssrcs


def test_sender_time_before_1970_is_negative() -> None:
    compound = make_rtcp_sender_report(ntp_time=0)
    (window,) = read_rtpdump(io.BytesIO(make_rtpdump(0, [(0, compound, True)])), "a").windows
    assert (
        parse_rtp_window(window).sender_reports[0].sender_unix_ns == -2_208_988_800 * 1_000_000_000
    )


# --- properties -----------------------------------------------------------------------------------


def payload_by_the_clause(packet: bytes) -> tuple[int, int] | None:
    """Returns (start, size) of a packet's payload by RFC 3550 s5.1 read step by step, None when it
    is not RTP.
    """
    if len(packet) < 12 or packet[0] >> 6 != 2:
        return None
    start = 12 + 4 * (packet[0] & 15)
    if packet[0] & 0x10:
        if start + 4 > len(packet):
            return None
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    padding = 0
    if packet[0] & 0x20:
        padding = packet[-1]
        if padding == 0:
            return None
    size = len(packet) - start - padding
    return (start, size) if size >= 0 else None


first_bytes = st.integers(0, 255).map(lambda value: value & 0x3F | 0x80) | st.integers(0, 255)
hostile_packets = st.builds(
    lambda first, rest: bytes([first]) + rest, first_bytes, st.binary(min_size=1, max_size=60)
)


@given(st.lists(hostile_packets, min_size=1, max_size=8))
@example([b"\x80\xc8"])
def test_any_packets_parse_as_the_clause_reads(packets: list[bytes]) -> None:
    parsed, dump = parse(*packets)
    expected, invalid, position = [], 0, len(make_rtpdump(0, []))
    for packet in packets:
        position += 8
        if not 192 <= packet[1] <= 223:
            found = payload_by_the_clause(packet)
            if found is None:
                invalid += 1
            else:
                expected.append((position + found[0], found[1]))
        position += len(packet)
    assert (
        list(zip(parsed.payload_offset.tolist(), parsed.payload_bytes.tolist(), strict=True))
        == expected
    )
    assert parsed.invalid_count == invalid
    assert position == len(dump)


@given(
    st.binary(max_size=50),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF_FFFF),
    st.lists(st.integers(0, 0xFFFF_FFFF), max_size=15),
    st.lists(st.tuples(st.integers(1, 14), st.binary(min_size=1, max_size=16)), max_size=4),
    st.integers(0, 255),
)
def test_parsing_inverts_building(
    payload: bytes,
    number: int,
    ticks: int,
    csrcs: list[int],
    extension: list[tuple[int, bytes]],
    padding: int,
) -> None:
    packet = make_rtp_packet(
        payload,
        sequence_number=number,
        rtp_timestamp=ticks,
        csrcs=csrcs,
        one_byte_extension=extension,
        padding_bytes=padding,
    )
    parsed, dump = parse(packet)
    (at,) = parsed.payload_offset.tolist()
    assert dump[at : at + int(parsed.payload_bytes[0])] == payload
    assert (parsed.sequence_number[0], parsed.rtp_timestamp[0]) == (number, ticks)


def test_packet_of_one_byte_is_judged_by_its_own_bytes() -> None:
    # The byte behind it is the next record's; 0xC8 there would read as RTCP.
    buffer = np.frombuffer(b"\x80" + b"\xc8" * 20, dtype=np.uint8)
    window = RecordWindow(
        buffer=buffer,
        buffer_offset=0,
        start=np.array([0]),
        stop=np.array([1]),
        packet_bytes=np.array([1]),
        arrival_offset_ms=np.array([0]),
    )
    assert parse_rtp_window(window).invalid_count == 1
