"""Time stamps that count at another rate than Opus has, put right before anything reads them.

RFC 7587 s4.1: an RTP time stamp of Opus counts 48 kHz, whatever is sent. Senders are met that count
at the rate of their sound card, or a frame too many or too few in each packet. How long packets
last, their numbers and their arrivals tell it together; none of them does alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from transforms.media.errors import RecordingError, RtpError, TimelineError
from transforms.media.rtp.encryption import sent_samples
from transforms.media.rtp.payloads import Payloads
from transforms.media.rtp.streams import Stream, by_source
from transforms.media.rtp.timing_metadata import ReportedTime, SegmentTiming
from transforms.media.units import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Ints, Reals
from transforms.media.wraparound import unwrap, unwrap_sequence

_LEAST_PAIRS = 10
"""Fewer packets that follow each other tell no rate."""
_LEAST_MS = 300
"""Arrivals of a shorter time tell none: so much a network may add."""
_LEAST_SHARE = 0.2
"""Of the packets that follow each other; less is chance, and pauses of one length."""
_WHOLE_SHARE = 0.8
_SURE_SHARE = 0.9
"""The same where no arrivals speak along."""
_BLOCK_MS = 10_000
_LEAST_BLOCK_MS = 2_000
_LEAST_BLOCKS = 3
_LEAST_LOG = 0.003
"""Rates nearer to 48 kHz are those of a clock: up to some 2,000 ppm."""
_BIN_LOG = 0.005
_ODD_LOG = 0.1
"""Where packets do not tell the rate, arrivals have to differ by so much."""
_STEADY_LOG = 0.02
_USUAL_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 96_000, 144_000)
_SOURCES_NAMED = 3
_RATES_TOLD = 8


@dataclass(frozen=True, slots=True)
class _Rate:
    """What a source's time stamps count."""

    ratio: Fraction | None
    """Their ticks by those of 48 kHz; None where they say nothing."""
    first: int
    """The time stamp that stays as it is."""

    def samples(self, ticks: Ints) -> Ints:
        """Returns how many samples at 48 kHz so many ticks are, to the nearest."""
        assert self.ratio is not None
        up, down = self.ratio.denominator, self.ratio.numerator
        whole, rest = np.divmod(ticks, down)  # no product beyond 64 bits, whatever was sent
        found: Ints = whole * up + (2 * rest * up + down) // (2 * down)
        return found

    def mend(self, wrapped: int, reference: int) -> int | None:
        """Returns what a time stamp would be at 48 kHz; None where it says nothing.

        Args:
          wrapped: as it was sent.
          reference: an unwrapped one near to it.
        """
        if self.ratio is None:
            return None
        ticks = unwrap(wrapped, reference, 32) - self.first
        return (self.first + int(self.samples(np.array([ticks]))[0])) % (1 << 32)


def put_right_rates(
    stream: Stream,
    payloads: Payloads,
    timing: SegmentTiming,
    member: str,
    findings: list[RecordingError],
) -> SegmentTiming:
    """Makes the time stamps of sources that count at another rate those of 48 kHz, with their
    sender reports and redundant copies; returns the metadata with its time stamps put right.

    Time stamps that fit neither packets nor arrivals are made to stand still: they say nothing.

    Args:
      stream: all packets; changed in place.
      payloads: what they hold; changed in place.
      timing: the segment as the metadata states it.
      member: the dump's name, for messages.
      findings: what was put right is added to them.
    """
    rates: dict[int, _Rate] = {}
    ends = [int(stream.ssrc[place]) for place in (0, -1)] if stream.ssrc.size else []
    for mine in by_source(stream.ssrc):
        if _counts_samples(stream, payloads, mine):
            continue
        ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
        ratio, is_known = _find_ratio(stream, payloads, mine, ticks, timing)
        if not is_known:
            continue
        ssrc = int(stream.ssrc[mine[0]])
        rate = rates[ssrc] = _Rate(ratio, int(ticks[0]))
        near = _near(stream, mine, ticks)
        stream.sender_reports = tuple(
            replace(report, rtp_timestamp=mended)
            for report in stream.sender_reports
            if (
                mended := report.rtp_timestamp
                if report.ssrc != ssrc
                else rate.mend(report.rtp_timestamp, near(report.arrival_offset_ms))
            )
            is not None
        )
        if ssrc == ends[0]:
            timing = _mend_first(timing, rate, int(ticks[0]))
        if ssrc == ends[1]:
            timing = _mend_last(timing, rate, int(ticks[-1]))
        _mend_packets(stream, payloads, mine, ticks, rate)
    findings += _what_is_off(rates, member)
    return timing


