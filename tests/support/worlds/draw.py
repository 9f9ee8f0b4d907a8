"""Draws whole calls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tests.support.worlds.model import REPORT, Dump, Ints, Reports, Session, World
from tests.support.worlds.network import Network, draw_network, event, how_many
from tests.support.worlds.ranges import RANGES, Ranges, WorldClass
from tests.support.worlds.reports import draw_reports
from tests.support.worlds.sender import Sent, draw_sent

_KINDS = tuple(WorldClass)
_SESSION_NUMBERS = 1 << 24
"""Packets of a session are numbered from its number times this."""

_RECORDER = 1 << 16
"""Draws what the recorder does, as the numbers of sessions draw them."""
_MOVES = _RECORDER + 1
"""Draws who moves from one server to the other."""


def draw_world(seed: int, kind: WorldClass) -> World:
    """Returns the call of a seed: the same each time."""
    ranges = RANGES[kind]
    rng = np.random.default_rng([seed, _KINDS.index(kind)])
    low, high = ranges.call_minutes
    length_s = 60 * math.exp(rng.uniform(math.log(low), math.log(high)))
    count = how_many(rng, ranges.participants)
    recorded = [(-math.inf, math.inf)]
    if rng.random() < ranges.second_archive:
        stop = length_s * rng.uniform(0.2, 0.7)
        recorded = [(-math.inf, stop), (stop + rng.uniform(0.5, 0.1 * length_s), math.inf)]
    step = None
    if rng.random() < ranges.server_step:
        by = rng.uniform(*ranges.server_step_s) * rng.choice([-1, 1])
        step = (round(rng.uniform(0.1, 0.9) * length_s * 1e9), round(by * 1e9))
    offsets = [0]
    if rng.random() < ranges.two_servers:
        offsets.append(round(rng.uniform(-1, 1) * ranges.servers_apart_s * 1e9))
    homes = [int(rng.integers(len(offsets))) for _ in range(count)]
    moves: dict[int, float] = {}
    if len(offsets) > 1:
        moves = _draw_moves(
            np.random.default_rng([seed, _KINDS.index(kind), _MOVES]), ranges, count
        )
    sessions = [
        _draw_session(
            np.random.default_rng([seed, _KINDS.index(kind), number]),
            ranges, number, length_s, _Recorder(recorded, len(offsets), home, moves.get(number)),
        )
        for number, home in enumerate(homes)
    ]  # fmt: skip
    recorder = np.random.default_rng([seed, _KINDS.index(kind), _RECORDER])
    return World(
        seed=seed,
        kind=kind,
        sessions=tuple(sessions),
        archive_count=len(recorded) * len(offsets),
        rounds_to_nearest=bool(recorder.random() < 0.5),
        begins_with_packet=bool(recorder.random() < 0.5),
        length_ns=round(length_s * 1e9),
        server_offset_ns=tuple(offsets),
        server_step=step,
    )


@dataclass(frozen=True, slots=True)
class _Recorder:
    """What records a session."""

    recorded_s: list[tuple[float, float]]
    """From when to when: each server writes an archive of each."""
    servers: int
    home: int
    """The server that the session begins on."""
    move: float | None
    """After which part of its segments it goes on on another; None for never."""

    def server(self, segment: int, count: int) -> int:
        """Returns the server of a segment, one of so many."""
        if self.move is None or segment <= self.move * (count - 1):
            return self.home
        return (self.home + 1) % self.servers


def _draw_moves(rng: np.random.Generator, ranges: Ranges, count: int) -> dict[int, float]:
    """Draws which sessions go from one server to another, and after which part of each."""
    if rng.random() >= ranges.moving:
        return {}
    movers = rng.permutation(count)[: how_many(rng, ranges.movers)].tolist()
    return {number: float(rng.random()) for number in movers}


def _draw_session(
    rng: np.random.Generator,
    ranges: Ranges,
    number: int,
    length_s: float,
    recorder: _Recorder,
) -> Session:
    start_s = float(rng.uniform(0, 0.3)) * length_s
    stop_s = float(rng.uniform(0.6, 1.0)) * length_s
    sent = draw_sent(rng, ranges, start_s, stop_s)
    begin_s, end_s = sent.segments_s[0][0], sent.segments_s[-1][1]
    network = draw_network(rng, ranges, begin_s, end_s)
    _send(rng, ranges, network, sent, number)
    chance = rng.random()
    reports = Reports.DUMP
    if chance < ranges.no_reports:
        reports = Reports.NONE
    elif chance < ranges.no_reports + ranges.pairs_only:
        reports = Reports.PAIRS
    rows, how = draw_reports(rng, ranges, sent, begin_s, end_s)
    if reports == Reports.NONE:
        rows, how = np.zeros(0, dtype=REPORT), "no reports"
    at_s = rows["sent_ns"] / 1e9
    rows["arrival_ns"] = rows["sent_ns"] + np.rint(network.delays(rng, at_s) * 1e9).astype(int)
    rows = rows[~network.lost(rng, at_s)]
    dumps = _record(rng, sent, rows, recorder, number)
    events = (*sent.events, *network.events, event(begin_s, 0, f"{how} ({reports})"))
    stalls_ns = zip(
        np.rint(sent.clock.stall_at_s * 1e9).astype(int).tolist(),
        np.rint((sent.clock.stall_at_s + sent.clock.stall_s) * 1e9).astype(int).tolist(),
        strict=True,
    )
    return Session(
        participant_id=f"p{number}",
        reports=reports,
        has_zero_offsets=bool(rng.random() < ranges.zero_offsets),
        skew_ppm=1e6 * sent.clock.skew,
        factor=sent.factor,
        packets=sent.packets,
        report_rows=rows,
        dumps=dumps,
        stalls_ns=tuple(stalls_ns),
        events=tuple(sorted(events, key=lambda each: each.at_ns)),
    )


def _send(
    rng: np.random.Generator, ranges: Ranges, network: Network, sent: Sent, number: int
) -> None:
    """Lets the network do what it does to a session's packets, in place."""
    packets = sent.packets
    at_s = packets["sent_ns"] / 1e9
    delay_s = network.delays(rng, at_s)
    step_s = packets["duration_ms"] / 1000
    low, high = ranges.displaced_packets
    displaced = rng.random(len(packets)) < rng.uniform(*ranges.displaced)
    delay_s += displaced * step_s * rng.integers(low, high + 1, len(packets))
    again = rng.random(len(packets)) < rng.uniform(*ranges.displaced)
    later = step_s * rng.integers(0, high + 1, len(packets)) + 0.0005
    packets["number"] = number * _SESSION_NUMBERS + np.arange(len(packets))
    packets["delay_ns"] = np.rint(delay_s * 1e9)
    packets["base_ns"] = np.rint(network.path(at_s) * 1e9)
    packets["again_ns"] = np.where(again, np.rint(later * 1e9), 0)
    packets["dump"] = np.where(network.lost(rng, at_s), -1, 0)


