"""A dump's packets by source, in order, as packet runs.

A packet run is a row of audio packets of one SSRC whose numbers and time stamps go on unbroken. A
new one begins where a sender counts anew, where media time jumps, and where others speak meanwhile.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from transforms.media import caps
from transforms.media.clock.observe import in_order
from transforms.media.opus.packet import MAX_PACKET_SAMPLES
from transforms.media.rtp.packets import SenderReport
from transforms.media.rtp.plausibility import longest
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, SAMPLES_PER_MS, Bytes, Ints
from transforms.media.wraparound import unwrap, unwrap_sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCounts:
    """What became of a track's packets.

    Foreign payloads and padding-only packets count as received.
    """

    expected: int = 0
    received: int = 0
    lost: int = 0
    duplicate: int = 0
    reordered: int = 0
    invalid: int = 0
    recovered_red: int = 0

    def __add__(self, other: PacketCounts) -> PacketCounts:
        return PacketCounts(
            expected=self.expected + other.expected,
            received=self.received + other.received,
            lost=self.lost + other.lost,
            duplicate=self.duplicate + other.duplicate,
            reordered=self.reordered + other.reordered,
            invalid=self.invalid + other.invalid,
            recovered_red=self.recovered_red + other.recovered_red,
        )


JUMP_SAMPLES = 2 * SAMPLE_RATE_HZ
"""Media time running ahead of the arrivals by more than this between two packets is a new origin,
not audio to come.
"""
FASTEST_CLOCK = 400
"""A clock gains or loses less than one in so many: 2,000 ppm, and some for what networks add."""
_OTHERS_PAUSE_NS = NS_PER_SECOND
_RESTART_NUMBERS = 200
"""Numbers further than this from the one before are looked at: late, behind an outage, or counted
anew.
"""
COLUMNS: dict[str, type[np.generic]] = {
    "sequence_number": np.uint16,
    "rtp_timestamp": np.uint32,
    "ssrc": np.uint32,
    "payload_type": np.uint8,
    "arrival_offset_ms": np.int64,
    "payload_offset": np.int64,
    "payload_bytes": np.int32,
}
"""What a dump says of each packet, in 31 bytes."""


@dataclass(slots=True)
class Stream:
    """All RTP packets of a dump in arrival order, as parallel arrays."""

    sequence_number: npt.NDArray[np.uint16]
    rtp_timestamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    payload_type: Bytes
    arrival_offset_ms: Ints
    payload_offset: Ints
    payload_bytes: npt.NDArray[np.int32]
    fates: npt.NDArray[np.uint8]
    """What became of each, as `fates` counts them."""
    sender_reports: tuple[SenderReport, ...]

    @property
    def has_arrivals(self) -> bool:
        """Whether the dump says when its packets arrived; some write the same offset to all."""
        return bool(self.arrival_offset_ms.size and np.ptp(self.arrival_offset_ms))


@dataclass(frozen=True, slots=True)
class PacketRun:
    """Audio packets of one SSRC whose numbers and time stamps go on unbroken, in sequence order.

    All arrays have shape (packets,).
    """

    indices: Ints
    """Places in the stream."""
    timestamp: Ints
    """Unwrapped RTP time stamps."""
    arrival_unix_ns: Ints
    lost_before: npt.NDArray[np.int32]
    """Packets missing before each."""

    def cut(self, edges: list[int]) -> list[PacketRun]:
        """Returns the parts between edges."""
        return [
            PacketRun(
                self.indices[start:stop],
                self.timestamp[start:stop],
                self.arrival_unix_ns[start:stop],
                self.lost_before[start:stop],
            )
            for start, stop in itertools.pairwise(edges)
        ]


def longest_packet_runs(packet_runs: list[PacketRun]) -> list[PacketRun]:
    """Returns those with the most packets, as many as a dump may have, in their order."""
    lengths = [len(packet_run.timestamp) for packet_run in packet_runs]
    return [packet_runs[index] for index in longest(lengths, caps.MAX_PACKET_RUNS)]


def longest_honest_jump(timestamp: Ints, timing: SegmentTiming) -> int | None:
    """Returns how far time stamps may jump ahead where arrivals do not tell, in samples.

    None for any, where the metadata states as long a time as they do.
    """
    if timing.first_rtp_unix_ms is not None and timing.last_rtp_unix_ms is not None:
        stated_samples = (timing.last_rtp_unix_ms - timing.first_rtp_unix_ms) * SAMPLES_PER_MS
        off_samples = abs(int(np.ptp(timestamp)) - stated_samples)
        if off_samples <= caps.LONGEST_JUMP_SAMPLES + stated_samples // FASTEST_CLOCK:
            return None
    return caps.LONGEST_JUMP_SAMPLES


def by_source(ssrc: npt.NDArray[np.uint32]) -> list[Ints]:
    """Returns the places of each SSRC's packets, the SSRCs in order of their first packet."""
    if ssrc.size and (ssrc == ssrc[0]).all():
        return [np.arange(len(ssrc), dtype=np.int64)]
    order = np.argsort(ssrc, kind="stable")
    edges = np.flatnonzero(np.diff(ssrc[order])) + 1
    groups = [group.astype(np.int64) for group in np.split(order, edges) if group.size]
    return sorted(groups, key=lambda group: int(group[0]))


