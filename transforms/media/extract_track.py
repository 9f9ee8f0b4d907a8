"""Copies one track's packets into one file, as they were sent, and says what is in it.

A job: it runs in a codec process. The parts of a track come from any number of archives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from transforms.media.errors import TimelineError
from transforms.media.job import JobHost
from transforms.media.lane_file import (
    FileSegment,
    LaneTarget,
    LeftOutPauses,
    MediaFile,
    describe_file,
    segments_of,
    write_lane,
)
from transforms.media.opus.packet import (
    LOOK_AHEAD_SAMPLES,
)
from transforms.media.rtp.fates import Fate
from transforms.media.rtp.streams import PacketCounts
from transforms.media.track.lanes import LanePlan, LeftOut, Placed, plan_lanes
from transforms.media.track.overlaps import LeftOutReason
from transforms.media.track.staged_packets import PartIndex, StagedDump, load_index, on_call_clocks
from transforms.media.track.timeline import (
    Hole,
)
from transforms.media.values import Codec, Container, PartFiles, Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStats:
    """Figures of a track, and the file that was written of it."""

    file: MediaFile | None
    """None when no file was asked for."""
    channels: int
    codec: Codec
    """RED if any part has it."""
    audio_bandwidth_hz: int
    """The widest of the packets on the time line, copies from RED among them; 0 where all are
    encrypted.
    """
    counts: PacketCounts
    jitter_ms: float | None
    segment_count: int
    track_ids: tuple[str, ...]
    ssrcs: tuple[int, ...]
    segments: tuple[FileSegment, ...]
    duration_samples: int
    media_samples: int
    dtx_samples: int
    hole_samples: int
    """All that is no received packet: pauses, mutes, stalls, losses."""
    begin_unix_ns: int
    """Server time of the file's first sample."""
    pauses_left_out: LeftOutPauses | None
    """None where the file has all pauses."""
    lane: int = 0
    """Which of the track's files; 0 is the first."""
    beside: tuple[TrackStats, ...] = ()
    """Of the first file: what sounds at the same time and is in files of its own. Their `counts`
    and `segment_count` are 0, all is counted here.
    """
    placed: tuple[Placed, ...] = ()
    """Of the first file: the packets of all files by the dump they come from."""
    left_out: tuple[LeftOut, ...] = ()
    """Of the first file: the packets that are in none. With those placed they are all staged."""
    dumps: tuple[tuple[StagedDump, ...], ...] = ()
    """Of the first file: of each part, its segments, and what became of the records of their dumps.
    """


def load_parts(
    parts: Sequence[PartFiles], open_input: Callable[[str], BinaryIO]
) -> tuple[PartIndex, ...]:
    """Returns the indexes of a track's parts, on the clock of their call."""
    indexes = []
    for part in parts:
        with open_input(part.index) as file:
            indexes.append(on_call_clocks(load_index(file.read()), part.server_clock))
    return tuple(indexes)


def extract_track(
    host: JobHost,
    parts: tuple[PartFiles, ...],
    output: Path | None,
    container: Container,
    tags: Tags,
    begin_unix_ns: int | None = None,
    allowed_samples: int | None = None,
    uid: int = 1,
) -> TrackStats:
    """Copies a track's Opus packets into one file, on one time line; what sounds at the same time
    goes into others.

    Args:
      host: gives the staged files; told the samples of each finished file.
      parts: the track's share of each archive.
      output: the local file to write; `lane_path` names those beside it. None measures only.
      container: its format.
      tags: title, artist, date and so on.
      begin_unix_ns: server time at which the file is to begin, when that is before its first
        packet; None for the packet's.
      uid: 64 bits that no other file has, not 0.
      allowed_samples: how long the file may be, the pre-skip included; None for as long as it is.
        A longer one leaves out long pauses.

    Raises:
      TimelineError: no packets at all.
    """
    indexes = load_parts(parts, host.open_input)

    def open_packets(part: int) -> BinaryIO:
        return host.open_input(parts[part].packets)

    plan = plan_lanes(indexes, open_packets)
    if not plan.lanes:
        raise TimelineError("no packets to place, expected at least one")
    channels = max(index.channels for index in indexes)
    # A part of which every packet is there twice adds nothing, and so counts nothing.
    used = [indexes[part] for part in sorted({placed.part for placed in plan.placed})]
    found = []
    packet_count = 0
    for lane, pieces in enumerate(plan.lanes):
        path = lane_path(output, lane) if output is not None else None
        target = LaneTarget(path, container, channels, tags, (uid + lane) % (1 << 64) or 1)
        written = write_lane(pieces, open_packets, target, begin_unix_ns, allowed_samples)
        layout = written.layout
        if allowed_samples is not None:  # what this file takes is not there for the next
            allowed_samples = max(0, allowed_samples - layout.file_samples)
        duration_samples = layout.file_samples - LOOK_AHEAD_SAMPLES
        host.tell_progress(duration_samples)
        packet_count += layout.packet_count
        found.append(
            TrackStats(
                file=describe_file(path, duration_samples, channels) if path is not None else None,
                channels=channels,
                codec=Codec.RED
                if any(index.codec == Codec.RED for index in indexes)
                else Codec.OPUS,
                audio_bandwidth_hz=layout.audio_bandwidth_hz,
                counts=sum((index.counts for index in used if not lane), PacketCounts()),
                jitter_ms=_mean_jitter_ms(used) if not lane else None,
                segment_count=sum(index.segment_count for index in used if not lane),
                track_ids=tuple(dict.fromkeys(piece.packet_run.track_id for piece in pieces)),
                ssrcs=tuple(dict.fromkeys(piece.packet_run.ssrc for piece in pieces)),
                segments=segments_of(pieces, layout.lines),
                duration_samples=duration_samples,
                media_samples=layout.media_samples,
                dtx_samples=int(layout.hole_samples[Hole.DTX]),
                hole_samples=layout.end_sample - layout.media_samples,
                begin_unix_ns=written.begin_unix_ns,
                pauses_left_out=written.pauses_left_out,
                lane=lane,
            )
        )
    check_conservation(indexes, plan, packet_count)
    return replace(
        found[0],
        beside=tuple(found[1:]),
        placed=plan.placed,
        left_out=plan.left_out,
        dumps=_settled_dumps(indexes, plan.left_out),
    )


