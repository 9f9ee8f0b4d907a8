"""One segment's dump -> its runs of ordered Opus packets: payload types, RED, order, duplicates, loss, jumps, clock.

A whole segment is held as bare arrays (8 h at 20 ms: about 60 MB), its packets stay in the mapped dump.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.clock import ReportPoint, observe_clock
from transforms.media.errors import (
    RecordingError,
    RtpdumpError,
    RtpError,
    SdpError,
    TimelineError,
    TimingMetadataError,
    UnsupportedCodecError,
)
from transforms.media.model import LimitSettings, PacketCounts, RunClock, SegmentTiming
from transforms.media.opus import MAX_PACKET_SAMPLES, SAMPLE_RATE_HZ, is_valid_packet, packet_samples
from transforms.media.packet_file import PACKET_DTYPE
from transforms.media.rtp import RtpWindow, SenderReport, parse_red_blocks, parse_rtp_window
from transforms.media.rtpdump import Rtpdump, read_rtpdump
from transforms.media.sdp import RtpMap
from transforms.media.serial import unwrap, unwrap_sequence

_NS_PER_MS = 1_000_000
_CLOCKS_AGREE_NS = 1_000_000_000
JUMP_SAMPLES = 2 * SAMPLE_RATE_HZ
"""Media time running ahead of the arrivals by more than this between two packets is a new origin, not audio to come."""
_REPORT_REACH_NS = 10_000_000_000
"""A report further than this from a run's packets, in arrival or in media time, belongs to another run."""
_RED_MAX_BYTES = 4 * 1_275

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One unbroken run, ready to be staged."""

    ssrc: int
    records: npt.NDArray[np.void]
    """Of `PACKET_DTYPE`, in sequence order."""
    source_offset: Ints
    """Where each packet begins in the dump."""
    clock: RunClock


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestedSegment:
    """What a segment holds."""

    runs: tuple[Run, ...]
    counts: PacketCounts
    channels: int
    """2 when any packet is stereo; 0 without packets."""
    codec: str
    jitter_ms: float | None
    warnings: tuple[RecordingError, ...]
    """What was found wrong and worked around, each worth a failure row."""


@dataclass(slots=True)
class _Stream:
    """All RTP packets of a dump in arrival order, as parallel arrays."""

    sequence_number: npt.NDArray[np.uint16]
    rtp_timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_type: Bytes
    arrival_offset_ms: Ints
    payload_offset: Ints
    payload_bytes: Ints
    sender_reports: tuple[SenderReport, ...]


def ingest_segment(
    open_dump: Callable[[], BinaryIO],
    dump_bytes: Bytes,
    member: str,
    rtp_maps: dict[int, RtpMap],
    timing: SegmentTiming,
    limits: LimitSettings,
) -> IngestedSegment:
    """Reads one segment.

    Args:
      open_dump: opens the dump for a forward pass.
      dump_bytes: the same dump, mapped; packets are copied from here later.
      member: its name, for messages.
      rtp_maps: payload types of the segment's session description; empty when it has none.
      timing: the segment as the metadata states it.
      limits: bounds on packets.

    Raises:
      RtpdumpError: not a dump, broken framing at its very start, or more packets than allowed.
      UnsupportedCodecError: the packets are not Opus.
      TimelineError: no time to place the packets at.
    """
    warnings: list[RecordingError] = []
    with open_dump() as file:
        dump = read_rtpdump(file, member)
        stream, invalid = _read_stream(dump, member, limits, warnings)
    opus_types, red_types = _payload_types(rtp_maps, stream, timing, member, warnings)
    is_red = np.isin(stream.payload_type, red_types)
    is_audio = (np.isin(stream.payload_type, opus_types) | is_red) & (stream.payload_bytes > 0)
    redundant = _unwrap_red(stream, is_red & is_audio, is_audio, opus_types, dump_bytes)
    duration, stereo, bad = _look_at_packets(stream, is_audio, dump_bytes)
    is_audio &= ~bad
    base_ns = _arrival_base(stream, dump, timing, member, warnings)
    runs: list[Run] = []
    # A packet whose header is broken has no sequence number to be counted by; one whose content is has.
    counts = PacketCounts(expected=invalid, received=invalid, invalid=invalid + int(bad.sum()))
    jitters: list[tuple[float, int]] = []
    for ssrc in _in_order_of_arrival(stream.ssrc):
        mine = np.flatnonzero(stream.ssrc == ssrc)
        if not is_audio[mine].any():
            count = len(mine)
            counts += PacketCounts(expected=count, received=count)
            continue
        ordered, lost_before, ssrc_counts = _put_in_order(stream.sequence_number[mine])
        counts += ssrc_counts
        picked = mine[ordered]
        heard = is_audio[picked]
        if not heard.any():  # the only ones with audio came twice, the first time without
            continue
        # Loss before a packet without audio belongs to the next one with audio.
        lost_total = np.cumsum(lost_before)[heard]
        lost = np.diff(lost_total, prepend=0)
        lost[0] = 0  # what came before the first packet was never this track's
        picked = picked[heard]
        media = unwrap_sequence(stream.rtp_timestamp[picked], 32)
        arrival_ns = base_ns + stream.arrival_offset_ms[picked] * _NS_PER_MS
        for start, stop in _split_at_jumps(media, arrival_ns):
            part = slice(start, stop)
            indices, origin = picked[part], int(media[start])
            records = np.zeros(stop - start, dtype=PACKET_DTYPE)
            records["media_sample"] = media[part] - origin
            records["duration_samples"] = duration[indices]
            records["lost_before"] = lost[part]
            records["packet_bytes"] = stream.payload_bytes[indices]
            reports = _reports_of_run(stream, int(ssrc), records["media_sample"], arrival_ns[part], origin, base_ns)
            clock = observe_clock(records["media_sample"], duration[indices], arrival_ns[part], reports)
            jitter = np.abs(np.diff(arrival_ns[part]) - np.diff(media[part]) * 1e9 / SAMPLE_RATE_HZ)
            if jitter.size:
                jitters.append((float(jitter.mean()) / _NS_PER_MS, jitter.size))
            offsets = stream.payload_offset[indices]
            mine_red = redundant.get(int(ssrc))
            if mine_red is not None:
                records, offsets, recovered = _recover_red(records, offsets, mine_red, origin, dump_bytes)
                counts += PacketCounts(recovered_red=recovered)
            runs.append(Run(ssrc=int(ssrc), records=records, source_offset=offsets, clock=clock))
    weight = sum(count for _, count in jitters)
    channels = (2 if stereo[is_audio].any() else 1) if runs else 0
    return IngestedSegment(
        runs=tuple(sorted(runs, key=lambda run: run.clock.first_server_unix_ns)),
        counts=counts,
        channels=channels,
        codec="audio/red" if len(red_types) and is_red.any() else "audio/opus",
        jitter_ms=sum(value * count for value, count in jitters) / weight if weight else None,
        warnings=tuple(warnings),
    )


def _read_stream(dump: Rtpdump, member: str, limits: LimitSettings, warnings: list[RecordingError]) -> tuple[_Stream, int]:
    windows: list[RtpWindow] = []
    count = invalid = 0
    try:
        for window in dump.windows:
            parsed = parse_rtp_window(window)
            windows.append(parsed)
            invalid += parsed.invalid_count
            count += len(parsed.ssrc)
            if count > limits.max_segment_packets:
                raise RtpdumpError(
                    f"{member}: more than {limits.max_segment_packets} packets (limits.max_segment_packets)", member=member
                )
    except RtpdumpError as error:
        if not count or count > limits.max_segment_packets:
            raise
        warnings.append(error)  # what was framed before the damage is whole

    def column(name: str, dtype: type) -> npt.NDArray[np.generic]:
        arrays = [getattr(window, name) for window in windows]
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)

    return (
        _Stream(
            sequence_number=column("sequence_number", np.uint16),  # type: ignore[arg-type]
            rtp_timestamp=column("rtp_timestamp", np.uint32),  # type: ignore[arg-type]
            ssrc=column("ssrc", np.uint32),  # type: ignore[arg-type]
            payload_type=column("payload_type", np.uint8),  # type: ignore[arg-type]
            arrival_offset_ms=column("arrival_offset_ms", np.int64),  # type: ignore[arg-type]
            payload_offset=column("payload_offset", np.int64),  # type: ignore[arg-type]
            payload_bytes=column("payload_bytes", np.int64),  # type: ignore[arg-type]
            sender_reports=tuple(report for window in windows for report in window.sender_reports),
        ),
        invalid,
    )


def _payload_types(
    rtp_maps: dict[int, RtpMap], stream: _Stream, timing: SegmentTiming, member: str, warnings: list[RecordingError]
) -> tuple[list[int], list[int]]:
    """Returns the payload types that are Opus and those that are RED around it."""
    opus = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "opus"]
    red = [number for number, rtp_map in rtp_maps.items() if rtp_map.encoding == "red"]
    codec = timing.codec.lower()
    if not rtp_maps and codec in ("audio/opus", "audio/red") and stream.payload_type.size:
        # Without a session description the metadata's codec speaks, for the payload type most packets have.
        common = int(np.bincount(stream.payload_type).argmax())
        return ([common], []) if codec == "audio/opus" else ([], [common])
    if not opus and not red and (rtp_maps or codec not in ("audio/opus", "audio/red")):
        named = ", ".join(f"{m.encoding}/{m.clock_rate_hz}" for m in rtp_maps.values()) or timing.codec or "not named"
        raise UnsupportedCodecError(f"{member}: codec is {named}, expected opus/48000 or red/48000", member=member)
    heard = np.isin(stream.payload_type, opus + red)
    if stream.payload_type.size and not heard.any():
        found = sorted({int(number) for number in np.unique(stream.payload_type)})[:8]
        message = f"{member}: payload types {found} in the dump, expected {sorted(opus + red)} by the session description"
        warnings.append(SdpError(message, member=member))
    return opus, red


def _unwrap_red(
    stream: _Stream, red: npt.NDArray[np.bool_], is_audio: npt.NDArray[np.bool_], opus_types: list[int], dump: Bytes
) -> dict[int, Ints]:
    """Makes RED packets plain: their payload becomes the primary block. Returns the redundant blocks by SSRC.

    The blocks have shape (blocks, 3): RTP timestamp, position in the dump, size in bytes.
    """
    found: dict[int, list[tuple[int, int, int]]] = {}
    for index in np.flatnonzero(red):
        start, size = int(stream.payload_offset[index]), int(stream.payload_bytes[index])
        try:
            if size > _RED_MAX_BYTES:
                raise RtpError(f"RED: payload of {size} bytes, expected at most {_RED_MAX_BYTES}")
            *older, primary = parse_red_blocks(dump[start : start + size].tobytes())
        except RtpError:
            stream.payload_bytes[index] = 1 << 20  # no Opus packet is this long: counted as invalid with the others
            continue
        stream.payload_offset[index] = start + primary.start
        stream.payload_bytes[index] = primary.size_bytes
        if not primary.size_bytes or (opus_types and primary.payload_type not in opus_types):
            is_audio[index] = False
        blocks = found.setdefault(int(stream.ssrc[index]), [])
        for block in older:
            if block.size_bytes and (not opus_types or block.payload_type in opus_types):
                timestamp = (int(stream.rtp_timestamp[index]) - block.timestamp_offset) % (1 << 32)
                blocks.append((timestamp, start + block.start, block.size_bytes))
    return {ssrc: np.array(blocks, dtype=np.int64).reshape(-1, 3) for ssrc, blocks in found.items()}


def _look_at_packets(
    stream: _Stream, is_audio: npt.NDArray[np.bool_], dump: Bytes
) -> tuple[Ints, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Returns each packet's duration in samples, whether it is stereo, and whether its Opus framing is broken."""
    last = max(len(dump) - 1, 0)
    toc = dump[np.minimum(stream.payload_offset, last)]
    second = dump[np.minimum(stream.payload_offset + 1, last)]
    duration = packet_samples(toc, np.where(stream.payload_bytes > 1, second, 0).astype(np.uint8))
    bad = is_audio & ((duration <= 0) | (duration > MAX_PACKET_SAMPLES) | (stream.payload_bytes > 61_440))
    # Code 0 is whole by itself, and nearly all there is; the other codes carry lengths that may lie.
    for index in np.flatnonzero(is_audio & ~bad & (((toc & 3) != 0) | (stream.payload_bytes > 1_276))):
        start = int(stream.payload_offset[index])
        bad[index] = not is_valid_packet(dump[start : start + int(stream.payload_bytes[index])].tobytes())
    return duration, (toc & 4) != 0, bad


