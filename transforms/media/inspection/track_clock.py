"""What one archive tells of each track's clock, and what was made of it: small, whatever came.

It is seen while the archive is unpacked as a run unpacks it; packets and arrivals are gone behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transforms.media.archive.read_members import ArchiveMembers
from transforms.media.clock.fit import fit_clocks
from transforms.media.clock.model import ClockMethod, ClockPiece, PacketRunClock
from transforms.media.clock.verdicts import StepVerdict, judge_outcomes
from transforms.media.inspection.thinning import Points, ThinnedPoints
from transforms.media.rtp.ingested_packet_run import IngestedPacketRun
from transforms.media.track.stage_track import StagedPart
from transforms.media.track.staged_packets import load_index
from transforms.media.track.timeline import plan_pieces
from transforms.media.units import NS_PER_SECOND, SAMPLE_RATE_HZ, Ints
from transforms.media.values import TrackKey

_WINDOW_PACKETS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PacketRunTimes:
    """One packet run: what its clock showed, and where it was laid."""

    base_filename: str
    ssrc: int
    packet_count: int
    media_stop_sample: int
    clock: PacketRunClock
    pieces: tuple[ClockPiece, ...]
    """In order of media time; at least one."""
    steps: tuple[StepVerdict, ...]
    report_count: int
    report_span_ns: int
    """From the first sender report to the last, in media time."""
    are_reports_stated: bool
    """Whether they are the timing metadata's, and not in the dump."""
    delays: Points
    """Arrivals less media time at each packet's end, above `clock.base_unix_ns`; thinned, and none
    where the dump has no arrivals.
    """
    walls: Points
    """The sender's wall clock in its reports, less media time, above that of the first; thinned."""

    @property
    def has_arrivals(self) -> bool:
        """Whether the dump says when packets arrived."""
        return self.clock.method == ClockMethod.ARRIVAL_ENVELOPE

    def stop_sample_of(self, number: int) -> int:
        """Returns where a piece ends in media time."""
        following = self.pieces[number + 1 : number + 2]
        return following[0].media_start_sample if following else self.media_stop_sample

    def samples_of(self, number: int) -> int:
        """Returns how much media time a piece has."""
        return self.stop_sample_of(number) - self.pieces[number].media_start_sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackTimes:
    """The packet runs of one track that an archive holds, in order of server time."""

    track: TrackKey
    packet_runs: tuple[PacketRunTimes, ...]

    @property
    def first_unix_ns(self) -> int:
        """Server time of the first sample; asked only where there is a packet run."""
        return min(run.pieces[0].server_start_unix_ns for run in self.packet_runs)