def split_at_restarts(stream: Stream, mine: Ints) -> list[Ints]:
    """Returns a source's packets in order of arrival, parted where it began to count anew.

    Numbers that go far from those before are a restart unless the timestamps say that packets came
    late, or that an outage lies between (RFC 3550 A.1 asks for two in a row that fit; a queue may
    hold back many).

    Args:
      stream: all packets.
      mine: places of the source's packets, in order of arrival.
    """
    number = unwrap_sequence(stream.sequence_number[mine], 16)
    edges = [
        0,
        *(np.flatnonzero(np.abs(np.diff(number)) > _RESTART_NUMBERS) + 1).tolist(),
        len(mine),
    ]
    if len(edges) == 2 or len(edges) > caps.MAX_BREAKS:  # not once, or noise
        return [mine]
    ticks = unwrap_sequence(stream.rtp_timestamp[mine], 32)
    offset_ms = stream.arrival_offset_ms[mine]
    sequels: list[_Sequel] = []
    for start, stop in itertools.pairwise(edges):
        chunk = _Chunk(start, stop, int(number[start]), int(ticks[start]), int(offset_ms[start]))
        home = next(
            (
                sequel
                for sequel in reversed(sequels[-caps.MAX_SEQUELS_TRIED :])
                if sequel.takes(chunk)
            ),
            None,
        )
        if home is None:
            home = _Sequel()
            sequels.append(home)
        home.add(chunk, number, ticks, offset_ms)
    return [
        np.concatenate([mine[chunk.start : chunk.stop] for chunk in sequel.chunks])
        for sequel in sequels
    ]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Packets in order of arrival whose numbers are near each other, and what the first says."""

    start: int
    stop: int
    number: int
    ticks: int
    offset_ms: int


@dataclass(slots=True)
class _Sequel:
    """Chunks whose numbers count on from each other."""

    chunks: list[_Chunk] = field(default_factory=list)
    lowest: tuple[int, int] = (0, 0)
    """Number and timestamp of the packet of the lowest number, counted by the unwrapping of the
    whole source.
    """
    highest: tuple[int, int] = (0, 0)
    highest_offset_ms: int = 0
    ticks_per_number: float = 0.0

    def takes(self, chunk: _Chunk) -> bool:
        """Whether a chunk fits by number and timestamp: late, or behind an outage."""
        slack = JUMP_SAMPLES
        ahead = _signed(chunk.number - self.highest[0], 16)
        moved_samples = _signed(chunk.ticks - self.highest[1], 32)
        if ahead > 0:
            waited_samples = max(0, chunk.offset_ms - self.highest_offset_ms) * SAMPLES_PER_MS
            least = ahead * self.ticks_per_number / 2 - slack
            return least <= moved_samples <= waited_samples + slack
        # Behind: within what came already the timestamp lies between; before it, as far back as its
        # number.
        least = _signed(self.lowest[1] - self.highest[1], 32) - slack
        if chunk.number < self.lowest[0]:
            least -= round(2 * self.ticks_per_number * (self.lowest[0] - chunk.number))
        most = ahead * self.ticks_per_number / 2 + slack
        return least <= moved_samples <= most

    def add(self, chunk: _Chunk, number: Ints, ticks: Ints, offset_ms: Ints) -> None:
        """Takes a chunk; the arrays are those of the whole source."""
        part = slice(chunk.start, chunk.stop)
        low, high = (
            int(number[part].argmin()) + chunk.start,
            int(number[part].argmax()) + chunk.start,
        )
        if not self.chunks or number[low] < self.lowest[0]:
            self.lowest = (int(number[low]), int(ticks[low]))
        if not self.chunks or number[high] > self.highest[0]:
            self.highest, self.highest_offset_ms = (
                (int(number[high]), int(ticks[high])),
                int(offset_ms[high]),
            )
        if high != low and number[high] != number[low]:
            rate = float((ticks[high] - ticks[low]) / (number[high] - number[low]))
            self.ticks_per_number = min(max(rate, 0.0), float(MAX_PACKET_SAMPLES))
        self.chunks.append(chunk)


def _signed(difference: int, bits: int) -> int:
    return unwrap(difference, 0, bits)


def put_in_order(
    sequence_number: npt.NDArray[np.uint16], is_audio: npt.NDArray[np.bool_]
) -> tuple[Ints, Ints, PacketCounts]:
    """Returns indices in sequence order without duplicates, packets missing before each, counts.

    Args:
      sequence_number: in order of arrival; at least one.
      is_audio: of each; of those with one number the first with audio is taken.
    """
    extended = unwrap_sequence(sequence_number, 16)
    lost_before = np.diff(extended, prepend=extended[0] - 1) - 1
    if int(lost_before.min()) >= 0:  # in order as they came, as nearly all are
        expected, received = int(extended[-1] - extended[0] + 1), len(extended)
        counts = PacketCounts(expected=expected, received=received, lost=expected - received)
        return np.arange(received, dtype=np.int64), lost_before, counts
    order = np.lexsort((~is_audio, extended))  # stable: of equals the first to arrive stays first
    is_first = np.diff(extended[order], prepend=extended[order[0]] - 1) > 0
    first_index = order[is_first]
    kept = extended[first_index]
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


def split_at_jumps(
    timestamp: Ints, arrival_unix_ns: Ints, longest_jump_samples: int | None
) -> list[slice]:
    """Returns the parts within which media time runs forward, and not ahead of the arrivals.

    A network that held packets back lets media time catch up with the arrivals, never overtake
    them: what counts is by how much a packet comes earlier than any before it could have.

    Args:
      timestamp: unwrapped RTP time stamps in sequence order.
      arrival_unix_ns: of the same packets; all equal where the dump has no arrivals.
      longest_jump_samples: how far time stamps may jump ahead without arrivals; None for any.
    """
    steps_samples = np.diff(timestamp)
    is_break = steps_samples <= 0
    delay_samples = (
        in_order(arrival_unix_ns) - arrival_unix_ns.min()
    )  # in place: there are millions
    delay_samples *= SAMPLE_RATE_HZ
    delay_samples //= NS_PER_SECOND
    delay_samples -= timestamp
    delay_samples += timestamp[0]
    has_arrivals = bool(np.ptp(arrival_unix_ns))
    is_ahead = np.diff(delay_samples) < -JUMP_SAMPLES if has_arrivals else np.zeros_like(is_break)
    if not has_arrivals and longest_jump_samples is not None:
        is_break |= steps_samples > longest_jump_samples
    places = np.flatnonzero(is_break | is_ahead) + 1
    edges = [0]
    if places.size > caps.MAX_BREAKS:  # noise: not one by one
        bounds = np.concatenate([[0], places, [len(timestamp)]])
        kept = np.sort(np.argsort(-np.diff(bounds), kind="stable")[: caps.MAX_PACKET_RUNS])
        return [slice(int(bounds[at]), int(bounds[at + 1])) for at in kept.tolist()]
    if places.size:
        # A slow clock falls behind what packets were before, and may jump ahead of that.
        delay_samples -= (timestamp - timestamp[0]) // FASTEST_CLOCK
        starts = [0, *places.tolist()]
        least = np.minimum.reduceat(delay_samples, starts).tolist()
        so_far = least[0]
        for number, place in enumerate(places.tolist(), 1):
            if is_break[place - 1] or int(delay_samples[place]) < so_far - JUMP_SAMPLES:
                edges.append(place)
                so_far = least[number]
            so_far = min(so_far, least[number])
    return [slice(start, stop) for start, stop in itertools.pairwise([*edges, len(timestamp)])]


def split_where_others_speak(packet_runs: list[PacketRun]) -> list[PacketRun]:
    """Returns packet runs, parted where one pauses and packets of another source come.

    What is said there has its place in between.
    """
    if len(packet_runs) < 2:
        return packet_runs
    all_unix_ns = np.sort(np.concatenate([each.arrival_unix_ns for each in packet_runs]))
    found: list[PacketRun] = []
    for packet_run in packet_runs:
        own_unix_ns = np.sort(packet_run.arrival_unix_ns)
        ordered_unix_ns = in_order(packet_run.arrival_unix_ns)
        pauses = np.flatnonzero(np.diff(ordered_unix_ns) >= _OTHERS_PAUSE_NS)
        begin, end = ordered_unix_ns[pauses], ordered_unix_ns[pauses + 1]
        others = _count_between(all_unix_ns, begin, end) - _count_between(own_unix_ns, begin, end)
        edges = [0, *(pauses[others > 0] + 1).tolist(), len(packet_run.timestamp)]
        found += packet_run.cut(edges)
    return found


def _count_between(values: Ints, begin: Ints, end: Ints) -> Ints:
    """Returns how many of rising values lie between each two ends, which do not count."""
    count: Ints = np.searchsorted(values, end, "left") - np.searchsorted(values, begin, "right")
    return count
