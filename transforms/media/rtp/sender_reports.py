"""Which of a dump's sender reports belong to which of its packet runs."""

from __future__ import annotations

import bisect

import numpy as np

from transforms.media import caps
from transforms.media.clock.model import ReportPoint
from transforms.media.clock.observe import in_order
from transforms.media.rtp.streams import Stream, Stretch
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, Ints
from transforms.media.wraparound import unwrap

REPORT_REACH_NS = 10_000_000_000
"""A report further than this from a run's packets, in arrival or in media time, belongs to another
run.
"""


def share_out_reports(
    stream: Stream, stretches: list[Stretch], base_ns: int
) -> list[list[ReportPoint]]:
    """Returns each stretch's sender reports, on its media time.

    A report belongs to the stretch that was being sent when it came, or just before or after. Its
    timestamp may lie before the first packet's, and on the other side of a wrap: of all that are
    equal to it modulo 2**32 the one nearest to the packets around is meant, and of two stretches
    the one that has it nearer.
    """
    found: list[list[ReportPoint]] = [[] for _ in stretches]
    has_arrivals = stream.has_arrivals
    of_source: dict[int, list[int]] = {}
    for number, stretch in enumerate(stretches):
        of_source.setdefault(int(stream.ssrc[stretch.indices[0]]), []).append(number)
    times: dict[int, Ints] = {}
    begins = {}
    for ssrc, numbers in of_source.items():
        numbers.sort(key=lambda number: int(stretches[number].arrival_ns.min()))
        begins[ssrc] = [int(stretches[number].arrival_ns.min()) for number in numbers]
    for report in stream.sender_reports:
        numbers = of_source.get(report.ssrc, [])
        arrived = base_ns + report.arrival_offset_ms * NS_PER_MS
        if has_arrivals and numbers:
            at = bisect.bisect_right(begins[report.ssrc], arrived)
            numbers = numbers[max(0, at - 2) : at + 1]
        best: tuple[int, int, int] | None = None
        for number in numbers[: caps.MAX_RUNS_TRIED_PER_REPORT]:
            stretch = stretches[number]
            origin, end = int(stretch.media[0]), int(stretch.media[-1] - stretch.media[0])
            if has_arrivals:
                if number not in times:
                    times[number] = in_order(stretch.arrival_ns)
                if (
                    not times[number][0] - REPORT_REACH_NS
                    <= arrived
                    <= times[number][-1] + REPORT_REACH_NS
                ):
                    continue
                beside = min(int(np.searchsorted(times[number], arrived)), len(stretch.media) - 1)
                expected = int(stretch.media[beside]) - origin
                sample = unwrap(report.rtp_timestamp, origin + expected, 32) - origin
                off = abs(sample - expected)
            else:
                sample = unwrap(report.rtp_timestamp, origin + end // 2, 32) - origin
                off = max(0, -sample, sample - end)
            if off <= REPORT_REACH_NS * SAMPLE_RATE_HZ // 1_000_000_000 and (
                best is None or off < best[0]
            ):
                best = (off, number, sample)
        if best is not None:
            found[best[1]].append(
                ReportPoint(
                    media_sample=best[2],
                    sender_unix_ns=report.sender_unix_ns,
                    arrival_unix_ns=arrived if has_arrivals else None,
                )
            )
    return found