def _counts_samples(stream: Stream, payloads: Payloads, mine: Ints) -> bool:
    """Whether most of a source's packets are as long as their time stamps say; as nearly all
    sources are.
    """
    at: Ints | slice = _measured(payloads, mine)
    if len(at) <= _LEAST_PAIRS:
        return not payloads.is_encrypted[mine].any()
    if len(at) == len(stream.ssrc):
        at = slice(None)  # views, no copies: there are millions
    is_next = np.diff(stream.sequence_number[at]) == 1
    is_as_long = np.diff(stream.rtp_timestamp[at]) == payloads.duration_samples[at][:-1]
    is_as_long &= is_next
    return 2 * int(np.count_nonzero(is_as_long)) >= int(np.count_nonzero(is_next))


def _measured(payloads: Payloads, mine: Ints) -> Ints:
    """Returns those of a source's packets that say themselves how long they last."""
    is_measured = payloads.is_audio[mine] & ~payloads.is_encrypted[mine]
    return mine if is_measured.all() else mine[is_measured]


def _find_ratio(
    stream: Stream, payloads: Payloads, mine: Ints, ticks: Ints, timing: SegmentTiming
) -> tuple[Fraction | None, bool]:
    """Returns what a source's time stamps count by 48 kHz, None for nothing; and whether that is
    known, and not 1.

    Args:
      stream: all packets.
      payloads: what they hold.
      mine: places of the source's packets, in order of arrival.
      ticks: their unwrapped time stamps.
      timing: the segment as the metadata states it.
    """
    unknown = None, False
    offset_ms = stream.arrival_offset_ms[mine]
    by_packets = _by_packets(stream, payloads, mine)
    if not stream.has_arrivals:
        stated = _stated_ratio(stream, timing, int(stream.ssrc[mine[0]]))
        sure = [ratio for ratio, share in by_packets or () if share >= _SURE_SHARE]
        is_known = stated is not None and bool(sure) and _fits(sure[0], stated)
        return (sure[0], True) if is_known else unknown
    pace = _by_arrivals(ticks, offset_ms)
    if pace is None:
        return unknown
    measured, is_steady, is_sure = pace
    if any(ratio == 1 and 2 * share >= 1 for ratio, share in by_packets or ()):
        return unknown
    if measured > 0:
        near = sorted(by_packets or (), key=lambda found: abs(np.log(measured / found[0])))
        if near and _fits(near[0][0], measured):
            return near[0][0], True
        usual = [Fraction(rate_hz, SAMPLE_RATE_HZ) for rate_hz in _USUAL_RATES_HZ]
        usual = [ratio for ratio in usual if abs(np.log(measured / ratio)) <= _STEADY_LOG]
        if usual and by_packets is None and is_steady and is_sure:
            return usual[0], True  # encrypted: nothing but the arrivals tells
        if is_steady and abs(np.log(measured)) <= _ODD_LOG:
            return unknown
    return None, is_sure and by_packets is not None


def _fits(ratio: Fraction, measured: float) -> bool:
    """Whether a ratio is another than 1, and by far nearer to a measured one."""
    size = abs(float(np.log(float(ratio))))
    return size > _LEAST_LOG and abs(float(np.log(measured / ratio))) < size / 3


