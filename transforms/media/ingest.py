"""One segment's dump -> its runs of ordered Opus packets: payload types, RED, order, duplicates, loss, jumps, clock.

A whole segment is held as bare arrays (8 h at 20 ms: about 60 MB), its packets stay in the mapped dump.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from transforms.media.bounds import (
    LONGEST_JUMP_SAMPLES,
    MAX_BREAKS,
    MAX_REPORTS,
    MAX_RUNS,
    longest,
    main_sources,
    mend_arrivals,
)
from transforms.media.clock import ReportPoint, fit_clocks, samples_to_ns
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
from transforms.media.observe import in_order, observe_clock
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
_LONGEST_PAUSE_NS = 24 * 3_600 * 1_000_000_000
_OTHERS_PAUSE_NS = 1_000_000_000
_RED_MAX_BYTES = 4 * 1_275
_RESTART_NUMBERS = 200
"""Numbers further than this from the one before are looked at: late, behind an outage, or counted anew."""
_SEQUELS_TRIED = 4
_STRETCHES_TRIED = 64
_RED_MAX_BLOCKS = 3_000_000
"""Redundant blocks of a dump that are kept: 96 MB; two for each packet of 8 h."""
_ODD_PACKETS = 10
_ODD_BREAKS = 50
_PACKET_COLUMNS = (
    "sequence_number",
    "rtp_timestamp",
    "ssrc",
    "payload_type",
    "arrival_offset_ms",
    "payload_offset",
    "payload_bytes",
)

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
    reports: tuple[ReportPoint, ...] = ()


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

    @property
    def has_arrivals(self) -> bool:
        """Whether the dump says when its packets arrived: some recorders write the same offset to all."""
        return bool(self.arrival_offset_ms.size and np.ptp(self.arrival_offset_ms))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Audio packets of one source whose timestamps run on, in sequence order; all arrays have shape (packets,)."""

    indices: Ints
    """Places in the stream."""
    media: Ints
    """Unwrapped RTP timestamps."""
    arrival_ns: Ints
    lost: Ints
    """Packets missing before each."""

    def cut(self, edges: list[int]) -> list[_Stretch]:
        """Returns the parts between edges."""
        return [
            _Stretch(self.indices[a:b], self.media[a:b], self.arrival_ns[a:b], self.lost[a:b])
            for a, b in itertools.pairwise(edges)
        ]


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
    invalid += _leave_out_strays(stream, member, warnings)
    opus_types, red_types = _payload_types(rtp_maps, stream, timing, member, warnings)
    is_red = np.isin(stream.payload_type, red_types)
    is_audio = (np.isin(stream.payload_type, opus_types) | is_red) & (stream.payload_bytes > 0)
    redundant = _unwrap_red(stream, is_red & is_audio, is_audio, opus_types, dump_bytes)
    duration, stereo, bad = _look_at_packets(stream, is_audio, dump_bytes)
    is_audio &= ~bad
    base_ns = _arrival_base(stream, dump, timing, member, warnings)
    # A packet whose header is broken has no sequence number to be counted by; one whose content is has.
    counts = PacketCounts(expected=invalid, received=invalid, invalid=invalid + int(bad.sum()))
    stretches: list[_Stretch] = []
    for mine in _by_source(stream.ssrc):
        if not is_audio[mine].any():
            count = len(mine)
            counts += PacketCounts(expected=count, received=count)
            continue
        for sequel in _split_at_restarts(stream, mine):
            ordered, lost_before, its_counts = _put_in_order(stream.sequence_number[sequel])
            counts += its_counts
            picked = sequel[ordered]
            heard = is_audio[picked]
            if not heard.any():  # the only ones with audio came twice, the first time without
                continue
            # Loss before a packet without audio belongs to the next one with audio.
            lost = np.diff(np.cumsum(lost_before)[heard], prepend=0)
            lost[0] = 0  # what came before the first packet was never this track's
            picked = picked[heard]
            media = unwrap_sequence(stream.rtp_timestamp[picked], 32)
            arrival_ns = base_ns + stream.arrival_offset_ms[picked] * _NS_PER_MS
            for part in _split_at_jumps(media, arrival_ns, _longest_jump(media, timing)):
                stretches.append(_Stretch(picked[part], media[part], arrival_ns[part], lost[part]))
    stretches = _split_where_others_speak(stretches)
    stretches, break_count = _longest_stretches(stretches), len(stretches)
    reports = _share_out_reports(stream, stretches, base_ns)
    has_arrivals = stream.has_arrivals
    last_ns = None if has_arrivals else _last_arrival(stretches, timing)
    runs: list[Run] = []
    jitters: list[tuple[float, int]] = []
    for stretch, its_reports in zip(stretches, reports, strict=True):
        indices, origin = stretch.indices, int(stretch.media[0])
        ssrc = int(stream.ssrc[indices[0]])
        records = np.zeros(len(indices), dtype=PACKET_DTYPE)
        records["media_sample"] = stretch.media - origin
        records["duration_samples"] = duration[indices]
        records["lost_before"] = stretch.lost
        records["packet_bytes"] = stream.payload_bytes[indices]
        arrival_ns = stretch.arrival_ns
        if not has_arrivals and runs:
            arrival_ns = np.full_like(arrival_ns, _arrival_after(runs[-1], records, its_reports))
        clock = observe_clock(records["media_sample"], duration[indices], arrival_ns, its_reports, last_ns)
        jitter = np.abs(np.diff(arrival_ns) - np.diff(stretch.media) * 1e9 / SAMPLE_RATE_HZ)
        if jitter.size:
            jitters.append((float(jitter.mean()) / _NS_PER_MS, jitter.size))
        offsets = stream.payload_offset[indices]
        if ssrc in redundant:
            records, offsets, recovered = _recover_red(records, offsets, indices, redundant[ssrc], origin, dump_bytes)
            counts += PacketCounts(recovered_red=recovered)
        runs.append(Run(ssrc=ssrc, records=records, source_offset=offsets, clock=clock, reports=tuple(its_reports)))
    warnings += _what_is_odd(member, counts, break_count, len(runs))
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
    count = invalid = report_count = record_count = 0
    try:
        for window in dump.windows:
            parsed = parse_rtp_window(window)
            room = max(0, MAX_REPORTS - report_count)
            report_count += len(parsed.sender_reports)
            if report_count > MAX_REPORTS:
                parsed = replace(parsed, sender_reports=parsed.sender_reports[:room])
            windows.append(parsed)
            invalid += parsed.invalid_count
            count += len(parsed.ssrc)
            record_count += len(window.start)
            if count > limits.max_segment_packets or record_count > 2 * limits.max_segment_packets:
                raise RtpdumpError(
                    f"{member}: more than {limits.max_segment_packets} packets (limits.max_segment_packets)", member=member
                )
    except RtpdumpError as error:
        if not count or count > limits.max_segment_packets:
            raise
        warnings.append(error)  # what was framed before the damage is whole
    warnings += dump.damage
    if report_count > MAX_REPORTS:
        message = f"{member}: {report_count} sender reports, expected at most {MAX_REPORTS}; the later ones were left out"
        warnings.append(RtpError(message, member=member))

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


