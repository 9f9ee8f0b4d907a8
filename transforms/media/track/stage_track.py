"""Stages one track of an archive: writes its packets in order into one local file, with an index.

What is wrong with a segment is a finding of its track; the other segments are staged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from transforms.media import caps
from transforms.media.archive.claims import Claims
from transforms.media.archive.member import no_memory
from transforms.media.archive.read_members import Dump
from transforms.media.buffers import MappedFile
from transforms.media.clock.server_watch import join_watches
from transforms.media.errors import (
    ArchiveError,
    RecordingError,
    TimelineError,
    UnsupportedCodecError,
)
from transforms.media.findings import Findings
from transforms.media.rtp.dump_claims import DumpEnds, claim_of
from transforms.media.rtp.fates import Fate, Tally
from transforms.media.rtp.ingest import IngestedSegment, ingest_segment
from transforms.media.rtp.ingested_packet_run import PacketRunObserver
from transforms.media.rtp.participant_sessions import ListedSegment
from transforms.media.rtp.streams import PacketCounts
from transforms.media.server_clock import ClockWatch
from transforms.media.settings import LimitSettings
from transforms.media.text import one_line
from transforms.media.track.staged_packets import (
    PartIndex,
    StagedDump,
    StagedPacketRun,
    dump_index,
    write_packet_run,
)
from transforms.media.units import SAMPLES_PER_MS
from transforms.media.values import Codec, TrackKey

_CODECS = tuple(Codec)
_HOUR_NS = 3_600_000_000_000
_USUAL_PACKET_MS = 20.0
"""Of a dump of which no packet could be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPart:
    """A track's share of an archive, its files in a local folder."""

    track: TrackKey
    packets_file: str
    """Empty when no packet was sent in the track's segments, or none can be used."""
    index_file: str
    media_samples: int
    first_server_unix_ns: int
    last_server_unix_ns: int
    ends: tuple[DumpEnds, ...]
    """Of the dumps with packets, how they differ from what is claimed."""
    stop_server_unix_ns: int
    watch: ClockWatch
    """What it shows of the server's clock."""
    track_ids: tuple[str, ...]
    """The published tracks that its segments are of, in order of time."""


@dataclass(slots=True)
class _Staged:
    """What was staged of a track so far."""

    packet_runs: list[StagedPacketRun] = field(default_factory=list)
    media_samples: dict[int, int] = field(default_factory=dict)
    """Of each packet run, by where it begins in the file."""
    watches: dict[int, ClockWatch] = field(default_factory=dict)
    """The same, what it shows of the server's clock."""
    counts: PacketCounts = field(default_factory=PacketCounts)
    channels: int = 0
    codec: Codec = Codec.OPUS
    jitters: list[tuple[float, int]] = field(default_factory=list)
    """Mean jitter in ms of each segment, and the packets it is the mean of."""
    dumps: list[StagedDump] = field(default_factory=list)


def stage_track(
    track: TrackKey,
    segments: Sequence[ListedSegment],
    claims: Claims,
    stem: Path,
    limits: LimitSettings,
    findings: Findings,
    on_staged: Callable[[int], None],
    on_packet_run: PacketRunObserver | None = None,
) -> StagedPart:
    """Stages a track, and deletes the dumps it was staged from.

    Args:
      track: whose segments these are.
      segments: in order of time.
      claims: gives their dumps and descriptions.
      stem: path of the two files to write, without a suffix.
      limits: bounds on packets and on time.
      findings: what is wrong is added to them.
      on_staged: told the bytes of each dump that is done.
      on_packet_run: as for `ingest_segment`.
    """
    packets_path, index_path = stem.with_suffix(".packets"), stem.with_suffix(".json")
    staged = _Staged()
    with packets_path.open("wb") as packets:
        for segment in segments:
            staged.dumps.append(
                _stage_segment(
                    packets,
                    segment,
                    track,
                    claims,
                    limits,
                    findings,
                    staged,
                    on_staged,
                    on_packet_run,
                )
            )
    packet_runs = _near_packet_runs(staged, track, limits.max_call_hours, findings)
    weight = sum(count for _, count in staged.jitters)
    index = PartIndex(
        channels=staged.channels,
        codec=staged.codec,
        segment_count=len(segments),
        counts=staged.counts,
        jitter_ms=sum(value * count for value, count in staged.jitters) / weight
        if weight
        else None,
        packet_runs=tuple(packet_runs),
        dumps=tuple(staged.dumps),
    )
    index_path.write_bytes(dump_index(index))
    if not packet_runs:
        packets_path.unlink()
    starts_unix_ns = [found.clock.first_server_unix_ns for found in packet_runs]
    return StagedPart(
        track=track,
        packets_file=packets_path.name if packet_runs else "",
        index_file=index_path.name,
        media_samples=sum(staged.media_samples[found.file_offset_bytes] for found in packet_runs),
        first_server_unix_ns=min(starts_unix_ns, default=0),
        last_server_unix_ns=max(starts_unix_ns, default=0),
        ends=tuple(dump.ends for dump in staged.dumps if dump.arrivals_unix_ns is not None),
        stop_server_unix_ns=max((found.stop_server_unix_ns for found in packet_runs), default=0),
        watch=join_watches([staged.watches[found.file_offset_bytes] for found in packet_runs]),
        track_ids=tuple(
            dict.fromkeys(
                segment.timing.track_id for segment in segments if segment.timing.track_id
            )
        ),
    )


