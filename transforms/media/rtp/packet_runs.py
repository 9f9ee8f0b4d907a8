"""A dump's audio packets as packet runs, in order, on unwrapped time stamps."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.clock.observe import in_order
from transforms.media.rtp.fates import Fate, places_of, reopen, settle
from transforms.media.rtp.payloads import Payloads
from transforms.media.rtp.repeats import split_at_repeats
from transforms.media.rtp.streams import (
    FASTEST_CLOCK,
    PacketCounts,
    PacketRun,
    Stream,
    by_source,
    longest_honest_jump,
    put_in_order,
    split_at_jumps,
    split_at_restarts,
)
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, SAMPLE_RATE_HZ, SAMPLES_PER_MS, Bytes, Ints
from transforms.media.wraparound import unwrap_sequence

_SIGNAL_REACH_MS = 2_000
"""A packet that takes no time comes when the audio of its time does, less what networks add."""
_SIGNAL_REACH_PACKETS = 100
"""The same for dumps without arrivals, in their order."""
_LEAST_PAUSE_SAMPLES = 60 * SAMPLES_PER_MS
"""What arrivals alone tell of a pause is off by as much as the network adds and takes."""
_LEAST_AHEAD_SAMPLES = SAMPLE_RATE_HZ // 4
_MOST_PARTS = 500
_SETTLING_MS = 10_000
"""The first packets may have been held back together: what they come to counts."""
_LEAST_STANDING_PACKETS = 10
"""Fewer packets with the time stamp of the one before are no clock that stands still."""


def find_packet_runs(
    stream: Stream, payloads: Payloads, dump: Bytes, base_unix_ns: int, timing: SegmentTiming
) -> tuple[list[PacketRun], PacketCounts]:
    """Returns each source's audio in order, parted where numbers or time stamps break off.

    Args:
      stream: all packets; those that are there twice get their fate.
      payloads: what they hold.
      dump: the bytes that payloads are positions in.
      base_unix_ns: server time of the dump's offset 0.
      timing: the segment as the metadata states it.

    Returns:
      the packet runs, and the counts of all packets.
    """
    counts = PacketCounts()
    packet_runs: list[PacketRun] = []
    is_audio = payloads.is_audio
    for mine in by_source(stream.ssrc):
        if not is_audio[mine].any():
            counts += PacketCounts(expected=len(mine), received=len(mine))
            continue
        sequels = [
            part
            for sequel in split_at_restarts(stream, mine)
            for part in split_at_repeats(stream, sequel, is_audio, dump)
        ]
        for sequel, conflicting in sequels:
            ordered, lost_before, its_counts = put_in_order(
                stream.sequence_number[sequel], is_audio[sequel]
            )
            counts += its_counts
            picked = sequel[ordered]
            if len(picked) < len(sequel):
                settle(stream.fates, conflicting, Fate.CONFLICTING)
                is_twice = np.ones(len(sequel), dtype=bool)
                is_twice[ordered] = False
                settle(stream.fates, sequel[is_twice], Fate.DUPLICATE)
            del ordered
            has_audio = is_audio[picked]
            if not has_audio.any():
                continue
            if not has_audio.all():
                # Loss before a packet without audio belongs to the next one with audio.
                lost_before = np.diff(np.cumsum(lost_before)[has_audio], prepend=0)
                picked = picked[has_audio]
            lost_before[0] = 0  # what came before the first packet was never this track's
            timestamp = unwrap_sequence(stream.rtp_timestamp[picked], 32)
            if _stands_still(timestamp):
                timestamp = _running_time(
                    int(timestamp[0]),
                    payloads.duration_samples[picked],
                    lost_before,
                    stream.arrival_offset_ms[picked] if stream.has_arrivals else None,
                )
            arrival_unix_ns = stream.arrival_offset_ms[picked]
            arrival_unix_ns *= NS_PER_MS
            arrival_unix_ns += base_unix_ns
            longest_jump_samples = longest_honest_jump(timestamp, timing)
            for part in split_at_jumps(timestamp, arrival_unix_ns, longest_jump_samples):
                packet_runs.append(
                    PacketRun(
                        picked[part],
                        timestamp[part],
                        arrival_unix_ns[part],
                        lost_before[part].astype(np.int32),
                    )
                )
    return packet_runs, counts


def settle_signals(
    stream: Stream, packet_runs: Sequence[PacketRun], duration_samples: npt.NDArray[np.int32]
) -> None:
    """Tells packets of unknown types that take no time of their own from audio that is lost, in
    place.

    Args:
      stream: all packets.
      packet_runs: its audio.
      duration_samples: of each packet of the stream.
    """
    foreign = places_of(stream.fates, Fate.FOREIGN)
    if not foreign.size:
        return
    tried: Counter[int] = Counter()
    places = {int(stream.ssrc[foreign[at[0]]]): at for at in by_source(stream.ssrc[foreign])}
    is_covered = np.zeros(len(foreign), dtype=bool)
    for packet_run in packet_runs:
        ssrc = int(stream.ssrc[packet_run.indices[0]])
        tried[ssrc] += 1
        if tried[ssrc] > caps.MAX_PACKET_RUNS_TRIED_PER_REPORT or ssrc not in places:
            continue
        mine = places[ssrc]
        origin = int(packet_run.timestamp[0])
        begin = packet_run.timestamp - origin
        sent = stream.rtp_timestamp[packet_run.indices]
        if (sent != sent[0] + begin.astype(np.uint32)).any():
            continue  # its time stamps stand still: they say nothing of others either
        wrapped = (stream.rtp_timestamp[foreign[mine]] - np.uint32(origin % (1 << 32))).view(
            np.int32
        )
        at = np.searchsorted(begin, wrapped, side="right") - 1
        there = packet_run.indices[np.maximum(at, 0)]
        end = begin[np.maximum(at, 0)] + duration_samples[there]
        apart_ms = stream.arrival_offset_ms[foreign[mine]] - stream.arrival_offset_ms[there]
        # Seconds later the same time stamps are those of a sender that counts anew.
        is_near = np.abs(apart_ms) <= _SIGNAL_REACH_MS
        if not stream.has_arrivals:
            is_near = np.abs(foreign[mine] - there) <= _SIGNAL_REACH_PACKETS
        is_covered[mine] |= (at >= 0) & (wrapped < end) & is_near
    reopen(stream.fates, foreign[is_covered])
    settle(stream.fates, foreign[is_covered], Fate.SIGNALLING)


def _stands_still(timestamp: Ints) -> bool:
    """Whether time stamps say nothing: most are equal to the one before."""
    equal = int(np.count_nonzero(np.diff(timestamp) == 0))
    return len(timestamp) > _LEAST_STANDING_PACKETS and 2 * equal > len(timestamp)


def _running_time(
    first: int,
    duration_samples: npt.NDArray[np.int32],
    lost_before: Ints,
    arrival_ms: Ints | None,
) -> Ints:
    """Returns time stamps as packets of these durations would have had them.

    A pause is where all that follows comes later than durations and losses account for; what comes
    late and catches up is none. A sender that is slower than its durations pauses now and then; one
    that is faster goes back now and then, where it has to be parted.

    Args:
      first: the first time stamp.
      duration_samples: of packets in sequence order.
      lost_before: packets missing before each.
      arrival_ms: of each; None where it is not known.
    """
    steps = (lost_before[1:] + 1) * duration_samples[:-1].astype(np.int64)
    timestamp = first + np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(steps)])
    if arrival_ms is None:
        return timestamp
    arrived_ms = in_order(arrival_ms)
    behind_samples = arrived_ms * SAMPLES_PER_MS - timestamp
    for part in _parts_in_step(arrived_ms, behind_samples):
        timestamp[part] += _paused_samples(behind_samples[part])
        if part.start:
            timestamp[part] += timestamp[part.start - 1] - timestamp[part.start]
    return timestamp


def _parts_in_step(arrived_ms: Ints, behind_samples: Ints) -> list[slice]:
    """Returns the parts within which packets do not overtake their durations by far.

    Args:
      arrived_ms: when packets came, rising.
      behind_samples: by how much later than durations and losses account for.
    """
    settled = int(np.searchsorted(arrived_ms, arrived_ms[0] + _SETTLING_MS))
    lowest_samples = np.minimum.accumulate(behind_samples)
    # What a clock may be off by is no reason.
    lowest_samples += (arrived_ms - arrived_ms[0]) * SAMPLES_PER_MS // FASTEST_CLOCK
    if lowest_samples[:settled].min() - lowest_samples.min() < _LEAST_AHEAD_SAMPLES:
        return [slice(0, len(behind_samples))]
    overtaken_samples = int(lowest_samples[0] - lowest_samples.min())
    size = max(_LEAST_AHEAD_SAMPLES, overtaken_samples // _MOST_PARTS)
    level = np.maximum.accumulate((lowest_samples[0] - lowest_samples) // size)
    edges = np.flatnonzero(np.diff(np.maximum(level, 0))) + 1
    return list(itertools.starmap(slice, itertools.pairwise([0, *edges.tolist(), len(level)])))


def _paused_samples(behind_samples: Ints) -> Ints:
    """Returns how long a sender had paused before each of some packets."""
    least_samples = np.minimum.accumulate(behind_samples[::-1])[::-1]
    rises = np.diff(least_samples, prepend=least_samples[0])
    is_pause = rises >= _LEAST_PAUSE_SAMPLES
    little_samples = np.cumsum(np.where(is_pause, 0, rises))
    little_samples -= little_samples % _LEAST_PAUSE_SAMPLES
    paused: Ints = np.cumsum(np.where(is_pause, rises, 0)) + little_samples
    return paused
