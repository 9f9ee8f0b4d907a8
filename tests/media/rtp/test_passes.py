"""A sender that begins again with the same numbers and time stamps: each packet at its time."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from tests.support.builders import CALL_START_UNIX_MS, make_rtp_packet, make_rtpdump
from tests.support.media import ingest, make_timing, pieces_of
from transforms.media.rtp.ingest import IngestedSegment

FIRST_MS = 30
"""When the first sample is heard by the server, after the dump's start."""
_TOC = 0x08  # 20 ms


@dataclass(kw_only=True)
class Again:
    """A sender that sends passes, each from the same numbers on."""

    passes_s: Sequence[float] = (60, 60)
    pauses_s: Sequence[float] = (5,)
    loss_ratio: float = 0.1
    outages: Sequence[tuple[int, float, float]] = ()
    """(pass, from, to): nothing arrives."""
    reorder_ratio: float = 0
    """Packets that come 1 to 10 packets later."""
    duplicate_ratio: float = 0
    queues: Sequence[tuple[int, float, float, float]] = ()
    """(pass, from, to, ms): a queue builds up to that and drains at once."""
    is_silent: bool = False
    """All packets have the same content."""
    jitter_ms: float = 5
    first_number: int = 65_000
    seed: int = 1

    def dump(self) -> tuple[bytes, dict[bytes, list[float]]]:
        """Returns the dump, and when each content was captured, in seconds from the first on, as
        often as it was and arrived.
        """
        rng = np.random.default_rng(self.seed)
        records: list[tuple[float, bytes, bool]] = []
        truth: dict[bytes, list[float]] = {}
        begin_s = 0.0
        for which, seconds in enumerate(self.passes_s):
            rows: list[tuple[float, bytes, bytes, float]] = []
            for number in range(round(seconds * 50)):
                at_s = number / 50
                data = bytes([_TOC]) + (
                    b"" if self.is_silent else struct.pack(">BI", which, number)
                )
                packet = make_rtp_packet(
                    data,
                    sequence_number=(self.first_number + number) % 65_536,
                    rtp_timestamp=(4_294_000_000 + 960 * number) % (1 << 32),
                )
                arrival_ms = FIRST_MS + 1_000 * (begin_s + at_s) + 20
                arrival_ms += rng.uniform(0, self.jitter_ms)
                for of, start_s, stop_s, most_ms in self.queues:
                    if of == which and start_s <= at_s < stop_s:
                        arrival_ms += most_ms * (at_s - start_s) / (stop_s - start_s)
                is_out = any(of == which and a <= at_s < b for of, a, b in self.outages)
                if (number or which) and (is_out or rng.random() < self.loss_ratio):
                    continue
                rows.append((arrival_ms, packet, data, begin_s + at_s))
            late = [
                arrival + (20 * rng.integers(1, 11) if rng.random() < self.reorder_ratio else 0)
                for arrival, *_ in rows
            ]
            for (_, packet, data, at_s), arrival_ms in zip(rows, late, strict=True):
                truth.setdefault(data, []).append(at_s)
                records.append((arrival_ms, packet, False))
                if rng.random() < self.duplicate_ratio:
                    records.append((arrival_ms + rng.uniform(0, 40), packet, False))
            begin_s += seconds + (self.pauses_s[which] if which < len(self.pauses_s) else 0)
        records.sort(key=lambda record: record[0])
        return (
            make_rtpdump(
                CALL_START_UNIX_MS * 1_000, [(int(at), packet, c) for at, packet, c in records]
            ),
            truth,
        )


def placed_s(segment: IngestedSegment, dump: bytes) -> dict[bytes, list[float]]:
    """Returns when each content begins by its clock, in seconds from the first sample on."""
    found: dict[bytes, list[float]] = {}
    for packet_run in segment.packet_runs:
        pieces = pieces_of(packet_run.clock)
        starts = [piece.media_start_sample for piece in pieces]
        for record, offset in zip(
            packet_run.records.tolist(), packet_run.source_offset.tolist(), strict=True
        ):
            piece = pieces[max(0, int(np.searchsorted(starts, record[0], "right")) - 1)]
            ns = (record[0] - piece.media_start_sample) / 48_000 * 1e9 * piece.clock_rate_ratio
            ns += piece.server_start_unix_ns - (CALL_START_UNIX_MS + FIRST_MS) * 1e6
            found.setdefault(dump[offset : offset + record[3]], []).append(ns / 1e9)
    return found


