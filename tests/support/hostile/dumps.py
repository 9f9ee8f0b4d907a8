"""Dumps that are damaged, random, or tell of times and sources that cannot be."""

from __future__ import annotations

import struct
from random import Random

from tests.support.builders import (
    CALL_START_UNIX_MS,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
)
from tests.support.hostile.case import hostile_case
from tests.support.hostile.good_call import archive_with, speech
from tests.support.hostile.guest import dump_of, good_dump, guest, plain_packets


def _with_dump(call_id: str, dump: bytes) -> bytes:
    return archive_with(call_id, guest(call_id, dump))


@hostile_case("empty, expected an rtpdump")
def dump_empty(call_id: str) -> bytes:
    return _with_dump(call_id, b"")


@hostile_case(None)
def dump_header_only(call_id: str) -> bytes:
    return _with_dump(call_id, make_rtpdump(CALL_START_UNIX_MS * 1_000, []))


@hostile_case("expected #!rtpplay")
def dump_bad_magic(call_id: str) -> bytes:
    return _with_dump(call_id, b"#!rtpplay2.0" + good_dump()[12:])


@hostile_case("expected #!rtpplay")
def dump_random(call_id: str) -> bytes:
    return _with_dump(call_id, Random("random").randbytes(5_000))


@hostile_case("no end of line")
def dump_endless_line(call_id: str) -> bytes:
    return _with_dump(call_id, b"#!rtpplay1.0 " + b"x" * 5_000)


@hostile_case("expected a header")
def dump_header_cut(call_id: str) -> bytes:
    return _with_dump(call_id, good_dump()[:30])


@hostile_case("length 0")
def dump_record_0(call_id: str) -> bytes:
    return _with_dump(call_id, good_dump() + bytes(40))


@hostile_case("length 4")
def dump_record_4(call_id: str) -> bytes:
    return _with_dump(call_id, good_dump() + struct.pack(">HHI", 4, 4, 9) + bytes(40))


@hostile_case(None)
def dump_record_beyond(call_id: str) -> bytes:
    """A record that goes on past the end of the dump."""
    return _with_dump(call_id, good_dump() + struct.pack(">HHI", 60_000, 59_992, 9) + bytes(40))


@hostile_case(None)
def dump_plen_beyond(call_id: str) -> bytes:
    """A packet that states more bytes than its record has."""
    return _with_dump(call_id, good_dump() + struct.pack(">HHI", 20, 60_000, 9) + bytes(12))


@hostile_case("length 0")
def dump_record_0_first(call_id: str) -> bytes:
    return _with_dump(call_id, make_rtpdump(0, []) + bytes(400))


@hostile_case("no RTP or no Opus inside")
def dump_random_packets(call_id: str) -> bytes:
    draw = Random("random_packets")
    return _with_dump(call_id, dump_of((20 * n, draw.randbytes(80), False) for n in range(300)))


@hostile_case(None)
def dump_random_rtcp(call_id: str) -> bytes:
    draw = Random("random_rtcp")
    reports = [(20 * n, draw.randbytes(60), True) for n in range(300)]
    return _with_dump(call_id, dump_of([*plain_packets(50), *reports]))


@hostile_case(None)
def dump_rtcp_of_many_reports(call_id: str) -> bytes:
    record = make_rtcp_sender_report(cname=None) * 500
    reports = [(20 * n, record, True) for n in range(50)]
    return _with_dump(call_id, dump_of([*plain_packets(50), *reports]))


@hostile_case("no RTP or no Opus inside")
def dump_random_opus(call_id: str) -> bytes:
    """Every TOC byte once, with random bytes behind it."""
    draw = Random("random_opus")
    packets = plain_packets(256, payload=lambda n: bytes([n]) + draw.randbytes(60))
    return _with_dump(call_id, dump_of(packets))


@hostile_case("the time stamps of 200 packets break off 200 times")
def dump_random_timestamps(call_id: str) -> bytes:
    draw = Random("random_timestamps")
    packets = plain_packets(200, rtp_timestamp=lambda _: draw.getrandbits(32))
    return _with_dump(call_id, dump_of(packets))


@hostile_case("break off")
def dump_random_timestamps_without_arrivals(call_id: str) -> bytes:
    draw = Random("random_timestamps_without_arrivals")
    packets = plain_packets(200, rtp_timestamp=lambda _: draw.getrandbits(32), arrival_ms=0)
    return _with_dump(call_id, dump_of(packets))


@hostile_case("break off")
def dump_random_numbers(call_id: str) -> bytes:
    draw = Random("random_numbers")
    packets = plain_packets(200, sequence_number=lambda _: draw.getrandbits(16))
    return _with_dump(call_id, dump_of(packets))


@hostile_case("break off")
def dump_random_sources(call_id: str) -> bytes:
    draw = Random("random_sources")
    return _with_dump(call_id, dump_of(plain_packets(200, ssrc=lambda _: draw.getrandbits(32))))


@hostile_case("arrival times out of order")
def dump_random_arrivals(call_id: str) -> bytes:
    draw = Random("random_arrivals")
    packets = plain_packets(200, arrival_ms=lambda _: draw.getrandbits(32))
    return _with_dump(call_id, dump_of(packets))


@hostile_case("h from the rest")
def dump_weeks_between(call_id: str) -> bytes:
    """The second half comes eleven days later."""
    packets = plain_packets(100, arrival_ms=lambda n: 20 * n + (n > 49) * 10**9)
    return _with_dump(call_id, dump_of(packets))


@hostile_case("2 of 200 packets with arrival times")
def dump_some_arrivals_wild(call_id: str) -> bytes:
    wild = {20: 2**32 - 1, 100: 0}
    packets = plain_packets(200, arrival_ms=lambda n: wild.get(n, 20 * n + 20_000))
    return _with_dump(call_id, dump_of(packets))


@hostile_case(None)
def dump_one_packet_weeks_later(call_id: str) -> bytes:
    late = make_rtp_packet(speech(700)[0], sequence_number=50, rtp_timestamp=960 * 50)
    return _with_dump(call_id, dump_of([*plain_packets(50), (2**32 - 1, late, False)]))


@hostile_case(None)
def dump_timestamp_hours_ahead(call_id: str) -> bytes:
    packets = plain_packets(50, rtp_timestamp=lambda n: 960 * n + (n > 25) * 10**9)
    return _with_dump(call_id, dump_of(packets))


@hostile_case("arrival times out of order")
def dump_all_wrong(call_id: str) -> bytes:
    draw = Random("all_wrong")
    packets = []
    for _ in range(300):
        arrival_ms = draw.getrandbits(32)
        packet = make_rtp_packet(
            draw.randbytes(40),
            sequence_number=draw.getrandbits(16),
            rtp_timestamp=draw.getrandbits(32),
            ssrc=draw.getrandbits(32),
        )
        packets.append((arrival_ms, packet, False))
    return _with_dump(call_id, dump_of(packets))


@hostile_case("arrival times out of order")
def dump_flipped(call_id: str) -> bytes:
    """A good dump with 60 bits turned over."""
    draw = Random("flipped")
    dump = bytearray(good_dump())
    for _ in range(60):
        dump[draw.randrange(60, len(dump))] ^= 1 << draw.randrange(8)
    return _with_dump(call_id, bytes(dump))