def _record(
    rng: np.random.Generator,
    sent: Sent,
    reports: np.ndarray,
    recorder: _Recorder,
    number: int,
) -> tuple[Dump, ...]:
    """Says which dump has each packet and report, in place; returns the dumps."""
    packets = sent.packets
    arrival_ns: Ints = packets["sent_ns"] + packets["delay_ns"]
    came = packets["dump"] == 0
    packets["dump"] = -1
    reports["dump"] = -1
    dumps: list[Dump] = []
    for window, (start_s, stop_s) in enumerate(recorder.recorded_s):
        for segment, (begin_s, end_s) in enumerate(sent.segments_s):
            mine = came & (packets["segment"] == segment)
            mine &= (arrival_ns >= start_s * 1e9) & (arrival_ns < stop_s * 1e9)
            if not mine.any():
                continue
            packets["dump"][mine] = len(dumps)
            its = (reports["sent_ns"] >= begin_s * 1e9) & (reports["sent_ns"] <= end_s * 1e9)
            its &= (reports["arrival_ns"] >= start_s * 1e9) & (reports["arrival_ns"] < stop_s * 1e9)
            reports["dump"][its] = len(dumps)
            first_ns = int(arrival_ns[mine].min())
            if its.any():
                first_ns = min(first_ns, int(reports["arrival_ns"][its].min()))
            open_ns = first_ns - round(rng.uniform(0, 0.1) * 1e9)
            server = recorder.server(segment, len(sent.segments_s))
            archive = window * recorder.servers + server
            name = f"p{number}_a{archive}_s{segment}"
            dumps.append(
                Dump(
                    archive=archive,
                    server=server,
                    segment=segment,
                    base_filename=name,
                    first_ns=first_ns,
                    open_ns=open_ns,
                )
            )
    return tuple(dumps)