def _leave_out_strays(stream: _Stream, member: str, warnings: list[RecordingError]) -> int:
    """Takes out of a stream what random bytes put in; returns how many packets."""
    stream.arrival_offset_ms, mended = mend_arrivals(stream.arrival_offset_ms)
    total = len(stream.ssrc)
    if mended:
        message = f"{member}: {mended} of {total} packets with arrival times out of order, expected them to rise; not believed"
        warnings.append(RtpdumpError(message, member=member))
    keep = main_sources(stream.ssrc)
    strays = total - int(keep.sum())
    if strays:
        message = f"{member}: {len(np.unique(stream.ssrc))} sources in {total} packets, expected one or a few"
        warnings.append(RtpError(f"{message}; {strays} packets were left out", member=member))
        for name in _PACKET_COLUMNS:
            setattr(stream, name, getattr(stream, name)[keep])
    return strays


def _longest_stretches(stretches: list[_Stretch]) -> list[_Stretch]:
    return [stretches[index] for index in longest([len(stretch.media) for stretch in stretches], MAX_RUNS)]


def _longest_jump(media: Ints, timing: SegmentTiming) -> int | None:
    """Returns how far timestamps may jump ahead where arrivals do not tell; None for any, where the metadata bears them out."""
    if timing.first_rtp_unix_ms is not None and timing.last_rtp_unix_ms is not None:
        stated = (timing.last_rtp_unix_ms - timing.first_rtp_unix_ms) * SAMPLE_RATE_HZ // 1_000
        if abs(int(np.ptp(media)) - stated) <= LONGEST_JUMP_SAMPLES:
            return None
    return LONGEST_JUMP_SAMPLES


