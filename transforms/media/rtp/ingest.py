"""One segment's dump -> its packet runs: ordered Opus packets with the clock they were sent by.

A whole segment is held as bare arrays: 31 bytes of each packet, some 100 while its clock is looked
at (8 h at 20 ms: 150 MB). What is in the packets stays in the mapped dump.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from transforms.media import caps
from transforms.media.clock.model import ReportPoint, starting_earlier
from transforms.media.clock.observe import observe_clock
from transforms.media.clock.server_watch import watch_packet_run
from transforms.media.errors import (
    EncryptedAudioError,
    RecordingError,
    RtpdumpError,
    RtpError,
)
from transforms.media.rtp.arrivals import arrival_after, arrival_base, last_arrival
from transforms.media.rtp.dump_claims import DumpEnds, nearest_samples, without_unset
from transforms.media.rtp.encryption import split_where_encrypted
from transforms.media.rtp.fates import Fate, Tally, no_fates, settle
from transforms.media.rtp.ingested_packet_run import (
    PACKET_DTYPE,
    IngestedPacketRun,
    PacketRunObserver,
)
from transforms.media.rtp.mended_rates import put_right_rates
from transforms.media.rtp.packet_runs import find_packet_runs, settle_signals
from transforms.media.rtp.packets import SenderReport, parse_rtp_window
from transforms.media.rtp.payload_types import payload_types_of
from transforms.media.rtp.payloads import Payloads, look_at_payloads
from transforms.media.rtp.plausibility import main_sources, mend_arrivals
from transforms.media.rtp.red import recover_red
from transforms.media.rtp.rtpdump import Rtpdump, read_rtpdump
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.sender_reports import share_out_reports
from transforms.media.rtp.streams import (
    COLUMNS,
    PacketCounts,
    PacketRun,
    Stream,
    longest_packet_runs,
    split_where_others_speak,
)
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.settings import LimitSettings
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, Bytes, Ints
from transforms.media.values import Codec

_ODD_PACKETS = 10
_ODD_BREAKS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedSegment:
    """What a segment's dump holds."""

    packet_runs: tuple[IngestedPacketRun, ...]
    counts: PacketCounts
    channels: int
    """2 when any packet is stereo; 0 without packets."""
    codec: Codec
    jitter_ms: float | None
    """Mean difference between the distances at which packets were sent and arrived; None where none
    has two packets.
    """
    findings: tuple[RecordingError, ...]
    """What is wrong with the segment and was worked around."""
    timing: SegmentTiming
    """As the metadata states it, its time stamps as if the sender had counted 48 kHz."""
    ends: DumpEnds
    """How the dump differs from what the metadata claims."""
    arrivals_unix_ns: tuple[int, int] | None
    """When the first and the last RTP packet arrived; None without any."""
    told: tuple[Fate, ...]
    """Fates of packets that the findings tell of."""
    is_cut_told: bool
    """Whether the findings tell of damage that the dump may be shorter for."""


