"""Draws what a track's clock showed, and where its audio was laid for it.

Two panels over server time. Above, what was seen: delays, their floor, steps, sender reports.
Below, what was made of it: how far each packet came behind the place where its audio lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from transforms.media.clock.model import ClockPiece, StepEvidence
from transforms.media.clock.verdicts import Outcome, StepVerdict, server_time
from transforms.media.inspection.svg import Svg
from transforms.media.inspection.thinning import thin
from transforms.media.inspection.track_clock import PacketRunTimes, TrackTimes, longest_piece
from transforms.media.inspection.words import (
    LETTERS,
    SAID,
    clock_text,
    counted,
    outcome_text,
)
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints, Reals, samples_to_ns

WIDTH = 1_200
_LEFT, _RIGHT = 74, WIDTH - 26
_SEEN_TOP, _SEEN_BOTTOM = 210, 520
_LAID_TOP, _LAID_BOTTOM = 570, 720
_TABLE_TOP = 798
_ROW = 19
_MOST_ROWS = 14
_MOST_LINES = 300
"""Steps and pieces that are drawn; of more the largest."""
_LEAST_SPAN_MS = 24.0
_LABEL_ROWS = 3
_LABEL_WIDTH = 34
_MOST_NAME = 48
_PAUSE_NS = NS_PER_SECOND

_KINDS = {
    StepEvidence.CONFIRMED: "yes",
    StepEvidence.DENIED: "no",
    StepEvidence.UNKNOWN: "open",
    StepEvidence.NONE: "open",
}
_COLOURS = {"yes": "#1a7f4b", "no": "#c2570c", "open": "#7048b6"}
_STYLES = {
    "text": "font:12px system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:#24292f",
    ".title": "font-size:20px;font-weight:600",
    ".faint": "fill:#57606a",
    ".head": "font-size:13px;font-weight:600",
    ".num": "font-variant-numeric:tabular-nums",
    ".mark": "fill:#fff;font-size:11px;font-weight:600",
    "path,.frame": "fill:none;stroke-linejoin:round",
    ".paper": "fill:#fff",
    ".panel": "fill:#fbfcfd",
    ".frame": "stroke:#d0d7de",
    ".grid": "stroke:#e6eaef",
    ".zero": "stroke:#8c959f;stroke-dasharray:2 3",
    ".pause": "fill:#e9ecf0",
    ".spread": "stroke:#c3d0de",
    ".least": "stroke:#41566b;stroke-width:2",
    ".floor": "stroke:#111;stroke-width:1.2",
    ".band": "fill:#8fc1f2;fill-opacity:.38",
    ".laid": "stroke:#0969da;stroke-width:4;stroke-opacity:.6",
    ".report": "stroke:#bf2a8f;stroke-width:1.4;fill:#fff",
    ".reports": "stroke:#bf2a8f;stroke-width:.8;stroke-opacity:.55",
    **{f".{kind}": f"stroke:{colour}" for kind, colour in _COLOURS.items()},
    **{f".{kind}f": f"fill:{colour}" for kind, colour in _COLOURS.items()},
    ".still": "stroke-dasharray:5 4",
}


def draw_track(times: TrackTimes, archive: str) -> str:
    """Returns an SVG of a track that has packets.

    Args:
      times: of the track.
      archive: its name, for the title.
    """
    return _Drawing(times, archive).draw()


@dataclass(slots=True)
class _Panel:
    """A frame, and what its height stands for."""

    top: float
    bottom: float
    low_ms: float = 0.0
    high_ms: float = 1.0

    def y(self, ms: float) -> float:
        """Returns where a height is drawn; what lies far beyond the panel is brought near it."""
        at = self.bottom - (ms - self.low_ms) / (self.high_ms - self.low_ms) * (
            self.bottom - self.top
        )
        return min(max(at, self.top - 20), self.bottom + 20)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
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


class _Drawing:
    """One drawing in the making."""

    def __init__(self, times: TrackTimes, archive: str) -> None:
        self._times = times
        self._archive = archive
        self._runs = [_prepare(run) for run in times.packet_runs]
        self._begin_ns = times.first_unix_ns
        ends = [server_time(run.pieces[-1], run.media_stop_sample) for run in times.packet_runs] + [
            int(drawn.arrival_ns.max()) for drawn in self._runs if drawn.arrival_ns.size
        ]
        self._span_ns = max(max(ends) - self._begin_ns, NS_PER_SECOND // 2)
        self._seen = _Panel(_SEEN_TOP, _SEEN_BOTTOM)
        self._laid = _Panel(_LAID_TOP, _LAID_BOTTOM)
        self._svg = Svg(WIDTH, _STYLES)
        steps = sorted(
            ((drawn, step) for drawn in self._runs for step in drawn.run.steps),
            key=lambda found: found[1].server_unix_ns,
        )
        self._steps = [(number, step) for number, (_, step) in enumerate(steps, 1)]

    def draw(self) -> str:
        """Returns the document."""
        self._scale_panels()
        table_rows = min(max(len(self._steps), 1, self._piece_count()), _MOST_ROWS)
        height = _TABLE_TOP + 26 + _ROW * (table_rows + 1) + 14
        self._svg.rect(0, 0, WIDTH, height, "paper")
        self._draw_title()
        self._draw_legend()
        for panel in (self._seen, self._laid):
            self._svg.rect(_LEFT, panel.top, _RIGHT - _LEFT, panel.bottom - panel.top, "panel")
        self._draw_pauses()
        self._draw_axes()
        for name, panel in (("seen", self._seen), ("laid", self._laid)):
            self._svg.begin_clipped(
                name, _LEFT, panel.top, _RIGHT - _LEFT, panel.bottom - panel.top
            )
            if panel is self._seen:
                self._draw_seen()
            else:
                self._draw_laid()
            self._svg.end_clipped()
        for panel in (self._seen, self._laid):
            self._svg.rect(_LEFT, panel.top, _RIGHT - _LEFT, panel.bottom - panel.top, "frame")
        self._draw_steps()
        self._draw_step_table()
        self._draw_piece_table()
        return self._svg.finish(height, self._title())

    # --- where things lie -------------------------------------------------------------------------

    def _x(self, unix_ns: int) -> float:
        share = (unix_ns - self._begin_ns) / self._span_ns
        return _LEFT + min(max(share, -0.01), 1.01) * (_RIGHT - _LEFT)

    def _columns(self, unix_ns: Ints) -> Ints:
        found: Ints = (unix_ns - self._begin_ns) * (_RIGHT - _LEFT) // self._span_ns
        return found

    def _piece_count(self) -> int:
        return sum(len(drawn.run.pieces) for drawn in self._runs)

    def _scale_panels(self) -> None:
        floor, edges, bounds = [0.0], [0.0], [0.0]
        least_seen, least_laid, most_seen = [0.0], [0.0], [0.0]
        for drawn in self._runs:
            run = drawn.run
            for plateau in run.clock.plateaus:
                floor += [drawn.floor_ms(x, y) for x, y in (plateau.hull[0], plateau.hull[-1])]
            for number, piece in enumerate(run.pieces):
                bounds.append(piece.sync_error_ns / NS_PER_MS)
                for sample in (piece.media_start_sample, run.stop_sample_of(number)):
                    floor.append(drawn.line_ms(piece, sample))
                    edges += [floor[-1] - bounds[-1], floor[-1] + bounds[-1]]
            columns = self._columns(drawn.arrival_ns)
            lowest = _extremes(columns, drawn.seen_ms)[0]
            least_seen += drawn.seen_ms[lowest].tolist()
            most_seen += drawn.seen_ms[_extremes(columns, drawn.seen_ms)[1]].tolist()
            least_laid += drawn.laid_ms[_extremes(columns, drawn.laid_ms)[0]].tolist()
        low, high = min(floor), max(floor)
        more = max(0.3 * (high - low), _LEAST_SPAN_MS)
        low, high = max(min(edges), low - more), min(max(edges), high + more)
        usual = float(np.percentile(most_seen, 80))
        high = max(high, min(usual, high + max(60.0, 2 * (high - low))))
        high = max(high, min(float(np.percentile(least_seen, 97)), high + max(60.0, high - low)))
        reach = max(high - low, _LEAST_SPAN_MS) / 2
        for drawn in self._runs:
            near = drawn.report_ms[
                (drawn.report_ms > low - reach) & (drawn.report_ms < high + reach)
            ]
            if near.size:
                low, high = min(low, float(near.min())), max(high, float(near.max()))
        self._seen.low_ms, self._seen.high_ms = _with_margin(low, high)
        bound = min(max(bounds), 120.0)
        usual = float(np.percentile(least_laid, 97))
        low = min(-bound, max(float(np.percentile(least_laid, 3)), -200.0))
        high = max(bound, min(usual, 200.0), 8.0)
        self._laid.low_ms, self._laid.high_ms = _with_margin(low, high, 12.0)

    # --- words around -----------------------------------------------------------------------------

    def _title(self) -> str:
        track = self._times.track
        kind = "audio" if track.output_type == "audio_only" else "screen share audio"
        return f"{_short(track.participant_id)}, {kind}: where it lies, and why"

    def _draw_title(self) -> None:
        track, runs = self._times.track, self._times.packet_runs
        self._svg.text(_LEFT, 38, self._title(), "title")
        call = f"call {_short(track.call.cid)}"
        session = f"session {_short(track.user_session_id)}"
        self._svg.text(_LEFT, 60, f"{call}  ·  {session}  ·  {_short(self._archive, 90)}", "faint")
        packets = sum(run.packet_count for run in runs)
        reports = sum(run.report_count for run in runs)
        begin = datetime.fromtimestamp(self._begin_ns // NS_PER_SECOND, UTC)
        fraction = self._begin_ns % NS_PER_SECOND // NS_PER_MS
        facts = [
            f"begins {begin:%Y-%m-%d %H:%M:%S}.{fraction:03d} UTC",
            counted(len(runs), "packet run"),
            counted(packets, "packet"),
            counted(reports, "sender report"),
            counted(len(self._steps), "step"),
            f"sync_error_ms {_worst_ms(runs):,.1f} at most",
        ]
        self._svg.text(_LEFT, 79, "  ·  ".join(facts), "faint")

    def _draw_legend(self) -> None:
        svg, y = self._svg, 112
        x = float(_LEFT)
        for at, height in ((x + 6, 10), (x + 13, 14), (x + 20, 7)):
            svg.line(at, y + 5, at, y + 5 - height, "spread")
            svg.line(at - 2, y + 5, at + 2, y + 5, "least")
        svg.text(x + 30, y + 4, "packets, least and greatest of a pixel")
        x += 276
        svg.line(x, y, x + 26, y, "floor")
        svg.text(x + 33, y + 4, "floor between two steps")
        x += 196
        svg.rect(x, y - 7, 28, 14, "band")
        svg.line(x, y, x + 28, y, "laid")
        svg.text(x + 35, y + 4, "where the audio lies, ± sync_error_ms")
        x += 284
        svg.lines([(x, y + 3), (x + 14, y), (x + 28, y)], "reports")
        _diamond(svg, x + 14, y)
        svg.text(x + 35, y + 4, "sender's wall clock in its reports")
        x = float(_LEFT)
        y += 26
        svg.text(x, y + 4, "Steps", "head")
        x += 52
        for kind, letter, words in (
            ("yes", "C", "confirmed by reports"),
            ("no", "D", "denied by them"),
            ("open", "U", "they cannot tell"),
        ):
            _badge(svg, x + 9, y, letter, kind, 20)
            svg.text(x + 25, y + 4, words)
            x += 46 + 6.6 * len(words)
        for words, class_, width in (
            ("the time line moved there", "open", 218),
            ("nothing was moved", "open still", 182),
        ):
            svg.line(x, y, x + 28, y, class_)
            svg.text(x + 35, y + 4, words)
            x += width
        svg.rect(x, y - 7, 28, 14, "pause")
        svg.text(x + 35, y + 4, "no packets")

    def _draw_axes(self) -> None:
        svg = self._svg
        rates = sorted({round((1 / (1 + drawn.rate) - 1) * 1e6, 1) for drawn in self._runs})
        taken = (
            ""
            if rates == [0.0]
            else f" (skew of {rates[0]:+.1f} ppm taken off)"
            if len(rates) == 1
            else f" (skew of {rates[0]:+.1f} to {rates[-1]:+.1f} ppm taken off)"
        )
        svg.text(_LEFT, _SEEN_TOP - 30, f"Seen: arrival less media time, in ms{taken}", "head")
        svg.text(
            _LEFT,
            _LAID_TOP - 10,
            "Made of it: ms that packets came behind where their audio lies; the least ones "
            "should touch 0",
            "head",
        )
        for panel in (self._seen, self._laid):
            for value in _ticks(panel.low_ms, panel.high_ms, 7 if panel is self._seen else 5):
                y = panel.y(value)
                svg.line(_LEFT, y, _RIGHT, y, "zero" if value == 0 else "grid")
                svg.text(_LEFT - 8, y + 4, f"{value:,g}", "faint num", "end")
        for second in _time_ticks(self._span_ns / 1e9):
            x = self._x(self._begin_ns + round(second * 1e9))
            for panel in (self._seen, self._laid):
                svg.line(x, panel.top, x, panel.bottom, "grid")
            svg.text(x, _LAID_BOTTOM + 18, clock_text(second), "faint num", "middle")
        svg.text(
            (_LEFT + _RIGHT) / 2,
            _LAID_BOTTOM + 37,
            "server time since the track begins, "
            + ("h:mm:ss" if self._span_ns >= 3_600e9 else "m:ss"),
            "faint",
            "middle",
        )

    # --- what was seen ----------------------------------------------------------------------------

    def _draw_pauses(self) -> None:
        """Draws where no packet came: mutes, gaps between segments, losses."""
        known = [
            (int(drawn.arrival_ns[0]), int(drawn.arrival_ns[0]))
            if drawn.arrival_ns.size
            else (
                drawn.run.pieces[0].server_start_unix_ns,
                server_time(drawn.run.pieces[-1], drawn.run.media_stop_sample),
            )
            for drawn in self._runs
        ]
        for drawn in self._runs:
            known += [(at, at) for at in np.unique(drawn.arrival_ns).tolist()]
        known.sort()
        end_ns = known[0][1]
        wide_ns = max(_PAUSE_NS, 3 * self._span_ns // (_RIGHT - _LEFT))
        for start_ns, stop_ns in known:
            if start_ns - end_ns > wide_ns:
                left, right = self._x(end_ns), self._x(start_ns)
                for panel in (self._seen, self._laid):
                    self._svg.rect(left, panel.top, right - left, panel.bottom - panel.top, "pause")
            end_ns = max(end_ns, stop_ns)

    def _draw_packets(self, panel: _Panel, drawn: _Drawn, height_ms: Reals) -> None:
        columns = self._columns(drawn.arrival_ns)
        lowest, highest = _extremes(columns, height_ms)
        spread, least = [], []
        for low, high in zip(lowest.tolist(), highest.tolist(), strict=True):
            x = _LEFT + int(columns[low])
            bottom, top = round(panel.y(height_ms[low]), 1), round(panel.y(height_ms[high]), 1)
            if bottom - top > 0.5:
                spread.append(f"M{x} {bottom:g}V{top:g}")
            least.append(f"M{x - 1} {bottom:g}h2")
        if spread:
            self._svg.add("path", d="".join(spread), class_="spread")
        if least:
            self._svg.add("path", d="".join(least), class_="least")

    def _draw_seen(self) -> None:
        svg, panel = self._svg, self._seen
        for drawn, number in self._drawn_pieces():
            piece, stop = drawn.run.pieces[number], drawn.run.stop_sample_of(number)
            ends = [
                (self._x(server_time(piece, sample)), drawn.line_ms(piece, sample))
                for sample in (piece.media_start_sample, stop)
            ]
            bound = piece.sync_error_ns / NS_PER_MS
            corners = [
                *((x, panel.y(ms + bound)) for x, ms in ends),
                *((x, panel.y(ms - bound)) for x, ms in reversed(ends)),
            ]
            svg.add("path", d=_polygon(corners), class_="band")
            svg.lines([(x, panel.y(ms)) for x, ms in ends], "laid")
        for drawn in self._runs:
            self._draw_packets(panel, drawn, drawn.seen_ms)
            self._draw_floor(drawn)
            self._draw_reports(drawn)
            if not drawn.run.has_arrivals:
                x = self._x(drawn.run.pieces[0].server_start_unix_ns)
                svg.text(x + 8, panel.bottom - 10, "the dump has no arrivals", "faint")

    def _draw_floor(self, drawn: _Drawn) -> None:
        if not drawn.run.has_arrivals:
            return
        base_ns = drawn.run.clock.base_unix_ns
        for plateau in drawn.run.clock.plateaus[:_MOST_LINES]:
            hull = plateau.hull
            kept = hull if len(hull) <= 60 else (*hull[:: len(hull) // 50 + 1], hull[-1])
            self._svg.lines(
                [(self._x(base_ns + x + y), self._seen.y(drawn.floor_ms(x, y))) for x, y in kept],
                "floor",
            )

    def _draw_reports(self, drawn: _Drawn) -> None:
        picked = thin(self._columns(drawn.report_ns) // 4, drawn.report_ms)
        picked = picked[np.argsort(drawn.report_ns[picked], kind="stable")]
        places = [
            (self._x(int(drawn.report_ns[at])), self._seen.y(float(drawn.report_ms[at])))
            for at in picked.tolist()
        ]
        self._svg.lines(places, "reports")
        for x, y in places:
            if self._seen.top <= y <= self._seen.bottom:
                _diamond(self._svg, x, y)

    # --- what was made of it ----------------------------------------------------------------------

    def _drawn_pieces(self) -> Iterator[tuple[_Drawn, int]]:
        for drawn in self._runs:
            for number in range(min(len(drawn.run.pieces), _MOST_LINES)):
                yield drawn, number

    def _draw_laid(self) -> None:
        svg, panel = self._svg, self._laid
        for drawn, number in self._drawn_pieces():
            piece, stop = drawn.run.pieces[number], drawn.run.stop_sample_of(number)
            left = self._x(piece.server_start_unix_ns)
            right = self._x(server_time(piece, stop))
            bound = piece.sync_error_ns / NS_PER_MS
            top, bottom = panel.y(bound), panel.y(-bound)
            svg.rect(left, top, max(right - left, 0.5), bottom - top, "band")
            svg.line(left, panel.y(0), right, panel.y(0), "laid")
        for drawn in self._runs:
            self._draw_packets(panel, drawn, drawn.laid_ms)

    def _draw_steps(self) -> None:
        taken = [-math.inf] * _LABEL_ROWS
        shown = _largest(self._steps, _MOST_LINES)
        for number, step in shown:
            x = self._x(step.server_unix_ns)
            kind = _KINDS[step.evidence]
            still = "" if step.moved_ns or step.outcome == Outcome.RATE else " still"
            for panel in (self._seen, self._laid):
                self._svg.line(x, panel.top, x, panel.bottom, kind + still)
            row = next((row for row in range(_LABEL_ROWS) if x - taken[row] > _LABEL_WIDTH), None)
            if row is not None:
                taken[row] = x
                _badge(
                    self._svg,
                    x,
                    _SEEN_TOP - 9 + 20 * row,
                    f"{number}{LETTERS[step.evidence]}",
                    kind,
                    _LABEL_WIDTH - 4,
                )

    def _draw_step_table(self) -> None:
        svg = self._svg
        shown = _largest(self._steps, _MOST_ROWS)
        more = f", the {len(shown)} largest" if len(shown) < len(self._steps) else ""
        svg.text(_LEFT, _TABLE_TOP, f"{counted(len(self._steps), 'step')}{more}", "head")
        y = _TABLE_TOP + 24
        if not shown:
            svg.text(_LEFT, y, "the least delay stays where it is")
            return
        for at, words, anchor in (
            (44, "at", "start"),
            (200, "size, ms", "end"),
            (220, "what sender reports say", "start"),
            (380, "what became of it", "start"),
        ):
            svg.text(_LEFT + at, y, words, "faint", anchor)
        for number, step in shown:
            y += _ROW
            kind = _KINDS[step.evidence]
            _badge(svg, _LEFT + 16, y - 4, f"{number}{LETTERS[step.evidence]}", kind, 32)
            when = clock_text((step.server_unix_ns - self._begin_ns) / 1e9, 3)
            svg.text(_LEFT + 44, y, when, "num")
            svg.text(_LEFT + 200, y, f"{step.size_ns / NS_PER_MS:+,.1f}", "num", "end")
            svg.text(_LEFT + 220, y, SAID[step.evidence])
            svg.text(_LEFT + 380, y, outcome_text(step.outcome, step.moved_ns / NS_PER_MS))

    def _draw_piece_table(self) -> None:
        svg, left = self._svg, _LEFT + 640
        pieces = [
            (drawn.run, number) for drawn in self._runs for number in range(len(drawn.run.pieces))
        ]
        shown = pieces[:_MOST_ROWS]
        more = f", the first {len(shown)}" if len(shown) < len(pieces) else ""
        svg.text(left, _TABLE_TOP, f"{counted(len(pieces), 'piece')}{more}", "head")
        y = _TABLE_TOP + 24
        for at, words, anchor in (
            (0, "from", "start"),
            (110, "to", "start"),
            (300, "skew, ppm", "end"),
            (460, "sync_error_ms", "end"),
        ):
            svg.text(left + at, y, words, "faint", anchor)
        for run, number in shown:
            y += _ROW
            piece = run.pieces[number]
            stop_ns = server_time(piece, run.stop_sample_of(number))
            for at, unix_ns in ((0, piece.server_start_unix_ns), (110, stop_ns)):
                svg.text(left + at, y, clock_text((unix_ns - self._begin_ns) / 1e9, 3), "num")
            svg.text(left + 300, y, f"{piece.skew_ppm:+,.1f}", "num", "end")
            svg.text(left + 308, y, "fitted" if piece.is_fitted else "nominal", "faint")
            svg.text(left + 460, y, f"{piece.sync_error_ns / NS_PER_MS:,.1f}", "num", "end")


def _prepare(run: PacketRunTimes) -> _Drawn:
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
    return _Drawn(run, rate, arrival_ns, seen_ms, laid_ms, report_ns, report_ms)


def _on_pieces(pieces: Sequence[ClockPiece], media_ns: Ints) -> Ints:
    """Returns the server time of media times on the pieces they lie in."""
    starts_ns = np.array([samples_to_ns(piece.media_start_sample) for piece in pieces])
    number = np.maximum(np.searchsorted(starts_ns, media_ns, side="left") - 1, 0)
    begin_ns = np.array([piece.server_start_unix_ns for piece in pieces], dtype=np.int64)
    ratio = np.array([piece.clock_rate_ratio for piece in pieces])
    past_ns = media_ns - starts_ns[number]
    found: Ints = begin_ns[number] + np.rint(past_ns * ratio[number]).astype(np.int64)
    return found


def _extremes(columns: Ints, height: Reals) -> tuple[Ints, Ints]:
    """Returns the indices of the lowest and of the highest point of each column."""
    picked = thin(columns, height)
    if not picked.size:
        return picked, picked
    starts = np.flatnonzero(np.diff(columns[picked], prepend=columns[picked[0]] - 1))
    return picked[starts], picked[np.append(starts[1:], len(picked)) - 1]


def _with_margin(low: float, high: float, least: float = _LEAST_SPAN_MS) -> tuple[float, float]:
    high = max(high, low + least)
    margin = 0.08 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between two."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    return [
        round(number * step, 6)
        for number in range(math.ceil(low / step), math.floor(high / step) + 1)
    ]


_TIME_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)


def _time_ticks(span_s: float) -> list[float]:
    step = next((step for step in _TIME_STEPS_S if span_s / step <= 12), 0.0)
    if not step:
        step = 3_600.0 * math.ceil(span_s / 3_600 / 12)
    return [number * step for number in range(math.floor(span_s / step) + 1)]


def _worst_ms(runs: Sequence[PacketRunTimes]) -> float:
    return max(piece.sync_error_ns for run in runs for piece in run.pieces) / NS_PER_MS


def _largest(
    steps: Sequence[tuple[int, StepVerdict]], most: int
) -> Sequence[tuple[int, StepVerdict]]:
    if len(steps) <= most:
        return steps
    largest = sorted(steps, key=lambda found: -abs(found[1].size_ns))[:most]
    return sorted(largest)


def _short(text: str, most: int = _MOST_NAME) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _polygon(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"


def _diamond(svg: Svg, x: float, y: float) -> None:
    svg.add("path", d=f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4Z", class_="report")


def _badge(svg: Svg, x: float, y: float, text: str, kind: str, width: float) -> None:
    svg.add("rect", x=x - width / 2, y=y - 8, width=width, height=16, rx=8, class_=f"{kind}f")
    svg.text(x, y + 4, text, "mark", "middle")