def _arrival_base(stream: _Stream, dump: Rtpdump, timing: SegmentTiming, member: str, warnings: list[RecordingError]) -> int:
    """Returns the server time of the dump's offset 0 in Unix ns."""
    if not stream.arrival_offset_ms.size:
        return dump.start_unix_ns
    first_offset_ns = int(stream.arrival_offset_ms[0]) * _NS_PER_MS
    by_dump = dump.start_unix_ns
    if timing.first_rtp_unix_ms is None:
        if not by_dump:
            raise TimelineError(
                f"{member}: neither the metadata nor the dump says when the first packet arrived", member=member
            )
        return by_dump
    by_metadata = timing.first_rtp_unix_ms * _NS_PER_MS - first_offset_ns
    apart = by_dump - by_metadata
    if abs(apart) > _CLOCKS_AGREE_NS:
        message = (
            f"{member}: the dump's clock puts the first packet {apart / 1e9:+.3f} s from first_rtp_unix_timestamp "
            f"{timing.first_rtp_unix_ms}, expected within 1 s; the metadata was taken"
        )
        warnings.append(TimingMetadataError(message, member=member))
    return by_metadata


def _in_order_of_arrival(ssrc: npt.NDArray[np.uint32]) -> list[int]:
    values, first = np.unique(ssrc, return_index=True)
    return [int(value) for value in values[np.argsort(first)]]


