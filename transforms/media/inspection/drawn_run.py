"""A packet run as it is drawn: its points as heights above a line of its clock's rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.media.clock.model import ClockPiece
from transforms.media.clock.verdicts import server_time
from transforms.media.inspection.thinning import thin
from transforms.media.inspection.track_clock import PacketRunTimes, longest_piece
from transforms.media.units import NS_PER_MS, Ints, Reals, samples_to_ns


@dataclass(frozen=True, slots=True, eq=False)
class DrawnRun:
    """A packet run as it is drawn; heights in ms, times in ns of server time."""

    run: PacketRunTimes
    rate: float
    """Slope that is taken off: that of its longest piece."""
    arrival_ns: Ints
    seen_ms: Reals
    """Of each packet, how far it lies above the first piece's line."""
    laid_ms: Reals
    """Of each packet, how far it came behind where its audio lies."""
    report_ns: Ints
    report_ms: Reals

    def line_ms(self, piece: ClockPiece, media_sample: int) -> float:
        """Returns how high a piece's line lies at a sample."""
        return (server_time(piece, media_sample) - self._reference_ns(media_sample)) / NS_PER_MS

    def floor_ms(self, x_ns: int, y_ns: int) -> float:
        """Returns how high a corner of a hull lies."""
        first = self.run.pieces[0]
        start_ns = samples_to_ns(first.media_start_sample)
        level_ns = first.server_start_unix_ns - self.run.clock.base_unix_ns - start_ns
        return (y_ns - level_ns - self.rate * (x_ns - start_ns)) / NS_PER_MS

    def _reference_ns(self, media_sample: int) -> int:
        first = self.run.pieces[0]
        past_ns = samples_to_ns(media_sample - first.media_start_sample)
        return first.server_start_unix_ns + past_ns + round(self.rate * past_ns)


def prepare(run: PacketRunTimes) -> DrawnRun:
    """Returns a packet run with its points where they are drawn."""
    base_ns = run.clock.base_unix_ns
    rate = longest_piece(run.pieces, run.media_stop_sample).clock_rate_ratio - 1
    first = run.pieces[0]
    first_ns = samples_to_ns(first.media_start_sample)
    media_ns, delay_ns = run.delays.media_ns, run.delays.value_ns
    arrival_ns = base_ns + media_ns + delay_ns
    order = np.argsort(arrival_ns, kind="stable")
    media_ns, delay_ns, arrival_ns = media_ns[order], delay_ns[order], arrival_ns[order]
    level_ns = first.server_start_unix_ns - base_ns - first_ns
    seen_ms = (delay_ns - level_ns - rate * (media_ns - first_ns)) / NS_PER_MS
    laid_ms = (arrival_ns - _on_pieces(run.pieces, media_ns)) / NS_PER_MS
    # Of the sender's wall clock no one knows how far it is off: it is laid on the lines.
    report_media_ns = run.walls.media_ns
    report_ns = _on_pieces(run.pieces, report_media_ns)
    on_line_ms = (report_ns - base_ns - report_media_ns - level_ns) / NS_PER_MS
    on_line_ms -= rate * (report_media_ns - first_ns) / NS_PER_MS
    report_ms = (run.walls.value_ns - rate * report_media_ns) / NS_PER_MS
    if report_ms.size:
        report_ms += float(np.median(on_line_ms - report_ms))
    return DrawnRun(run, rate, arrival_ns, seen_ms, laid_ms, report_ns, report_ms)


def _on_pieces(pieces: Sequence[ClockPiece], media_ns: Ints) -> Ints:
    """Returns the server time of media times on the pieces they lie in."""
    starts_ns = np.array([samples_to_ns(piece.media_start_sample) for piece in pieces])
    number = np.maximum(np.searchsorted(starts_ns, media_ns, side="left") - 1, 0)
    begin_ns = np.array([piece.server_start_unix_ns for piece in pieces], dtype=np.int64)
    ratio = np.array([piece.clock_rate_ratio for piece in pieces])
    past_ns = media_ns - starts_ns[number]
    found: Ints = begin_ns[number] + np.rint(past_ns * ratio[number]).astype(np.int64)
    return found


def extremes(columns: Ints, height: Reals) -> tuple[Ints, Ints]:
    """Returns the indices of the lowest and of the highest point of each column."""
    picked = thin(columns, height)
    if not picked.size:
        return picked, picked
    starts = np.flatnonzero(np.diff(columns[picked], prepend=columns[picked[0]] - 1))
    return picked[starts], picked[np.append(starts[1:], len(picked)) - 1]