def ingest_segment(
    open_dump: Callable[[], BinaryIO],
    dump_bytes: Bytes,
    member: str,
    rtp_maps: dict[int, RtpMap],
    timing: SegmentTiming,
    limits: LimitSettings,
    tally: Tally,
    let_go: Callable[[], None] = lambda: None,
    head_convention_samples: int = 0,
    on_packet_run: PacketRunObserver | None = None,
) -> IngestedSegment:
    """Returns the packet runs of one segment, and what is wrong with it.

    Args:
      open_dump: opens the dump for a forward pass.
      dump_bytes: the same dump, mapped; packets are copied from here later.
      member: its name, for messages.
      rtp_maps: payload types of the segment's session description; empty when it has none.
      timing: the segment as the metadata states it.
      limits: bounds on packets.
      tally: counts the records and the fate of each, packets that are staged as placed; also what
        was read before an error.
      let_go: called when what was read of the mapped dump is not needed for now.
      head_convention_samples: by how much the first RTP time stamps of the archive's metadata lie
        before the first packets, where that is its writer's way.
      on_packet_run: is shown each packet run while its arrivals are there; None where nobody looks.

    Raises:
      RtpdumpError: not a dump, broken framing at its very start, or more packets than allowed.
      UnsupportedCodecError: the packets are not Opus.
      TimelineError: no time to place the packets at.
    """
    findings: list[RecordingError] = []
    timing = without_unset(timing)
    with open_dump() as file:
        dump = read_rtpdump(file, member)
        stream, invalid = _read_stream(dump, member, limits, findings, tally)
    strays = _leave_out_strays(stream, member, findings, tally)
    invalid += strays
    types = payload_types_of(rtp_maps, stream, timing, member, findings)
    payloads = look_at_payloads(stream, types, dump_bytes, let_go)
    timing = put_right_rates(stream, payloads, timing, member, findings)
    base_unix_ns = arrival_base(stream, dump, timing, member, findings, head_convention_samples)
    ends, arrivals_unix_ns = _find_ends(stream, timing, base_unix_ns)
    # A packet whose header is broken has no sequence number to be counted by; one whose content is
    # has.
    counts = PacketCounts(expected=invalid, received=invalid, invalid=invalid + payloads.bad_count)
    packet_runs, more = find_packet_runs(stream, payloads, dump_bytes, base_unix_ns, timing)
    counts += more
    packet_runs = split_where_others_speak(packet_runs)
    packet_runs = split_where_encrypted(packet_runs, payloads.is_encrypted)
    packet_runs, break_count = longest_packet_runs(packet_runs), len(packet_runs)
    reports = share_out_reports(stream, packet_runs, base_unix_ns, timing)
    settle_signals(stream, packet_runs, payloads.duration_samples)
    for packet_run in packet_runs:
        settle(stream.fates, packet_run.indices, Fate.PLACED)
    settle(stream.fates, slice(None), Fate.OUTSIDE_LIMITS)  # packet runs past their number
    tally.add_all(stream.fates)
    tally.check()
    last_unix_ns = None if stream.has_arrivals else last_arrival(packet_runs, timing)
    sources = [int(stream.ssrc[packet_run.indices[0]]) for packet_run in packet_runs]
    done = _IngestedPacketRuns(stream, payloads, last_unix_ns, on_packet_run)
    del stream  # what headers said is in the packet runs now
    for ssrc, its_reports in zip(sources, reports, strict=True):
        done.add(ssrc, packet_runs.pop(0), its_reports)
    counts += PacketCounts(recovered_red=done.recovered_count)
    odd, told = _what_is_odd(member, counts, break_count, len(done.packet_runs))
    findings += odd
    if types.has_none:
        told += (Fate.FOREIGN,)
    if strays:
        told += (Fate.OUTSIDE_LIMITS,)
    is_cut_told = any(isinstance(error, RtpdumpError) for error in findings)
    findings += _what_is_encrypted(member, payloads)
    ordered = sorted(done.packet_runs, key=lambda packet_run: packet_run.clock.first_server_unix_ns)
    if ordered and ends.head_samples is not None and ends.head_samples > 0:
        # Redundant copies reach back to before the first packet.
        ends = replace(ends, head_samples=ends.head_samples - _copied_samples(ordered[0]))
    return IngestedSegment(
        packet_runs=tuple(ordered),
        counts=counts,
        channels=1 + payloads.is_stereo if done.packet_runs else 0,
        codec=Codec.RED if payloads.has_red else Codec.OPUS,
        jitter_ms=done.jitter_ms(),
        findings=tuple(findings),
        timing=timing,
        ends=ends,
        arrivals_unix_ns=arrivals_unix_ns,
        told=told,
        is_cut_told=is_cut_told,
    )


def _copied_samples(packet_run: IngestedPacketRun) -> int:
    """Returns how much audio at the beginning of a packet run only redundant copies brought."""
    records = packet_run.records
    first = int(records["is_copy"].argmin())
    return int(records["media_sample"][first]) if not records["is_copy"][first] else 0


