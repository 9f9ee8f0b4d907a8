"""Sender reports as random senders write them (RFC 3550 s6.4.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.support.worlds.model import REPORT
from tests.support.worlds.network import Floats, between
from tests.support.worlds.ranges import Ranges
from tests.support.worlds.sender import SAMPLE_RATE_HZ, Sent

_NOISE_S = 0.001
_MOST_NOISE_S = 0.005
_WALL_RATE = 5e-6
"""Standard deviation: a disciplined clock is hardly off."""
_BLOCK_SAMPLES = 480
"""Browsers capture blocks of 10 ms: the last one of a packet is what they count from."""


def draw_reports(
    rng: np.random.Generator, ranges: Ranges, sent: Sent, start_s: float, stop_s: float
) -> tuple[npt.NDArray[np.void], str]:
    """Draws what a session's reports say, and tells how they are written.

    Their time stamps are extrapolated from the packet that was sent last: with browsers from 10 ms
    before its end, with others from its beginning. What is sent while the capture stands knows a
    part of it, as in the captures of real browsers in `tests/data`.
    """
    packets = sent.packets
    if not len(packets):
        return np.zeros(0, dtype=REPORT), "nothing sent"
    interval_s = between(rng, ranges.report_s)
    moments: list[Floats] = []
    for begin, stop in sent.segments_s:
        first = begin + between(rng, ranges.first_report_s)
        count = max(1, int((stop - first) / interval_s * 2.2) + 3)
        at = first + np.concatenate([[0.0], np.cumsum(interval_s * rng.uniform(0.5, 1.5, count))])
        moments.append(at[at < stop])
    at_s = np.concatenate(moments)
    sent_s = packets["sent_ns"] / 1e9
    last = np.searchsorted(sent_s, at_s, side="right") - 1
    # None before the segment's first packet: there is nothing yet to report.
    segment = np.repeat(np.arange(len(moments)), [len(part) for part in moments])
    known = last >= 0
    known &= packets["segment"][np.maximum(last, 0)] == segment
    at_s, last = at_s[known], last[known]
    elapsed_s = at_s - sent_s[last]
    stood_s = elapsed_s - (sent.clock.running_s(at_s) - sent.clock.running_s(sent_s[last]))
    past = (elapsed_s - rng.random(len(at_s)) * stood_s) * SAMPLE_RATE_HZ
    is_browser = rng.random() < 0.75
    if is_browser:
        past += packets["duration_ms"][last] * 48.0 - _BLOCK_SAMPLES
    wall_s = at_s * (1 + float(rng.normal(0, _WALL_RATE)))
    wall_s += float(rng.uniform(-ranges.wall_s, ranges.wall_s))
    if rng.random() < ranges.wall_steps:
        by = float(rng.uniform(-ranges.wall_step_s, ranges.wall_step_s))
        wall_s += np.where(at_s >= rng.uniform(start_s, stop_s), by, 0.0)
    noise = np.clip(rng.normal(0, _NOISE_S, len(at_s)), -_MOST_NOISE_S, _MOST_NOISE_S)
    table = np.zeros(len(at_s), dtype=REPORT)
    table["sent_ns"] = np.rint(at_s * 1e9)
    table["wall_ns"] = np.rint((wall_s + noise) * 1e9)
    table["ssrc"] = packets["ssrc"][last]
    ticks = packets["timestamp"][last].astype(np.int64) + np.rint(past * sent.factor).astype(
        np.int64
    )
    table["timestamp"] = (ticks & 0xFFFF_FFFF).astype(np.uint32)
    return table, f"reports every {interval_s:.1f} s, {'as browsers' if is_browser else 'plain'}"
