"""Which sender reports belong to which of a dump's packet runs: those in the dump or, where it has
none, the first and the last one as the timing metadata states them.
"""

from __future__ import annotations

import bisect

import numpy as np

from transforms.media import caps
from transforms.media.clock.model import ReportPoint
from transforms.media.clock.observe import in_order
from transforms.media.rtp.packets import SenderReport
from transforms.media.rtp.streams import PacketRun, Stream
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, Ints
from transforms.media.wraparound import unwrap

REPORT_REACH_NS = 10 * NS_PER_SECOND
"""A report further than this from the packets of a packet run, in arrival or in media time, belongs
to another one.
"""
REPORT_REACH_SAMPLES = REPORT_REACH_NS * SAMPLE_RATE_HZ // NS_PER_SECOND


def share_out_reports(
    stream: Stream, packet_runs: list[PacketRun], base_unix_ns: int, timing: SegmentTiming
) -> list[list[ReportPoint]]:
    """Returns each packet run's sender reports, on its media time.

    A report belongs to the packet run that was being sent when it came, or just before or after.
    Its time stamp may lie before the first packet's, and on the other side of a wrap: of all that
    are equal to it modulo 2**32 the one nearest to the packets around is meant, and of two packet
    runs the one that has it nearer.

    Args:
      stream: has the reports.
      packet_runs: of all its sources.
      base_unix_ns: server time of the dump's offset 0.
      timing: the segment as the metadata states it, asked where the dump has no report of theirs.
    """
    found: list[list[ReportPoint]] = [[] for _ in packet_runs]
    has_arrivals = stream.has_arrivals
    of_source: dict[int, list[int]] = {}
    for number, packet_run in enumerate(packet_runs):
        of_source.setdefault(int(stream.ssrc[packet_run.indices[0]]), []).append(number)
    begins_unix_ns = {}
    for ssrc, numbers in of_source.items():
        numbers.sort(key=lambda number: int(packet_runs[number].arrival_unix_ns.min()))
        begins_unix_ns[ssrc] = [
            int(packet_runs[number].arrival_unix_ns.min()) for number in numbers
        ]
    ordered_unix_ns: dict[int, Ints] = {}
    for report in stream.sender_reports:
        numbers = of_source.get(report.ssrc, [])
        arrival_unix_ns = base_unix_ns + report.arrival_offset_ms * NS_PER_MS
        if has_arrivals and numbers:
            place = bisect.bisect_right(begins_unix_ns[report.ssrc], arrival_unix_ns)
            numbers = numbers[max(0, place - 2) : place + 1]
        best: tuple[int, int, int] | None = None
        for number in numbers[: caps.MAX_PACKET_RUNS_TRIED_PER_REPORT]:
            packet_run = packet_runs[number]
            if has_arrivals:
                if number not in ordered_unix_ns:
                    ordered_unix_ns[number] = in_order(packet_run.arrival_unix_ns)
                fit = _fit_by_arrival(report, arrival_unix_ns, packet_run, ordered_unix_ns[number])
                if fit is None:
                    continue
            else:
                fit = _fit_by_media(report, packet_run)
            distance_samples, sample = fit
            if distance_samples <= REPORT_REACH_SAMPLES and (
                best is None or distance_samples < best[0]
            ):
                best = (distance_samples, number, sample)
        if best is not None:
            found[best[1]].append(
                ReportPoint(
                    media_sample=best[2],
                    sender_unix_ns=report.sender_unix_ns,
                    arrival_unix_ns=arrival_unix_ns if has_arrivals else None,
                )
            )
    if not any(found):
        _add_stated_reports(found, packet_runs, timing)
    return found


def _add_stated_reports(
    found: list[list[ReportPoint]], packet_runs: list[PacketRun], timing: SegmentTiming
) -> None:
    """Adds the sender reports that the metadata states, each to the packet run it lies nearest to.

    They have no arrival: the vendor's recorder keeps of them the two clocks.
    """
    runs = range(len(packet_runs))
    in_time = sorted(runs, key=lambda number: int(packet_runs[number].arrival_unix_ns.min()))
    ends = [(timing.first_report, 0, in_time), (timing.last_report, -1, in_time[::-1])]
    if timing.last_report == timing.first_report:
        del ends[1]  # a single one came
    for reported, end, numbers in ends:
        if reported is None:
            continue
        best: tuple[int, int, int] | None = None
        for number in numbers:
            timestamp = packet_runs[number].timestamp
            origin = int(timestamp[0])
            sample = unwrap(reported.rtp_timestamp, int(timestamp[end]), 32) - origin
            distance_samples = max(0, -sample, sample - (int(timestamp[-1]) - origin))
            if distance_samples <= REPORT_REACH_SAMPLES and (
                best is None or distance_samples < best[0]
            ):
                best = (distance_samples, number, sample)
        if best is not None:
            found[best[1]].append(
                ReportPoint(
                    media_sample=best[2], sender_unix_ns=reported.sender_unix_ms * NS_PER_MS
                )
            )


def _fit_by_arrival(
    report: SenderReport, arrival_unix_ns: int, packet_run: PacketRun, ordered_unix_ns: Ints
) -> tuple[int, int] | None:
    """Returns how far a report lies from the packets that came with it, and its media sample.

    None where it came long before the first or after the last packet.

    Args:
      report: that is asked about.
      arrival_unix_ns: when it came.
      packet_run: that may be its own.
      ordered_unix_ns: the arrivals of the packet run, in order.
    """
    if not (
        ordered_unix_ns[0] - REPORT_REACH_NS
        <= arrival_unix_ns
        <= ordered_unix_ns[-1] + REPORT_REACH_NS
    ):
        return None
    timestamp = packet_run.timestamp
    beside = min(int(np.searchsorted(ordered_unix_ns, arrival_unix_ns)), len(timestamp) - 1)
    origin = int(timestamp[0])
    expected = int(timestamp[beside]) - origin
    sample = unwrap(report.rtp_timestamp, origin + expected, 32) - origin
    return abs(sample - expected), sample


def _fit_by_media(report: SenderReport, packet_run: PacketRun) -> tuple[int, int]:
    """Returns how far a report lies outside of a packet run, and its media sample."""
    origin = int(packet_run.timestamp[0])
    last_sample = int(packet_run.timestamp[-1]) - origin
    sample = unwrap(report.rtp_timestamp, origin + last_sample // 2, 32) - origin
    return max(0, -sample, sample - last_sample), sample
