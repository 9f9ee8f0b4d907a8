"""The ranges that random worlds are drawn from, by class. Times in seconds unless said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

Range = tuple[float, float]


class WorldClass(StrEnum):
    """What kind of call is drawn."""

    LOSSLESS = "lossless"
    """No loss, stall, change of path or queue."""
    REALISTIC = "realistic"
    NO_REPORTS = "no_reports"
    """Realistic, and neither dumps nor metadata have sender reports."""
    SHORT = "short"
    """Realistic, under 30 s of media of each participant session."""
    WILD = "wild"
    """Ranges doubled; server clocks that step or disagree, media clocks off by a factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """From what a world is drawn: uniform between two ends, or a chance of something."""

    participants: tuple[int, int] = (2, 8)
    call_minutes: Range = (1.0, 25.0)
    """Log-uniform."""
    second_archive: float = 0.5
    """Chance that the recording is stopped and started in mid-call."""
    media_s: Range | None = None
    """Of a session in all; None for as long as it is there."""

    skew_ppm: float = 40.0
    """Standard deviation; normal."""
    skew_cut_ppm: float = 300.0
    odd_skew: float = 1 / 50
    odd_skew_ppm: Range = (300.0, 1_000.0)
    """Either sign."""
    warming: float = 1 / 5
    warming_ppm: Range = (0.0, 10.0)
    """Change of skew, exponential over 10 minutes; either sign."""

    floor_ms: Range = (5.0, 80.0)
    jitter_ms: Range = (0.0, 15.0)
    """Mean of a gamma distribution."""
    spikes: float = 1 / 5
    spike_ms: Range = (20.0, 300.0)
    queues: float = 1 / 3
    queue_count: tuple[int, int] = (0, 3)
    queue_ms: Range = (30.0, 400.0)
    queue_s: Range = (1.0, 60.0)
    paths: float = 1 / 3
    path_count: tuple[int, int] = (0, 2)
    path_ms: Range = (-60.0, 120.0)
    path_s: Range = (0.1, 20.0)
    """Over which a change of path that is not sharp goes on; half are sharp."""

    loss: Range = (0.0, 0.10)
    burst_count: tuple[int, int] = (0, 6)
    burst_s: Range = (0.02, 0.5)
    outages: float = 1 / 5
    outage_s: Range = (0.5, 10.0)
    displaced: Range = (0.0, 0.05)
    """Share of packets that come later than those behind them; also of those that come twice."""
    displaced_packets: tuple[int, int] = (1, 10)

    stalls: float = 1 / 3
    stall_count: tuple[int, int] = (0, 6)
    stall_s: Range = (0.01, 0.5)

    no_reports: float = 1 / 6
    pairs_only: float = 1 / 6
    """Chance that only the metadata has reports: its two pairs."""
    report_s: Range = (0.5, 8.0)
    first_report_s: Range = (0.0, 8.0)
    wall_s: float = 3_600.0
    wall_steps: float = 1 / 20
    wall_step_s: float = 2.0

    odd_packets: float = 1 / 6
    packet_change: float = 1 / 10
    dtx: float = 1 / 3
    segment_count: tuple[int, int] = (1, 10)
    gap_s: Range = (0.05, 120.0)
    new_source: float = 1 / 2
    mute: float = 1 / 4
    ssrc_change: float = 1 / 10
    timestamp_jump: float = 1 / 20
    same_again: float = 1 / 50
    zero_offsets: float = 1 / 40

    server_step: float = 0.0
    server_step_s: Range = (0.05, 2.0)
    two_servers: float = 0.0
    servers_apart_s: float = 5.0
    moving: float = 2 / 3
    """Chance that of two servers some participants were on both, one after the other."""
    movers: tuple[int, int] = (1, 3)
    factor_clock: float = 0.0


_REALISTIC = Ranges()
_WILD = Ranges(
    skew_ppm=80.0,
    skew_cut_ppm=600.0,
    odd_skew_ppm=(600.0, 2_000.0),
    warming_ppm=(0.0, 20.0),
    floor_ms=(5.0, 160.0),
    jitter_ms=(0.0, 30.0),
    spike_ms=(20.0, 600.0),
    queue_count=(0, 6),
    queue_ms=(30.0, 800.0),
    queue_s=(1.0, 120.0),
    path_count=(0, 4),
    path_ms=(-120.0, 240.0),
    path_s=(0.1, 40.0),
    loss=(0.0, 0.20),
    burst_count=(0, 12),
    burst_s=(0.02, 1.0),
    outage_s=(0.5, 20.0),
    displaced=(0.0, 0.10),
    displaced_packets=(1, 20),
    stall_count=(0, 12),
    stall_s=(0.01, 1.0),
    report_s=(0.5, 16.0),
    first_report_s=(0.0, 16.0),
    wall_s=7_200.0,
    wall_step_s=4.0,
    segment_count=(1, 20),
    gap_s=(0.05, 240.0),
    server_step=1 / 5,
    two_servers=1 / 5,
    factor_clock=1 / 20,
)
RANGES: dict[WorldClass, Ranges] = {
    WorldClass.REALISTIC: _REALISTIC,
    WorldClass.LOSSLESS: replace(
        _REALISTIC,
        loss=(0.0, 0.0),
        burst_count=(0, 0),
        outages=0.0,
        stalls=0.0,
        paths=0.0,
        queues=0.0,
    ),
    WorldClass.NO_REPORTS: replace(_REALISTIC, no_reports=1.0, pairs_only=0.0),
    WorldClass.SHORT: replace(_REALISTIC, media_s=(2.0, 30.0)),
    WorldClass.WILD: _WILD,
}