_FATE_OF = {
    LeftOutReason.EQUAL_DUPLICATE: Fate.ELSEWHERE,
    LeftOutReason.HAND_OVER: Fate.ELSEWHERE,
    LeftOutReason.SHORT_OVERLAP: Fate.TOO_LATE,
    LeftOutReason.TOO_MANY_AT_ONCE: Fate.OUTSIDE_LIMITS,
}


def _settled_dumps(
    indexes: Sequence[PartIndex], left_out: Sequence[LeftOut]
) -> tuple[tuple[StagedDump, ...], ...]:
    """Returns, of each part, what became of its dumps' records in the end."""
    of_dump: dict[tuple[int, str], list[LeftOut]] = {}
    for each in left_out:
        of_dump.setdefault((each.part, each.base_filename), []).append(each)
    return tuple(
        tuple(_settled(dump, of_dump.get((part, dump.base_filename), ())) for dump in index.dumps)
        for part, index in enumerate(indexes)
    )


def _settled(dump: StagedDump, left_out: Sequence[LeftOut]) -> StagedDump:
    fates, told = dict(dump.fates), dump.told
    for each in left_out:
        count = each.packet_count - each.copy_count
        if count:
            fate = _FATE_OF[each.reason]
            fates[Fate.PLACED] -= count
            fates[fate] = fates.get(fate, 0) + count
        if each.reason == LeftOutReason.TOO_MANY_AT_ONCE:
            told = (*told, Fate.OUTSIDE_LIMITS)
    return replace(dump, fates=fates, told=told)


def lane_path(output: Path, lane: int) -> Path:
    """Returns the local file that a lane of a track is written to."""
    return output.with_name(f"{output.stem}_part{lane}{output.suffix}") if lane else output


def check_conservation(indexes: Sequence[PartIndex], plan: LanePlan, written_packets: int) -> None:
    """Checks that each staged packet is in one file, or left out for a reason.

    Raises:
      ValueError: a packet is in none, or in two.
    """
    staged: Counter[tuple[int, str]] = Counter()
    for part, index in enumerate(indexes):
        for packet_run in index.packet_runs:
            staged[part, packet_run.base_filename] += packet_run.packet_count
    told: Counter[tuple[int, str]] = Counter()
    accounts: list[Placed | LeftOut] = [*plan.placed, *plan.left_out]
    for each in accounts:
        told[each.part, each.base_filename] += each.packet_count
    placed = sum(each.packet_count for each in plan.placed)
    if staged != told or placed != written_packets:
        raise ValueError(
            f"packets staged {dict(staged)}, placed or left out {dict(told)}, "
            f"to be placed {placed}, placed {written_packets}"
        )


def _mean_jitter_ms(indexes: Sequence[PartIndex]) -> float | None:
    """Returns the mean jitter over the packets of all parts; None where none has any."""
    known = [index for index in indexes if index.jitter_ms is not None]
    weight = sum(index.counts.received for index in known)
    total = sum((index.jitter_ms or 0.0) * index.counts.received for index in known)
    return total / weight if weight else None