def _what_is_odd(member: str, counts: PacketCounts, break_count: int, run_count: int) -> list[RtpError]:
    """Returns what counts alone would hide: a dump that is mostly noise."""
    found = []
    if counts.invalid >= min(_ODD_PACKETS, max(1, counts.received)) and 100 * counts.invalid > counts.received:
        found.append(f"{counts.invalid} of {counts.received} packets are no RTP or no Opus inside; they were dropped")
    if break_count >= MAX_RUNS or (break_count >= _ODD_BREAKS and 100 * break_count > counts.received):
        left_out = f", of which the longest {run_count} were taken" if run_count < break_count else ""
        message = f"the time stamps of {counts.received} packets break off {break_count} times or more, expected them to run on"
        found.append(f"{message}{left_out}")
    return [RtpError(f"{member}: {message}", member=member) for message in found]


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

    The blocks have shape (blocks, 4): RTP timestamp, position in the dump, size in bytes, which packet carried it.
    """
    found: dict[int, array[int]] = {}
    count = 0
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
        blocks = found.setdefault(int(stream.ssrc[index]), array("q"))
        for block in older:
            if block.size_bytes and (not opus_types or block.payload_type in opus_types) and count < _RED_MAX_BLOCKS:
                count += 1
                timestamp = (int(stream.rtp_timestamp[index]) - block.timestamp_offset) % (1 << 32)
                blocks.extend((timestamp, start + block.start, block.size_bytes, int(index)))
    return {ssrc: np.frombuffer(blocks, dtype=np.int64).reshape(-1, 4) for ssrc, blocks in found.items()}


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


def _by_source(ssrc: npt.NDArray[np.uint32]) -> list[Ints]:
    """Returns the places of each SSRC's packets, in order of arrival; the SSRCs in order of their first."""
    order = np.argsort(ssrc, kind="stable")
    edges = np.flatnonzero(np.diff(ssrc[order])) + 1
    groups = [group.astype(np.int64) for group in np.split(order, edges) if group.size]
    return sorted(groups, key=lambda group: int(group[0]))


