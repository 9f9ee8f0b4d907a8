"""Clocks that are off by 2,000 ppm, over hours: nothing breaks by it before they are fitted."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    SSRC,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    ntp_time_of_unix_ms,
)
from tests.support.media import ingest, make_timing


def fast_dump(ppm: float, hours: float, jump_s: float = 0, first: int = 0) -> tuple[bytes, int]:
    """Returns packets of 120 ms by a clock that is fast by so much, with a report every minute,
    jitter, and an outage that ends in a burst; and when the last one came, in ms.

    Args:
      ppm: how fast.
      hours: how long, by the server's clock.
      jump_s: time stamps jump ahead by so much amid.
      first: packets before this one are not there.
    """
    rng = np.random.default_rng(4)
    count = round(hours * 30_000)
    records, last_ms = [], 0
    for number in range(first, count):
        sent_ms = 120 * (number + 1) / (1 + ppm * 1e-6)
        timestamp = 5_760 * number + (round(48_000 * jump_s) if number >= count // 2 else 0)
        at_ms = int(sent_ms + rng.uniform(0, 20))
        burst_ms = int(120 * (count // 3 + 200) / (1 + ppm * 1e-6))
        if count // 3 <= number < count // 3 + 200:
            at_ms = max(at_ms, burst_ms)
        packet = make_rtp_packet(
            bytes([0x59, number % 251, number % 256]),  # two frames of 60 ms
            sequence_number=number % 65_536,
            rtp_timestamp=timestamp % (1 << 32),
        )
        if not count // 3 + 20 <= number < count // 3 + 60:
            records.append((at_ms, packet, False))
        if number % 500 == 250:
            report = make_rtcp_sender_report(
                ssrc=SSRC,
                ntp_time=ntp_time_of_unix_ms(CALL_START_UNIX_MS + round(sent_ms)),
                rtp_timestamp=(timestamp + 5_760) % (1 << 32),
                packet_count=0,
            )
            records.append((at_ms, report, True))
        last_ms = max(last_ms, at_ms)
    records.sort(key=lambda record: record[0])
    return make_rtpdump(CALL_START_UNIX_MS * 1_000, records), last_ms


@pytest.mark.parametrize("hours", [0.42, 1.5])
@pytest.mark.parametrize("ppm", [2_000, -2_000])
def test_fast_and_slow_clocks_break_no_run_and_keep_all_reports(ppm: int, hours: float) -> None:
    dump, _ = fast_dump(ppm, hours)
    segment = ingest(dump)
    (packet_run,) = segment.packet_runs
    assert segment.findings == ()
    assert len(packet_run.reports) == len(range(250, round(hours * 30_000), 500))


@pytest.mark.parametrize("ppm", [2_000, -2_000])
def test_time_stamps_that_jump_are_parted_however_slow_a_clock_is(ppm: int) -> None:
    dump, _ = fast_dump(ppm, 1.5, jump_s=5)
    segment = ingest(dump)
    assert len(segment.packet_runs) == 2


@pytest.mark.parametrize("ppm", [2_000, -2_000])
def test_dump_that_begins_late_begins_there_however_fast_a_clock_is(ppm: int) -> None:
    """The metadata's first packet came ten minutes before the dump's first one."""
    dump, last_ms = fast_dump(ppm, 0.42, first=5_000)
    (gone_ms,) = struct.unpack_from(">I", dump, dump.index(b"\n") + 1 + 16 + 4)
    timing = make_timing(
        first_rtp_timestamp=0,
        first_rtp_unix_ms=CALL_START_UNIX_MS + 120,
        last_rtp_timestamp=5_760 * (round(0.42 * 30_000) - 1),
        last_rtp_unix_ms=CALL_START_UNIX_MS + last_ms,
    )
    # By its own header the dump begins with its first packet, by a clock that is a minute off.
    header = dump.index(b"\n") + 1
    shifted = bytearray(dump)
    seconds = struct.unpack_from(">I", dump, header)[0]
    struct.pack_into(">I", shifted, header, seconds + 60)
    segment = ingest(bytes(shifted), timing=timing)
    assert segment.arrivals_unix_ns is not None
    first_ms = segment.arrivals_unix_ns[0] // 1_000_000 - CALL_START_UNIX_MS
    assert abs(first_ms - gone_ms) <= 200
