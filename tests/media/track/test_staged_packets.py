"""Staged packet files: what is written comes back, window by window, run by run; so does the
index.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

from tests.support.media import Packet, make_clock, staged_packet_run
from transforms.media.clock.model import ClockMethod
from transforms.media.rtp.ingested_packet_run import PACKET_DTYPE
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track import staged_packets
from transforms.media.track.staged_packets import (
    PartIndex,
    StagedPacketRun,
    dump_index,
    load_index,
    write_packet_run,
)
from transforms.media.values import Codec


def make_records(packets: list[Packet]) -> np.ndarray:
    return np.array(
        [(at, duration, lost, len(data), False) for at, duration, lost, data in packets],
        dtype=PACKET_DTYPE,
    )


def make_packet_run(packet_count: int, file_offset_bytes: int) -> StagedPacketRun:
    return StagedPacketRun(
        base_filename="a",
        track_id="t",
        ssrc=1,
        packet_count=packet_count,
        packets_lost=2,
        media_stop_sample=960 * packet_count,
        file_offset_bytes=file_offset_bytes,
        clock=make_clock(),
    )


def make_packets(count: int, seed: int) -> list[Packet]:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, 200, count).tolist()
    return [(960 * k, 960, int(k % 7 == 3), draw.bytes(size)) for k, size in enumerate(sizes)]


def stage(file: io.BytesIO, packets: list[Packet], order_seed: int) -> int:
    """Writes a run whose packets lie in another order, with bytes between, in their source; returns
    where it begins.
    """
    source, where = b"head", [0] * len(packets)
    for index in np.random.default_rng(order_seed).permutation(len(packets)).tolist():
        where[index] = len(source) + 3
        source += b"\xaa\xbb\xcc" + packets[index][3]
    start = file.tell()
    write_packet_run(
        file,
        make_records(packets),
        np.frombuffer(source, dtype=np.uint8),
        np.array(where, dtype=np.int64),
    )
    return start


@pytest.mark.parametrize("count", [1, 4_095, 4_096, 4_097, 10_000])
def test_run_comes_back_whole(count: int) -> None:
    file, packets = io.BytesIO(), make_packets(count, seed=count)
    start = stage(file, packets, order_seed=2)
    assert staged_packet_run(file, make_packet_run(count, start)) == packets


def test_each_run_of_a_file_is_read_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_packets, "WINDOW_PACKETS", 10)
    file = io.BytesIO()
    packet_runs = [make_packets(count, seed=count) for count in (25, 10, 3)]
    starts = [stage(file, packets, order_seed=3) for packets in packet_runs]
    for packets, start in reversed(list(zip(packet_runs, starts, strict=True))):
        assert staged_packet_run(file, make_packet_run(len(packets), start)) == packets


def test_what_was_copied_is_let_go_after_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_packets, "WINDOW_PACKETS", 4)
    packets = make_packets(9, seed=1)
    calls: list[None] = []
    source = np.frombuffer(b"".join(packet for *_, packet in packets), dtype=np.uint8)
    records = make_records(packets)
    ends = np.cumsum(records["packet_bytes"], dtype=np.int64)
    write_packet_run(
        io.BytesIO(), records, source, ends - records["packet_bytes"], lambda: calls.append(None)
    )
    assert len(calls) == 3


@pytest.mark.parametrize("between", [0, 20, 5_000, 100_000])
@pytest.mark.parametrize("late", [False, True], ids=["in_order", "one_late"])
def test_packets_are_found_wherever_they_lie(between: int, late: bool) -> None:
    packets = make_packets(50, seed=3)
    source, where = b"", []
    for *_, packet in packets:
        source += b"\xee" * between
        where.append(len(source))
        source += packet
    if late:  # what came last belongs in the middle
        packets.insert(20, packets.pop())
        where.insert(20, where.pop())
    file = io.BytesIO()
    write_packet_run(
        file,
        make_records(packets),
        np.frombuffer(source, dtype=np.uint8),
        np.array(where, dtype=np.int64),
    )
    assert list(staged_packet_run(file, make_packet_run(50, 0))) == packets


def test_window_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_packets, "WINDOW_PACKETS", 4)
    file = io.BytesIO()
    stage(file, make_packets(9, seed=1), order_seed=1)
    file.seek(0)
    lengths = []
    while file.tell() < len(file.getvalue()):
        lengths.append(len(np.lib.format.read_array(file)))
        np.lib.format.read_array(file)
    assert lengths == [4, 4, 1]


def test_empty_packets_keep_their_place() -> None:
    packets: list[Packet] = [(0, 960, 0, b""), (960, 960, 0, b"x"), (1_920, 960, 4, b"")]
    file = io.BytesIO()
    start = stage(file, packets, order_seed=1)
    assert staged_packet_run(file, make_packet_run(3, start)) == packets


def test_index_comes_back_equal() -> None:
    packet_run = StagedPacketRun(
        base_filename="ünï/a",
        track_id="",
        ssrc=0xFFFF_FFFF,
        packet_count=5,
        packets_lost=1,
        media_stop_sample=1 << 40,
        file_offset_bytes=1 << 41,
        clock=make_clock(1_767_607_200_123_456_789, [(0, 0), (960, -1)], ClockMethod.METADATA),
    )
    counts = PacketCounts(
        expected=7, received=6, lost=5, duplicate=4, reordered=3, invalid=2, recovered_red=1
    )
    index = PartIndex(
        channels=2,
        codec=Codec.RED,
        segment_count=3,
        counts=counts,
        jitter_ms=0.1,
        packet_runs=(packet_run, make_packet_run(1, 0)),
    )
    assert load_index(dump_index(index)) == index
