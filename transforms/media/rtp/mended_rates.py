"""Time stamps that count at another rate than 48 kHz, put right before anything reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from transforms.media.errors import RecordingError, RtpError, TimelineError
from transforms.media.rtp.encryption import sent_samples
from transforms.media.rtp.media_rate import find_rate
from transforms.media.rtp.packets import SenderReport
from transforms.media.rtp.payloads import Payloads
from transforms.media.rtp.streams import Stream, by_source
from transforms.media.rtp.timing_metadata import ReportedTime, SegmentTiming
from transforms.media.units import SAMPLE_RATE_HZ, Ints
from transforms.media.wraparound import unwrap, unwrap_sequence

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
    near: dict[int, Callable[[int], int]] = {}
    ends = [int(stream.ssrc[place]) for place in (0, -1)] if stream.ssrc.size else []
    for mine in by_source(stream.ssrc):
        ratio, is_known = find_rate(stream, payloads, mine, timing)
        if not is_known:
            continue
        ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
        ssrc = int(stream.ssrc[mine[0]])
        rate = rates[ssrc] = _Rate(ratio, int(ticks[0]))
        near[ssrc] = _near(stream, mine, ticks)
        if ssrc == ends[0]:
            timing = _mend_first(timing, rate, int(ticks[0]))
        if ssrc == ends[1]:
            timing = _mend_last(timing, rate, int(ticks[-1]))
        _mend_packets(stream, payloads, mine, ticks, rate)
    if rates:
        stream.sender_reports = tuple(
            mended
            for report in stream.sender_reports
            if (mended := _mend_sent(report, rates.get(report.ssrc), near)) is not None
        )
        findings += _what_is_off(rates, member)
    return timing


def _near(stream: Stream, mine: Ints, ticks: Ints) -> Callable[[int], int]:
    """Returns what gives the unwrapped time stamp of the packet that came at about an offset."""
    arrived_ms = np.maximum.accumulate(stream.arrival_offset_ms[mine])

    def near(offset_ms: int) -> int:
        place = int(np.searchsorted(arrived_ms, offset_ms)) if stream.has_arrivals else 0
        return int(ticks[min(place, len(ticks) - 1)])

    return near


def _mend_sent(
    report: SenderReport, rate: _Rate | None, near: Mapping[int, Callable[[int], int]]
) -> SenderReport | None:
    """Returns a sender report put right, of a source without a rate of its own as it is; None where
    its time stamp says nothing.
    """
    if rate is None:
        return report
    stamp = rate.mend(report.rtp_timestamp, near[report.ssrc](report.arrival_offset_ms))
    return None if stamp is None else replace(report, rtp_timestamp=stamp)


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
                f"{where} do not fit the lengths and the arrivals of its packets, expected "
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