def misplaced(again: Again, most_s: float = 0.05) -> tuple[int, int]:
    """Returns how many packets are not there, and how many are not at their time."""
    dump, truth = again.dump()
    segment = ingest(dump, timing=make_timing())
    found = placed_s(segment, dump)
    missing = away = 0
    for data, times in truth.items():
        places = sorted(found.get(data, []))
        if again.is_silent:
            apart = np.abs(np.subtract.outer(np.array(times), np.array(places))).min(axis=1)
            missing += int((apart > most_s).sum())
            apart = np.abs(np.subtract.outer(np.array(places), np.array(times))).min(axis=1)
            away += int((apart > most_s).sum())
            continue
        missing += max(0, len(times) - len(places))
        away += sum(abs(a - b) > most_s for a, b in zip(times, places, strict=False))
    return missing, away


AGAIN = {
    **{
        f"{first}-{second}-s-pause-{pause}": Again(passes_s=(first, second), pauses_s=(pause,))
        for (first, second), pause in itertools.product(
            [(60, 60), (60, 20), (20, 60), (8, 3), (3, 8)], [0.05, 3, 120]
        )
    },
    "outages": Again(outages=((0, 20, 30), (0, 40, 45), (1, 10, 12))),
    "second-within-an-outage": Again(passes_s=(60, 8), outages=((0, 0.02, 10),)),
    "second-begins-lost": Again(outages=((0, 10, 20), (1, 0.02, 10))),
    "reordered": Again(reorder_ratio=0.05),
    "reordered-no-pause": Again(reorder_ratio=0.05, pauses_s=(0.05,)),
    "twice": Again(duplicate_ratio=0.05, reorder_ratio=0.05),
    "queues": Again(queues=((0, 30, 34, 800), (1, 5, 9, 800)), reorder_ratio=0.02),
    "queue-at-the-end": Again(queues=((0, 56, 60, 800),), pauses_s=(0.05,), reorder_ratio=0.05),
    "three": Again(passes_s=(30, 60, 45), pauses_s=(0.05, 10), reorder_ratio=0.05),
    "four-short": Again(passes_s=(6, 6, 4, 8), pauses_s=(0.05, 1, 2), duplicate_ratio=0.05),
    "silent": Again(is_silent=True),
    "silent-longer": Again(is_silent=True, passes_s=(40, 90), outages=((0, 5, 12),)),
    "a-long-one": Again(passes_s=(434, 30), pauses_s=(1,), reorder_ratio=0.05),
    "more-than-half-of-all-numbers": Again(passes_s=(700, 30), pauses_s=(1,)),
    "more-than-all-numbers": Again(passes_s=(1_320, 30), pauses_s=(1,), loss_ratio=0.02),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_each_packet_of_a_sender_that_begins_again_is_at_its_time(again: Again) -> None:
    assert misplaced(again) == (0, 0)


@pytest.mark.parametrize("is_silent", [False, True], ids=["distinct", "alike"])
@pytest.mark.parametrize("at_s", [10, 28.98], ids=["amid", "at-the-end"])
@pytest.mark.parametrize("later_s", [0.5, 2, 5])
def test_packets_that_a_network_sends_again_are_duplicates(
    later_s: float, at_s: float, is_silent: bool
) -> None:
    rng = np.random.default_rng(3)
    records: list[tuple[float, bytes, bool]] = []
    for number in range(1_500):
        if rng.random() < 0.1:
            continue
        data = bytes([_TOC]) + (b"" if is_silent else struct.pack(">H", number))
        packet = make_rtp_packet(data, sequence_number=number, rtp_timestamp=960 * number)
        records.append((20 * number + float(rng.integers(0, 5)), packet, False))
        if at_s <= number / 50 < at_s + 1:
            records.append((20 * number + 1_000 * later_s, packet, False))
    again = sum(1 for record in records) - len({record[1] for record in records})
    records.sort(key=lambda record: record[0])
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, [(int(a), p, c) for a, p, c in records])
    segment = ingest(dump, timing=make_timing())
    assert again > 40
    assert len(segment.packet_runs) == 1
    assert (segment.counts.duplicate, segment.counts.received) == (again, len(records) - again)
