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
from transforms.media.rtp.dump_claims import (
    CLOCKS_AGREE_NS,
    ENDS_AGREE_SAMPLES,
    nearest_samples,
)
from transforms.media.rtp.ingested_packet_run import IngestedPacketRun
from transforms.media.rtp.rtpdump import Rtpdump
from transforms.media.rtp.sender_reports import REPORT_REACH_SAMPLES
from transforms.media.rtp.streams import FASTEST_CLOCK, PacketRun, Stream
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, samples_to_ns
from transforms.media.wraparound import unwrap

_ENDS_AGREE_NS = samples_to_ns(ENDS_AGREE_SAMPLES)
_AGREE_NS = 200 * NS_PER_MS
"""What the network may have added to the two arrivals that are compared."""


def arrival_base(
    stream: Stream,
    dump: Rtpdump,
    timing: SegmentTiming,
    member: str,
    findings: list[RecordingError],
    head_convention_samples: int,
) -> int:
    """Returns the server time of the dump's offset 0 in Unix ns.

    The metadata is believed rather than the dump's header, which has parts of a ms; that they
    disagree is a finding. Its
    first packet is not always the dump's first: RTP time tells by how much.

    Args:
      stream: the dump's packets.
      dump: says when it was begun.
      timing: the segment as the metadata states it.
      member: the dump's name, for messages.
      findings: added to.
      head_convention_samples: as for `ingest_segment`.

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
    by_metadata_ns += _late_begin_ns(
        stream, timing, by_metadata_ns, by_dump_ns, head_convention_samples
    )
    difference_ns = by_dump_ns - by_metadata_ns
    if abs(difference_ns) > CLOCKS_AGREE_NS:
        message = (
            f"{member}: the dump's clock puts the first packet {difference_ns / 1e9:+.3f} s from "
            "first_rtp_unix_timestamp "
            f"{timing.first_rtp_unix_ms}, expected within 1 s; the metadata was taken"
        )
        findings.append(TimingMetadataError(message, member=member))
    # Both have the same ms: the dump's header knows more than that.
    return by_dump_ns if abs(difference_ns) < NS_PER_MS else by_metadata_ns


def _late_begin_ns(
    stream: Stream, timing: SegmentTiming, base_unix_ns: int, by_dump_ns: int, convention: int
) -> int:
    """Returns by how much later than the claimed first packet the dump's first one came, in ns; 0
    where that is not sure.

    RTP time says it (RFC 3550 s5.1); the dump's own clock, or the last packet, has to agree.

    Args:
      stream: the dump's packets.
      timing: the segment as the metadata states it.
      base_unix_ns: server time of the dump's offset 0 if its first packet is the claimed one.
      by_dump_ns: the same by the dump's header; 0 where that does not say.
      convention: as for `ingest_segment`.
    """
    if timing.first_rtp_timestamp is None or timing.first_rtp_unix_ms is None:
        return 0
    claimed = timing.first_rtp_timestamp + convention
    ahead_samples, place = nearest_samples(stream.rtp_timestamp, claimed, from_end=False)
    first_ms, near_ms = (int(stream.arrival_offset_ms[at]) for at in (0, place))
    late_ns = samples_to_ns(ahead_samples) - (near_ms - first_ms) * NS_PER_MS
    span_ms = (timing.last_rtp_unix_ms or timing.first_rtp_unix_ms) - timing.first_rtp_unix_ms
    if abs(late_ns) <= _ENDS_AGREE_NS or late_ns > span_ms * NS_PER_MS + CLOCKS_AGREE_NS:
        return 0
    # Without arrivals the dump does not say when its first packet came.
    has_clock = bool(by_dump_ns) and stream.has_arrivals
    by_header_ns = by_dump_ns - base_unix_ns if has_clock else None
    if (
        by_header_ns is not None
        and abs(by_header_ns) <= _AGREE_NS
        and abs(by_header_ns) <= abs(by_header_ns - late_ns)
    ):
        return 0
    by_last_ns = _by_last_ns(stream, timing, base_unix_ns)
    # Where hours are missing, the sender's clock is off by more than networks add.
    agree_ns = _AGREE_NS + abs(late_ns) // FASTEST_CLOCK
    if by_last_ns is not None and abs(by_last_ns - late_ns) <= agree_ns:
        return by_last_ns
    is_likely = by_header_ns is None or abs(by_header_ns - late_ns) < abs(by_header_ns)
    return late_ns if is_likely and late_ns > 0 else 0


def _by_last_ns(stream: Stream, timing: SegmentTiming, base_unix_ns: int) -> int | None:
    """Returns by how much later a dump's offset 0 is by its last packet; None where that is not the
    claimed one, or is claimed for the first, too.
    """
    if (
        timing.last_rtp_timestamp in (None, timing.first_rtp_timestamp)
        or timing.last_rtp_unix_ms is None
    ):
        return None
    assert timing.last_rtp_timestamp is not None
    off_samples, last = nearest_samples(
        stream.rtp_timestamp, timing.last_rtp_timestamp, from_end=True
    )
    if abs(off_samples) > ENDS_AGREE_SAMPLES:
        return None
    last_ns = timing.last_rtp_unix_ms * NS_PER_MS + samples_to_ns(off_samples)
    return last_ns - int(stream.arrival_offset_ms[last]) * NS_PER_MS - base_unix_ns


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
