"""What timing metadata claims of a segment, against what its dump holds.

The metadata says by RTP time and by the server's clock when the first and the last packet came. A
dump that begins later or ends earlier has lost audio; its own packets cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from transforms.media.rtp.fates import AUDIO_MISSING, Fate, FateCounts
from transforms.media.rtp.timing_metadata import SegmentTiming
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, SAMPLE_RATE_HZ, SAMPLES_PER_MS
from transforms.media.wraparound import unwrap

ENDS_AGREE_SAMPLES = 60 * SAMPLES_PER_MS
"""Packets are up to 120 ms long, and the first to arrive is not always the first that was sent."""
CLOCKS_AGREE_NS = NS_PER_SECOND
_SAME_SAMPLES = 20 * SAMPLES_PER_MS
_LEAST_OF_CONVENTION = 3
"""Segments of an archive that must differ alike before it is taken for a way of writing."""
_LONGEST_CONVENTION_SAMPLES = SAMPLE_RATE_HZ
_SCANNED_PACKETS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentClaim:
    """Where a segment begins and ends by its metadata; None where that does not say."""

    first_unix_ms: int | None
    last_unix_ms: int | None
    rtp_samples: int | None
    """From the first to the last packet by RTP time, the nearest to the server's clock of all that
    are equal modulo 2**32.
    """

    @property
    def has_packets(self) -> bool:
        """Whether any packet came, by the server's clock."""
        return self.first_unix_ms is not None or self.last_unix_ms is not None

    @property
    def span_ms(self) -> int | None:
        """From the first to the last packet: by the server's clock, else by RTP time."""
        if self.first_unix_ms is not None and self.last_unix_ms is not None:
            return max(0, self.last_unix_ms - self.first_unix_ms)
        return None if self.rtp_samples is None else round(self.rtp_samples / SAMPLES_PER_MS)


def without_unset(timing: SegmentTiming) -> SegmentTiming:
    """Returns a segment's metadata without RTP time stamps that say nothing: both are equal, and
    the server's clock has more than a second between the packets.
    """
    first_ms, last_ms = timing.first_rtp_unix_ms, timing.last_rtp_unix_ms
    if (
        timing.first_rtp_timestamp != timing.last_rtp_timestamp
        or first_ms is None
        or last_ms is None
        or last_ms - first_ms <= CLOCKS_AGREE_NS // NS_PER_MS
    ):
        return timing
    return replace(timing, first_rtp_timestamp=None, last_rtp_timestamp=None)


