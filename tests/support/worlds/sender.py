"""What one participant session sends: its media clock, segments, packets and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.support.worlds.model import PACKET, Event
from tests.support.worlds.network import Floats, between, event, how_many
from tests.support.worlds.ranges import Ranges

SAMPLE_RATE_HZ = 48_000
_WARM_S = 600.0
_USUAL_SEGMENT_S = 4.0
"""Of a session with little media: how long a segment lasts at least, in the mean."""
_FACTORS = (8 / 48, 16 / 48, 24 / 48, 32 / 48, 44.1 / 48, 2.0, 3.0)
"""Time stamps in steps of another rate; frames counted twice, or three times too fast."""


@dataclass(frozen=True, slots=True)
class MediaClock:
    """A capture device: media samples by true time. It may stand."""

    start_s: float
    skew: float
    warming: float
    stall_at_s: Floats
    stall_s: Floats

    def running_s(self, at_s: Floats) -> Floats:
        """Returns for how long the device had run, what it stood taken off."""
        gone = np.zeros_like(at_s)
        for at, length in zip(self.stall_at_s, self.stall_s, strict=True):
            gone += np.clip(at_s - at, 0.0, length)
        return at_s - self.start_s - gone

    def _media_s(self, running_s: Floats) -> Floats:
        warm = running_s - _WARM_S * (1 - np.exp(-running_s / _WARM_S))
        return running_s * (1 + self.skew) + self.warming * warm

    def media_sample(self, at_s: Floats) -> Floats:
        """Returns the media time at some moments, in samples since the session's start."""
        return self._media_s(self.running_s(at_s)) * SAMPLE_RATE_HZ

    def true_s(self, media_sample: Floats) -> Floats:
        """Returns when the device had come to some media times."""
        media_s = media_sample / SAMPLE_RATE_HZ
        running = media_s / (1 + self.skew)
        for _ in range(3):  # the rate is 1 to some thousandths: each turn adds three digits
            running += media_s - self._media_s(running)
        stalls_before = self.stall_at_s - self.start_s
        stalls_before = stalls_before - (np.cumsum(self.stall_s) - self.stall_s)
        true = running + self.start_s
        for at, length in zip(stalls_before, self.stall_s, strict=True):
            true += np.where(running > at, length, 0.0)
        return true


@dataclass(slots=True)
class _Numbers:
    """The source that packets are counted by."""

    ssrc: int
    sequence: int
    origin: int
    """RTP time stamp of media time 0, modulo 2**32."""
    packet_run: int = 0
    first: tuple[int, int] = (0, 0)
    """Sequence number and time stamp at which the source began."""


@dataclass(slots=True)
class Sent:
    """What a session sent, and what happened to it."""

    packets: npt.NDArray[np.void]
    clock: MediaClock
    segments_s: list[tuple[float, float]]
    factor: float
    packet_samples: int
    events: list[Event] = field(default_factory=list)


def draw_clock(
    rng: np.random.Generator, ranges: Ranges, segments: Sequence[tuple[float, float]]
) -> MediaClock:
    """Draws a capture device, which may stand while something is sent."""
    skew = float(np.clip(rng.normal(0, ranges.skew_ppm), -ranges.skew_cut_ppm, ranges.skew_cut_ppm))
    if rng.random() < ranges.odd_skew:
        skew = between(rng, ranges.odd_skew_ppm) * rng.choice([-1, 1])
    warming = 0.0
    if rng.random() < ranges.warming:
        warming = between(rng, ranges.warming_ppm) * rng.choice([-1, 1])
    at: list[float] = []
    length: list[float] = []
    if rng.random() < ranges.stalls:
        for _ in range(how_many(rng, ranges.stall_count)):
            near = at and rng.random() < 0.4
            at.append(at[-1] + rng.uniform(0.1, 3) if near else _while_sending(rng, segments))
            length.append(between(rng, ranges.stall_s))
    order = np.argsort(at) if at else np.zeros(0, dtype=np.int64)
    starts, lengths = np.array(at)[order], np.array(length)[order]
    for number in range(1, len(starts)):
        earliest = starts[number - 1] + lengths[number - 1] + 0.02
        starts[number] = max(starts[number], earliest)
    return MediaClock(segments[0][0], skew * 1e-6, warming * 1e-6, starts, lengths)


def _while_sending(rng: np.random.Generator, segments: Sequence[tuple[float, float]]) -> float:
    """Draws a moment of all those in segments."""
    lengths = np.array([stop - start for start, stop in segments])
    past = rng.uniform(0, lengths.sum())
    place = int(np.searchsorted(np.cumsum(lengths), past))
    return float(segments[place][1] - (np.cumsum(lengths)[place] - past))