def _put_in_order(sequence_number: npt.NDArray[np.uint16]) -> tuple[Ints, Ints, PacketCounts]:
    """Returns indices in sequence order without duplicates, packets missing before each, and the counts."""
    extended = unwrap_sequence(sequence_number, 16)
    kept, first_index = np.unique(extended, return_index=True)
    lost_before = np.diff(kept, prepend=kept[0] - 1) - 1
    arrived = extended[np.sort(first_index)]
    counts = PacketCounts(
        expected=int(kept[-1] - kept[0] + 1),
        received=len(kept),
        lost=int(lost_before.sum()),
        duplicate=len(extended) - len(kept),
        reordered=int((arrived < np.maximum.accumulate(arrived)).sum()),
    )
    return first_index.astype(np.int64), lost_before, counts


def _split_at_jumps(media: Ints, arrival_ns: Ints) -> list[tuple[int, int]]:
    """Returns half-open index ranges within which media time runs forward and not ahead of the arrivals (if there are any)."""
    media_step = np.diff(media)
    jumps = media_step <= 0
    if np.ptp(arrival_ns):
        arrival_step = np.diff(arrival_ns) * SAMPLE_RATE_HZ // 1_000_000_000
        jumps |= media_step - np.maximum(arrival_step, 0) > JUMP_SAMPLES
    breaks = np.flatnonzero(jumps) + 1
    edges = [0, *breaks.tolist(), len(media)]
    return list(itertools.pairwise(edges))


