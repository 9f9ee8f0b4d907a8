"""How well the product places a random world's packets: `press_world`.

The truth of a packet's end is when it was sent, by the clock of the server with which the call
began, plus the least delay of any packet that was received of its packet run in its dump. Beside
it stands a second truth: sent, plus the path's delay when the segment began, which differs where a
queue never drains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.support.media import as_witness
from tests.support.worlds.model import Ints, Reports, Session, World
from tests.support.worlds.press import (
    CALL_START_UNIX_NS,
    numbers_of,
    stage_archive,
    write_archives,
)
from transforms.media.clock.server_clocks import CallPart, find_server_clocks
from transforms.media.rtp.fates import AUDIO_MISSING
from transforms.media.track.lanes import plan_lanes
from transforms.media.track.overlaps import LeftOutReason
from transforms.media.track.staged_packets import (
    PartIndex,
    load_index,
    on_call_clocks,
    read_packet_run,
)
from transforms.media.track.timeline import Piece, plan_pieces

_NEAR_STALL_NS = 1_000_000_000
_Flags = npt.NDArray[np.bool_]
_Part = tuple[Path, PartIndex]
"""Where a part's packets are staged, and their index."""
ERROR_EDGES_MS = np.geomspace(1e-3, 1e7, 4_001)
"""Edges of the bins that errors are counted in, 0.6 % apart."""
CLOSE_NS = 5_000_000
_KINDS = ("mute", "outage", "packets", "path", "queue", "restart", "stall")
_ELSEWHERE = (LeftOutReason.EQUAL_DUPLICATE, LeftOutReason.HAND_OVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """One piece of a track, and how far its packets lie off the truth. Times in ms."""

    participant_id: str
    dump: str
    number: int
    """Of the piece in its track."""
    start_ms: float
    stop_ms: float
    """True time since the call's start at which its packets were sent."""
    packets: int
    judged: int
    """Packets that are not within a second of a stall, or of a step of the server's clock."""
    least_ms: float
    most_ms: float
    """Errors of those that are judged: later than the truth is above 0."""
    floor_least_ms: float
    floor_most_ms: float
    """The same by the second truth."""
    bound_ms: float
    skew_ppm: float
    is_fitted: bool
    media_ms: float
    events: tuple[str, ...]
    """Kinds of what happened while its dump was recorded, such as `stall` and `queue`."""
    group: str
    """`""`, or why it is counted apart: `zero offsets`, `pairs only`, `beyond 500 ppm`,
    `servers untied`.
    """
    has_reports: bool
    """Whether its dump holds sender reports and offsets."""
    close: int
    """Judged packets within 5 ms."""
    counts: tuple[tuple[int, int], ...]
    """Judged packets by bins of `ERROR_EDGES_MS`."""

    @property
    def excess_ms(self) -> float:
        """How far the worst packet lies past the bound; below 0 where the bound holds."""
        return max(self.most_ms, -self.least_ms) - self.bound_ms

    @property
    def floor_excess_ms(self) -> float:
        """The same by the second truth."""
        return max(self.floor_most_ms, -self.floor_least_ms) - self.bound_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A dump of which packets with audio were received and are not placed."""

    dump: str
    packets: int
    untold: int
    """Of these, how many no fate tells of as missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """What became of a world."""

    seed: int
    rows: tuple[RowResult, ...]
    received: int
    """Packets with audio that are in a dump, each once."""
    missing: tuple[Missing, ...]
    findings: tuple[str, ...]


def press_world(world: World, folder: Path) -> Pressed:
    """Stages a world's archives in a folder and judges where its packets are placed."""
    parts: dict[str, list[_Part]] = {}
    watched: list[CallPart] = []
    findings: list[str] = []
    for number, data in enumerate(write_archives(world)):
        staged = folder / str(number)
        unpacked = stage_archive(data, staged)
        findings += [str(finding.error) for finding in unpacked.findings]
        for session in unpacked.sessions:
            for part in session.parts:
                index = load_index((staged / part.index_file).read_bytes())
                parts.setdefault(session.key.participant_id, []).append(
                    (staged / part.packets_file, index)
                )
                watched.append(as_witness(str(number), part))
    clocks = find_server_clocks(watched)
    parts = {
        participant_id: [
            (path, on_call_clocks(index, clocks[path.parent.name])) for path, index in its
        ]
        for participant_id, its in parts.items()
    }
    choices = [_judge(world, parts, offset_ns) for offset_ns in dict.fromkeys(_began_ns(world))]
    # Servers that disagree: an error that is common to all is the choice of one.
    best = min(choices, key=lambda rows: sum(row.excess_ms > 0 for row in rows))
    missing = [
        found
        for session in world.sessions
        for found in _missing(session, parts.get(session.participant_id, ()))
    ]
    return Pressed(
        seed=world.seed,
        rows=tuple(best),
        received=sum(int((session.packets["dump"] >= 0).sum()) for session in world.sessions),
        missing=tuple(missing),
        findings=tuple(findings),
    )


def _began_ns(world: World) -> list[int]:
    """Returns how far each server's clock was off when its first packet arrived."""
    found = []
    for server in range(len(world.server_offset_ns)):
        came = [d.first_ns for each in world.sessions for d in each.dumps if d.server == server]
        if came:
            found.append(int(world.server_ns(server, np.array([min(came)]))[0]) - min(came))
    return found


def _judge(world: World, parts: dict[str, list[_Part]], offset_ns: int) -> list[RowResult]:
    """Returns all rows of a call. Args: offset_ns: of the server whose clock is the truth."""
    rows: list[RowResult] = []
    for session in world.sessions:
        its = parts.get(session.participant_id, [])
        truth_ns, floor_ns = _truths(session)
        stalled = _near_stalls(world, session)
        pieces = plan_pieces([index for _, index in its])
        group = _group(world, session)
        for number, (piece, numbers, placed_ns) in enumerate(_placed(its, pieces)):
            at = numbers - int(session.packets["number"][0])
            late_ns = placed_ns - CALL_START_UNIX_NS - offset_ns
            rows += _row(session, group, number, piece, at, late_ns - truth_ns[at],
                         late_ns - floor_ns[at], stalled)  # fmt: skip
    return rows


def _group(world: World, session: Session) -> str:
    """Returns why a session's rows are counted apart; `""` where they are not."""
    if not world.is_tied:
        return "servers untied"
    if session.has_zero_offsets:
        return "zero offsets"
    if session.reports == Reports.PAIRS:
        return "pairs only"
    return "beyond 500 ppm" if session.is_beyond else ""


def _truths(session: Session) -> tuple[Ints, Ints]:
    """Returns where each packet ends, by both truths, in true time since the call's start."""
    packets = session.packets
    delay_ns = packets["delay_ns"].copy()
    floor_ns = packets["base_ns"].copy()
    came = packets["dump"] >= 0
    key = packets["packet_run"].astype(np.int64) << 32 | packets["dump"].astype(np.int64) & 0xFFFF
    for each in np.unique(key[came]):
        its = came & (key == each)
        delay_ns[its] = packets["delay_ns"][its].min()
        floor_ns[its] = packets["base_ns"][its][0]
    return packets["sent_ns"] + delay_ns, packets["sent_ns"] + floor_ns


def _near_stalls(world: World, session: Session) -> _Flags:
    """Returns which packets are within a second of a stall, or of a step of the server's clock."""
    sent_ns = session.packets["sent_ns"]
    near = np.zeros(len(sent_ns), dtype=bool)
    moments = list(session.stalls_ns)
    for start_ns, stop_ns in moments:
        near |= (sent_ns > start_ns - _NEAR_STALL_NS) & (sent_ns < stop_ns + _NEAR_STALL_NS)
    if world.server_step is not None:
        stepped = [n for n, dump in enumerate(session.dumps) if dump.server == 0]
        its = np.isin(session.packets["dump"], stepped)
        near |= its & (np.abs(sent_ns - world.server_step[0]) < _NEAR_STALL_NS)
    return near


def _placed(parts: Sequence[_Part], pieces: Sequence[Piece]) -> list[tuple[Piece, Ints, Ints]]:
    """Returns of each piece the numbers of its packets, and where they end in server time."""
    found = []
    of_run: dict[int, list[Piece]] = {}
    for piece in pieces:
        of_run.setdefault(id(piece.packet_run), []).append(piece)
    for mine in of_run.values():
        run, path = mine[0].packet_run, parts[mine[0].part][0]
        with path.open("rb") as file:
            windows = list(read_packet_run(file, run))
        numbers = numbers_of(np.concatenate([window.payload for window in windows]))
        records = np.concatenate([window.records for window in windows])
        media = records["media_sample"].astype(np.int64)
        end = media + records["duration_samples"].astype(np.int64)
        starts = [piece.clock.media_start_sample for piece in mine]
        place = np.maximum(np.searchsorted(starts, media, side="right") - 1, 0)
        for number, piece in enumerate(mine):
            its = place == number
            if its.any():
                clock = piece.clock
                past = (end[its] - clock.media_start_sample) * clock.clock_rate_ratio
                placed_ns = clock.server_start_unix_ns + np.rint(past * (1e9 / 48_000)).astype(
                    np.int64
                )
                found.append((piece, numbers[its], placed_ns))
    return found


def _row(
    session: Session,
    group: str,
    number: int,
    piece: Piece,
    at: Ints,
    error_ns: Ints,
    floor_error_ns: Ints,
    stalled: _Flags,
) -> list[RowResult]:
    """Returns the row of a piece; none where nothing of it is judged."""
    packets = session.packets[at]
    judged = ~stalled[at]
    if not judged.any():
        return []
    error_ns, floor_error_ns = error_ns[judged], floor_error_ns[judged]
    size = np.abs(error_ns)
    bins = np.clip(np.searchsorted(ERROR_EDGES_MS, size / 1e6), 0, len(ERROR_EDGES_MS) - 1)
    which, counts = np.unique(bins, return_counts=True)
    dump = int(packets["dump"][0])
    held = int((session.report_rows["dump"] == dump).sum())
    return [
        RowResult(
            participant_id=session.participant_id,
            dump=session.dumps[dump].base_filename,
            number=number,
            start_ms=float(packets["sent_ns"].min()) / 1e6,
            stop_ms=float(packets["sent_ns"].max()) / 1e6,
            packets=len(packets),
            judged=int(judged.sum()),
            least_ms=float(error_ns.min()) / 1e6,
            most_ms=float(error_ns.max()) / 1e6,
            floor_least_ms=float(floor_error_ns.min()) / 1e6,
            floor_most_ms=float(floor_error_ns.max()) / 1e6,
            bound_ms=piece.clock.sync_error_ns / 1e6,
            skew_ppm=piece.clock.skew_ppm,
            is_fitted=piece.clock.is_fitted,
            media_ms=float(packets["duration_ms"].sum(dtype=np.int64)),
            events=_events(session, dump),
            group=group,
            has_reports=session.reports == Reports.DUMP
            and not session.has_zero_offsets
            and held >= 2,
            close=int((size <= CLOSE_NS).sum()),
            counts=tuple(zip(which.tolist(), counts.tolist(), strict=True)),
        )
    ]


def _events(session: Session, dump: int) -> tuple[str, ...]:
    sent_ns = session.packets["sent_ns"][session.packets["dump"] == dump]
    kinds = {
        each.what.split(" ")[0].strip(":")
        for each in session.events
        if each.stop_ns >= sent_ns[0] and each.at_ns <= sent_ns[-1] and each.what != "DTX"
    }
    return tuple(sorted(kinds & set(_KINDS)))


def _missing(session: Session, parts: Sequence[_Part]) -> list[Missing]:
    """Returns the dumps of which packets are not placed.

    Every packet has its own content: one that is counted as there already, is missing.
    """
    told: Counter[str] = Counter()
    placed: Counter[str] = Counter()
    for _, index in parts:
        for dump in index.dumps:
            told[dump.base_filename] += sum(dump.fates.get(fate, 0) for fate in AUDIO_MISSING)
    plan = plan_lanes([index for _, index in parts], lambda part: parts[part][0].open("rb"))
    for each in plan.placed:
        placed[each.base_filename] += each.packet_count
    for left_out in plan.left_out:
        if left_out.reason not in _ELSEWHERE:
            told[left_out.base_filename] += left_out.packet_count
    found = []
    for number, dump_ in enumerate(session.dumps):
        name = dump_.base_filename
        missing = int((session.packets["dump"] == number).sum()) - placed[name]
        if missing > 0:
            found.append(Missing(dump=name, packets=missing, untold=max(0, missing - told[name])))
    return found