class _IngestedPacketRuns:
    """Makes packet runs ready to be staged, one after the other, in order of their sources."""

    def __init__(
        self,
        stream: Stream,
        payloads: Payloads,
        last_unix_ns: int | None,
        on_packet_run: PacketRunObserver | None,
    ) -> None:
        """Begins with none.

        Args:
          stream: what headers said.
          payloads: what is in the packets.
          last_unix_ns: when the last packet arrived, where the dump does not say.
          on_packet_run: as for `ingest_segment`.
        """
        self.packet_runs: list[IngestedPacketRun] = []
        self.recovered_count = 0
        """Packets that were lost, of which a redundant copy was there."""
        # Not the stream itself: the rest of it is not to be held any longer.
        self._offsets, self._sizes = stream.payload_offset, stream.payload_bytes
        self._has_arrivals = stream.has_arrivals
        self._payloads = payloads
        self._last_unix_ns = last_unix_ns
        self._on_packet_run = on_packet_run
        self._jitters: list[tuple[float, int]] = []

    def add(self, ssrc: int, packet_run: PacketRun, reports: Sequence[ReportPoint]) -> None:
        """Takes a packet run. Its time stamps are changed in place."""
        indices, origin = packet_run.indices, int(packet_run.timestamp[0])
        duration_samples = self._payloads.duration_samples[indices]
        media_sample, arrival_unix_ns = packet_run.timestamp, packet_run.arrival_unix_ns
        media_sample -= origin
        if not self._has_arrivals and self.packet_runs:
            arrival_unix_ns = np.full_like(
                arrival_unix_ns,
                arrival_after(self.packet_runs[-1], int(duration_samples[0]), reports),
            )
        clock = observe_clock(
            media_sample, duration_samples, arrival_unix_ns, reports, self._last_unix_ns
        )
        watch = watch_packet_run(
            clock, media_sample + duration_samples, arrival_unix_ns, indices, reports, ssrc, origin
        )
        if len(indices) > 1:
            jitter_ns = _mean_jitter_ns(arrival_unix_ns, media_sample)
            self._jitters.append((jitter_ns / NS_PER_MS, len(indices) - 1))
        records = np.zeros(len(indices), dtype=PACKET_DTYPE)
        records["media_sample"] = media_sample
        records["duration_samples"] = duration_samples
        records["lost_before"] = packet_run.lost_before
        records["packet_bytes"] = self._sizes[indices]
        offsets = self._offsets[indices]
        if ssrc in self._payloads.copies:
            records, offsets, recovered = recover_red(
                records, offsets, indices, self._payloads.copies[ssrc], origin
            )
            self.recovered_count += recovered
            if earlier_samples := -int(records["media_sample"][0]):
                records["media_sample"] += earlier_samples
                clock = starting_earlier(clock, earlier_samples)
                reports = [
                    replace(point, media_sample=point.media_sample + earlier_samples)
                    for point in reports
                ]
        self.packet_runs.append(
            IngestedPacketRun(
                ssrc=ssrc,
                records=records,
                source_offset=offsets,
                clock=clock,
                watch=watch,
                reports=tuple(reports),
                is_encrypted=bool(self._payloads.is_encrypted[indices[0]]),
            )
        )
        if self._on_packet_run is not None:
            self._on_packet_run(self.packet_runs[-1], arrival_unix_ns)

    def jitter_ms(self) -> float | None:
        """Returns the mean over all packets; None where no packet run has two."""
        weight = sum(count for _, count in self._jitters)
        return sum(value * count for value, count in self._jitters) / weight if weight else None


