"""Time stamps that count at another rate than 48 kHz: what tells it, and what must not."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Segment,
    encode_opus,
    make_red_payload,
    make_rtcp_sender_report,
    make_rtp_packet,
    make_rtpdump,
    make_segment_dump,
    noise,
    ntp_time_of_unix_ms,
)
from tests.support.encryption import encrypt_dump, sframe
from tests.support.media import OPUS_MAP, RED_MAPS, ingest, make_timing, pieces_of, run_packets
from transforms.media.errors import EncryptedAudioError, RtpError, TimelineError
from transforms.media.rtp.ingest import IngestedSegment
from transforms.media.rtp.timing_metadata import ReportedTime

START_MS = 5_000
"""When the first sample was captured, counted from the start of the dump."""
TOC_OF_MS = {10.0: 0xF0, 20.0: 0x08, 40.0: 0x10, 60.0: 0x18, 2.5: 0xE0}
"""By the length of a packet in ms, the first byte of one (RFC 6716 s3.1)."""
RATES_HZ = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 96_000, 144_000)


@dataclass(kw_only=True)
class Clocked:
    """Packets of a sender whose time stamps count at a rate of their own."""

    rate_hz: float = 48_000
    packet_ms: Sequence[float] = (20.0,)
    """Lengths, in turn."""
    seconds: float = 30
    pauses: Sequence[tuple[float, float, float]] = ()
    """(from, to, a packet every so many seconds)."""
    jitter_ms: float = 0
    loss_ratio: float = 0
    together: int = 1
    """Packets that are sent at once."""
    first_timestamp: int = (1 << 32) - 70_000
    ssrc: int = 7
    red: bool = False
    without_offsets: bool = False
    reports_every_s: float | None = 5
    with_claims: bool = True
    stamp: Callable[[float, int], int] | None = None
    """Makes the time stamp from seconds of media time and the number of a packet."""
    seed: int = 1
    sent_s: list[float] = field(default_factory=list)
    """When each packet that arrived was captured, from the first one on; filled by `ingested`."""
    payloads: list[bytes] = field(default_factory=list)

    def ingested(self) -> tuple[IngestedSegment, bytes]:
        """Returns what the sender's dump comes to, and the dump."""
        rng = np.random.default_rng(self.seed)
        records: list[tuple[float, bytes, bool]] = []
        at_s, due_s, number, before = 0.0, 0.0, 0, b""
        while at_s < self.seconds:
            length_ms = self.packet_ms[number % len(self.packet_ms)]
            step_s = length_ms / 1_000
            for begin, end, every_s in self.pauses:
                if begin <= at_s < end:
                    step_s = every_s
            data = bytes([TOC_OF_MS[length_ms]]) + struct.pack(">H", number) + bytes(number % 5)
            payload = data
            if self.red:
                older = [(self._ticks(length_ms / 1_000), before)] if before else []
                payload = make_red_payload(data, older)
            packet = make_rtp_packet(
                payload,
                sequence_number=number % 65_536,
                rtp_timestamp=self._timestamp(at_s, number),
                ssrc=self.ssrc,
                payload_type=63 if self.red else 111,
            )
            last = number - number % self.together + self.together - 1
            arrival_ms = START_MS + 1_000 * at_s + length_ms * (1 + last - number)
            if self.reports_every_s and at_s >= due_s:
                due_s += self.reports_every_s
                records.append((arrival_ms, self._report(at_s, number), True))
            if rng.random() >= self.loss_ratio or number == 0:
                records.append((arrival_ms + rng.uniform(0, self.jitter_ms), packet, False))
                self.sent_s.append(at_s)
                self.payloads.append(data)
            before = data
            at_s, number = round(at_s + step_s, 6), number + 1
        records.sort(key=lambda record: record[0])
        heard = [(int(at), packet) for at, packet, is_rtcp in records if not is_rtcp]
        times = [
            (int.from_bytes(packet[4:8], "big"), CALL_START_UNIX_MS + at)
            for at, packet in (heard[0], heard[-1])
        ]
        dump = make_rtpdump(
            (CALL_START_UNIX_MS + (START_MS if self.without_offsets else 0)) * 1_000,
            [
                (0 if self.without_offsets else int(at), packet, is_rtcp)
                for at, packet, is_rtcp in records
            ],
        )
        claims = {
            "first_rtp_timestamp": times[0][0],
            "last_rtp_timestamp": times[1][0],
            "last_rtp_unix_ms": times[1][1],
        }
        timing = make_timing(first_rtp_unix_ms=times[0][1], **(claims if self.with_claims else {}))
        return ingest(dump, RED_MAPS if self.red else OPUS_MAP, timing), dump

    def _ticks(self, seconds: float) -> int:
        return round(seconds * self.rate_hz)

    def _timestamp(self, at_s: float, number: int) -> int:
        ticks = self._ticks(at_s) if self.stamp is None else self.stamp(at_s, number)
        return (self.first_timestamp + ticks) % (1 << 32)

    def _report(self, at_s: float, number: int) -> bytes:
        return make_rtcp_sender_report(
            ssrc=self.ssrc,
            ntp_time=ntp_time_of_unix_ms(CALL_START_UNIX_MS + round(at_s * 1_000)),
            rtp_timestamp=self._timestamp(at_s, number),
            packet_count=0,
        )


