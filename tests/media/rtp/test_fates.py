"""Every record of a dump has one fate, whatever is in it; and no sound is taken for another."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import (
    CALL_START_UNIX_MS,
    OPUS_PAYLOAD_TYPE,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
)
from tests.support.media import OPUS_MAP, RED_MAPS, make_timing
from transforms.media.errors import RecordingError
from transforms.media.rtp.fates import Fate, Tally
from transforms.media.rtp.ingest import IngestedSegment, ingest_segment
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.settings import LimitSettings

Record = tuple[int, bytes, bool]
"""Arrival in ms, packet, whether it is RTCP."""
TIMING = make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS)


def packet(number: int, tag: int = 0, **fields: Any) -> Record:
    """Returns the record of a packet of 20 ms of its own content."""
    payload = b"\x08" + struct.pack(">HB", number % 65_536, tag)
    fields = {"sequence_number": number, "rtp_timestamp": 960 * number, **fields}
    return 20 * number + 20, make_rtp_packet(payload, **fields), False


def at(later_ms: int, record: Record) -> Record:
    return record[0] + later_ms, *record[1:]


def ingest(
    records: Sequence[Record],
    maps: dict[int, RtpMap] | None = None,
    limits: LimitSettings | None = None,
    timing: SegmentTiming = TIMING,
) -> tuple[IngestedSegment | None, Tally]:
    """Ingests a dump; returns what came of it, None when it was refused, and its tally."""
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, sorted(records, key=lambda record: record[0]))
    tally = Tally()
    segment = None
    try:
        segment = ingest_segment(
            partial(io.BytesIO, dump),
            np.frombuffer(dump, dtype=np.uint8),
            "a.rtpdump",
            OPUS_MAP if maps is None else maps,
            timing,
            limits or LimitSettings(),
            tally,
        )
    except RecordingError:
        tally.refuse_rest()
    tally.check()
    return segment, tally


def placed(segment: IngestedSegment | None) -> list[list[int]]:
    """Returns the places of each packet run's packets, in samples from its first."""
    assert segment is not None
    return [run.records["media_sample"].tolist() for run in segment.packet_runs]


def test_each_kind_of_record_has_its_fate() -> None:
    names = {
        101: RtpMap(payload_type=101, encoding="telephone-event", clock_rate_hz=8_000, channels=1),
        102: RtpMap(payload_type=102, encoding="cn", clock_rate_hz=48_000, channels=1),
    }
    plain = [packet(n) for n in range(40)]
    records = [
        *plain,
        at(1, plain[3]),
        packet(40, payload_type=101),
        packet(41, payload_type=102),
        packet(42, payload_type=13),
        packet(43, payload_type=96),
        (880, make_rtp_packet(b"", sequence_number=44, padding_bytes=40), False),
        (881, make_rtp_packet(b"\xff\xff", sequence_number=45, rtp_timestamp=45 * 960), False),
        (882, b"\x00no RTP at all", False),
        (883, make_rtcp_sender_report(), True),
        at(200, packet(7, tag=1)),
    ]
    _, tally = ingest(records, {**OPUS_MAP, **names})
    assert tally.records == len(records)
    assert tally.fates == {
        Fate.PLACED: 40,
        Fate.DUPLICATE: 1,
        Fate.CONTROL: 1,
        Fate.PADDING: 1,
        Fate.COMFORT_NOISE: 2,
        Fate.SIGNALLING: 1,
        Fate.FOREIGN: 1,
        Fate.INVALID: 2,
        Fate.CONFLICTING: 1,
    }


def test_packets_of_unknown_types_are_audio_lost_only_where_no_audio_lies() -> None:
    audio = [packet(n) for n in range(40) if n < 20 or n >= 25]
    beside = [at(1, packet(n, sequence_number=1_000 + n, payload_type=126)) for n in (3, 7, 30)]
    instead = [packet(n, payload_type=96) for n in range(20, 25)]
    _, tally = ingest([*audio, *beside, *instead])
    assert tally.fates == {Fate.PLACED: 35, Fate.SIGNALLING: 3, Fate.FOREIGN: 5}


def test_records_of_a_refused_dump_are_counted() -> None:
    segment, tally = ingest(
        [packet(n) for n in range(5)],
        {111: RtpMap(payload_type=111, encoding="vp8", clock_rate_hz=90_000, channels=1)},
    )
    assert segment is None
    assert tally.fates == {Fate.REFUSED: 5}


def test_packets_past_the_number_of_runs_are_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.caps.MAX_PACKET_RUNS", 3)
    records = [at(500 * n, packet(n, rtp_timestamp=n * 400_000_000)) for n in range(8)]
    segment, tally = ingest(records)
    assert len(placed(segment)) == 3
    assert tally.fates == {Fate.PLACED: 3, Fate.OUTSIDE_LIMITS: 5}


