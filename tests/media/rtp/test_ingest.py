"""One dump -> runs: order, duplicates, loss, wraps, RED, jumps, sources, payload types and
clocks.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import (
    CALL_START_UNIX_MS,
    OPUS_PAYLOAD_TYPE,
    RED_PAYLOAD_TYPE,
    SSRC,
    Segment,
    encode_opus,
    make_red_payload,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_segment_dump,
    ntp_time_of_unix_ms,
    tone,
)
from tests.support.media import (
    OPUS_MAP,
    RED_MAPS,
    ingest,
    ingest_built,
    make_timing,
    pieces_of,
    run_packets,
)
from tests.support.simulation.sender import Sender
from tests.support.simulation.sending import simulate
from transforms.media.errors import (
    RtpdumpError,
    SdpError,
    TimelineError,
    TimingMetadataError,
    UnsupportedCodecError,
)
from transforms.media.rtp.fates import Tally
from transforms.media.rtp.ingest import IngestedSegment, ingest_segment
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.streams import PacketCounts
from transforms.media.rtp.timing_metadata import ReportedTime
from transforms.media.settings import LimitSettings

CALL_START_NS = CALL_START_UNIX_MS * 1_000_000
MONO_20_MS = 0x08  # SILK, narrow band, 20 ms, one frame


def fake_packets(count: int) -> list[bytes]:
    """Returns distinct packets that are well framed; what is in them does not matter before
    decoding.
    """
    return [
        bytes([MONO_20_MS]) + struct.pack(">H", number) + bytes(number % 5)
        for number in range(count)
    ]


def media_of(segment: IngestedSegment, packet_run: int = 0) -> list[int]:
    found: list[int] = segment.packet_runs[packet_run].records["media_sample"].tolist()
    return found


def test_clean_segment_is_one_run_of_all_its_packets() -> None:
    packets = fake_packets(100)
    segment, dump = ingest_built(Segment(packets=packets, start_ms=2_500))
    (packet_run,) = segment.packet_runs
    assert run_packets(segment, dump) == packets
    assert packet_run.records["media_sample"].tolist() == [960 * k for k in range(100)]
    assert packet_run.records["duration_samples"].tolist() == [960] * 100
    assert packet_run.records["lost_before"].tolist() == [0] * 100
    assert packet_run.ssrc == 0x1234_5678
    assert [p.server_start_unix_ns for p in pieces_of(packet_run.clock)] == [
        CALL_START_NS + 2_500_000_000
    ]
    assert segment.counts == PacketCounts(expected=100, received=100)
    assert (segment.channels, segment.codec, segment.findings) == (1, "audio/opus", ())
    assert segment.jitter_ms == 0


def test_wraps_of_both_fields_break_nothing() -> None:
    packets = fake_packets(60)
    segment, dump = ingest_built(
        Segment(
            packets=packets, first_sequence_number=65_530, first_rtp_timestamp=(1 << 32) - 9_600
        )
    )
    assert run_packets(segment, dump) == packets
    assert media_of(segment) == [960 * k for k in range(60)]
    assert segment.counts == PacketCounts(expected=60, received=60)


def test_loss_is_counted_at_the_packet_behind_it() -> None:
    packets = fake_packets(50)
    segment, dump = ingest_built(
        Segment(packets=packets, lost={10, 11, 12, 30}, first_sequence_number=65_520)
    )
    kept = [k for k in range(50) if k not in {10, 11, 12, 30}]
    assert run_packets(segment, dump) == [packets[k] for k in kept]
    assert media_of(segment) == [960 * k for k in kept]
    lost = segment.packet_runs[0].records["lost_before"]
    assert {kept[k]: int(lost[k]) for k in np.flatnonzero(lost)} == {13: 3, 31: 1}
    assert segment.counts == PacketCounts(expected=50, received=46, lost=4)


def test_loss_at_the_ends_is_not_known() -> None:
    segment, _ = ingest_built(Segment(packets=fake_packets(50), lost={0, 1, 49}))
    assert segment.counts == PacketCounts(expected=47, received=47)
    assert media_of(segment)[0] == 0
    assert (
        pieces_of(segment.packet_runs[0].clock)[0].server_start_unix_ns
        == CALL_START_NS + 40_000_000
    )


def test_duplicates_are_dropped_and_counted() -> None:
    packets = fake_packets(50)
    segment, dump = ingest_built(Segment(packets=packets, duplicated={0, 20, 21, 49}))
    assert run_packets(segment, dump) == packets
    assert segment.counts == PacketCounts(expected=50, received=50, duplicate=4)


def test_reordered_packets_are_put_in_order_and_counted() -> None:
    packets = fake_packets(50)
    segment, dump = ingest_built(
        Segment(packets=packets, swapped={5, 20, 40}, first_sequence_number=65_515)
    )
    assert run_packets(segment, dump) == packets
    assert segment.counts == PacketCounts(expected=50, received=50, reordered=3)
    assert pieces_of(segment.packet_runs[0].clock)[0].server_start_unix_ns == CALL_START_NS


def test_dtx_is_a_jump_of_time_without_loss() -> None:
    packets = fake_packets(30)
    sent = [*packets[:10], *[b""] * 45, *packets[10:20], *[b""] * 200, *packets[20:]]
    segment, dump = ingest_built(Segment(packets=sent))
    assert len(segment.packet_runs) == 1
    assert run_packets(segment, dump) == packets
    assert media_of(segment) == [960 * k for k, packet in enumerate(sent) if packet]
    assert segment.counts == PacketCounts(expected=30, received=30)
    assert not segment.packet_runs[0].records["lost_before"].any()


def test_padding_only_probes_count_as_received_and_are_no_loss() -> None:
    packets = fake_packets(50)
    segment, dump = ingest_built(Segment(packets=packets, padding_only={3, 4, 30}))
    assert run_packets(segment, dump) == packets
    assert segment.counts == PacketCounts(expected=53, received=53)
    assert not segment.packet_runs[0].records["lost_before"].any()


def test_probe_lost_beside_audio_counts_once() -> None:
    # Numbers 2 and 3 are missing, 4 is a probe: both losses belong to the audio at 5.
    packets = fake_packets(4)
    sent = [(0, packets[0]), (1, packets[1]), (4, b""), (5, packets[2]), (6, packets[3])]
    dump = make_rtpdump(
        CALL_START_UNIX_MS * 1_000,
        [
            (
                20 * number,
                make_rtp_packet(
                    data, sequence_number=number, rtp_timestamp=960 * number, padding_bytes=4
                ),
                False,
            )
            for number, data in sent
        ],
    )
    segment = ingest(dump)
    assert segment.packet_runs[0].records["lost_before"].tolist() == [0, 0, 2, 0]
    assert segment.counts == PacketCounts(expected=7, received=5, lost=2)


def test_loss_before_the_first_audio_is_not_this_track_s() -> None:
    # A probe at 0, nothing at 1 to 3, audio from 4 on.
    records = [(0, make_rtp_packet(sequence_number=0, padding_bytes=4), False)]
    for number, data in enumerate(fake_packets(3), 4):
        records.append(
            (
                20 * number,
                make_rtp_packet(data, sequence_number=number, rtp_timestamp=960 * number),
                False,
            )
        )
    segment = ingest(make_rtpdump(1_000_000, records))
    assert segment.packet_runs[0].records["lost_before"].tolist() == [0, 0, 0]
    assert (segment.counts.expected, segment.counts.received, segment.counts.lost) == (7, 4, 3)


@pytest.mark.parametrize(("channels", "toc_bit"), [(1, 0), (2, 4)], ids=["mono", "stereo"])
def test_channels_are_what_the_packets_say(channels: int, toc_bit: int) -> None:
    packets = fake_packets(10)
    packets[7] = bytes([packets[7][0] | toc_bit]) + packets[7][1:]
    segment, _ = ingest_built(Segment(packets=packets))
    assert segment.channels == channels


@pytest.mark.parametrize("frame_ms", [2.5, 10, 60, 120])
def test_durations_are_read_from_the_packets(frame_ms: float) -> None:
    packets = encode_opus(tone(440, 1.2), frame_ms=frame_ms)
    samples = round(frame_ms * 48)
    segment, dump = ingest_built(Segment(packets=packets, packet_samples=samples))
    assert run_packets(segment, dump) == packets
    assert set(segment.packet_runs[0].records["duration_samples"].tolist()) == {samples}


def test_invalid_packets_are_dropped_and_counted() -> None:
    packets = fake_packets(20)
    packets[5] = b"\x0b\x00"  # code 3 with no frames
    packets[6] = b"\x09abc"  # two frames of equal length in an odd number of bytes
    packets[7] = bytes([MONO_20_MS]) + bytes(1_276)
    segment, dump = ingest_built(Segment(packets=packets))
    assert run_packets(segment, dump) == [*packets[:5], *packets[8:]]
    assert segment.counts.invalid == 3
    damaged = make_rtpdump(0, [(0, b"\x00" * 20, False), (1, b"short", False)])
    assert ingest(damaged).counts == PacketCounts(expected=2, received=2, invalid=2)


def test_each_source_is_a_run_of_its_own() -> None:
    first, second = fake_packets(20), fake_packets(50)[20:]
    one, _ = make_segment_dump(Segment(packets=first, ssrc=9, first_sequence_number=7))
    two, _ = make_segment_dump(
        Segment(packets=second, ssrc=4, first_rtp_timestamp=5, first_sequence_number=40_000)
    )
    head = len(make_rtpdump(0, []))
    later = bytearray(two[head:])
    at = 0
    while at < len(later):  # the second source speaks 5 s later
        (offset,) = struct.unpack_from(">I", later, at + 4)
        struct.pack_into(">I", later, at + 4, offset + 5_000)
        at += struct.unpack_from(">H", later, at)[0]
    dump = one + bytes(later)
    segment = ingest(dump)
    assert [packet_run.ssrc for packet_run in segment.packet_runs] == [9, 4]
    assert run_packets(segment, dump, 0) == first
    assert run_packets(segment, dump, 1) == second
    starts = [
        pieces_of(packet_run.clock)[0].server_start_unix_ns for packet_run in segment.packet_runs
    ]
    assert starts == [CALL_START_NS, CALL_START_NS + 5_000_000_000]
    assert segment.counts == PacketCounts(expected=50, received=50)


def jump_dump(jump_ticks: int, at: int = 50, count: int = 100) -> bytes:
    """Returns a dump in which the timestamps jump at one packet and the arrivals do not."""
    records = [
        (
            20 * (number + 1),
            make_rtp_packet(
                fake_packets(count)[number],
                sequence_number=number,
                rtp_timestamp=960 * number + (jump_ticks if number >= at else 0),
            ),
            False,
        )
        for number in range(count)
    ]
    return make_rtpdump(CALL_START_UNIX_MS * 1_000, records)


@pytest.mark.parametrize(
    "jump", [1 << 30, 97_000, -960 * 10, -(1 << 31)], ids=["ahead", "just_too_far", "back", "half"]
)
def test_jump_of_the_timestamps_begins_a_new_run_at_its_arrival(jump: int) -> None:
    segment = ingest(jump_dump(jump))
    assert [len(packet_run.records) for packet_run in segment.packet_runs] == [50, 50]
    assert media_of(segment, 1) == [960 * k for k in range(50)]
    starts = [
        pieces_of(packet_run.clock)[0].server_start_unix_ns for packet_run in segment.packet_runs
    ]
    assert starts == [CALL_START_NS, CALL_START_NS + 1_000_000_000]
    assert segment.counts == PacketCounts(expected=100, received=100)


def test_small_jump_ahead_stays_one_run() -> None:
    assert len(ingest(jump_dump(90_000)).packet_runs) == 1


def test_stall_is_followed() -> None:
    segment, _ = ingest_built(Segment(packets=fake_packets(300), stalls_ms={100: 250}))
    pieces = [
        (p.media_start_sample, p.server_start_unix_ns - CALL_START_NS)
        for p in pieces_of(segment.packet_runs[0].clock)
    ]
    assert pieces == [(0, 0), (96_000, 2_250_000_000)]


@pytest.mark.parametrize(
    "first_timestamp",
    [10_000, 2**32 - 100_000, 2**32 - 8 * 48_000],
    ids=["plain", "wrap", "wrap-later"],
)
@pytest.mark.parametrize("reports", [True, False], ids=["reports", "none"])
def test_small_stall_is_followed_where_reports_confirm_it(
    first_timestamp: int, reports: bool
) -> None:
    built = Segment(
        packets=fake_packets(1000),
        stalls_ms={500: 40},
        first_rtp_timestamp=first_timestamp,
        sender_reports=reports,
    )
    segment, _ = ingest_built(built)
    pieces = [
        (p.media_start_sample, p.server_start_unix_ns - CALL_START_NS)
        for p in pieces_of(segment.packet_runs[0].clock)
    ]
    assert pieces == ([(0, 0), (480_000, 10_040_000_000)] if reports else [(0, 0)])


def _dump_with_reports(timestamps: dict[int, int], ssrc: int) -> bytes:
    """600 packets whose clock stood still for 40 ms at 6 s, and reports (ms of arrival: RTP
    timestamp) that tell of it.
    """
    first = 2**32 - 3 * 48_000  # the timestamps wrap to exactly 0 at 3 s
    records = []
    for number in range(600):
        stalled = 40 if number >= 300 else 0
        packet = make_rtp_packet(
            b"\xf8\xff\xfe", sequence_number=number, rtp_timestamp=(first + 960 * number) % 2**32
        )
        records.append((number * 20 + 20 + stalled, packet, False))
    for at_ms, timestamp in timestamps.items():
        ntp_time = ntp_time_of_unix_ms(CALL_START_NS // 1_000_000 + at_ms)
        records.append(
            (
                at_ms,
                make_rtcp_sender_report(ssrc=ssrc, ntp_time=ntp_time, rtp_timestamp=timestamp),
                True,
            )
        )
    return make_rtpdump(CALL_START_NS // 1_000, sorted(records, key=lambda record: record[0]))


@pytest.mark.parametrize(
    ("timestamps", "ssrc", "is_followed"),
    [
        ({3_000: 0, 9_040: 6 * 48_000}, SSRC, True),
        ({0: 2**32 - 3 * 48_000, 9_040: 6 * 48_000}, SSRC, True),
        ({0: 2**32 - 4 * 48_000, 9_040: 6 * 48_000 - 48_000}, SSRC, True),
        ({3_000: 0, 9_040: 6 * 48_000}, SSRC + 1, False),
    ],
    ids=["exactly-0", "across-the-wrap", "before-the-first", "of-another-source"],
)
def test_reports_reach_the_run_they_belong_to(
    timestamps: dict[int, int], ssrc: int, is_followed: bool
) -> None:
    segment = ingest(_dump_with_reports(timestamps, ssrc))
    assert len(pieces_of(segment.packet_runs[0].clock)) == (2 if is_followed else 1)


def _ingest_with_stated_reports(
    stated_ms: tuple[int, int | None],
    *,
    first_timestamp: int = 2**32 - 4 * 48_000,
    count: int = 1_000,
    step_ms: int = 40,
    skew_ppm: int = 0,
) -> list[tuple[int, int]]:
    """Ingests packets that come later by a step in their middle, without reports in the dump.

    Args:
      stated_ms: how far the sender's wall clock runs from media time at the first and the last
        report, which came 100 ms after the first packet and 100 ms before the last; no last one
        for None.
      first_timestamp: of the first packet.
      count: of the packets.
      step_ms: how much later the second half comes.
      skew_ppm: how much slower than the server's clock media time runs.

    Returns:
      where pieces begin, in samples of media and in whole ms of server time.
    """
    records = []
    for number in range(count):
        late_ms = (step_ms if number >= count // 2 else 0) + number * 20 * skew_ppm / 1e6
        packet = make_rtp_packet(
            b"\xf8\xff\xfe", sequence_number=number, rtp_timestamp=first_timestamp + 960 * number
        )
        records.append((round(number * 20 + 20 + late_ms), packet, False))
    reports = {}
    for name, number, wall_ms in zip(
        ("first_report", "last_report"), (5, count - 5), stated_ms, strict=True
    ):
        if wall_ms is not None:
            reports[name] = ReportedTime(
                rtp_timestamp=(first_timestamp + 960 * number) % 2**32,
                sender_unix_ms=CALL_START_UNIX_MS - 7_200_000 + 20 * number + wall_ms,
            )
    segment = ingest(
        make_rtpdump(CALL_START_NS // 1_000, records),
        timing=make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS + 20, **reports),
    )
    return [
        (piece.media_start_sample, (piece.server_start_unix_ns - CALL_START_NS) // 1_000_000)
        for piece in pieces_of(segment.packet_runs[0].clock)
    ]


@pytest.mark.parametrize(
    "first_timestamp",
    [0, 10_000, 2**32 - 4 * 48_000, 2**32 - 4_800, 2**32 - 995 * 960],
    ids=["from-0", "plain", "wrap", "first-at-0", "last-at-0"],
)
def test_reports_of_the_metadata_confirm_a_stall(first_timestamp: int) -> None:
    found = _ingest_with_stated_reports((0, 40), first_timestamp=first_timestamp)
    assert found == [(0, 0), (480_000, 10_040)]


def test_reports_of_the_metadata_deny_a_stall() -> None:
    assert len(_ingest_with_stated_reports((0, 0), step_ms=400)) == 1


@pytest.mark.parametrize("stated_ms", [(0, None)], ids=["first"])
def test_a_single_report_of_the_metadata_tells_nothing(stated_ms: tuple[int, int | None]) -> None:
    assert len(_ingest_with_stated_reports(stated_ms)) == 1
    assert len(_ingest_with_stated_reports(stated_ms, step_ms=400)) == 2


@pytest.mark.parametrize("skew_ppm", [-150, 0, 150])
@pytest.mark.parametrize(("step_ms", "is_stall"), [(50, False), (300, True), (300, False)])
def test_reports_of_the_metadata_are_not_misled_by_the_sender_s_clock(
    skew_ppm: int, step_ms: int, is_stall: bool
) -> None:
    """In 10 minutes a clock drifts by more than a stall."""
    count = 30_000
    drift_ms = count * 20 * skew_ppm // 1_000_000
    pieces = _ingest_with_stated_reports(
        (0, drift_ms + (step_ms if is_stall else 0)),
        count=count,
        step_ms=step_ms,
        skew_ppm=skew_ppm,
    )
    assert len(pieces) == (2 if is_stall else 1)


def test_reports_of_the_dump_go_before_those_of_the_metadata() -> None:
    built = Segment(packets=fake_packets(1_000), stalls_ms={500: 40})
    wrong = ReportedTime(rtp_timestamp=10_000, sender_unix_ms=CALL_START_UNIX_MS)
    segment, _ = ingest_built(built, first_report=wrong)
    (packet_run,) = segment.packet_runs
    assert len(packet_run.reports) == 4
    assert len(pieces_of(packet_run.clock)) == 2


def test_reports_of_the_metadata_go_to_the_packet_runs_they_lie_near() -> None:
    first, second = (
        [
            (
                20 * number + 20 + shift_ms,
                make_rtp_packet(
                    b"\xf8\xff\xfe",
                    sequence_number=number,
                    rtp_timestamp=origin + 960 * number,
                    ssrc=ssrc,
                ),
                False,
            )
            for number in range(100)
        ]
        for shift_ms, origin, ssrc in ((0, 2**31, 1), (5_000, 7, 2))
    )
    segment = ingest(
        make_rtpdump(CALL_START_NS // 1_000, first + second),
        timing=make_timing(
            first_report=ReportedTime(rtp_timestamp=2**31 - 960, sender_unix_ms=1_000),
            last_report=ReportedTime(rtp_timestamp=7 + 960, sender_unix_ms=6_000),
        ),
    )
    assert [
        [(report.media_sample, report.sender_unix_ns) for report in packet_run.reports]
        for packet_run in segment.packet_runs
    ] == [[(-960, 1_000_000_000)], [(960, 6_000_000_000)]]


@pytest.mark.parametrize("sender_unix_ms", [1, 7_258_118_399_999])
@pytest.mark.parametrize("rtp_timestamp", [0, 10_000, 2**31, 2**32 - 1])
def test_no_stated_report_breaks_anything(sender_unix_ms: int, rtp_timestamp: int) -> None:
    packets = fake_packets(1_000)
    built = Segment(packets=packets, stalls_ms={500: 400}, sender_reports=False)
    report = ReportedTime(rtp_timestamp=rtp_timestamp, sender_unix_ms=sender_unix_ms)
    last = ReportedTime(rtp_timestamp=969_000, sender_unix_ms=4_000_000)
    for reports in ((report, last), (last, report), (report, None)):
        segment, dump = ingest_built(built, first_report=reports[0], last_report=reports[1])
        assert run_packets(segment, dump) == packets


def test_jitter_is_the_mean_difference_of_arrival_and_media_spacing() -> None:
    segment, _ = ingest_built(Segment(packets=fake_packets(101), late_ms={50: 10}))
    assert segment.jitter_ms == pytest.approx(20 / 100)


# --- RED ------------------------------------------------------------------------------------------


def test_red_is_taken_off() -> None:
    packets = fake_packets(40)
    segment, dump = ingest_built(Segment(packets=packets, red_copies=2))
    assert run_packets(segment, dump) == packets
    assert (segment.codec, segment.counts) == ("audio/red", PacketCounts(expected=40, received=40))


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize("origin", [10_000, (1 << 32) - 9_600], ids=["plain", "wrap"])
def test_red_brings_lost_packets_back(copies: int, origin: int) -> None:
    packets = fake_packets(60)
    lost = {10, 20, 21, 30, 31, 32, 40, 41, 42, 43}
    segment, dump = ingest_built(
        Segment(packets=packets, red_copies=copies, lost=lost, first_rtp_timestamp=origin)
    )
    gone = {
        index
        for index in lost
        if not any(index + back < 60 and index + back not in lost for back in range(1, copies + 1))
    }
    kept = [k for k in range(60) if k not in gone]
    assert run_packets(segment, dump) == [packets[k] for k in kept]
    assert media_of(segment) == [960 * k for k in kept]
    assert segment.counts == PacketCounts(
        expected=60, received=50, lost=10, recovered_red=10 - len(gone)
    )
    still = segment.packet_runs[0].records["lost_before"]
    assert int(still.sum()) == len(gone)
    for position in np.flatnonzero(still):
        assert kept[position] - kept[position - 1] - 1 == still[position]


def test_red_copy_of_a_packet_that_came_is_not_used() -> None:
    packets = fake_packets(3)
    records = []
    for number, older in enumerate([[], [(960, b"\x08other")], [(960, b"\x08other")]]):
        payload = make_red_payload(packets[number], older)
        packet = make_rtp_packet(
            payload, sequence_number=number, rtp_timestamp=960 * number, payload_type=63
        )
        records.append((20 * number, packet, False))
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    segment = ingest(dump, RED_MAPS)
    assert run_packets(segment, dump) == packets
    assert segment.counts.recovered_red == 0


@pytest.mark.parametrize(
    ("back", "fits"),
    [(960, True), (959, False), (1_000, False)],
    ids=["exact", "into_next", "into_last"],
)
def test_red_copy_that_overlaps_what_came_is_not_used(back: int, fits: bool) -> None:
    packets = fake_packets(3)
    records = []
    for number, older in ((0, []), (2, [(back, packets[1])])):
        payload = make_red_payload(packets[number], older)
        packet = make_rtp_packet(
            payload, sequence_number=number, rtp_timestamp=960 * number, payload_type=63
        )
        records.append((20 * number, packet, False))
    segment = ingest(make_rtpdump(1_000_000, records), RED_MAPS)
    assert segment.counts.recovered_red == int(fits)
    assert len(segment.packet_runs[0].records) == 2 + fits


def test_copy_that_is_no_opus_leaves_the_place_to_the_next_one() -> None:
    packets = fake_packets(6)
    records = []
    for n, older in ((0, []), (2, [(960, b"\x0bx")]), (3, [(1_920, packets[1])]), (4, []), (5, [])):
        packet = make_rtp_packet(
            make_red_payload(packets[n], older),
            sequence_number=n,
            rtp_timestamp=960 * n,
            payload_type=63,
        )
        records.append((20 * n, packet, False))
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    segment = ingest(dump, RED_MAPS)
    assert run_packets(segment, dump) == packets
    assert segment.counts == PacketCounts(expected=6, received=5, lost=1, recovered_red=1)


@pytest.mark.parametrize("window_bytes", [1, 64, 1_000])
def test_dump_looked_at_in_many_windows_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    sent = Segment(packets=fake_packets(200), red_copies=2, lost={3, 50, 51, 120, 121, 122})
    whole, dump = ingest_built(sent)
    monkeypatch.setattr("transforms.media.rtp.payloads._WINDOW_BYTES", window_bytes)
    parted, _ = ingest_built(sent)
    assert run_packets(parted, dump) == run_packets(whole, dump)
    assert (
        parted.counts
        == whole.counts
        == PacketCounts(expected=200, received=194, lost=6, recovered_red=5)
    )


def test_copies_that_are_kept_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.caps.MAX_RED_COPIES", 3)
    segment, _ = ingest_built(
        Segment(packets=fake_packets(60), red_copies=1, lost=set(range(5, 55, 10)))
    )
    assert segment.counts.recovered_red == 3


def test_what_was_looked_at_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.media.rtp.payloads._WINDOW_BYTES", 1_000)
    dump, _ = make_segment_dump(Segment(packets=fake_packets(500)))
    calls: list[None] = []
    bytes_ = np.frombuffer(dump, dtype=np.uint8)
    ingest_segment(
        lambda: io.BytesIO(dump),
        bytes_,
        "a",
        OPUS_MAP,
        make_timing(),
        LimitSettings(),
        Tally(),
        lambda: calls.append(None),
    )
    assert len(calls) >= len(dump) // 1_000


@pytest.mark.parametrize("red_copies", [0, 1], ids=["plain", "red"])
def test_memory_of_a_segment_grows_by_what_is_stated(red_copies: int) -> None:
    """100 bytes a packet: 150 MB for 8 h, and for 24 h still less than a codec process may take."""

    def peak_bytes(count: int) -> int:
        payload = (
            make_red_payload(b"\x08abc", [(960, b"\x08abc")] * red_copies)
            if red_copies
            else b"\x08abc"
        )
        payload_type = RED_PAYLOAD_TYPE if red_copies else OPUS_PAYLOAD_TYPE
        one = make_rtpdump(0, [(0, make_rtp_packet(payload, payload_type=payload_type), False)])
        head, record = (
            one[: -len(payload) - 20],
            np.frombuffer(one[-len(payload) - 20 :], dtype=np.uint8),
        )
        records, number = np.tile(record, (count, 1)), np.arange(count)
        for first, width, values in ((4, 4, 20 * number), (10, 2, number), (12, 4, 960 * number)):
            records[:, first : first + width] = values[:, None] >> 8 * np.arange(width)[::-1] & 0xFF
        dump = head + records.tobytes()
        tracemalloc.start()
        segment = ingest(dump, RED_MAPS, make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The first packet carries copies of those before it.
        (packet_run,) = segment.packet_runs
        assert len(packet_run.records) == count + red_copies
        return peak

    assert (peak_bytes(300_000) - peak_bytes(150_000)) / 150_000 < 110


def test_broken_red_is_invalid() -> None:
    packets = [make_red_payload(packet) for packet in fake_packets(5)]
    packets[2] = b"\xef\x00\x00\x00"
    packets[3] = make_red_payload(bytes(6_000))
    records = [
        (
            20 * n,
            make_rtp_packet(data, sequence_number=n, rtp_timestamp=960 * n, payload_type=63),
            False,
        )
        for n, data in enumerate(packets)
    ]
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    segment = ingest(dump, RED_MAPS)
    assert segment.counts.invalid == 2
    assert run_packets(segment, dump) == [fake_packets(5)[k] for k in (0, 1, 4)]


def test_plain_opus_beside_red_is_taken_too() -> None:
    packets = fake_packets(4)
    records = [
        (
            20 * n,
            make_rtp_packet(
                make_red_payload(data) if n % 2 else data,
                sequence_number=n,
                rtp_timestamp=960 * n,
                payload_type=63 if n % 2 else 111,
            ),
            False,
        )
        for n, data in enumerate(packets)
    ]
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    assert run_packets(ingest(dump, RED_MAPS), dump) == packets


# --- payload types, clocks, limits ----------------------------------------------------------------


def test_other_payload_types_are_received_but_not_audio() -> None:
    packets = fake_packets(4)
    records = [
        (
            20 * n,
            make_rtp_packet(
                data, sequence_number=n, rtp_timestamp=960 * n, payload_type=110 if n == 2 else 111
            ),
            False,
        )
        for n, data in enumerate(packets)
    ]
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    segment = ingest(dump)
    assert run_packets(segment, dump) == [packets[0], packets[1], packets[3]]
    assert segment.counts == PacketCounts(expected=4, received=4)
    assert not segment.packet_runs[0].records["lost_before"].any()


def test_dump_of_other_payload_types_only_warns_and_has_no_runs() -> None:
    dump = make_rtpdump(
        CALL_START_UNIX_MS * 1_000, [(0, make_rtp_packet(b"\x08a", payload_type=96), False)]
    )
    segment = ingest(dump)
    assert segment.packet_runs == ()
    assert segment.channels == 0
    (finding,) = segment.findings
    assert isinstance(finding, SdpError)
    assert (
        finding.message
        == "a.rtpdump: payload types [96] in the dump, expected [111] by the session description"
    )
    assert finding.member == "a.rtpdump"
    assert segment.counts == PacketCounts(expected=1, received=1)


@pytest.mark.parametrize("payload_type", [96, 120])
@pytest.mark.parametrize("codec", ["audio/opus", "AUDIO/OPUS"])
def test_without_description_the_metadata_s_codec_speaks(payload_type: int, codec: str) -> None:
    packets = fake_packets(3)
    records = [
        (
            20 * n,
            make_rtp_packet(
                data, sequence_number=n, rtp_timestamp=960 * n, payload_type=payload_type
            ),
            False,
        )
        for n, data in enumerate(packets)
    ]
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    assert run_packets(ingest(dump, {}, make_timing(codec=codec)), dump) == packets


def test_without_description_red_is_taken_off_too() -> None:
    packets = fake_packets(10)
    dump, _ = make_segment_dump(Segment(packets=packets, red_copies=1, lost={4}))
    segment = ingest(dump, {}, make_timing(codec="audio/red"))
    assert run_packets(segment, dump) == packets
    assert segment.counts.recovered_red == 1


@pytest.mark.parametrize(
    ("maps", "codec", "named"),
    [
        (
            {0: RtpMap(payload_type=0, encoding="pcmu", clock_rate_hz=8_000, channels=1)},
            "audio/opus",
            "pcmu/8000",
        ),
        ({}, "audio/PCMU", "audio/PCMU"),
        ({}, "", "not named"),
    ],
    ids=["description", "metadata", "neither"],
)
def test_other_codec_raises_unsupported_codec(
    maps: dict[int, RtpMap], codec: str, named: str
) -> None:
    dump, _ = make_segment_dump(Segment(packets=fake_packets(2)))
    with pytest.raises(
        UnsupportedCodecError,
        match=rf"a\.rtpdump: codec is {named}, expected opus/48000 or red/48000",
    ):
        ingest(dump, maps, make_timing(codec=codec))


def test_dump_without_packets_has_no_runs() -> None:
    segment = ingest(make_rtpdump(CALL_START_UNIX_MS * 1_000, []))
    assert (segment.packet_runs, segment.counts, segment.jitter_ms) == ((), PacketCounts(), None)


def test_metadata_s_first_arrival_counts_when_clocks_differ_much() -> None:
    dump, _ = make_segment_dump(Segment(packets=fake_packets(60)))
    hour_later = CALL_START_UNIX_MS + 3_600_000
    segment = ingest(dump, timing=make_timing(first_rtp_unix_ms=hour_later + 20))
    assert pieces_of(segment.packet_runs[0].clock)[0].server_start_unix_ns == hour_later * 1_000_000
    (finding,) = segment.findings
    assert isinstance(finding, TimingMetadataError)
    assert (
        "the dump's clock puts the first packet -3600.000 s from first_rtp_unix_timestamp"
        in finding.message
    )


def test_small_difference_of_the_clocks_is_no_warning() -> None:
    dump, _ = make_segment_dump(Segment(packets=fake_packets(60)))
    segment = ingest(dump, timing=make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS + 20 - 900))
    assert segment.findings == ()
    assert (
        pieces_of(segment.packet_runs[0].clock)[0].server_start_unix_ns
        == CALL_START_NS - 900_000_000
    )


def test_no_clock_at_all_raises_timeline_error() -> None:
    dump = make_rtpdump(0, [(0, make_rtp_packet(b"\x08a"), False)])
    with pytest.raises(
        TimelineError, match=r"neither the metadata nor the dump says when the first packet arrived"
    ):
        ingest(dump)


def test_dump_without_receive_times_takes_its_place_from_the_metadata() -> None:
    records = [
        (0, make_rtp_packet(data, sequence_number=n, rtp_timestamp=960 * n), False)
        for n, data in enumerate(fake_packets(100))
    ]
    segment = ingest(
        make_rtpdump(0, records), timing=make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS + 20)
    )
    (packet_run,) = segment.packet_runs
    assert packet_run.clock.method == "metadata"
    assert pieces_of(packet_run.clock)[0].server_start_unix_ns == CALL_START_NS


def test_damaged_framing_keeps_what_came_before_with_a_warning() -> None:
    packets = fake_packets(30)
    dump, _ = make_segment_dump(Segment(packets=packets))
    broken = dump + bytes(40)
    segment = ingest(broken)
    assert run_packets(segment, broken) == packets
    (finding,) = segment.findings
    assert isinstance(finding, RtpdumpError)
    assert finding.message.endswith("length 0, need at least 8")
    assert finding.byte_offset == len(dump)


def test_damaged_framing_at_the_start_raises() -> None:
    with pytest.raises(RtpdumpError, match=r"record 0 at byte \d+: length 0"):
        ingest(make_rtpdump(0, []) + bytes(40))


def test_more_packets_than_allowed_raise() -> None:
    dump, _ = make_segment_dump(Segment(packets=fake_packets(11)))
    ingest(dump, limits=LimitSettings(max_segment_packets=11))
    with pytest.raises(
        RtpdumpError, match=r"a\.rtpdump: more than 10 packets \(limits\.max_segment_packets\)"
    ):
        ingest(dump, limits=LimitSettings(max_segment_packets=10))


# --- properties -----------------------------------------------------------------------------------


@given(
    st.permutations(range(12)),
    st.integers(0, 65_535),
    st.integers(0, (1 << 32) - 1),
    st.sets(st.integers(0, 60)),
)
def test_any_order_of_arrival_gives_the_same_records(
    order: list[int], number: int, ticks: int, lost: set[int]
) -> None:
    """Packets overtake each other within 12 places, but for the first and the last; arrivals stay
    where they are.
    """
    count = 61
    packets = fake_packets(count)
    sent = [
        make_rtp_packet(packets[k], sequence_number=number + k, rtp_timestamp=ticks + 960 * k)
        for k in range(count)
        if k not in lost or k in (0, count - 1)
    ]
    shuffled = [0, *(1 + block + place for block in range(0, len(sent), 12) for place in order)]
    shuffled = [index for index in shuffled if index < len(sent) - 1] + [len(sent) - 1]
    plain = make_rtpdump(1_000_000, [(20 * k, packet, False) for k, packet in enumerate(sent)])
    mixed = make_rtpdump(
        1_000_000, [(20 * k, sent[index], False) for k, index in enumerate(shuffled)]
    )
    expected, found = ingest(plain), ingest(mixed)
    assert run_packets(found, mixed) == run_packets(expected, plain)
    assert found.packet_runs[0].records.tolist() == expected.packet_runs[0].records.tolist()
    assert dataclasses.replace(found.counts, reordered=0) == expected.counts


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 70_000),
            st.integers(0, 1 << 32),
            st.binary(max_size=12),
        ),
        max_size=30,
    )
)
def test_runs_move_forward_and_counts_add_up_whatever_is_sent(
    sent: list[tuple[int, int, int, bytes]],
) -> None:
    records = [
        (
            number % 1_000,
            make_rtp_packet(data, ssrc=source, sequence_number=number, rtp_timestamp=ticks),
            False,
        )
        for source, number, ticks, data in sent
    ]
    segment = ingest(make_rtpdump(1_000_000, records))
    for packet_run in segment.packet_runs:
        media = packet_run.records["media_sample"]
        assert media[0] == 0
        assert (np.diff(media) > 0).all()
        assert packet_run.records["duration_samples"].min() > 0
        assert packet_run.records["lost_before"].min() >= 0
        assert pieces_of(packet_run.clock)[0].media_start_sample == 0
    counts = segment.counts
    assert counts.expected == counts.received + counts.lost
    assert counts.received + counts.duplicate == len(sent)


@given(st.binary(max_size=300), st.sampled_from([0, 1, 2]))
def test_any_dump_raises_nothing_but_its_own_error(data: bytes, red: int) -> None:
    dump = (
        make_rtpdump(
            1_000_000, [(0, make_rtp_packet(data, payload_type=63 if red else 111), False)]
        )
        + data
    )
    if red == 2:
        dump = make_rtpdump(1_000_000, []) + data
    try:
        ingest(dump, RED_MAPS)
    except RtpdumpError:
        return


def test_pause_in_a_dump_without_receive_times_keeps_its_length() -> None:
    """Nothing can arrive early where no arrival is known: the jump is DTX, not a new origin."""
    records = [
        (
            0,
            make_rtp_packet(
                data, sequence_number=n, rtp_timestamp=960 * n + (240_000 if n >= 100 else 0)
            ),
            False,
        )
        for n, data in enumerate(fake_packets(200))
    ]
    segment = ingest(
        make_rtpdump(0, records), timing=make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS + 20)
    )
    assert len(segment.packet_runs) == 1
    assert int(segment.packet_runs[0].records["media_sample"][100]) == 96_000 + 240_000


def test_audio_with_the_number_of_a_probe_is_heard() -> None:
    first = make_rtp_packet(b"", sequence_number=7, rtp_timestamp=0)
    again = make_rtp_packet(b"\xf8\xff\xfe", sequence_number=7, rtp_timestamp=0)
    segment = ingest(make_rtpdump(1_000_000, [(0, first, False), (1, again, False)]))
    (packet_run,) = segment.packet_runs
    assert packet_run.records["packet_bytes"].tolist() == [3]
    assert segment.counts == PacketCounts(expected=1, received=1, duplicate=1)


# --- numbers that start anew, sources that come back, long segments -------------------------------


def counted_dump(
    numbers: list[int], jump_ticks: dict[int, int] | None = None, step_ms: int = 20
) -> bytes:
    """Returns a dump of packets every 20 ms with those sequence numbers; timestamps jump where
    told.
    """
    records, added = [], 0
    packets = fake_packets(len(numbers))
    for place, number in enumerate(numbers):
        added += (jump_ticks or {}).get(place, 0)
        packet = make_rtp_packet(
            packets[place], sequence_number=number, rtp_timestamp=960 * place + added
        )
        records.append((step_ms * (place + 1), packet, False))
    return make_rtpdump(CALL_START_UNIX_MS * 1_000, records)


@pytest.mark.parametrize("restart", [-1_000, -500, 20_000, 32_768], ids=str)
@pytest.mark.parametrize(
    "jump", [0, 5 * 60 * 48_000, -5 * 60 * 48_000], ids=["plain", "ahead", "back"]
)
def test_numbers_that_start_anew_lose_nothing(restart: int, jump: int) -> None:
    numbers = [*range(1_000, 1_600), *range(1_600 + restart, 2_200 + restart)]
    dump = counted_dump(numbers, {600: jump})
    segment = ingest(dump)
    assert [len(packet_run.records) for packet_run in segment.packet_runs] == [600, 600]
    assert segment.counts == PacketCounts(expected=1_200, received=1_200)
    starts = [
        pieces_of(packet_run.clock)[0].server_start_unix_ns for packet_run in segment.packet_runs
    ]
    assert starts == [CALL_START_NS, CALL_START_NS + 12_000_000_000]


def test_packets_that_come_very_late_are_no_restart() -> None:
    numbers = list(range(600))
    late = numbers[:20]
    order = [*numbers[20:500], *late, *numbers[500:]]
    packets = fake_packets(600)
    records = [
        (
            20 * (place + 1),
            make_rtp_packet(packets[number], sequence_number=number, rtp_timestamp=960 * number),
            False,
        )
        for place, number in enumerate(order)
    ]
    segment = ingest(make_rtpdump(CALL_START_UNIX_MS * 1_000, records))
    assert media_of(segment) == [960 * number for number in numbers]
    assert segment.counts.received == 600


def test_long_outage_is_a_loss_and_no_restart() -> None:
    packets = fake_packets(200)
    sent = [*range(100), *range(2_100, 2_200)]
    records = [
        (
            20 * (number + 1),
            make_rtp_packet(packets[place], sequence_number=number, rtp_timestamp=960 * number),
            False,
        )
        for place, number in enumerate(sent)
    ]
    segment = ingest(make_rtpdump(CALL_START_UNIX_MS * 1_000, records))
    (packet_run,) = segment.packet_runs
    assert segment.counts == PacketCounts(expected=2_200, received=200, lost=2_000)
    assert int(packet_run.records["media_sample"][100]) == 960 * 2_100


def test_burst_with_a_hole_in_it_catches_up_and_is_no_jump() -> None:
    """Five seconds held back come at once, 2.5 s of them lost: media time runs ahead, but not of
    what arrivals were before.
    """
    sent = [number for number in range(600) if not 350 <= number < 475]
    records = []
    for number in sent:
        at_ms = 20 * (number + 1)
        records.append((max(at_ms, 10_020) if 250 <= number < 500 else at_ms, number))
    packets = fake_packets(600)
    dump = make_rtpdump(
        CALL_START_UNIX_MS * 1_000,
        [
            (at, make_rtp_packet(packets[n], sequence_number=n, rtp_timestamp=960 * n), False)
            for at, n in records
        ],
    )
    segment = ingest(dump)
    assert len(segment.packet_runs) == 1
    assert media_of(segment) == [960 * number for number in sent]


def test_source_that_comes_back_leaves_room_for_the_one_between() -> None:
    packets = fake_packets(300)
    records = [
        (
            20 * (n + 1),
            make_rtp_packet(
                packets[n],
                sequence_number=n,
                rtp_timestamp=960 * n,
                ssrc=7 if 100 <= n < 200 else 9,
            ),
            False,
        )
        for n in range(300)
    ]
    segment = ingest(make_rtpdump(CALL_START_UNIX_MS * 1_000, records))
    assert [(packet_run.ssrc, len(packet_run.records)) for packet_run in segment.packet_runs] == [
        (9, 100),
        (7, 100),
        (9, 100),
    ]
    starts = [
        pieces_of(packet_run.clock)[0].server_start_unix_ns - CALL_START_NS
        for packet_run in segment.packet_runs
    ]
    assert starts == [0, 2_000_000_000, 4_000_000_000]


def test_reports_after_a_small_jump_back_are_the_new_run_s() -> None:
    """The new timestamps are near enough to the old run's to be taken for them."""
    sender = Sender(seconds=40, jumps=((20.0, -3 * 48_000),), stalls=((30.0, 0.04),), jitter_ms=2)
    simulated = simulate(sender)
    segment = ingest(
        simulated.dump,
        timing=make_timing(first_rtp_unix_ms=simulated.timing["first_rtp_unix_timestamp"]),
    )
    assert [len(pieces_of(packet_run.clock)) for packet_run in segment.packet_runs] == [1, 2]