def _stage_segment(
    packets: BinaryIO,
    segment: ListedSegment,
    track: TrackKey,
    claims: Claims,
    limits: LimitSettings,
    findings: Findings,
    staged: _Staged,
    on_staged: Callable[[int], None],
    on_packet_run: PacketRunObserver | None,
) -> StagedDump:
    """Stages one segment, and deletes its dump; returns what became of it.

    What is wrong is a finding.
    """
    tally = Tally()
    dump: Dump | None = None
    ingested: IngestedSegment | None = None
    before = len(staged.packet_runs)
    try:
        dump = claims.claim_dump(segment)
        if dump.finding is not None:
            findings.add(dump.finding, track)
        ingested = _ingest_segment(
            packets,
            segment,
            dump,
            track,
            claims,
            limits,
            findings,
            staged,
            on_staged,
            on_packet_run,
            tally,
        )
    except RecordingError as error:
        findings.add(error, track)
    except MemoryError:
        findings.add(no_memory(segment.dump_member), track)
    if ingested is None:
        tally.refuse_rest()
    media_samples = sum(
        staged.media_samples[found.file_offset_bytes] for found in staged.packet_runs[before:]
    )
    packet_count = sum(found.packet_count for found in staged.packet_runs[before:])
    return StagedDump(
        base_filename=segment.base_filename,
        member=None if dump is None else dump.member,
        claim=claim_of(segment.timing if ingested is None else ingested.timing),
        ends=DumpEnds() if ingested is None else ingested.ends,
        arrivals_unix_ns=None if ingested is None else ingested.arrivals_unix_ns,
        records=None if dump is None else tally.records,
        fates=tally.fates,
        packet_ms=media_samples / SAMPLES_PER_MS / packet_count
        if packet_count
        else _USUAL_PACKET_MS,
        told=(Fate.REFUSED,) if ingested is None else ingested.told,
        is_cut_told=ingested is None
        or ingested.is_cut_told
        or (dump is not None and dump.finding is not None),
    )


def _ingest_segment(
    packets: BinaryIO,
    segment: ListedSegment,
    dump: Dump,
    track: TrackKey,
    claims: Claims,
    limits: LimitSettings,
    findings: Findings,
    staged: _Staged,
    on_staged: Callable[[int], None],
    on_packet_run: PacketRunObserver | None,
    tally: Tally,
) -> IngestedSegment:
    """Ingests and stages one segment, and deletes its dump. Raises: RecordingError."""
    member, path = dump.member, dump.path
    assert path is not None, "dumps were passed over"
    codec = segment.timing.codec
    if codec and segment.timing.codec_type not in _CODECS:
        raise UnsupportedCodecError(
            f"{segment.base_filename}: codec is "
            f"{one_line(codec[: caps.MAX_VALUE_CHARACTERS_SHOWN])}, expected audio/opus or "
            "audio/red",
            member=segment.metadata_member,
        )
    rtp_maps = claims.read_description(segment, track, findings)
    if os.path.getsize(path) == 0:
        raise ArchiveError(f"{member}: empty, expected an rtpdump", member=member, byte_offset=0)
    mapped = MappedFile(path)
    ingested = ingest_segment(
        lambda: path.open("rb"),
        mapped.bytes,
        member,
        rtp_maps,
        segment.timing,
        limits,
        tally,
        mapped.let_go,
        claims.head_convention_samples,
        on_packet_run,
    )
    for error in ingested.findings:
        findings.add(error, track)
    _write_packet_runs(packets, ingested, mapped, segment, staged)
    path.unlink()
    on_staged(len(mapped.bytes))
    staged.counts += ingested.counts
    staged.channels = max(staged.channels, ingested.channels)
    if ingested.codec == Codec.RED:
        staged.codec = ingested.codec
    if ingested.jitter_ms is not None:
        staged.jitters.append((ingested.jitter_ms, ingested.counts.received))
    return ingested