def draw_segments(
    rng: np.random.Generator, ranges: Ranges, start_s: float, stop_s: float
) -> list[tuple[float, float]]:
    """Draws when a session sends, between two moments."""
    if ranges.media_s is not None:
        media_s = between(rng, ranges.media_s) * 0.98  # a fast clock sends a little more
        # Segments of a second show nothing, and would be most of all rows.
        count = min(how_many(rng, ranges.segment_count), max(1, int(media_s / _USUAL_SEGMENT_S)))
        lengths = rng.dirichlet(np.full(count, 2.0)) * media_s
        gaps = rng.uniform(*ranges.gap_s, count)
        gaps[0] = 0
        begins = start_s + np.cumsum(gaps) + np.cumsum(lengths) - lengths
        return [(float(b), float(b + n)) for b, n in zip(begins, lengths, strict=True) if n > 0.15]
    count = how_many(rng, ranges.segment_count)
    gaps = rng.uniform(*ranges.gap_s, count - 1)
    while gaps.sum() > 0.6 * (stop_s - start_s):
        gaps = gaps[:-1]
    media_s = stop_s - start_s - gaps.sum()
    lengths = rng.dirichlet(np.full(len(gaps) + 1, 2.0)) * media_s
    begins = start_s + np.cumsum([0.0, *gaps]) + np.cumsum(lengths) - lengths
    return [(float(b), float(b + n)) for b, n in zip(begins, lengths, strict=True) if n > 0.15]


def draw_sent(rng: np.random.Generator, ranges: Ranges, start_s: float, stop_s: float) -> Sent:
    """Draws all that a session sends between two moments."""
    segments = draw_segments(rng, ranges, start_s, stop_s)
    end_s = max(stop for _, stop in segments)
    clock = draw_clock(rng, ranges, segments)
    events = [
        event(at, length, f"stall {1000 * length:.1f} ms")
        for at, length in zip(clock.stall_at_s.tolist(), clock.stall_s.tolist(), strict=True)
    ]
    factor = 1.0
    if rng.random() < ranges.factor_clock:
        factor = float(rng.choice(_FACTORS))
        events.append(event(start_s, 0, f"RTP time stamps {factor:.4f} times too fast"))
    duration_ms = int(rng.choice([10, 40, 60])) if rng.random() < ranges.odd_packets else 20
    changes: list[tuple[float, int]] = []
    if rng.random() < ranges.packet_change:
        later = int(rng.choice([ms for ms in (10, 20, 40, 60) if ms != duration_ms]))
        changes.append((float(rng.uniform(start_s, end_s)), later))
        events.append(event(changes[0][0], 0, f"packets of {later} ms"))
    mutes: list[tuple[float, float]] = []
    if rng.random() < ranges.mute:
        begin, stop = segments[rng.integers(len(segments))]
        length = min(float(rng.uniform(1, 60)), 0.6 * (stop - begin))
        at = float(rng.uniform(begin, stop - length))
        mutes.append((at, at + length))
        events.append(event(at, length, "mute"))
    restarts = _draw_restarts(rng, ranges, segments)
    pauses = _draw_pauses(rng, start_s, end_s) if rng.random() < ranges.dtx else []
    if pauses:
        events.append(event(start_s, 0, "DTX"))
    tables, numbers = [], _new_numbers(rng)
    for segment, (begin, stop) in enumerate(segments):
        if segment and rng.random() < ranges.new_source:
            run = numbers.packet_run
            numbers = _new_numbers(rng)
            numbers.packet_run = run
            events.append(event(begin, 0, f"segment {segment}: new source"))
        elif segment:
            events.append(event(begin, 0, f"segment {segment}: numbers go on"))
        numbers.packet_run += segment > 0
        edges = [(begin, "")]
        edges += [(at, what) for at, what in restarts if begin < at < stop]
        edges += [(at, str(ms)) for at, ms in changes if begin < at < stop]
        edges.sort()
        is_first = True
        for number, (at, what) in enumerate(edges):
            until = edges[number + 1][0] if number + 1 < len(edges) else stop
            if what and not what.isdigit():
                events.append(event(at, 0, f"restart: {what}"))
                _restart(rng, numbers, what)
                at += 0.0 if rng.random() < 0.5 else float(rng.uniform(0.02, 2.0))
                is_first = True
            # What changed before this stretch began holds on.
            now_ms = next((ms for when, ms in reversed(changes) if when <= at), duration_ms)
            table = _packets(clock, at, until, now_ms, pauses, mutes)
            if not len(table):
                continue
            _number(table, numbers, clock, factor, is_again=what == "same numbers", first=is_first)
            is_first = False
            table["segment"] = segment
            tables.append(table)
    return Sent(
        packets=np.concatenate(tables) if tables else np.zeros(0, dtype=PACKET),
        clock=clock,
        segments_s=segments,
        factor=factor,
        packet_samples=duration_ms * 48,
        events=events,
    )