def places_of(segment: IngestedSegment) -> list[float]:
    """Returns when each packet begins by its clock, in seconds from the first sample captured."""
    found = []
    for packet_run in segment.packet_runs:
        pieces = pieces_of(packet_run.clock)
        for sample in packet_run.records["media_sample"].tolist():
            piece = [each for each in pieces if each.media_start_sample <= max(sample, 0)][-1]
            ns = (sample - piece.media_start_sample) / 48_000 * 1e9 * piece.clock_rate_ratio
            ns += piece.server_start_unix_ns
            found.append(ns / 1e9 - CALL_START_UNIX_MS / 1e3 - START_MS / 1e3)
    return found


def worst_s(clocked: Clocked, segment: IngestedSegment) -> float:
    """Returns by how much the packet that is furthest from its time is off, in seconds."""
    places = places_of(segment)
    assert len(places) == len(clocked.sent_s)
    return float(np.abs(np.sort(places) - clocked.sent_s).max())


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("with_claims", [True, False], ids=["claims", "no-claims"])
def test_time_stamps_of_another_rate_are_put_right_and_told(
    rate_hz: int, with_claims: bool
) -> None:
    clocked = Clocked(rate_hz=rate_hz, jitter_ms=8, loss_ratio=0.05, with_claims=with_claims)
    segment, dump = clocked.ingested()
    (packet_run,) = segment.packet_runs
    assert worst_s(clocked, segment) < 0.005
    assert set(np.diff(packet_run.records["media_sample"]).tolist()) <= {
        960 * count for count in range(1, 9)
    }
    assert run_packets(segment, dump) == clocked.payloads
    assert len(packet_run.reports) == 6
    assert all(
        abs(report.media_sample - 240_000 * number) < 3
        for number, report in enumerate(packet_run.reports)
    )
    (finding,) = segment.findings
    assert isinstance(finding, RtpError)
    assert finding.message == (
        f"a.rtpdump: the time stamps of source 7 count {rate_hz} ticks in a second of its packets, "
        "expected 48000 (RFC 7587 s4.1); they were put right"
    )
    if with_claims:
        assert segment.ends.head_samples == 0
        assert abs(segment.ends.tail_samples or 0) <= 2_880