def _reports_of_run(stream: _Stream, ssrc: int, media: Ints, arrival_ns: Ints, origin: int, base_ns: int) -> list[ReportPoint]:
    """Returns the sender reports that came while a run lasted (or just before or after), on its media time.

    A report's timestamp may lie before the first packet's, and on the other side of a wrap: of all that are equal to it modulo
    2**32 the one nearest to the packets around is meant.
    """
    found = []
    order = np.argsort(arrival_ns, kind="stable")
    times, samples = arrival_ns[order], media[order]
    for report in stream.sender_reports:
        arrived = base_ns + report.arrival_offset_ms * _NS_PER_MS
        if report.ssrc != ssrc or not times[0] - _REPORT_REACH_NS <= arrived <= times[-1] + _REPORT_REACH_NS:
            continue
        beside = min(int(np.searchsorted(times, arrived)), len(times) - 1)
        expected = int(samples[beside])
        sample = unwrap(report.rtp_timestamp, origin + expected, 32) - origin
        if abs(sample - expected) <= _REPORT_REACH_NS * SAMPLE_RATE_HZ // 1_000_000_000:
            found.append(ReportPoint(media_sample=sample, sender_unix_ns=report.sender_unix_ns))
    return found


def _recover_red(
    records: npt.NDArray[np.void], offsets: Ints, blocks: Ints, origin: int, dump: Bytes
) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Puts redundant copies of lost packets in their place (RFC 2198 s4); returns the arrays and how many were put."""
    if not len(blocks) or not records["lost_before"].any():
        return records, offsets, 0
    half = 1 << 31
    # Near the run's own origin: a run is far shorter than half the number space.
    wrapped = (blocks[:, 0] - origin + half) % (1 << 32) - half
    media, unique = np.unique(wrapped, return_index=True)
    place = np.searchsorted(records["media_sample"], media)
    ends = (records["media_sample"] + records["duration_samples"]).tolist()
    records = records.copy()
    new: list[tuple[int, int, int, int, int]] = []  # as PACKET_DTYPE, then where in the dump
    where: list[int] = []
    last_end = -1
    for sample, index, at in zip(media.tolist(), unique.tolist(), place.tolist(), strict=True):
        if at == 0 or at >= len(records) or not records["lost_before"][at]:
            continue
        start, size = int(blocks[index, 1]), int(blocks[index, 2])
        packet = dump[start : start + size].tobytes()
        toc = np.frombuffer(packet[:1], dtype=np.uint8)
        second = np.frombuffer(packet[1:2] or b"\0", dtype=np.uint8)
        duration = int(packet_samples(toc, second)[0])
        before = max(ends[at - 1], last_end)
        if before <= sample and sample + duration <= int(records["media_sample"][at]) and is_valid_packet(packet):
            # Of the packets lost here one is back; those that fit before it stay lost before it, the rest after.
            still_lost = min(int(records["lost_before"][at]) - 1, (sample - before) // duration)
            records["lost_before"][at] -= 1 + still_lost
            new.append((sample, duration, still_lost, size, start))
            where.append(at)
            last_end = sample + duration
    if not new:
        return records, offsets, 0
    inserted = np.array([row[:4] for row in new], dtype=PACKET_DTYPE)
    starts = np.array([row[4] for row in new], dtype=np.int64)
    return np.insert(records, where, inserted), np.insert(offsets, where, starts), len(new)