def _write_packet_runs(
    packets: BinaryIO,
    ingested: IngestedSegment,
    dump: MappedFile,
    segment: ListedSegment,
    staged: _Staged,
) -> None:
    """Appends a segment's packet runs one after the other."""
    for packet_run in ingested.packet_runs:
        offset = packets.tell()
        records = packet_run.records
        write_packet_run(packets, records, dump.bytes, packet_run.source_offset, dump.let_go)
        last = records[-1]
        staged.packet_runs.append(
            StagedPacketRun(
                base_filename=segment.base_filename,
                track_id=segment.timing.track_id,
                ssrc=packet_run.ssrc,
                packet_count=len(records),
                copy_count=int(records["is_copy"].sum()),
                packets_lost=int(records["lost_before"].sum()),
                media_stop_sample=int(last["media_sample"]) + int(last["duration_samples"]),
                file_offset_bytes=offset,
                clock=packet_run.clock,
                is_encrypted=packet_run.is_encrypted,
            )
        )
        staged.media_samples[offset] = int(records["duration_samples"].sum())
        staged.watches[offset] = packet_run.watch


def _near_packet_runs(
    staged: _Staged, track: TrackKey, max_call_hours: int, findings: Findings
) -> list[StagedPacketRun]:
    """Returns the packet runs less those that lie days from the rest of their track.

    The clock of those is wrong, and most of the file would be silence.
    """
    if not staged.packet_runs:
        return []
    middle_unix_ns = _middle_unix_ns(staged)
    places = {dump.base_filename: place for place, dump in enumerate(staged.dumps)}
    kept = []
    for packet_run in staged.packet_runs:
        start = packet_run.clock.first_server_unix_ns
        apart_ns = max(abs(start - middle_unix_ns), packet_run.stop_server_unix_ns - middle_unix_ns)
        if apart_ns <= max_call_hours * _HOUR_NS:
            kept.append(packet_run)
            continue
        message = (
            f"{packet_run.base_filename}.rtpdump: {packet_run.packet_count} packets lie "
            f"{apart_ns / _HOUR_NS:.1f} h from the rest of their track, expected at most "
            f"{max_call_hours} h (limits.max_call_hours)"
        )
        findings.add(TimelineError(message, member=f"{packet_run.base_filename}.rtpdump"), track)
        _count_as_outside(staged.dumps, places[packet_run.base_filename], packet_run)
    return kept


def _count_as_outside(dumps: list[StagedDump], place: int, packet_run: StagedPacketRun) -> None:
    """Counts a packet run of the dump at a place as outside the limits, which a finding tells."""
    dump, count = dumps[place], packet_run.packet_count - packet_run.copy_count
    fates = {
        **dump.fates,
        Fate.PLACED: dump.fates[Fate.PLACED] - count,
        Fate.OUTSIDE_LIMITS: dump.fates.get(Fate.OUTSIDE_LIMITS, 0) + count,
    }
    dumps[place] = replace(dump, fates=fates, told=(*dump.told, Fate.OUTSIDE_LIMITS))


def _middle_unix_ns(staged: _Staged) -> int:
    """Returns the server time at which the packet run in the middle begins.

    The middle is by media, so that a stray packet does not speak for hours of audio.
    """
    starts = sorted(
        (packet_run.clock.first_server_unix_ns, staged.media_samples[packet_run.file_offset_bytes])
        for packet_run in staged.packet_runs
    )
    half = sum(samples for _, samples in starts) / 2
    middle = starts[0][0]
    for start, samples in starts:
        middle = start
        half -= samples
        if half <= 0:
            break
    return middle