class TrackTimesObserver:
    """Tells what an archive's tracks show of their clocks, one after the other.

    Give it to `unpack_archive`; it keeps nothing of a track that it has told of.
    """

    def __init__(self, folder: Path, on_track: Callable[[TrackTimes], None]) -> None:
        """Begins before the archive is read.

        Args:
          folder: that the archive is unpacked into. The files of a track are deleted once it is
            told of.
          on_track: is told of each track, also one without packets.
        """
        self.members = ArchiveMembers()
        """What the archive holds, as soon as it was read."""
        self._folder = folder
        self._on_track = on_track
        self._forget()

    def see_members(self, members: ArchiveMembers) -> None:
        """As `UnpackObserver`."""
        self.members = members

    def see_packet_run(self, packet_run: IngestedPacketRun, arrival_unix_ns: Ints) -> None:
        """As `UnpackObserver`."""
        clock = packet_run.clock
        rate = _rate_of(fit_clocks([clock])[0], packet_run.records)
        windows = (
            () if clock.method == ClockMethod.METADATA else _delays(packet_run, arrival_unix_ns)
        )
        number = self._delays.add(windows, rate)
        reports = packet_run.reports
        report_ns = _to_ns(np.array([point.media_sample for point in reports], dtype=np.int64))
        wall_ns = np.array(
            [point.sender_unix_ns - reports[0].sender_unix_ns for point in reports], dtype=np.int64
        )
        self._walls.add([Points(media_ns=report_ns, value_ns=wall_ns - report_ns)], rate)
        self._seen[packet_run.ssrc, clock] = _Seen(
            number=number,
            report_count=len(reports),
            report_span_ns=int(np.ptp(report_ns)) if reports else 0,
            are_reports_stated=clock.method == ClockMethod.ARRIVAL_ENVELOPE
            and all(point.arrival_unix_ns is None for point in reports),
        )

    def see_track(self, part: StagedPart) -> None:
        """As `UnpackObserver`."""
        index = load_index((self._folder / part.index_file).read_bytes())
        for name in (part.packets_file, part.index_file):
            if name:
                (self._folder / name).unlink()
        pieces: dict[int, list[ClockPiece]] = {}
        packet_runs = {run.file_offset_bytes: run for run in index.packet_runs}
        for piece in plan_pieces([index]):
            pieces.setdefault(piece.packet_run.file_offset_bytes, []).append(piece.clock)
        found = []
        for offset, lines in pieces.items():
            packet_run = packet_runs[offset]
            seen = self._seen[packet_run.ssrc, packet_run.clock]
            found.append(
                PacketRunTimes(
                    base_filename=packet_run.base_filename,
                    ssrc=packet_run.ssrc,
                    packet_count=packet_run.packet_count,
                    media_stop_sample=packet_run.media_stop_sample,
                    clock=packet_run.clock,
                    pieces=tuple(lines),
                    steps=judge_outcomes(packet_run.clock, lines),
                    report_count=seen.report_count,
                    report_span_ns=seen.report_span_ns,
                    are_reports_stated=seen.are_reports_stated,
                    delays=self._delays[seen.number],
                    walls=self._walls[seen.number],
                )
            )
        times = TrackTimes(track=part.track, packet_runs=tuple(found))
        self._forget()
        self._on_track(times)

    def _forget(self) -> None:
        self._delays, self._walls = ThinnedPoints(), ThinnedPoints()
        self._seen: dict[tuple[int, PacketRunClock], _Seen] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Of a packet run, what is not staged."""

    number: int
    """Of its points."""
    report_count: int
    report_span_ns: int
    are_reports_stated: bool


def longest_piece(pieces: tuple[ClockPiece, ...], media_stop_sample: int) -> ClockPiece:
    """Returns the piece of a packet run that has most media."""
    stops = [*(piece.media_start_sample for piece in pieces[1:]), media_stop_sample]
    return max(
        zip(pieces, stops, strict=True), key=lambda found: found[1] - found[0].media_start_sample
    )[0]


def _rate_of(
    pieces: tuple[ClockPiece, ...], records: np.ndarray[tuple[int], np.dtype[np.void]]
) -> float:
    last = records[-1]
    stop_sample = int(last["media_sample"]) + int(last["duration_samples"])
    return longest_piece(pieces, stop_sample).clock_rate_ratio - 1


def _delays(packet_run: IngestedPacketRun, arrival_unix_ns: Ints) -> Iterator[Points]:
    """Yields how much later than its media time each packet came, some packets at a time."""
    came = 0
    for start in range(0, len(packet_run.records), _WINDOW_PACKETS):
        records = packet_run.records[start : start + _WINDOW_PACKETS]
        records = records[~records["is_copy"]]
        media_ns = _to_ns(records["media_sample"] + records["duration_samples"])
        delay_ns = arrival_unix_ns[came : came + len(records)] - media_ns
        came += len(records)
        yield Points(media_ns=media_ns, value_ns=delay_ns - packet_run.clock.base_unix_ns)


def _to_ns(samples: Ints) -> Ints:
    ns: Ints = samples.astype(np.int64) * NS_PER_SECOND // SAMPLE_RATE_HZ
    return ns
