"""One segment's dump -> its runs of ordered Opus packets: payload types, RED, order, duplicates,
loss, jumps, clock.

A whole segment is held as bare arrays: 31 bytes of each packet, some 100 while its clock is looked
at (8 h at 20 ms: 150 MB). What is in the packets stays in the mapped dump.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.clock.observe import observe_clock
from transforms.media.errors import (
    RecordingError,
    RtpdumpError,
    RtpError,
    SdpError,
    UnsupportedCodecError,
)
from transforms.media.rtp.arrivals import arrival_after, arrival_base, last_arrival
from transforms.media.rtp.ingested_run import PACKET_DTYPE, IngestedRun
from transforms.media.rtp.packets import SenderReport, parse_rtp_window
from transforms.media.rtp.payloads import look_at_payloads
from transforms.media.rtp.plausibility import main_sources, mend_arrivals
from transforms.media.rtp.red import recover_red
from transforms.media.rtp.rtpdump import Rtpdump, read_rtpdump
from transforms.media.rtp.sdp import RtpMap
from transforms.media.rtp.sender_reports import share_out_reports
from transforms.media.rtp.streams import (
    COLUMNS,
    PacketCounts,
    Stream,
    Stretch,
    by_source,
    longest_honest_jump,
    longest_stretches,
    put_in_order,
    split_at_jumps,
    split_at_restarts,
    split_where_others_speak,
)
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.settings import LimitSettings
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, Bytes, Ints
from transforms.media.wraparound import unwrap_sequence

_ODD_PACKETS = 10
_ODD_BREAKS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedSegment:
    """What a segment holds."""

    packet_runs: tuple[IngestedRun, ...]
    counts: PacketCounts
    channels: int
    """2 when any packet is stereo; 0 without packets."""
    codec: str
    jitter_ms: float | None
    warnings: tuple[RecordingError, ...]
    """What was found wrong and worked around, each worth a failure row."""


def ingest_segment(
    open_dump: Callable[[], BinaryIO],
    dump_bytes: Bytes,
    member: str,
    rtp_maps: dict[int, RtpMap],
    timing: SegmentTiming,
    limits: LimitSettings,
    let_go: Callable[[], None] = lambda: None,
) -> IngestedSegment:
    """Reads one segment.

    Args:
      open_dump: opens the dump for a forward pass.
      dump_bytes: the same dump, mapped; packets are copied from here later.
      member: its name, for messages.
      rtp_maps: payload types of the segment's session description; empty when it has none.
      timing: the segment as the metadata states it.
      limits: bounds on packets.
      let_go: called when what was read of the mapped dump is not needed for now.

    Raises:
      RtpdumpError: not a dump, broken framing at its very start, or more packets than allowed.
      UnsupportedCodecError: the packets are not Opus.
      TimelineError: no time to place the packets at.
    """
    warnings: list[RecordingError] = []
    with open_dump() as file:
        dump = read_rtpdump(file, member)
        stream, invalid = _read_stream(dump, member, limits, warnings)
    invalid += _leave_out_strays(stream, member, warnings)
    opus_types, red_types = _payload_types(rtp_maps, stream, timing, member, warnings)
    payloads = look_at_payloads(stream, opus_types, red_types, dump_bytes, let_go)
    base_ns = arrival_base(stream, dump, timing, member, warnings)
    # A packet whose header is broken has no sequence number to be counted by; one whose content is
    # has.
    counts = PacketCounts(expected=invalid, received=invalid, invalid=invalid + payloads.bad_count)
    stretches, more = _unbroken(stream, payloads.is_audio, base_ns, timing)
    counts += more
    stretches = split_where_others_speak(stretches)
    stretches, break_count = longest_stretches(stretches), len(stretches)
    reports = share_out_reports(stream, stretches, base_ns)
    has_arrivals = stream.has_arrivals
    last_ns = None if has_arrivals else last_arrival(stretches, timing)
    sources = [int(stream.ssrc[stretch.indices[0]]) for stretch in stretches]
    offsets, sizes = stream.payload_offset, stream.payload_bytes
    del stream  # what headers said is in the stretches now
    packet_runs: list[IngestedRun] = []
    jitters: list[tuple[float, int]] = []
    for ssrc, its_reports in zip(sources, reports, strict=True):
        stretch = stretches.pop(0)
        indices, origin = stretch.indices, int(stretch.media[0])
        media, arrival_ns, duration = (
            stretch.media,
            stretch.arrival_ns,
            payloads.duration_samples[indices],
        )
        media -= origin
        if not has_arrivals and packet_runs:
            arrival_ns = np.full_like(
                arrival_ns, arrival_after(packet_runs[-1], int(duration[0]), its_reports)
            )
        clock = observe_clock(media, duration, arrival_ns, its_reports, last_ns)
        if len(indices) > 1:
            jitters.append((_mean_jitter_ns(arrival_ns, media) / NS_PER_MS, len(indices) - 1))
        records = np.zeros(len(indices), dtype=PACKET_DTYPE)
        records["media_sample"] = media
        records["duration_samples"] = duration
        records["lost_before"] = stretch.lost
        records["packet_bytes"] = sizes[indices]
        run_offsets = offsets[indices]
        if ssrc in payloads.copies and stretch.lost.any():
            copies = payloads.copies[ssrc]
            records, run_offsets, recovered = recover_red(
                records, run_offsets, indices, copies, origin
            )
            counts += PacketCounts(recovered_red=recovered)
        packet_runs.append(
            IngestedRun(
                ssrc=ssrc,
                records=records,
                source_offset=run_offsets,
                clock=clock,
                reports=tuple(its_reports),
            )
        )
    warnings += _what_is_odd(member, counts, break_count, len(packet_runs))
    weight = sum(count for _, count in jitters)
    return IngestedSegment(
        packet_runs=tuple(
            sorted(packet_runs, key=lambda packet_run: packet_run.clock.first_server_unix_ns)
        ),
        counts=counts,
        channels=1 + payloads.is_stereo if packet_runs else 0,
        codec="audio/red" if payloads.has_red else "audio/opus",
        jitter_ms=sum(value * count for value, count in jitters) / weight if weight else None,
        warnings=tuple(warnings),
    )


def _read_stream(
    dump: Rtpdump, member: str, limits: LimitSettings, warnings: list[RecordingError]
) -> tuple[Stream, int]:
    columns = {name: bytearray() for name in COLUMNS}  # grow where they lie: nothing is there twice
    reports: list[SenderReport] = []
    count = invalid = report_count = record_count = 0
    try:
        for window in dump.windows:
            parsed = parse_rtp_window(window)
            report_count += len(parsed.sender_reports)
            reports += parsed.sender_reports[: max(0, caps.MAX_REPORTS - len(reports))]
            for name, dtype in COLUMNS.items():
                columns[name] += getattr(parsed, name).astype(dtype).data
            invalid += parsed.invalid_count
            count += len(parsed.ssrc)
            record_count += len(window.start)
            if count > limits.max_segment_packets or record_count > 2 * limits.max_segment_packets:
                raise RtpdumpError(
                    f"{member}: more than {limits.max_segment_packets} packets "
                    "(limits.max_segment_packets)",
                    member=member,
                )
    except RtpdumpError as error:
        if not count or count > limits.max_segment_packets:
            raise
        warnings.append(error)  # what was framed before the damage is whole
    warnings += dump.damage
    if report_count > caps.MAX_REPORTS:
        message = (
            f"{member}: {report_count} sender reports, expected at most {caps.MAX_REPORTS}; the "
            "later ones were left out"
        )
        warnings.append(RtpError(message, member=member))
    arrays: dict[str, Any] = {
        name: np.frombuffer(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()
    }
    return Stream(**arrays, sender_reports=tuple(reports)), invalid


def _unbroken(
    stream: Stream, is_audio: npt.NDArray[np.bool_], base_ns: int, timing: SegmentTiming
) -> tuple[list[Stretch], PacketCounts]:
    """Returns each source's audio in order, parted where numbers or timestamps break off, and the
    counts of all packets.
    """
    counts = PacketCounts()
    stretches: list[Stretch] = []
    for mine in by_source(stream.ssrc):
        if not is_audio[mine].any():
            counts += PacketCounts(expected=len(mine), received=len(mine))
            continue
        for sequel in split_at_restarts(stream, mine):
            ordered, lost, its_counts = put_in_order(stream.sequence_number[sequel])
            counts += its_counts
            picked = sequel[ordered]
            del ordered
            heard = is_audio[picked]
            if not heard.any():  # the only ones with audio came twice, the first time without
                continue
            if not heard.all():
                # Loss before a packet without audio belongs to the next one with audio.
                lost = np.diff(np.cumsum(lost)[heard], prepend=0)
                picked = picked[heard]
            lost[0] = 0  # what came before the first packet was never this track's
            media = unwrap_sequence(stream.rtp_timestamp[picked], 32)
            arrival_ns = stream.arrival_offset_ms[picked]
            arrival_ns *= NS_PER_MS
            arrival_ns += base_ns
            for part in split_at_jumps(media, arrival_ns, longest_honest_jump(media, timing)):
                stretches.append(
                    Stretch(
                        picked[part], media[part], arrival_ns[part], lost[part].astype(np.int32)
                    )
                )
    return stretches, counts


def _mean_jitter_ns(arrival_ns: Ints, media: Ints) -> float:
    """Returns by how much packets come closer together or further apart than they were sent, on
    average.
    """
    apart = np.diff(media).astype(np.float64)
    apart *= 1e9
    apart /= SAMPLE_RATE_HZ
    np.subtract(np.diff(arrival_ns), apart, out=apart)
    return float(np.abs(apart, out=apart).mean())


def _leave_out_strays(stream: Stream, member: str, warnings: list[RecordingError]) -> int:
    """Takes out of a stream what random bytes put in; returns how many packets."""
    stream.arrival_offset_ms, mended = mend_arrivals(stream.arrival_offset_ms)
    total = len(stream.ssrc)
    if mended:
        message = (
            f"{member}: {mended} of {total} packets with arrival times out of order, expected "
            "them to rise; not believed"
        )
        warnings.append(RtpdumpError(message, member=member))
    keep = main_sources(stream.ssrc)
    strays = total - int(keep.sum())
    if strays:
        message = (
            f"{member}: {len(np.unique(stream.ssrc))} sources in {total} packets, expected one or "
            "a few"
        )
        warnings.append(RtpError(f"{message}; {strays} packets were left out", member=member))
        for name in COLUMNS:
            setattr(stream, name, getattr(stream, name)[keep])
    return strays


def _what_is_odd(
    member: str, counts: PacketCounts, break_count: int, run_count: int
) -> list[RtpError]:
    """Returns what counts alone would hide: a dump that is mostly noise."""
    found = []
    if (
        counts.invalid >= min(_ODD_PACKETS, max(1, counts.received))
        and 100 * counts.invalid > counts.received
    ):
        found.append(
            f"{counts.invalid} of {counts.received} packets are no RTP or no Opus inside; they "
            "were dropped"
        )
    if break_count >= caps.MAX_RUNS or (
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
    return [RtpError(f"{member}: {message}", member=member) for message in found]


def _payload_types(
    rtp_maps: dict[int, RtpMap],
    stream: Stream,
    timing: SegmentTiming,
    member: str,
    warnings: list[RecordingError],
) -> tuple[list[int], list[int]]:
    """Returns the payload types that are Opus and those that are RED around it."""
    opus = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "opus"]
    red = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "red"]
    codec = timing.codec.lower()
    if not rtp_maps and codec in ("audio/opus", "audio/red") and stream.payload_type.size:
        # Without a session description the metadata's codec speaks, for the payload type most
        # packets have.
        common = int(np.bincount(stream.payload_type).argmax())
        return ([common], []) if codec == "audio/opus" else ([], [common])
    if not opus and not red and (rtp_maps or codec not in ("audio/opus", "audio/red")):
        named = (
            ", ".join(f"{m.encoding}/{m.clock_rate_hz}" for m in rtp_maps.values())
            or timing.codec
            or "not named"
        )
        raise UnsupportedCodecError(
            f"{member}: codec is {named}, expected opus/48000 or red/48000", member=member
        )
    heard = np.isin(stream.payload_type, opus + red)
    if stream.payload_type.size and not heard.any():
        found = sorted({int(number) for number in np.unique(stream.payload_type)})[:8]
        message = (
            f"{member}: payload types {found} in the dump, expected {sorted(opus + red)} by the "
            "session description"
        )
        warnings.append(SdpError(message, member=member))
    return opus, red