HONEST = {
    "pauses": Clocked(pauses=((2, 12, 0.4), (15, 29, 0.4))),
    "pauses-only": Clocked(pauses=((0, 30, 0.4),), jitter_ms=30),
    "lengths-in-turn": Clocked(packet_ms=(20.0, 60.0, 40.0), jitter_ms=30, loss_ratio=0.1),
    "pairs": Clocked(packet_ms=(10.0,), together=2, jitter_ms=10),
    "threes": Clocked(packet_ms=(20.0,), together=3, loss_ratio=0.1),
    "every-second-withheld": Clocked(pauses=((0, 30, 0.04),)),
    "every-third-withheld": Clocked(pauses=((0, 30, 0.06),), jitter_ms=60),
    "two-packets": Clocked(seconds=0.04),
    "few": Clocked(seconds=0.3, jitter_ms=100),
    "short": Clocked(seconds=2, pauses=((0, 2, 0.1),), jitter_ms=200),
    "without-offsets": Clocked(without_offsets=True, pauses=((0, 20, 0.4),)),
    "red": Clocked(red=True, loss_ratio=0.05),
}


@pytest.mark.parametrize("clocked", HONEST.values(), ids=HONEST)
def test_time_stamps_of_48_khz_are_left_alone(clocked: Clocked) -> None:
    segment, _ = clocked.ingested()
    assert segment.findings == ()
    media = np.concatenate([run.records["media_sample"] for run in segment.packet_runs])
    sent = np.rint(np.array(clocked.sent_s) * 48_000).astype(int)
    assert set(sent.tolist()) <= set(media.tolist())


FACTORS = {
    "pauses": Clocked(rate_hz=16_000, pauses=((2, 12, 0.4), (15, 29, 0.4)), jitter_ms=10),
    "pauses-only": Clocked(rate_hz=16_000, pauses=((0, 30, 0.4),), jitter_ms=10),
    "pauses-fast": Clocked(rate_hz=144_000, pauses=((2, 25, 0.4),), jitter_ms=10),
    "lengths-in-turn": Clocked(rate_hz=24_000, packet_ms=(20.0, 60.0, 40.0), jitter_ms=30),
    "pairs": Clocked(rate_hz=96_000, packet_ms=(10.0,), together=2),
    "short": Clocked(rate_hz=16_000, seconds=1, jitter_ms=20),
    "outage": Clocked(rate_hz=8_000, loss_ratio=0.3, jitter_ms=200),
    "an-hour": Clocked(rate_hz=144_000, seconds=3_600, packet_ms=(60.0,), jitter_ms=10),
    "another-odd-one": Clocked(rate_hz=47_000, seconds=120, jitter_ms=10),
}


@pytest.mark.parametrize("clocked", FACTORS.values(), ids=FACTORS)
def test_another_rate_is_known_whatever_else_is_there(clocked: Clocked) -> None:
    segment, _ = clocked.ingested()
    assert [type(finding) for finding in segment.findings] == [RtpError]
    assert len(segment.packet_runs) == 1
    assert worst_s(clocked, segment) < 0.02


@pytest.mark.parametrize("rate_hz", [16_000, 96_000, 44_100])
def test_without_arrivals_packets_and_two_clocks_tell_it(rate_hz: int) -> None:
    clocked = Clocked(rate_hz=rate_hz, without_offsets=True)
    segment, _ = clocked.ingested()
    assert [type(finding) for finding in segment.findings] == [RtpError]
    assert worst_s(clocked, segment) < 0.03
    # Nothing but the packets says so: nobody knows.
    clocked = Clocked(
        rate_hz=rate_hz, without_offsets=True, with_claims=False, reports_every_s=None
    )
    segment, _ = clocked.ingested()
    assert segment.findings == ()


@pytest.mark.parametrize("rate_hz", [16_000, 96_000])
def test_redundant_copies_are_put_where_they_belong(rate_hz: int) -> None:
    clocked = Clocked(rate_hz=rate_hz, red=True, loss_ratio=0.05, jitter_ms=5)
    segment, _ = clocked.ingested()
    (packet_run,) = segment.packet_runs
    assert segment.counts.recovered_red > 30
    media = packet_run.records["media_sample"]
    assert set((media % 960).tolist()) == {0}
    assert segment.counts.recovered_red == int(packet_run.records["is_copy"].sum())
    assert int(packet_run.records["lost_before"].sum()) < 20


