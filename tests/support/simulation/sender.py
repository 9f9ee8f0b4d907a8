"""A sender: what it says, how its clocks run, what the network does; and the truth about time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support.builders import CALL_START_UNIX_MS, SAMPLE_RATE_HZ

CALL_START_NS = CALL_START_UNIX_MS * 1_000_000
LEAST_DELAY_S = 0.030
"""From the microphone to the server when nothing adds to it."""

Ints = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Wave = npt.NDArray[np.float32]
Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Sender:
    """One segment. Moments are seconds of its media time, lengths are seconds, unless a name says
    otherwise.
    """

    seconds: float
    """Length of its media."""
    start_s: float = 0.0
    """When its first sample is captured, counted from the start of the call on the server's
    clock.
    """
    seed: int = 1
    """Of all that is drawn, and of the waveforms of its markers."""
    base_filename: str | None = None

    # What is said.
    markers_s: Sequence[float] = ()
    """Where markers begin."""
    first_marker: int = 0
    """Number of the first one: segments of one seed say the same where their numbers agree."""
    sound: Spans = ()
    """(begin, length) of unbroken noise; each is a marker too."""
    packet_ms: float = 20
    bitrate_bps: int = 64_000

    # The sender's clocks.
    skew_ppm: float | Spans = 0.0
    """How much faster its media clock runs than the server's; or (from, ppm) in order, for another
    device from there on.
    """
    stalls: Spans = ()
    """(at, length): the capture stands still, media time does not count."""
    wall_error_s: float = 0.0
    wall_rate: float = 1.0
    """Seconds its wall clock counts in a second."""
    report_every_s: float | None = 5.0
    """None: no sender reports."""
    first_report_s: float = 1.3
    """After the start, on the server's clock."""
    reports_until_s: float = float("inf")
    report_noise_ms: float = 0.5

    # Numbers.
    first_sequence_number: int = 1_000
    first_rtp_timestamp: int = 10_000
    ssrc: int = 0x1234_5678
    ssrc_changes: Spans = ()
    """(at, SSRC): another source, with its own numbers, from there on."""
    jumps: Sequence[tuple[float, int]] = ()
    """(at, ticks): RTP timestamps jump, packets keep coming."""
    sequence_jumps: Sequence[tuple[float, int]] = ()
    """(at, numbers): sequence numbers jump, packets keep coming."""

    # What is not sent.
    dtx: Spans = ()
    """(begin, length): timestamps go on, sequence numbers run on, but for a packet every
    `dtx_refresh_s`.
    """
    dtx_refresh_s: float | None = 0.4
    foreign: bool = False
    """Telephone events, comfort noise, an unknown type, padding only and empty payloads among the
    audio.
    """
    red_copies: int = 0

    # The network.
    jitter_ms: float = 0.0
    """Added delay, uniform from 0; packets do not overtake each other by it."""
    paths: Spans = ()
    """(at, seconds): delay changes for good."""
    crowds: Sequence[tuple[float, float, float, float, float]] = ()
    """(at, rises for, holds for, falls for, seconds): a queue fills and empties."""
    loss_ratio: float = 0.0
    lost: Spans = ()
    """(begin, length) of bursts and outages."""
    reorder_every: int = 0
    """Every so many packets one comes behind `reorder_by` others."""
    reorder_by: int = 50
    twice_ratio: float = 0.0
    """Packets that come again at once."""
    twice_late_s: float | None = None
    """Every 20th packet comes again that much later."""
    first_late: tuple[int, float] = (0, 0.0)
    """(packets, seconds): the first few are overtaken."""
    first_together_s: float = 0.0
    """Packets of the first seconds come together at their end."""

    # The recorder.
    zero_offsets: bool = False
    server_steps: Spans = ()
    """(at, seconds): the server's clock is set ahead, or back, so long after the start of the call.
    The truth stays on the clock that the call began with.
    """
    server_ahead_s: float = 0.0
    """By how much the server's clock is ahead of that of the call from the beginning."""
    with_last_rtp: bool = True
    """Whether the metadata states the last packet."""
    with_sdp: bool = True


def _rates(sender: Sender) -> list[tuple[float, float]]:
    if isinstance(sender.skew_ppm, int | float):
        return [(0.0, float(sender.skew_ppm))]
    return [(at, ppm) for at, ppm in sender.skew_ppm]


def captured_s(sender: Sender, media_s: Reals) -> Reals:
    """Returns when media time was captured, from the sender's start; what comes at a stall comes
    after it.
    """
    rates = _rates(sender)
    time = np.zeros(media_s.shape, dtype=np.float64)
    for number, (at, ppm) in enumerate(rates):
        until = rates[number + 1][0] if number + 1 < len(rates) else np.inf
        time += (np.clip(media_s, at, until) - at) / (1 + ppm * 1e-6)
    for at, size in sender.stalls:
        time += np.where(media_s >= at - 1e-9, size, 0.0)
    return time


def server_unix_ns(sender: Sender, media_sample: npt.ArrayLike) -> Reals:
    """Returns where content samples belong on the server's clock: when they were captured plus the
    segment's least delay.
    """
    media_s = np.asarray(media_sample, dtype=np.float64) / SAMPLE_RATE_HZ
    least_s = LEAST_DELAY_S + min(
        itertools.accumulate((size for _, size in sender.paths), initial=0.0)
    )
    return CALL_START_NS + (sender.start_s + least_s + captured_s(sender, media_s)) * 1e9


def media_at(sender: Sender, server_s: Reals) -> Reals:
    """Returns the media time that stands at a moment of the server's clock, from the sender's
    start.
    """
    edges = sorted(
        {
            0.0,
            sender.seconds * 2 + 60,
            *(at for at, _ in _rates(sender)),
            *(at for at, _ in sender.stalls),
        }
    )
    media = np.repeat(edges, 2)
    before = captured_s(sender, np.array(edges) - 1e-6) + 1e-6
    after = captured_s(sender, np.array(edges))
    times = np.stack([np.minimum(before, after), after], axis=1).ravel()
    times[0] = 0.0
    return np.interp(server_s, np.maximum.accumulate(times), media)