def _read_stream(
    dump: Rtpdump,
    member: str,
    limits: LimitSettings,
    findings: list[RecordingError],
    tally: Tally,
) -> tuple[Stream, int]:
    """Returns the RTP packets of a dump, and how many were none by their headers."""
    columns = {name: bytearray() for name in COLUMNS}  # grow where they lie: nothing is there twice
    reports: list[SenderReport] = []
    count = invalid = report_count = 0
    try:
        for window in dump.windows:
            parsed = parse_rtp_window(window)
            report_count += len(parsed.sender_reports)
            reports += parsed.sender_reports[: max(0, caps.MAX_REPORTS - len(reports))]
            for name, dtype in COLUMNS.items():
                columns[name] += getattr(parsed, name).astype(dtype).data
            invalid += parsed.invalid_count
            count += len(parsed.ssrc)
            tally.records += len(window.start)
            tally.add(Fate.INVALID, parsed.invalid_count)
            tally.add(Fate.CONTROL, len(window.start) - parsed.invalid_count - len(parsed.ssrc))
            if count > limits.max_segment_packets or tally.records > 2 * limits.max_segment_packets:
                raise RtpdumpError(
                    f"{member}: more than {limits.max_segment_packets} packets "
                    "(limits.max_segment_packets)",
                    member=member,
                )
    except RtpdumpError as error:
        if not count or count > limits.max_segment_packets:
            raise
        findings.append(error)  # what was framed before the damage is whole
    findings += dump.findings
    if report_count > caps.MAX_REPORTS:
        message = (
            f"{member}: {report_count} sender reports, expected at most {caps.MAX_REPORTS}; the "
            "later ones were left out"
        )
        findings.append(RtpError(message, member=member))
    arrays: dict[str, Any] = {
        name: np.frombuffer(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()
    }
    return Stream(**arrays, fates=no_fates(count), sender_reports=tuple(reports)), invalid


def _find_ends(
    stream: Stream, timing: SegmentTiming, base_unix_ns: int
) -> tuple[DumpEnds, tuple[int, int] | None]:
    """Returns how a dump's ends differ from what the metadata claims, and when they arrived."""
    if not stream.ssrc.size:
        return DumpEnds(), None
    head = tail = tail_ns = None
    if timing.first_rtp_timestamp is not None:
        head, _ = nearest_samples(stream.rtp_timestamp, timing.first_rtp_timestamp, from_end=False)
    if timing.last_rtp_timestamp is not None:
        later, _ = nearest_samples(stream.rtp_timestamp, timing.last_rtp_timestamp, from_end=True)
        tail = -later
    first_ns, last_ns = (
        base_unix_ns + int(offset) * NS_PER_MS
        for offset in (stream.arrival_offset_ms[0], stream.arrival_offset_ms.max())
    )
    if timing.last_rtp_unix_ms is not None and stream.has_arrivals:
        tail_ns = timing.last_rtp_unix_ms * NS_PER_MS - last_ns
    ends = DumpEnds(head_samples=head, tail_samples=tail, tail_ns=tail_ns)
    return ends, (first_ns, last_ns)


def _mean_jitter_ns(arrival_unix_ns: Ints, media_sample: Ints) -> float:
    """Returns by how much packets come closer or further apart than they were sent, on average."""
    sent_ns = np.diff(media_sample).astype(np.float64)
    sent_ns *= 1e9
    sent_ns /= SAMPLE_RATE_HZ
    jitter_ns = np.subtract(np.diff(arrival_unix_ns), sent_ns, out=sent_ns)
    return float(np.abs(jitter_ns, out=jitter_ns).mean())


def _leave_out_strays(
    stream: Stream, member: str, findings: list[RecordingError], tally: Tally
) -> int:
    """Takes out of a stream what random bytes put in; returns how many packets."""
    stream.arrival_offset_ms, mended = mend_arrivals(stream.arrival_offset_ms)
    total = len(stream.ssrc)
    if mended:
        message = (
            f"{member}: {mended} of {total} packets with arrival times out of order, expected "
            "them to rise; not believed"
        )
        findings.append(RtpdumpError(message, member=member))
    keep = main_sources(stream.ssrc)
    strays = total - int(keep.sum())
    if strays:
        message = (
            f"{member}: {len(np.unique(stream.ssrc))} sources in {total} packets, expected one or "
            "a few"
        )
        findings.append(RtpError(f"{message}; {strays} packets were left out", member=member))
        for name in (*COLUMNS, "fates"):
            setattr(stream, name, getattr(stream, name)[keep])
        tally.add(Fate.OUTSIDE_LIMITS, strays)
    return strays


def _what_is_encrypted(member: str, payloads: Payloads) -> list[EncryptedAudioError]:
    """Returns a finding on packets that nobody without the key can hear."""
    count = int(payloads.is_encrypted.sum())
    if not count:
        return []
    message = (
        f"{member}: {count} of {int(payloads.is_audio.sum())} packets are encrypted end to end, "
        "expected Opus; the individual file has them as they were sent, the mix is without them"
    )
    return [EncryptedAudioError(message, member=member)]


def _what_is_odd(
    member: str, counts: PacketCounts, break_count: int, run_count: int
) -> tuple[list[RtpError], tuple[Fate, ...]]:
    """Returns findings on a dump that is mostly noise, and the fates they tell of."""
    found = []
    told: list[Fate] = []
    if (
        counts.invalid >= min(_ODD_PACKETS, max(1, counts.received))
        and 100 * counts.invalid > counts.received
    ):
        found.append(
            f"{counts.invalid} of {counts.received} packets are no RTP or no Opus inside; they "
            "were dropped"
        )
        told.append(Fate.INVALID)
    if break_count >= caps.MAX_PACKET_RUNS or (
        break_count >= _ODD_BREAKS and 100 * break_count > counts.received
    ):
        left_out = (
            f", of which the longest {run_count} were taken" if run_count < break_count else ""
        )
        message = (
            f"the time stamps of {counts.received} packets break off {break_count} times or more, "
            "expected them to run on"
        )
        found.append(f"{message}{left_out}")
        told.append(Fate.OUTSIDE_LIMITS)
    return [RtpError(f"{member}: {message}", member=member) for message in found], tuple(told)
