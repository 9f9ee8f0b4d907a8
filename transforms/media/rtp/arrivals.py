"""When a dump's packets arrived on the server's clock, by the metadata and by the dump itself.

A dump counts from its own start, and some have no arrivals at all: then the metadata's first and
last, and the sender's clock, have to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.media import caps
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import ReportPoint
from transforms.media.errors import RecordingError, TimelineError, TimingMetadataError
from transforms.media.rtp.ingested_packet_run import IngestedPacketRun
from transforms.media.rtp.rtpdump import Rtpdump
from transforms.media.rtp.sender_reports import REPORT_REACH_SAMPLES
from transforms.media.rtp.streams import PacketRun, Stream
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, samples_to_ns
from transforms.media.wraparound import unwrap

_CLOCKS_AGREE_NS = NS_PER_SECOND


def arrival_base(
    stream: Stream,
    dump: Rtpdump,
    timing: SegmentTiming,
    member: str,
    findings: list[RecordingError],
) -> int:
    """Returns the server time of the dump's offset 0 in Unix ns.

    The metadata is believed rather than the dump's header; that they disagree is a finding.

    Raises:
      TimelineError: neither says it.
    """
    if not stream.arrival_offset_ms.size:
        return dump.start_unix_ns
    first_offset_ns = int(stream.arrival_offset_ms[0]) * NS_PER_MS
    by_dump_ns = dump.start_unix_ns
    if timing.first_rtp_unix_ms is None:
        if not by_dump_ns:
            raise TimelineError(
                f"{member}: neither the metadata nor the dump says when the first packet arrived",
                member=member,
            )
        return by_dump_ns
    by_metadata_ns = timing.first_rtp_unix_ms * NS_PER_MS - first_offset_ns
    difference_ns = by_dump_ns - by_metadata_ns
    if abs(difference_ns) > _CLOCKS_AGREE_NS:
        message = (
            f"{member}: the dump's clock puts the first packet {difference_ns / 1e9:+.3f} s from "
            "first_rtp_unix_timestamp "
            f"{timing.first_rtp_unix_ms}, expected within 1 s; the metadata was taken"
        )
        findings.append(TimingMetadataError(message, member=member))
    return by_metadata_ns


def last_arrival(packet_runs: list[PacketRun], timing: SegmentTiming) -> int | None:
    """Returns when the last packet arrived by the metadata, in Unix ns; None if it does not say.

    Asked only of a dump without arrivals. With several packet runs nobody knows which is last.
    """
    if (
        len(packet_runs) != 1
        or timing.last_rtp_unix_ms is None
        or timing.last_rtp_timestamp is None
    ):
        return None
    last = int(packet_runs[0].timestamp[-1])
    later_samples = unwrap(timing.last_rtp_timestamp, last, 32) - last
    if abs(later_samples) > REPORT_REACH_SAMPLES:
        return None
    return timing.last_rtp_unix_ms * NS_PER_MS - samples_to_ns(later_samples)


def arrival_after(
    before: IngestedPacketRun, duration_samples: int, reports: Sequence[ReportPoint]
) -> int:
    """Returns when a packet run's first packet came, in Unix ns, where the dump does not say.

    By the sender's clock if its reports tell, else right behind the packet run before.

    Args:
      before: the packet run before it.
      duration_samples: of the packet.
      reports: of the packet run it begins.
    """
    end_sample = int(before.records["media_sample"][-1] + before.records["duration_samples"][-1])
    line = fit_clocks([before.clock])[0][-1]
    stop_ns = line.server_start_unix_ns + round(
        samples_to_ns(end_sample - line.media_start_sample) * line.clock_rate_ratio
    )
    pause_ns = 0
    if reports and before.reports:
        last, first = before.reports[-1], reports[0]
        by_reports_ns = (
            first.sender_unix_ns
            - last.sender_unix_ns
            - samples_to_ns(end_sample - last.media_sample + first.media_sample)
        )
        pause_ns = by_reports_ns if 0 < by_reports_ns <= caps.LONGEST_PAUSE_NS else 0
    return stop_ns + pause_ns + samples_to_ns(duration_samples)
