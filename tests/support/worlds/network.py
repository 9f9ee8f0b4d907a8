"""What the network does to packets of one session: how long they take, which are lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support.worlds.model import Event
from tests.support.worlds.ranges import Range, Ranges

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_LEAST_DELAY_S = 0.001


def between(rng: np.random.Generator, ends: Range) -> float:
    """Draws a number between two ends."""
    return float(rng.uniform(*ends))


def how_many(rng: np.random.Generator, ends: tuple[int, int]) -> int:
    """Draws a count between two ends, both included."""
    return int(rng.integers(ends[0], ends[1] + 1))


def event(at_s: float, length_s: float, what: str) -> Event:
    """Returns an event of times in seconds."""
    return Event(at_ns=round(at_s * 1e9), stop_ns=round((at_s + length_s) * 1e9), what=what)


@dataclass(frozen=True, slots=True)
class Network:
    """The way of one session's packets to the server."""

    knots_s: Floats
    base_s: Floats
    """The path's delay at the knots, straight between."""
    queue_knots_s: Floats
    queue_s: Floats
    jitter_s: float
    jitter_shape: float
    spike_at_s: Floats
    spike_s: Floats
    loss: float
    gone_s: tuple[tuple[float, float], ...]
    """Bursts and outages, in which nothing passes."""
    events: tuple[Event, ...]

    def path(self, at_s: Floats) -> Floats:
        """Returns the path's own delay at some moments."""
        return np.interp(at_s, self.knots_s, self.base_s)

    def delays(self, rng: np.random.Generator, at_s: Floats) -> Floats:
        """Draws the delays of packets that were sent at some moments, rising."""
        delay = self.path(at_s)
        delay += np.interp(at_s, self.queue_knots_s, self.queue_s)
        if self.jitter_s > 0:
            scale = self.jitter_s / self.jitter_shape
            delay += rng.gamma(self.jitter_shape, scale, len(at_s))
        for start, height in zip(self.spike_at_s, self.spike_s, strict=True):
            first, last = np.searchsorted(at_s, [start, start + height])
            delay[first:last] += start + height - at_s[first:last]
        return delay

    def lost(self, rng: np.random.Generator, at_s: Floats) -> Flags:
        """Draws which packets are lost."""
        lost: Flags = rng.random(len(at_s)) < self.loss
        for start, stop in self.gone_s:
            first, last = np.searchsorted(at_s, [start, stop])
            lost[first:last] = True
        return lost


def draw_network(
    rng: np.random.Generator, ranges: Ranges, start_s: float, stop_s: float
) -> Network:
    """Draws what a session's packets meet between two moments."""
    events: list[Event] = []
    floor = between(rng, ranges.floor_ms) / 1000
    knots, base = [start_s - 1], [floor]
    if rng.random() < ranges.paths:
        count = how_many(rng, ranges.path_count)
        for at in np.sort(rng.uniform(start_s, stop_s, count)).tolist():
            by = between(rng, ranges.path_ms) / 1000
            length = 1e-6 if rng.random() < 0.5 else between(rng, ranges.path_s)
            at = max(at, knots[-1] + 1e-6)
            level = max(_LEAST_DELAY_S, base[-1] + by)
            events.append(event(at, length, f"path {1000 * (level - base[-1]):+.1f} ms"))
            knots += [at, at + length]
            base += [base[-1], level]
    queue_knots, queue = [start_s - 1], [0.0]
    if rng.random() < ranges.queues:
        count = how_many(rng, ranges.queue_count)
        for at in np.sort(rng.uniform(start_s, stop_s, count)).tolist():
            at = max(at, queue_knots[-1] + 1e-6)
            rise, fall = between(rng, ranges.queue_s), between(rng, ranges.queue_s)
            fall = min(fall, rise)
            height = between(rng, ranges.queue_ms) / 1000
            events.append(
                event(at, rise + fall, f"queue {1000 * height:.0f} ms up in {rise:.1f} s")
            )
            queue_knots += [at, at + rise, at + rise + fall]
            queue += [0.0, height, 0.0]
    length_s = stop_s - start_s
    spike_count = 0
    if rng.random() < ranges.spikes:
        spike_count = int(rng.poisson(length_s / rng.uniform(5, 60)))
    spike_at = rng.uniform(start_s, stop_s, spike_count)
    spikes = rng.uniform(*ranges.spike_ms, spike_count) / 1000
    gone = [
        (at, between(rng, ranges.burst_s))
        for at in rng.uniform(start_s, stop_s, how_many(rng, ranges.burst_count)).tolist()
    ]
    if rng.random() < ranges.outages:
        for at in rng.uniform(start_s, stop_s, how_many(rng, (1, 2))).tolist():
            gone.append((at, between(rng, ranges.outage_s)))
            events.append(event(at, gone[-1][1], "outage"))
    return Network(
        knots_s=np.array(knots),
        base_s=np.array(base),
        queue_knots_s=np.array(queue_knots),
        queue_s=np.array(queue),
        jitter_s=between(rng, ranges.jitter_ms) / 1000,
        jitter_shape=float(rng.uniform(1, 3)),
        spike_at_s=spike_at,
        spike_s=spikes,
        loss=between(rng, ranges.loss),
        gone_s=tuple((at, at + length) for at, length in gone),
        events=tuple(events),
    )