def test_red_copies_are_not_put_into_another_run() -> None:
    """Numbers 100 to 102 are lost right behind a jump back; copies of before the jump have
    timestamps that would fit.
    """
    packets = fake_packets(200)
    records = []
    for n in range(200):
        timestamp = 960 * n - (960 * 60 if n >= 100 else 0)
        older = [(960, packets[n - 1])] if n and n != 100 else []
        payload = make_red_payload(packets[n], older)
        packet = make_rtp_packet(
            payload, sequence_number=n, rtp_timestamp=timestamp, payload_type=63
        )
        if n not in range(130, 133):
            records.append((20 * (n + 1), packet, False))
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    segment = ingest(dump, RED_MAPS)
    kept = run_packets(segment, dump, 1)
    assert kept == [packets[n] for n in range(100, 200) if n not in (130, 131)]
    assert segment.counts.recovered_red == 1


def test_eight_hours_are_one_run() -> None:
    simulated = simulate(Sender(seconds=8 * 3_600, packet_ms=120, skew_ppm=50.0, jitter_ms=5))
    segment = ingest(
        simulated.dump,
        timing=make_timing(first_rtp_unix_ms=simulated.timing["first_rtp_unix_timestamp"]),
    )
    assert len(segment.packet_runs) == 1


def test_runs_of_a_dump_without_receive_times_follow_each_other() -> None:
    records = [
        (
            0,
            make_rtp_packet(
                data, sequence_number=n, rtp_timestamp=960 * n - (10**6 if n >= 100 else 0)
            ),
            False,
        )
        for n, data in enumerate(fake_packets(200))
    ]
    segment = ingest(
        make_rtpdump(0, records), timing=make_timing(first_rtp_unix_ms=CALL_START_UNIX_MS + 20)
    )
    starts = [
        pieces_of(packet_run.clock)[0].server_start_unix_ns - CALL_START_NS
        for packet_run in segment.packet_runs
    ]
    assert starts == [0, 2_000_000_000]
