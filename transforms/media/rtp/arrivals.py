"""When a dump's packets arrived on the server's clock, by the metadata and by the dump itself."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.media import caps
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import ReportPoint
from transforms.media.errors import RecordingError, TimelineError, TimingMetadataError
from transforms.media.rtp.ingested_run import IngestedRun
from transforms.media.rtp.rtpdump import Rtpdump
from transforms.media.rtp.sender_reports import REPORT_REACH_NS
from transforms.media.rtp.streams import Stream, Stretch
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, samples_to_ns
from transforms.media.wraparound import unwrap

_CLOCKS_AGREE_NS = 1_000_000_000


def arrival_base(
    stream: Stream,
    dump: Rtpdump,
    timing: SegmentTiming,
    member: str,
    warnings: list[RecordingError],
) -> int:
    """Returns the server time of the dump's offset 0 in Unix ns."""
    if not stream.arrival_offset_ms.size:
        return dump.start_unix_ns
    first_offset_ns = int(stream.arrival_offset_ms[0]) * NS_PER_MS
    by_dump = dump.start_unix_ns
    if timing.first_rtp_unix_ms is None:
        if not by_dump:
            raise TimelineError(
                f"{member}: neither the metadata nor the dump says when the first packet arrived",
                member=member,
            )
        return by_dump
    by_metadata = timing.first_rtp_unix_ms * NS_PER_MS - first_offset_ns
    apart = by_dump - by_metadata
    if abs(apart) > _CLOCKS_AGREE_NS:
        message = (
            f"{member}: the dump's clock puts the first packet {apart / 1e9:+.3f} s from "
            "first_rtp_unix_timestamp "
            f"{timing.first_rtp_unix_ms}, expected within 1 s; the metadata was taken"
        )
        warnings.append(TimingMetadataError(message, member=member))
    return by_metadata


def last_arrival(stretches: list[Stretch], timing: SegmentTiming) -> int | None:
    """Returns when the last packet arrived by the metadata, where that is all there is besides the
    first; None if unknown.
    """
    if len(stretches) != 1 or timing.last_rtp_unix_ms is None or timing.last_rtp_timestamp is None:
        return None
    last = int(stretches[0].media[-1])
    apart = unwrap(timing.last_rtp_timestamp, last, 32) - last
    if abs(apart) > REPORT_REACH_NS * SAMPLE_RATE_HZ // 1_000_000_000:
        return None
    return timing.last_rtp_unix_ms * NS_PER_MS - samples_to_ns(apart)


def arrival_after(
    before: IngestedRun, duration_samples: int, reports: Sequence[ReportPoint]
) -> int:
    """Returns when a run's first packet came where the dump does not say: by the sender's clock,
    else behind the run before.

    Args: duration_samples: of that packet.
    """
    end = int(before.records["media_sample"][-1] + before.records["duration_samples"][-1])
    line = fit_clocks([before.clock])[0][-1]
    stop_ns = line.server_start_unix_ns + round(
        samples_to_ns(end - line.media_start_sample) * line.clock_rate_ratio
    )
    pause_ns = 0
    if reports and before.reports:
        last, first = before.reports[-1], reports[0]
        told = (
            first.sender_unix_ns
            - last.sender_unix_ns
            - samples_to_ns(end - last.media_sample + first.media_sample)
        )
        pause_ns = told if 0 < told <= caps.LONGEST_PAUSE_NS else 0
    return stop_ns + pause_ns + samples_to_ns(duration_samples)