def test_sources_past_their_number_are_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.caps.MAX_SOURCES", 2)
    records = [packet(n, ssrc=ssrc) for ssrc in (1, 2, 3) for n in range(5 + ssrc)]
    _, tally = ingest(records)
    assert tally.fates == {Fate.PLACED: 15, Fate.OUTSIDE_LIMITS: 6}


def test_a_sender_that_counts_from_the_same_numbers_again_gives_two_runs() -> None:
    first = [packet(n) for n in range(50)]
    second = [at(3_000, packet(n, tag=1)) for n in range(80)]
    segment, tally = ingest([*first, *second])
    assert [len(run) for run in placed(segment)] == [50, 80]
    assert tally.fates == {Fate.PLACED: 130}


def test_the_same_packets_again_are_duplicates() -> None:
    packets = [packet(n) for n in range(50)]
    segment, tally = ingest([*packets, *(at(700, record) for record in packets)])
    assert [len(run) for run in placed(segment)] == [50]
    assert tally.fates == {Fate.PLACED: 50, Fate.DUPLICATE: 50}


def test_two_senders_with_one_ssrc_at_once_give_two_runs() -> None:
    records = [packet(n, tag) for n in range(100) for tag in (1, 2)]
    segment, tally = ingest(records)
    assert sorted(len(run) for run in placed(segment)) == [100, 100]
    assert tally.fates == {Fate.PLACED: 200}


@pytest.mark.parametrize("missing", [65_400, 65_500, 65_535, 65_536, 65_537, 65_600, 131_071])
def test_an_outage_of_a_whole_number_space_costs_no_packet(missing: int) -> None:
    kept = [*range(60), *range(60 + missing, 120 + missing)]
    segment, tally = ingest([packet(n) for n in kept])
    assert tally.fates == {Fate.PLACED: 120}
    # Whether it is one run or two: each packet lies at its own time.
    assert segment is not None
    begins = [
        (run.clock.first_server_unix_ns - CALL_START_UNIX_MS * 1_000_000) // 1_000_000
        + sample // 48
        for run in segment.packet_runs
        for sample in run.records["media_sample"].tolist()
    ]
    assert begins == [20 * n - 20 for n in kept]


def test_time_stamps_that_stand_still_cost_no_packet() -> None:
    segment, tally = ingest([packet(n, rtp_timestamp=77) for n in range(3_000) if n % 50])
    assert tally.fates == {Fate.PLACED: 2_940}
    assert placed(segment) == [[960 * (n - 1) for n in range(3_000) if n % 50]]


def test_copies_of_packets_before_the_first_are_used() -> None:
    copy = b"\x08" + struct.pack(">HB", 9, 9)
    headers = b"".join(
        struct.pack(">I", 1 << 31 | OPUS_PAYLOAD_TYPE << 24 | 960 * back << 10 | len(copy))
        for back in (2, 1)
    )
    red = headers + bytes([OPUS_PAYLOAD_TYPE]) + copy * 2 + b"\x08\0\0\0"
    first = (220, make_rtp_packet(red, sequence_number=10, rtp_timestamp=9_600, payload_type=63))
    records = [(*first, False), *(packet(n) for n in range(11, 40))]
    timing = replace(TIMING, first_rtp_timestamp=9_600 - 3_840)
    segment, tally = ingest(records, RED_MAPS, timing=timing)
    assert placed(segment) == [[960 * n for n in range(32)]]
    assert tally.fates == {Fate.PLACED: 30}  # copies are no records of their own
    assert segment is not None
    assert segment.ends.head_samples == 3_840 - 1_920  # what they bring is not missing
    (run,) = segment.packet_runs
    assert run.records["is_copy"].tolist() == [True, True] + [False] * 30
    # The metadata's first packet came at 0, the dump's first one 80 ms later: 20 ms of its own and
    # 40 ms of copies before.
    assert run.clock.first_server_unix_ns == CALL_START_UNIX_MS * 1_000_000 + 20_000_000


kinds = st.sampled_from([111, 111, 111, 13, 96, 63])
few = st.integers(0, 12)


@given(
    st.lists(st.tuples(few, few, st.integers(1, 3), kinds, st.binary(max_size=6)), max_size=60),
    st.lists(st.binary(max_size=30), max_size=5),
)
def test_any_packets_add_up(
    drawn: list[tuple[int, int, int, int, bytes]], junk: list[bytes]
) -> None:
    records: list[Record] = [
        (
            5 * place,
            make_rtp_packet(
                payload,
                sequence_number=number,
                rtp_timestamp=960 * stamp,
                ssrc=ssrc,
                payload_type=kind,
            ),
            False,
        )
        for place, (number, stamp, ssrc, kind, payload) in enumerate(drawn)
    ]
    records += [(0, data, False) for data in junk]
    segment, tally = ingest(records, RED_MAPS)
    assert tally.records == len(records)
    if segment is not None:
        own = sum(int((~run.records["is_copy"]).sum()) for run in segment.packet_runs)
        assert tally.fates.get(Fate.PLACED, 0) == own
