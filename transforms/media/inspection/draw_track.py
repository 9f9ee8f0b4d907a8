"""Draws what a track's clock showed, and where its audio was laid for it.

Two panels over server time. Above, what was seen: delays, their floor, steps, sender reports.
Below, what was made of it: how far each packet came behind the place where its audio lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from transforms.media.clock.verdicts import server_time
from transforms.media.inspection.drawn_run import DrawnRun, extremes, prepare
from transforms.media.inspection.legend import (
    MOST_ROWS,
    ROW,
    draw_legend,
    draw_piece_table,
    draw_step_table,
    step_name,
    weightiest_steps,
)
from transforms.media.inspection.marks import STYLES, badge_width, draw_badge, draw_diamond, kind_of
from transforms.media.inspection.scales import Panel, scale_panels, ticks, time_ticks
from transforms.media.inspection.svg import Svg
from transforms.media.inspection.thinning import thin
from transforms.media.inspection.track_clock import TrackTimes
from transforms.media.inspection.words import clock_text, counted
from transforms.media.units import NS_PER_MS, NS_PER_SECOND, Ints, Reals
from transforms.media.values import OutputType
from transforms.media.wall_time import spell_time

WIDTH = 1_200
_LEFT, _RIGHT = 74, WIDTH - 26
_SEEN_TOP, _SEEN_BOTTOM = 210, 520
_LAID_TOP, _LAID_BOTTOM = 570, 720
_TABLE_TOP = 798
_MOST_RUNS = _MOST_LINES = 300
"""Packet runs that are drawn, and their pieces and floors; of more the longest."""
_MOST_STEPS = 40
"""Steps that are drawn; more would hide what is behind them."""
_LABEL_ROWS = 3
_MOST_NAME = 48
_PAUSE_NS = NS_PER_SECOND
_MOST_CORNERS = 60
_REPORT_PIXELS = 12
"""In so many, the marks of two reports have room."""


def draw_track(times: TrackTimes, archive: str) -> str:
    """Returns an SVG of a track that has packets.

    Args:
      times: of the track.
      archive: its name, for the title.
    """
    return _Drawing(times, archive).draw()


class _Drawing:
    """One drawing in the making."""

    def __init__(self, times: TrackTimes, archive: str) -> None:
        self._times = times
        self._archive = archive
        longest = sorted(times.packet_runs, key=lambda run: -run.media_stop_sample)[:_MOST_RUNS]
        self._runs = [prepare(run) for run in longest]
        self._begin_ns = times.first_unix_ns
        ends = [server_time(run.pieces[-1], run.media_stop_sample) for run in times.packet_runs] + [
            int(drawn.arrival_ns.max()) for drawn in self._runs if drawn.arrival_ns.size
        ]
        self._span_ns = max(max(ends) - self._begin_ns, NS_PER_SECOND // 2)
        self._seen = Panel(_SEEN_TOP, _SEEN_BOTTOM)
        self._laid = Panel(_LAID_TOP, _LAID_BOTTOM)
        self._svg = Svg(WIDTH, STYLES)
        steps = [step for run in times.packet_runs for step in run.steps]
        steps.sort(key=lambda step: step.server_unix_ns)
        self._steps = list(enumerate(steps, 1))

    def draw(self) -> str:
        """Returns the document."""
        columns = [self._columns(drawn.arrival_ns) for drawn in self._runs]
        scale_panels(self._seen, self._laid, self._runs, columns)
        table_rows = min(max(len(self._steps), 1, self._piece_count()), MOST_ROWS)
        height = _TABLE_TOP + 26 + ROW * (table_rows + 1) + 14
        self._svg.rect(0, 0, WIDTH, height, "paper")
        self._draw_title()
        draw_legend(self._svg, _LEFT, 112)
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
        draw_step_table(self._svg, _LEFT, _TABLE_TOP, self._steps, self._begin_ns)
        runs = self._times.packet_runs
        draw_piece_table(self._svg, _LEFT + 640, _TABLE_TOP, runs, self._begin_ns)
        return self._svg.finish(height, self._title())

    # --- where things lie -------------------------------------------------------------------------

    def _x(self, unix_ns: int) -> float:
        share = (unix_ns - self._begin_ns) / self._span_ns
        return _LEFT + min(max(share, -0.01), 1.01) * (_RIGHT - _LEFT)

    def _columns(self, unix_ns: Ints) -> Ints:
        share = (unix_ns - self._begin_ns) / self._span_ns
        return np.floor(share * (_RIGHT - _LEFT)).astype(np.int64)

    def _piece_count(self) -> int:
        return sum(len(drawn.run.pieces) for drawn in self._runs)

    # --- words around -----------------------------------------------------------------------------

    def _title(self) -> str:
        track = self._times.track
        kind = "audio" if track.output_type == OutputType.AUDIO_ONLY else "screen share audio"
        return f"{_short(track.participant_id)}, {kind}: where it lies, and why"

    def _draw_title(self) -> None:
        track, runs = self._times.track, self._times.packet_runs
        self._svg.text(_LEFT, 38, self._title(), "title")
        call = f"call {_short(track.call.cid)}"
        session = f"session {_short(track.user_session_id)}"
        self._svg.text(_LEFT, 60, f"{call}  ·  {session}  ·  {_short(self._archive, 90)}", "faint")
        packets = sum(run.packet_count for run in runs)
        worst_ns = max(piece.sync_error_ns for run in runs for piece in run.pieces)
        reports = sum(run.report_count for run in runs)
        facts = [
            f"begins {spell_time(self._begin_ns) or 'beyond the calendar'}",
            counted(len(runs), "packet run"),
            counted(packets, "packet"),
            counted(reports, "sender report"),
            counted(len(self._steps), "step"),
            *([f"the {_MOST_RUNS} longest runs are drawn"] if len(runs) > _MOST_RUNS else []),
            f"sync_error_ms {worst_ns / NS_PER_MS:,.1f} at most",
        ]
        self._svg.text(_LEFT, 79, "  ·  ".join(facts), "faint")

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
            for value in ticks(panel.low_ms, panel.high_ms, 7 if panel is self._seen else 5):
                y = panel.y(value)
                svg.line(_LEFT, y, _RIGHT, y, "zero" if value == 0 else "grid")
                svg.text(_LEFT - 8, y + 4, f"{value:,g}", "faint num", "end")
        for second in time_ticks(self._span_ns / 1e9):
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

    def _draw_packets(self, panel: Panel, drawn: DrawnRun, height_ms: Reals) -> None:
        columns = self._columns(drawn.arrival_ns)
        lowest, highest = extremes(columns, height_ms)
        spread, least = [], []
        for column, low_ms, high_ms in zip(
            columns[lowest].tolist(),
            height_ms[lowest].tolist(),
            height_ms[highest].tolist(),
            strict=True,
        ):
            x, bottom, top = _LEFT + column, panel.y(low_ms), panel.y(high_ms)
            if bottom - top > 0.5:
                spread.append(f"M{x} {bottom:.1f}V{top:.1f}")
            least.append(f"M{x - 1} {bottom:.1f}h2")
        for places, class_ in ((spread, "spread"), (least, "least")):
            if places:
                self._svg.add("path", d="".join(places), class_=class_)

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
        self._draw_floors()
        for drawn in self._runs:
            self._draw_reports(drawn)
            if not drawn.run.has_arrivals:
                x = self._x(drawn.run.pieces[0].server_start_unix_ns)
                svg.text(x + 8, panel.bottom - 10, "the dump has no arrivals", "faint")

    def _draw_floors(self) -> None:
        plateaus = [
            (drawn, plateau)
            for drawn in self._runs
            if drawn.run.has_arrivals
            for plateau in drawn.run.clock.plateaus
        ]
        plateaus.sort(key=lambda found: found[1].media_start_sample - found[1].media_stop_sample)
        for drawn, plateau in plateaus[:_MOST_LINES]:
            hull, base_ns = plateau.hull, drawn.run.clock.base_unix_ns
            kept = (*hull[:: len(hull) // _MOST_CORNERS + 1], hull[-1])
            self._svg.lines(
                [(self._x(base_ns + x + y), self._seen.y(drawn.floor_ms(x, y))) for x, y in kept],
                "floor",
            )

    def _draw_reports(self, drawn: DrawnRun) -> None:
        picked = thin(self._columns(drawn.report_ns) // _REPORT_PIXELS, drawn.report_ms)
        picked = picked[np.argsort(drawn.report_ns[picked], kind="stable")]
        places = [
            (self._x(int(drawn.report_ns[at])), self._seen.y(float(drawn.report_ms[at])))
            for at in picked.tolist()
        ]
        self._svg.lines(places, "reports")
        for x, y in places:
            if self._seen.top <= y <= self._seen.bottom:
                draw_diamond(self._svg, x, y)

    # --- what was made of it ----------------------------------------------------------------------

    def _drawn_pieces(self) -> Sequence[tuple[DrawnRun, int]]:
        pieces = [
            (drawn, number) for drawn in self._runs for number in range(len(drawn.run.pieces))
        ]
        pieces.sort(key=lambda found: -found[0].run.samples_of(found[1]))
        return pieces[:_MOST_LINES]

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
        shown = weightiest_steps(self._steps, _MOST_STEPS)
        for number, step in shown:
            x = self._x(step.server_unix_ns)
            kind = kind_of(step.evidence)
            for panel in (self._seen, self._laid):
                class_ = kind if step.begins_piece else f"{kind} still"
                self._svg.line(x, panel.top, x, panel.bottom, class_)
            name = step_name(number, step)
            width = badge_width(name)
            row = next((row for row in range(_LABEL_ROWS) if x - taken[row] > width / 2 + 2), None)
            if row is not None:
                taken[row] = x + width / 2
                draw_badge(self._svg, x, _SEEN_TOP - 9 + 20 * row, name, kind, width)


def _short(text: str, most: int = _MOST_NAME) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _polygon(corners: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