def _by_packets(
    stream: Stream, payloads: Payloads, mine: Ints
) -> list[tuple[Fraction, float]] | None:
    """Returns how many ticks packets take by their lengths, where many agree; and their shares.
    None where too few packets follow each other, or say how long they are.

    Where arrivals say that a sender paused, what lies between two packets is as many packets long.
    """
    at = _measured(payloads, mine)
    if len(at) <= _LEAST_PAIRS:
        return None
    is_next = np.diff(stream.sequence_number[at]) == 1
    count = int(np.count_nonzero(is_next))
    if count < _LEAST_PAIRS:
        return None
    step = np.diff(stream.rtp_timestamp[at]).view(np.int32)[is_next].astype(np.int64)
    waited_samples = np.diff(stream.arrival_offset_ms[at])[is_next] * SAMPLES_PER_MS
    length = payloads.duration_samples[at[:-1]][is_next].astype(np.int64)
    forward = step > 0
    step, waited_samples, length = step[forward], waited_samples[forward], length[forward]
    lengths = length * np.maximum(1, (2 * waited_samples + length) // (2 * length))
    bins = np.rint(np.log(step / lengths) / _BIN_LOG)
    found = []
    for value, alike_count in zip(*np.unique(bins, return_counts=True), strict=True):
        alike = bins == value
        if alike_count < _LEAST_SHARE * count:
            continue
        ratio = _simple(int(step[alike].sum()), int(lengths[alike].sum()))
        # What lies between two packets is whole packets long, whatever their lengths are.
        packets = step / (length * float(ratio))
        is_whole = np.abs(packets - np.rint(packets)) <= 1.5 / (length * float(ratio)) + _BIN_LOG
        if np.count_nonzero(is_whole & (packets > 1 / 2)) >= _WHOLE_SHARE * count:
            found.append((ratio, int(alike_count) / count))
    return sorted(found, key=lambda each: -each[1])


def _simple(ticks: int, samples: int) -> Fraction:
    """Returns a ratio as the rate of a sound card has it, where one is as near as rounding."""
    ratio = Fraction(ticks, samples)
    for rate_hz in _USUAL_RATES_HZ:
        usual = Fraction(rate_hz, SAMPLE_RATE_HZ)
        if abs(ratio / usual - 1) < Fraction(1, 1000):
            return usual
    return ratio.limit_denominator(SAMPLE_RATE_HZ)


def _by_arrivals(ticks: Ints, offset_ms: Ints) -> tuple[float, bool, bool] | None:
    """Returns the ticks of a source by those of 48 kHz that arrivals tell, whether most of the time
    has the same, and whether the time is long enough to say so of time stamps that fit nothing.

    None where too little time is told of.

    Args:
      ticks: unwrapped time stamps.
      offset_ms: arrivals of the same packets.
    """
    arrived_ms = np.maximum.accumulate(offset_ms)
    span_ms = int(arrived_ms[-1] - arrived_ms[0])
    if span_ms < _LEAST_MS:
        return None
    blocks = max(1, span_ms // _BLOCK_MS, min(_LEAST_BLOCKS, span_ms // _LEAST_BLOCK_MS))
    edges_ms = arrived_ms[0] + np.arange(1, blocks) * span_ms // blocks
    edges = np.unique([0, *np.searchsorted(arrived_ms, edges_ms).tolist(), len(ticks) - 1])
    waited_ms = np.diff(arrived_ms[edges])
    kept = waited_ms > 0
    paces: Reals = np.diff(ticks[edges])[kept] / (waited_ms[kept] * float(SAMPLES_PER_MS))
    middle = float(np.median(paces))
    alike = np.abs(paces - middle) <= _ODD_LOG * abs(middle)
    is_steady = middle > 0 and 2 * int(np.count_nonzero(alike)) > len(paces)
    return middle, is_steady, len(paces) >= _LEAST_BLOCKS


def _stated_ratio(stream: Stream, timing: SegmentTiming, ssrc: int) -> float | None:
    """Returns the ticks of a source by those of 48 kHz as two sender reports say, or else the
    metadata's first and last packet; None where neither does.
    """
    points = [
        (report.sender_unix_ns / 1e6, report.rtp_timestamp)
        for report in stream.sender_reports
        if report.ssrc == ssrc
    ]
    first, last = timing.first_report, timing.last_report
    if len(points) < 2 and first is not None and last is not None:
        points = [(float(each.sender_unix_ms), each.rtp_timestamp) for each in (first, last)]
    stamps = timing.first_rtp_timestamp, timing.last_rtp_timestamp
    times_ms = timing.first_rtp_unix_ms, timing.last_rtp_unix_ms
    if len(points) < 2:
        points = [
            (float(unix_ms), stamp)
            for unix_ms, stamp in zip(times_ms, stamps, strict=True)
            if unix_ms is not None and stamp is not None
        ]
    if len(points) < 2 or points[-1][0] - points[0][0] < _LEAST_MS:
        return None
    ticks = (points[-1][1] - points[0][1]) % (1 << 32)
    stated = ticks / ((points[-1][0] - points[0][0]) * SAMPLES_PER_MS)
    return stated if stated > 0 else None


def _near(stream: Stream, mine: Ints, ticks: Ints) -> Callable[[int], int]:
    """Returns what gives the unwrapped time stamp of the packet that came at about an offset."""
    arrived_ms = np.maximum.accumulate(stream.arrival_offset_ms[mine])

    def near(offset_ms: int) -> int:
        place = int(np.searchsorted(arrived_ms, offset_ms)) if stream.has_arrivals else 0
        return int(ticks[min(place, len(ticks) - 1)])

    return near


def _mend_first(timing: SegmentTiming, rate: _Rate, reference: int) -> SegmentTiming:
    """Returns metadata with what it says of the first packet and report put right."""
    stamp = timing.first_rtp_timestamp
    return replace(
        timing,
        first_rtp_timestamp=None if stamp is None else rate.mend(stamp, reference),
        first_report=_mend_report(timing.first_report, rate, reference),
    )


def _mend_last(timing: SegmentTiming, rate: _Rate, reference: int) -> SegmentTiming:
    """Returns metadata with what it says of the last packet and report put right."""
    stamp = timing.last_rtp_timestamp
    return replace(
        timing,
        last_rtp_timestamp=None if stamp is None else rate.mend(stamp, reference),
        last_report=_mend_report(timing.last_report, rate, reference),
    )


def _mend_report(reported: ReportedTime | None, rate: _Rate, reference: int) -> ReportedTime | None:
    mended = None if reported is None else rate.mend(reported.rtp_timestamp, reference)
    if reported is None or mended is None:
        return None
    return replace(reported, rtp_timestamp=mended)


def _mend_packets(stream: Stream, payloads: Payloads, mine: Ints, ticks: Ints, rate: _Rate) -> None:
    """Puts the time stamps of a source's packets and redundant copies right, in place."""
    ssrc = int(stream.ssrc[mine[0]])
    copies = payloads.copies.pop(ssrc, None)
    if rate.ratio is None:
        stream.rtp_timestamp[mine] = rate.first % (1 << 32)
        return
    if copies is not None:
        # Their distances to the packet that carries them are told in the same ticks.
        carrier = np.searchsorted(mine, copies[:, 3])
        half = 1 << 31
        back = (copies[:, 0] - ticks[carrier] + half) % (1 << 32) - half
        copies[:, 0] = _wrapped(rate.first + rate.samples(ticks[carrier] + back - rate.first))
        payloads.copies[ssrc] = copies
    stream.rtp_timestamp[mine] = _wrapped(rate.first + rate.samples(ticks - rate.first))
    encrypted = mine[payloads.is_encrypted[mine]]
    if encrypted.size:
        payloads.duration_samples[encrypted] = sent_samples(stream, encrypted)


def _wrapped(timestamp: Ints) -> npt.NDArray[np.uint32]:
    found: npt.NDArray[np.uint32] = (timestamp & 0xFFFF_FFFF).astype(np.uint32)
    return found


def _what_is_off(rates: dict[int, _Rate], member: str) -> list[RecordingError]:
    """Returns a finding on each rate that time stamps count at, and one on those that say
    nothing.
    """
    found: list[RecordingError] = []
    sources: dict[Fraction | None, list[int]] = {}
    for ssrc, rate in rates.items():
        sources.setdefault(rate.ratio, []).append(ssrc)
    for ratio, of in sorted(sources.items(), key=lambda each: float(each[0] or 0))[:_RATES_TOLD]:
        named = ", ".join(str(ssrc) for ssrc in of[:_SOURCES_NAMED])
        if len(of) > _SOURCES_NAMED:
            named += f" and {len(of) - _SOURCES_NAMED} more"
        where = f"{member}: the time stamps of source {named}"
        if ratio is None:
            message = (
                f"{where} fit neither the lengths nor the arrivals of its packets, expected "
                f"{SAMPLE_RATE_HZ} ticks in a second; it was placed by lengths and arrivals"
            )
            found.append(TimelineError(message, member=member))
            continue
        message = (
            f"{where} count {float(ratio) * SAMPLE_RATE_HZ:.0f} ticks in a second of its packets, "
            f"expected {SAMPLE_RATE_HZ} (RFC 7587 s4.1); they were put right"
        )
        found.append(RtpError(message, member=member))
    return found