SENSELESS: dict[str, Callable[[float, int], int]] = {
    "random": lambda _, number: int(np.random.default_rng(number).integers(1 << 32)),
    "by a clock of its own": lambda at_s, number: round(at_s * 30_000) + number * 7_919 % 700,
    "backwards": lambda at_s, _: round(-at_s * 48_000),
    "back and forth": lambda at_s, _: round(1e6 * np.sin(at_s / 3)),
}


@pytest.mark.parametrize("stamp", SENSELESS.values(), ids=SENSELESS)
def test_time_stamps_that_fit_nothing_are_laid_by_arrivals(
    stamp: Callable[[float, int], int],
) -> None:
    clocked = Clocked(stamp=stamp, jitter_ms=8, pauses=((8, 12, 0.4),), loss_ratio=0.02)
    segment, _ = clocked.ingested()
    assert [type(finding) for finding in segment.findings] == [TimelineError]
    assert worst_s(clocked, segment) < 0.08
    for packet_run in segment.packet_runs:
        assert packet_run.reports == ()


def test_stated_reports_are_put_right_with_the_rest() -> None:
    clocked = Clocked(rate_hz=16_000, reports_every_s=None)
    _, dump = clocked.ingested()
    timing = make_timing(
        first_rtp_unix_ms=CALL_START_UNIX_MS + START_MS + 20,
        first_report=ReportedTime(
            rtp_timestamp=clocked.first_timestamp + 16_000, sender_unix_ms=1_000_001_000
        ),
        last_report=ReportedTime(
            rtp_timestamp=(clocked.first_timestamp + 25 * 16_000) % (1 << 32),
            sender_unix_ms=1_000_025_000,
        ),
    )
    segment = ingest(dump, timing=timing)
    assert [report.media_sample for report in segment.packet_runs[0].reports] == [
        48_000,
        25 * 48_000,
    ]


def test_packets_of_any_length_counted_as_one_length_are_laid_by_their_lengths() -> None:
    clocked = Clocked(
        packet_ms=(20.0, 60.0, 40.0), stamp=lambda _, number: 960 * number, jitter_ms=8
    )
    segment, _ = clocked.ingested()
    assert [type(finding) for finding in segment.findings] == [TimelineError]
    assert worst_s(clocked, segment) < 0.02


@pytest.mark.parametrize("pace", [0.92, 0.97, 1.05, 1.5])
def test_packets_that_come_slower_or_faster_than_they_last_are_laid_by_arrivals(
    pace: float,
) -> None:
    """A sound card at 44.1 kHz that is taken for one at 48 kHz: only the arrivals know."""
    clocked = Clocked(
        pauses=((0, 60, 0.02 / pace),), stamp=lambda _, n: 960 * n, seconds=60, jitter_ms=8
    )
    segment, _ = clocked.ingested()
    assert isinstance(segment.findings[0], TimelineError)
    assert worst_s(clocked, segment) < (0.15 if pace < 1 else 0.3)


@pytest.mark.parametrize(("rate_hz", "first"), [(16_000, 0), (144_000, 0), (144_000, 300)])
def test_encrypted_packets_of_another_rate_last_as_long_as_they_do(
    rate_hz: int, first: int
) -> None:
    packets = encode_opus(noise(12, seed=2))
    dump, numbers = make_segment_dump(Segment(packets=packets, clock_rate_hz=rate_hz))
    timing = make_timing(first_rtp_unix_ms=numbers["first_rtp_unix_timestamp"])
    segment = ingest(encrypt_dump(dump, sframe(3), first=first), timing=timing)
    (encrypted,) = [run for run in segment.packet_runs if run.is_encrypted]
    count = len(packets) - first
    assert encrypted.records["duration_samples"].tolist() == [960] * count
    assert encrypted.records["media_sample"].tolist() == list(range(0, 960 * count, 960))
    assert [type(finding) for finding in segment.findings] == [RtpError, EncryptedAudioError]