def claim_of(timing: SegmentTiming) -> SegmentClaim:
    """Returns what the metadata claims of a segment."""
    rtp_samples = None
    if timing.first_rtp_timestamp is not None and timing.last_rtp_timestamp is not None:
        near_samples = 0
        if timing.first_rtp_unix_ms is not None and timing.last_rtp_unix_ms is not None:
            span_ms = timing.last_rtp_unix_ms - timing.first_rtp_unix_ms
            near_samples = max(0, span_ms) * SAMPLES_PER_MS
        rtp_samples = unwrap(
            timing.last_rtp_timestamp - timing.first_rtp_timestamp, near_samples, 32
        )
        rtp_samples = rtp_samples if rtp_samples >= 0 else None
    return SegmentClaim(
        first_unix_ms=timing.first_rtp_unix_ms,
        last_unix_ms=timing.last_rtp_unix_ms,
        rtp_samples=rtp_samples,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpEnds:
    """By how much less a dump holds than its metadata claims, at both ends; None where that is not
    known. Negative where the nearest packet lies outside of what is claimed.
    """

    head_samples: int | None = None
    """By RTP time, from the claimed first packet to the nearest one there; 0 within 60 ms."""
    tail_samples: int | None = None
    tail_ns: int | None = None
    """By the server's clock, from the last packet's arrival to the claimed one."""


def nearest_samples(
    rtp_timestamp: npt.NDArray[np.uint32], claimed: int, *, from_end: bool
) -> tuple[int, int]:
    """Returns how far after a claimed RTP time stamp the nearest packet's is, and its place.

    Args:
      rtp_timestamp: of packets in order of arrival; at least one.
      claimed: the time stamp the metadata states.
      from_end: look at the last packet first, which is the nearest in a whole dump.
    """
    place = len(rtp_timestamp) - 1 if from_end else 0
    apart = unwrap(int(rtp_timestamp[place]) - claimed, 0, 32)
    if abs(apart) <= ENDS_AGREE_SAMPLES:
        return apart, place
    for start in range(0, len(rtp_timestamp), _SCANNED_PACKETS):
        window = rtp_timestamp[start : start + _SCANNED_PACKETS]
        distance = (window - np.uint32(claimed % (1 << 32))).view(np.int32).astype(np.int64)
        at = int(np.abs(distance).argmin())
        if abs(int(distance[at])) < abs(apart):
            apart, place = int(distance[at]), start + at
    return apart, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Conventions:
    """What most segments of an archive have in common: their writer's way of stating ends, nothing
    that is missing. 0 for none.
    """

    head_samples: int = 0
    tail_samples: int = 0

    def __bool__(self) -> bool:
        return bool(self.head_samples or self.tail_samples)

    def __str__(self) -> str:
        parts = [
            f"{name}_rtp_rtp_timestamp lies {abs(samples) / SAMPLES_PER_MS:.0f} ms "
            f"{'before' if samples > 0 else 'after'} the {name} packets of the dumps"
            for name, samples in (("first", self.head_samples), ("last", -self.tail_samples))
            if samples
        ]
        return f"in most segments {' and '.join(parts)}" if parts else ""


def common_samples(values: Sequence[int]) -> int:
    """Returns by how much most segments differ, 0 where they do not differ alike.

    Args:
      values: of one end of each segment of an archive, in samples.
    """
    if len(values) < _LEAST_OF_CONVENTION:
        return 0
    middle = int(np.median(values))
    alike = sum(abs(value - middle) <= _SAME_SAMPLES for value in values)
    is_common = alike >= _LEAST_OF_CONVENTION and 3 * alike > 2 * len(values)
    is_usual = ENDS_AGREE_SAMPLES < abs(middle) <= _LONGEST_CONVENTION_SAMPLES
    return middle if is_common and is_usual else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """What is missing of a segment."""

    head_ms: float = 0.0
    tail_ms: float = 0.0
    packets: tuple[tuple[Fate, int], ...] = ()
    """What came, may be audio, and is in no file, by its fate."""
    packets_ms: float = 0.0
    """The length of those."""
    is_misfit: bool = False
    """Whether the time stamps of the dump are not those that the metadata claims."""

    @property
    def missing_ms(self) -> int:
        """All of it."""
        return round(self.head_ms + self.tail_ms + self.packets_ms)


def shortfall(
    claim: SegmentClaim,
    ends: DumpEnds | None,
    fates: FateCounts,
    packet_ms: float,
    conventions: Conventions,
) -> Shortfall:
    """Returns what is missing of a segment.

    Args:
      claim: what the metadata says.
      ends: how its dump differs; None where it has no RTP packets.
      fates: of the records of the dump.
      packet_ms: how long a packet of it lasts.
      conventions: of the archive.
    """
    lost = tuple((fate, fates[fate]) for fate in AUDIO_MISSING if fates.get(fate))
    if ends is None:
        return Shortfall(tail_ms=claim.span_ms or 0, packets=lost)
    head, tail = ends.head_samples, ends.tail_samples
    head = _less_convention(head, conventions.head_samples)
    tail = _less_convention(tail, conventions.tail_samples)
    head_ms, tail_ms, is_misfit = 0.0, 0.0, False
    # What lies further off than the segment is long is of another origin.
    most = (claim.span_ms or 0) * SAMPLES_PER_MS + ENDS_AGREE_SAMPLES
    for value in (head, tail):
        is_misfit |= value is not None and not -ENDS_AGREE_SAMPLES <= value <= most
    if not is_misfit:
        head_ms = _missing_ms(head)
        tail_ms = _missing_ms(tail)
    if not tail_ms and ends.tail_ns is not None and ends.tail_ns > CLOCKS_AGREE_NS:
        # RTP time says nothing, or that of an earlier packet, of another origin.
        tail_ms = ends.tail_ns / NS_PER_MS
    return Shortfall(
        head_ms=head_ms,
        tail_ms=tail_ms,
        packets=lost,
        packets_ms=sum(count for _, count in lost) * packet_ms,
        is_misfit=is_misfit,
    )


def _less_convention(samples: int | None, convention_samples: int) -> int | None:
    """Returns by how much an end differs; one that agrees as it stands is not the convention's."""
    if samples is None or abs(samples) <= ENDS_AGREE_SAMPLES:
        return samples
    return samples - convention_samples


def _missing_ms(samples: int | None) -> float:
    is_missing = samples is not None and samples > ENDS_AGREE_SAMPLES
    return (samples or 0) / SAMPLES_PER_MS if is_missing else 0.0


def find_conventions(ends: Iterable[DumpEnds]) -> Conventions:
    """Returns what most segments of an archive have in common. Args: ends: of those with packets
    and claims.
    """
    heads, tails = [], []
    for each in ends:
        if each.head_samples is not None:
            heads.append(each.head_samples)
        if each.tail_samples is not None:
            tails.append(each.tail_samples)
    return Conventions(head_samples=common_samples(heads), tail_samples=common_samples(tails))
