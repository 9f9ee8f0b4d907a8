"""At what rate a source's time stamps count: by the lengths, numbers and arrivals of its packets.

RFC 7587 s4.1: an RTP time stamp of Opus counts 48 kHz, whatever is sent. Senders are met that count
at the rate of their sound card, or a packet too many or too few in each. None of the three tells it
alone: time stamps step further than packets last in a pause, arrivals stray in any network.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from transforms.media.rtp.payloads import Payloads
from transforms.media.rtp.streams import Stream
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Ints, Reals
from transforms.media.wraparound import unwrap_sequence

_LEAST_PAIRS = 10
"""Fewer packets that follow each other tell no rate."""
_LEAST_SHARE = 0.2
"""Of the packets that follow each other; less is chance, and pauses of one length."""
_WHOLE_SHARE = 0.8
"""So many have to be a whole number of packets from the one before."""
_SURE_SHARE = 0.5
"""So many have to agree where no arrivals speak along."""
_BIN_LOG = 0.005
_LEAST_LOG = 0.003
"""Rates nearer to 48 kHz are those of a clock: up to some 2,000 ppm."""
_LEAST_MS = 300
"""Arrivals of a shorter time tell nothing: so much a network may add."""
_BLOCK_MS = 10_000
"""The time in which a rate is looked at, so that pauses and jumps spoil some, not all."""
_LEAST_BLOCK_MS = 2_000
_LEAST_BLOCKS = 3
"""Of fewer it is not said that time stamps fit nothing."""
_LEAST_STEADY = 6
_LEAST_STEADY_PACKETS = 200
_STEADY_LOG = 0.02
_ODD_LOG = 0.1
"""Where packets do not tell the rate, arrivals have to differ by so much."""
_USUAL_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 96_000, 144_000)


def find_rate(
    stream: Stream, payloads: Payloads, mine: Ints, timing: SegmentTiming
) -> tuple[Fraction | None, bool]:
    """Returns the ticks of a source by those of 48 kHz, None where its time stamps say nothing; and
    whether that is known, and not 1.

    Args:
      stream: all packets.
      payloads: what they hold.
      mine: places of the source's packets, in order of arrival.
      timing: the segment as the metadata states it.
    """
    unknown = None, False
    if _counts_samples(stream, payloads, mine):
        return None, _runs_off(stream, mine)
    ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
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
    if any(ratio == 1 and 2 * share >= 1 for ratio, share in by_packets or ()):
        return unknown  # pauses that its time stamps do not count
    return None, is_sure and by_packets is not None


def _counts_samples(stream: Stream, payloads: Payloads, mine: Ints) -> bool:
    """Whether most of a source's packets are as long as their time stamps say; as nearly all
    sources are.
    """
    measured = _measured(payloads, mine)
    if len(measured) <= _LEAST_PAIRS:
        return not payloads.is_encrypted[mine].any()
    # Of all packets views, no copies: there are millions.
    at = slice(None) if len(measured) == len(stream.ssrc) else measured
    is_next = np.diff(stream.sequence_number[at]) == 1
    is_as_long = np.diff(stream.rtp_timestamp[at]) == payloads.duration_samples[at][:-1]
    is_as_long &= is_next
    return 2 * int(np.count_nonzero(is_as_long)) >= int(np.count_nonzero(is_next))


def _runs_off(stream: Stream, mine: Ints) -> bool:
    """Whether a source's packets come faster or slower, all the time, than their time stamps and
    lengths say, and by more than any clock is off.
    """
    ends = mine[[0, -1]]
    span_ms = int(np.diff(stream.arrival_offset_ms[ends])[0])
    if span_ms < _LEAST_STEADY * _LEAST_BLOCK_MS or len(mine) < _LEAST_STEADY_PACKETS:
        return False
    first, last = stream.rtp_timestamp[ends].tolist()
    pace = (last - first) % (1 << 32) / (span_ms * SAMPLES_PER_MS)
    if abs(pace - 1) <= _STEADY_LOG / 2:
        return False
    paces = _paces(unwrap_sequence(stream.rtp_timestamp[mine], 32), stream.arrival_offset_ms[mine])
    if len(paces) < _LEAST_STEADY:
        return False
    off = float(np.median(paces)) - 1
    is_off = np.abs(paces - 1 - off) <= abs(off) / 2
    return abs(off) > _STEADY_LOG and 4 * int(np.count_nonzero(is_off)) >= 3 * len(paces)


def _measured(payloads: Payloads, mine: Ints) -> Ints:
    """Returns those of a source's packets that say themselves how long they last."""
    is_measured = payloads.is_audio[mine] & ~payloads.is_encrypted[mine]
    return mine if is_measured.all() else mine[is_measured]


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
    length = payloads.duration_samples[at].astype(np.int64)
    begun_samples = stream.arrival_offset_ms[at] * SAMPLES_PER_MS - length
    waited_samples, length = np.diff(begun_samples)[is_next], length[:-1][is_next]
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
        # Without a pause a whole number of packets lies between two, whatever their lengths are.
        packets = step / (length * float(ratio))
        is_whole = np.abs(packets - np.rint(packets)) <= 1.5 / (length * float(ratio)) + _BIN_LOG
        is_whole &= packets > 1 / 2
        is_whole |= lengths > length
        if np.count_nonzero(is_whole) >= _WHOLE_SHARE * count:
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
    paces = _paces(ticks, offset_ms)
    if not paces.size:
        return None
    middle = float(np.median(paces))
    alike = np.abs(paces - middle) <= _ODD_LOG * abs(middle)
    is_steady = middle > 0 and 2 * int(np.count_nonzero(alike)) > len(paces)
    return middle, is_steady, len(paces) >= _LEAST_BLOCKS


def _paces(ticks: Ints, offset_ms: Ints) -> Reals:
    """Returns the ticks of a source by those of 48 kHz, in each of some blocks of its time.

    None at all where that is too short to tell.
    """
    arrived_ms = np.maximum.accumulate(offset_ms)
    span_ms = int(arrived_ms[-1] - arrived_ms[0])
    if span_ms < _LEAST_MS:
        return np.zeros(0)
    blocks = max(1, span_ms // _BLOCK_MS, min(_LEAST_STEADY, span_ms // _LEAST_BLOCK_MS))
    edges_ms = arrived_ms[0] + np.arange(1, blocks) * span_ms // blocks
    edges = np.unique([0, *np.searchsorted(arrived_ms, edges_ms).tolist(), len(ticks) - 1])
    waited_ms = np.diff(arrived_ms[edges])
    kept = waited_ms > 0
    paces: Reals = np.diff(ticks[edges])[kept] / (waited_ms[kept] * float(SAMPLES_PER_MS))
    return paces


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
