"""Placing packets: each at its server time or right behind the one before, and every hole told
apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.media import each_placed, make_clock
from transforms.media.rtp.ingested_packet_run import PACKET_DTYPE
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.lanes import LanePlan, plan_lanes
from transforms.media.track.staged_packets import PartIndex, StagedPacketRun, write_packet_run
from transforms.media.track.timeline import Hole, PlacedPacket, place_packets, plan_pieces
from transforms.media.units import samples_to_ns
from transforms.media.values import Codec

START_NS = 1_767_607_200_000_000_000
Sent = tuple[int, int, int]
"""media_sample, duration_samples, lost_before."""
Line = tuple[int, int]
"""media_start_sample, server time in samples from `START_NS`."""


class Track:
    """Parts of one track, built run by run."""

    def __init__(self) -> None:
        self.indexes: list[PartIndex] = []
        self.files: list[bytes] = []

    def add_part(
        self, packet_runs: Sequence[tuple[str, int, Sequence[Sent], Sequence[Line]]]
    ) -> None:
        """Adds a part. Args: runs: (base_filename, ssrc, packets, clock pieces)."""
        file, found = io.BytesIO(), []
        for base_filename, ssrc, sent, lines in packet_runs:
            records = np.array([(*packet, 1, False) for packet in sent], dtype=PACKET_DTYPE)
            found.append(
                StagedPacketRun(
                    base_filename=base_filename,
                    track_id="t",
                    ssrc=ssrc,
                    packet_count=len(sent),
                    packets_lost=sum(lost for _, _, lost in sent),
                    media_stop_sample=sent[-1][0] + sent[-1][1],
                    file_offset_bytes=file.tell(),
                    clock=make_clock(
                        START_NS,
                        [(media, samples_to_ns(server - media)) for media, server in lines],
                    ),
                )
            )
            source = (np.arange(len(sent)) + 16 * (ssrc - 1)).astype(np.uint8)
            write_packet_run(file, records, source, np.arange(len(sent), dtype=np.int64))
        self.files.append(file.getvalue())
        self.indexes.append(
            PartIndex(
                channels=1,
                codec=Codec.OPUS,
                segment_count=len(packet_runs),
                counts=PacketCounts(),
                jitter_ms=None,
                packet_runs=tuple(found),
            )
        )

    def open_packets(self, part: int) -> BinaryIO:
        return io.BytesIO(self.files[part])

    def plan(self) -> LanePlan:
        return plan_lanes(self.indexes, self.open_packets)

    def place(self, lane: int = 0) -> list[PlacedPacket]:
        return each_placed(place_packets(self.plan().lanes[lane], self.open_packets))


def place_one(sent: Sequence[Sent], lines: Sequence[Line] = ((0, 0),)) -> list[PlacedPacket]:
    track = Track()
    track.add_part([("a", 1, sent, lines)])
    return track.place()


def holes_of(placed: Sequence[PlacedPacket]) -> list[tuple[int, Hole, int]]:
    """Returns (start, kind of hole, its length) of each packet."""
    return [(packet.start_sample, packet.hole, packet.hole_samples) for packet in placed]


def test_packets_in_a_row_lie_end_to_end() -> None:
    placed = place_one([(0, 960, 0), (960, 960, 0), (1_920, 480, 0)])
    assert placed == [
        PlacedPacket(0, 0, 0, 960, Hole.BETWEEN_PACKET_RUNS, 0, b"\x00"),
        PlacedPacket(0, 960, 960, 960, Hole.NONE, 0, b"\x01"),
        PlacedPacket(0, 1_920, 1_920, 480, Hole.NONE, 0, b"\x02"),
    ]


def test_loss_and_dtx_are_told_apart() -> None:
    placed = place_one([(0, 960, 0), (2_880, 960, 2), (9_600, 960, 0), (10_560, 960, 0)])
    assert holes_of(placed)[1:] == [
        (2_880, Hole.LOST, 1_920),
        (9_600, Hole.DTX, 5_760),
        (10_560, Hole.NONE, 0),
    ]


def test_stall_opens_a_hole_of_its_length() -> None:
    placed = place_one([(0, 960, 0), (960, 960, 0), (1_920, 960, 0)], [(0, 0), (960, 960 + 4_800)])
    assert holes_of(placed)[1:] == [(5_760, Hole.STALLED, 4_800), (6_720, Hole.NONE, 0)]
    assert [packet.piece for packet in placed] == [0, 1, 1]


def test_loss_at_a_stall_is_a_loss() -> None:
    placed = place_one([(0, 960, 0), (1_920, 960, 1)], [(0, 0), (1_920, 9_600)])
    assert holes_of(placed)[1:] == [(9_600, Hole.LOST, 8_640)]


def test_pieces_without_packets_are_passed() -> None:
    placed = place_one(
        [(0, 960, 0), (9_600, 960, 0)], [(0, 0), (960, 2_880), (1_920, 5_760), (9_600, 14_400)]
    )
    assert [packet.piece for packet in placed] == [0, 3]
    assert holes_of(placed)[1] == (14_400, Hole.STALLED, 13_440)


def test_start_behind_a_hole_is_rounded_to_2_5_ms() -> None:
    assert [packet.start_sample for packet in place_one([(0, 960, 0), (1_021, 960, 0)])] == [
        0,
        1_080,
    ]
    assert [packet.start_sample for packet in place_one([(0, 960, 0), (1_019, 960, 0)])] == [0, 960]


def test_runs_of_a_part_follow_their_server_time() -> None:
    track = Track()
    later, earlier = (
        ("b", 2, [(0, 960, 0)], [(0, 48_000)]),
        ("a", 1, [(0, 960, 0), (960, 960, 0)], [(0, 0)]),
    )
    track.add_part([later, earlier])
    placed = track.place()
    assert holes_of(placed) == [
        (0, Hole.BETWEEN_PACKET_RUNS, 0),
        (960, Hole.NONE, 0),
        (48_000, Hole.BETWEEN_PACKET_RUNS, 46_080),
    ]
    pieces = plan_pieces(track.indexes)
    assert [
        (p.packet_run.base_filename, p.opens_packet_run, p.media_stop_sample) for p in pieces
    ] == [
        ("a", True, 1_920),
        ("b", True, 960),
    ]


def test_parts_of_several_archives_make_one_line() -> None:
    track = Track()
    track.add_part([("a", 1, [(0, 960, 0)], [(0, 0)]), ("c", 3, [(0, 960, 0)], [(0, 9_600)])])
    track.add_part([("b", 2, [(0, 960, 0)], [(0, 4_800)])])
    assert [packet.start_sample for packet in track.place()] == [0, 4_800, 9_600]
    assert [piece.part for piece in plan_pieces(track.indexes)] == [0, 1, 0]


def test_run_that_reaches_over_the_next_pushes_it_behind() -> None:
    track = Track()
    track.add_part(
        [
            ("a", 1, [(960 * k, 960, 0) for k in range(10)], [(0, 0)]),
            ("b", 2, [(0, 960, 0)], [(0, 9_000)]),
        ]
    )
    assert holes_of(track.place())[-1] == (9_600, Hole.BETWEEN_PACKET_RUNS, 0)


def test_run_that_begins_early_has_a_lane_of_its_own_until_there_is_room() -> None:
    track = Track()
    ten = [(960 * k, 960, 0) for k in range(10)]
    track.add_part([("a", 1, ten, [(0, 0)]), ("b", 2, ten, [(0, 4_800)])])
    placed, beside = track.place(), track.place(1)
    assert [packet.start_sample for packet in placed] == [960 * k for k in range(15)]
    assert [packet.piece for packet in placed] == [0] * 10 + [1] * 5
    assert [packet.opus_packet[0] for packet in placed][10:] == [21, 22, 23, 24, 25]
    assert [packet.opus_packet[0] for packet in beside] == [16, 17, 18, 19, 20]
    assert [packet.start_sample for packet in beside] == [960 * k for k in range(5)]


def test_run_that_begins_two_packets_early_follows_at_once_and_whole() -> None:
    track = Track()
    minute = [(960 * k, 960, 0) for k in range(3_000)]
    track.add_part([("a", 1, minute, [(0, 0)]), ("b", 2, minute[:10], [(0, 2_878_200)])])
    placed = track.place()
    assert len(track.plan().lanes) == 1
    assert [packet.start_sample for packet in placed[3_000:]] == [
        2_880_000 + 960 * k for k in range(10)
    ]


def test_run_that_two_archives_hold_is_taken_once() -> None:
    track, packet_run = Track(), ("a", 1, [(0, 960, 0), (960, 960, 0)], [(0, 0)])
    later = ("b", 2, [(0, 960, 0)], [(0, 9_600)])
    track.add_part([packet_run, later])
    track.add_part([packet_run])
    assert [packet.start_sample for packet in track.place()] == [0, 960, 9_600]
    plan = track.plan()
    assert [
        (piece.part, piece.packet_run.base_filename) for lane in plan.lanes for piece in lane
    ] == [(0, "a"), (0, "b")]
    assert [(each.part, each.reason, each.packet_count) for each in plan.left_out] == [
        (1, "equal_duplicate", 2)
    ]


def test_plan_ends_each_piece_where_the_next_begins() -> None:
    track = Track()
    track.add_part(
        [("a", 1, [(0, 960, 0), (9_600, 960, 0)], [(0, 0), (4_800, 9_600), (9_600, 20_000)])]
    )
    pieces = plan_pieces(track.indexes)
    edges = [(piece.clock.media_start_sample, piece.media_stop_sample) for piece in pieces]
    assert edges == [(0, 4_800), (4_800, 9_600), (9_600, 10_560)]
    assert [p.opens_packet_run for p in pieces] == [True, False, False]


sent_packets = st.lists(
    st.tuples(st.sampled_from([120, 480, 960, 2_880]), st.integers(0, 5_000), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


@given(sent_packets, st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 5_000)), max_size=4))
def test_packets_and_holes_tile_the_line_without_overlap(
    steps: list[tuple[int, int, int]], lifts: list[tuple[int, int]]
) -> None:
    sent, at = [], 0
    for duration, gap, lost in steps:
        sent.append((at, duration, lost))
        at += duration + gap
    lines, delay = [(0, 0)], 0
    for media, lift in sorted(lifts):
        if media > lines[-1][0]:
            delay += lift
            lines.append((media, media + delay))
    cursor = 0
    for packet in place_one(sent, lines):
        assert packet.hole_samples == packet.start_sample - cursor >= 0
        assert packet.hole_samples == 0 or packet.hole != Hole.NONE
        assert packet.start_sample % 120 == 0
        cursor = packet.start_sample + packet.duration_samples