def _split_at_restarts(stream: _Stream, mine: Ints) -> list[Ints]:
    """Returns a source's packets in order of arrival, parted where it began to count anew.

    Numbers that go far from those before are a restart unless the timestamps say that packets came late, or that an outage
    lies between (RFC 3550 A.1 asks for two in a row that fit; a queue may hold back many).
    """
    number = unwrap_sequence(stream.sequence_number[mine], 16)
    edges = [0, *(np.flatnonzero(np.abs(np.diff(number)) > _RESTART_NUMBERS) + 1).tolist(), len(mine)]
    if len(edges) == 2 or len(edges) > MAX_BREAKS:  # not once, or noise
        return [mine]
    ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
    offset_ms = stream.arrival_offset_ms[mine]
    sequels: list[_Sequel] = []
    for start, stop in itertools.pairwise(edges):
        chunk = _Chunk(start, stop, int(number[start]), int(ticks[start]), int(offset_ms[start]))
        home = next((sequel for sequel in reversed(sequels[-_SEQUELS_TRIED:]) if sequel.takes(chunk)), None)
        if home is None:
            home = _Sequel()
            sequels.append(home)
        home.add(chunk, number, ticks, offset_ms)
    return [np.concatenate([mine[chunk.start : chunk.stop] for chunk in sequel.chunks]) for sequel in sequels]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Packets in order of arrival whose numbers are near each other, and what the first one says."""

    start: int
    stop: int
    number: int
    ticks: int
    offset_ms: int


@dataclass(slots=True)
class _Sequel:
    """Chunks that count on from each other."""

    chunks: list[_Chunk] = field(default_factory=list)
    lowest: tuple[int, int] = (0, 0)
    """Number and timestamp of the packet of the lowest number, counted by the unwrapping of the whole source."""
    highest: tuple[int, int] = (0, 0)
    highest_offset_ms: int = 0
    ticks_per_number: float = 0.0

    def takes(self, chunk: _Chunk) -> bool:
        """Whether a chunk fits by number and timestamp: late, or behind an outage."""
        slack = JUMP_SAMPLES
        ahead = _signed(chunk.number - self.highest[0], 16)
        moved = _signed(chunk.ticks - self.highest[1], 32)
        if ahead > 0:
            waited = max(0, chunk.offset_ms - self.highest_offset_ms) * SAMPLE_RATE_HZ // 1_000
            return ahead * self.ticks_per_number / 2 - slack <= moved <= waited + slack
        # Behind: within what came already the timestamp lies between; before it, as far back as its number.
        least = _signed(self.lowest[1] - self.highest[1], 32) - slack
        if chunk.number < self.lowest[0]:
            least -= round(2 * self.ticks_per_number * (self.lowest[0] - chunk.number))
        most = ahead * self.ticks_per_number / 2 + slack
        return least <= moved <= most

    def add(self, chunk: _Chunk, number: Ints, ticks: Ints, offset_ms: Ints) -> None:
        part = slice(chunk.start, chunk.stop)
        low, high = int(number[part].argmin()) + chunk.start, int(number[part].argmax()) + chunk.start
        if not self.chunks or number[low] < self.lowest[0]:
            self.lowest = (int(number[low]), int(ticks[low]))
        if not self.chunks or number[high] > self.highest[0]:
            self.highest, self.highest_offset_ms = (int(number[high]), int(ticks[high])), int(offset_ms[high])
        if high != low and number[high] != number[low]:
            rate = float((ticks[high] - ticks[low]) / (number[high] - number[low]))
            self.ticks_per_number = min(max(rate, 0.0), float(MAX_PACKET_SAMPLES))
        self.chunks.append(chunk)


def _signed(difference: int, bits: int) -> int:
    return unwrap(difference, 0, bits)


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


def _split_at_jumps(media: Ints, arrival_ns: Ints, longest_jump: int | None) -> list[slice]:
    """Returns the parts within which media time runs forward and not ahead of the arrivals (if there are any).

    A network that held packets back lets media time catch up with the arrivals, never overtake them: what counts is by how
    much a packet comes earlier than any before it could have.
    """
    back = np.diff(media) <= 0
    delay = (in_order(arrival_ns) - arrival_ns.min()) * SAMPLE_RATE_HZ // 1_000_000_000 - (media - media[0])
    has_arrivals = bool(np.ptp(arrival_ns))
    ahead = np.diff(delay) < -JUMP_SAMPLES if has_arrivals else np.zeros_like(back)
    if not has_arrivals and longest_jump is not None:
        back |= np.diff(media) > longest_jump
    places = np.flatnonzero(back | ahead) + 1
    edges = [0]
    if places.size > MAX_BREAKS:  # noise: not one by one
        bounds = np.concatenate([[0], places, [len(media)]])
        kept = np.sort(np.argsort(-np.diff(bounds), kind="stable")[:MAX_RUNS])
        return [slice(int(bounds[at]), int(bounds[at + 1])) for at in kept.tolist()]
    if places.size:
        starts = [0, *places.tolist()]
        least = np.minimum.reduceat(delay, starts).tolist()
        so_far = least[0]
        for number, place in enumerate(places.tolist(), 1):
            if back[place - 1] or int(delay[place]) < so_far - JUMP_SAMPLES:
                edges.append(place)
                so_far = least[number]
            so_far = min(so_far, least[number])
    return [slice(start, stop) for start, stop in itertools.pairwise([*edges, len(media)])]


def _split_where_others_speak(stretches: list[_Stretch]) -> list[_Stretch]:
    """Returns the stretches, parted where one pauses and another source is heard: what is said there has its place between."""
    if len(stretches) < 2:
        return stretches
    everyone = np.sort(np.concatenate([stretch.arrival_ns for stretch in stretches]))
    found: list[_Stretch] = []
    for stretch in stretches:
        own = np.sort(stretch.arrival_ns)
        in_place = in_order(stretch.arrival_ns)
        pauses = np.flatnonzero(np.diff(in_place) >= _OTHERS_PAUSE_NS)
        begin, end = in_place[pauses], in_place[pauses + 1]
        heard = np.searchsorted(everyone, end, "left") - np.searchsorted(everyone, begin, "right")
        heard -= np.searchsorted(own, end, "left") - np.searchsorted(own, begin, "right")
        found += stretch.cut([0, *(pauses[heard > 0] + 1).tolist(), len(stretch.media)])
    return found


def _share_out_reports(stream: _Stream, stretches: list[_Stretch], base_ns: int) -> list[list[ReportPoint]]:
    """Returns each stretch's sender reports, on its media time.

    A report belongs to the stretch that was being sent when it came, or just before or after. Its timestamp may lie before the
    first packet's, and on the other side of a wrap: of all that are equal to it modulo 2**32 the one nearest to the packets
    around is meant, and of two stretches the one that has it nearer.
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
        arrived = base_ns + report.arrival_offset_ms * _NS_PER_MS
        if has_arrivals and numbers:
            at = bisect.bisect_right(begins[report.ssrc], arrived)
            numbers = numbers[max(0, at - 2) : at + 1]
        best: tuple[int, int, int] | None = None
        for number in numbers[:_STRETCHES_TRIED]:
            stretch = stretches[number]
            origin, end = int(stretch.media[0]), int(stretch.media[-1] - stretch.media[0])
            if has_arrivals:
                if number not in times:
                    times[number] = in_order(stretch.arrival_ns)
                if not times[number][0] - _REPORT_REACH_NS <= arrived <= times[number][-1] + _REPORT_REACH_NS:
                    continue
                beside = min(int(np.searchsorted(times[number], arrived)), len(stretch.media) - 1)
                expected = int(stretch.media[beside]) - origin
                sample = unwrap(report.rtp_timestamp, origin + expected, 32) - origin
                off = abs(sample - expected)
            else:
                sample = unwrap(report.rtp_timestamp, origin + end // 2, 32) - origin
                off = max(0, -sample, sample - end)
            if off <= _REPORT_REACH_NS * SAMPLE_RATE_HZ // 1_000_000_000 and (best is None or off < best[0]):
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


def _last_arrival(stretches: list[_Stretch], timing: SegmentTiming) -> int | None:
    """Returns when the last packet arrived by the metadata, where that is all there is besides the first; None if unknown."""
    if len(stretches) != 1 or timing.last_rtp_unix_ms is None or timing.last_rtp_timestamp is None:
        return None
    last = int(stretches[0].media[-1])
    apart = unwrap(timing.last_rtp_timestamp, last, 32) - last
    if abs(apart) > _REPORT_REACH_NS * SAMPLE_RATE_HZ // 1_000_000_000:
        return None
    return timing.last_rtp_unix_ms * _NS_PER_MS - samples_to_ns(apart)


def _arrival_after(before: Run, records: npt.NDArray[np.void], reports: Sequence[ReportPoint]) -> int:
    """Returns when a run's first packet came where the dump does not say: by the sender's clock, else behind the run before."""
    end = int(before.records["media_sample"][-1] + before.records["duration_samples"][-1])
    line = fit_clocks([before.clock])[0][-1]
    stop_ns = line.server_start_unix_ns + round(samples_to_ns(end - line.media_start_sample) * line.stretch)
    pause_ns = 0
    if reports and before.reports:
        last, first = before.reports[-1], reports[0]
        told = first.sender_unix_ns - last.sender_unix_ns - samples_to_ns(end - last.media_sample + first.media_sample)
        pause_ns = told if 0 < told <= _LONGEST_PAUSE_NS else 0
    return stop_ns + pause_ns + samples_to_ns(int(records["duration_samples"][0]))


def _recover_red(
    records: npt.NDArray[np.void], offsets: Ints, indices: Ints, blocks: Ints, origin: int, dump: Bytes
) -> tuple[npt.NDArray[np.void], Ints, int]:
    """Puts redundant copies of lost packets in their place (RFC 2198 s4); returns the arrays and how many were put."""
    if not len(blocks) or not records["lost_before"].any():
        return records, offsets, 0
    # After a jump of the timestamps other packets' copies may seem to belong here.
    blocks = blocks[np.isin(blocks[:, 3], indices)]
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