def _new_numbers(rng: np.random.Generator) -> _Numbers:
    return _Numbers(
        ssrc=int(rng.integers(1, 1 << 32)),
        sequence=int(rng.integers(1 << 16)),
        origin=int(rng.integers(1 << 32)),
    )


def _draw_restarts(
    rng: np.random.Generator, ranges: Ranges, segments: list[tuple[float, float]]
) -> list[tuple[float, str]]:
    found = []
    for what, chance in (
        ("new SSRC", ranges.ssrc_change),
        ("time stamp jump", ranges.timestamp_jump),
        ("same numbers", ranges.same_again),
    ):
        if rng.random() < chance:
            begin, stop = segments[rng.integers(len(segments))]
            found.append((float(rng.uniform(begin, stop)), what))
    return sorted(found)


def _restart(rng: np.random.Generator, numbers: _Numbers, what: str) -> None:
    """Changes the numbers as a sender does that begins again."""
    numbers.packet_run += 1
    if what == "new SSRC":
        fresh = _new_numbers(rng)
        numbers.ssrc, numbers.sequence, numbers.origin = fresh.ssrc, fresh.sequence, fresh.origin
    elif what == "time stamp jump":
        numbers.origin = int(rng.integers(1 << 32))


def _draw_pauses(rng: np.random.Generator, start_s: float, stop_s: float) -> list[Floats]:
    """Draws pauses of speech, in which packets are withheld but for one each 400 ms."""
    count = math.ceil((stop_s - start_s) / 1.0) + 1
    talk = rng.uniform(0.5, 8.0, count)
    rest = rng.uniform(0.3, 8.0, count)
    begin = start_s + np.cumsum(talk + rest) - rest
    kept = begin < stop_s
    return [begin[kept], (begin + rest)[kept]]


def _packets(
    clock: MediaClock,
    start_s: float,
    stop_s: float,
    duration_ms: int,
    pauses: list[Floats],
    mutes: list[tuple[float, float]],
) -> npt.NDArray[np.void]:
    """Returns the packets that are sent between two moments, with media times as time stamps."""
    samples = duration_ms * 48
    first, last = clock.media_sample(np.array([start_s, stop_s]))
    count = int((last - math.ceil(first)) // samples) if stop_s > start_s else 0
    if count < 1:
        return np.zeros(0, dtype=PACKET)
    media = math.ceil(first) + samples * np.arange(count, dtype=np.int64)
    sent_s = clock.true_s((media + samples).astype(np.float64))
    kept = np.ones(count, dtype=bool)
    if pauses and len(pauses[0]):
        begins, stops = pauses
        place = np.searchsorted(begins, sent_s) - 1
        inside = (place >= 0) & (sent_s < stops[place])
        past_s = sent_s - begins[np.maximum(place, 0)]
        step_s = samples / SAMPLE_RATE_HZ
        kept &= ~inside | (past_s % 0.4 < step_s) & (past_s > 0.3)
    for begin, stop in mutes:
        kept &= (sent_s < begin) | (sent_s >= stop)
    table = np.zeros(int(kept.sum()), dtype=PACKET)
    table["sent_ns"] = np.rint(sent_s[kept] * 1e9)
    table["number"] = media[kept]  # until they are numbered
    table["duration_ms"] = duration_ms
    return table


def _number(
    table: npt.NDArray[np.void],
    numbers: _Numbers,
    clock: MediaClock,
    factor: float,
    *,
    is_again: bool,
    first: bool,
) -> None:
    """Gives packets their source, numbers and time stamps, in place."""
    media = table["number"].copy()
    if is_again and first:
        numbers.sequence = numbers.first[0]
        numbers.origin = numbers.first[1] - round(int(media[0]) * factor)
    table["ssrc"] = numbers.ssrc
    table["packet_run"] = numbers.packet_run
    sequence = numbers.sequence + np.arange(len(table), dtype=np.int64)
    table["sequence"] = (sequence & 0xFFFF).astype(np.uint16)
    ticks = numbers.origin + np.rint(media * factor).astype(np.int64)
    table["timestamp"] = (ticks & 0xFFFF_FFFF).astype(np.uint32)
    if first and not is_again:
        numbers.first = (int(table["sequence"][0]), int(ticks[0]))
    numbers.sequence = int(sequence[-1]) + 1
