"""What stands around the panels of a drawing: its legend, and tables of steps and pieces."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.media.clock.verdicts import StepVerdict, server_time
from transforms.media.inspection.marks import (
    badge_width,
    draw_badge,
    draw_diamond,
    kind_of,
    letter_of,
)
from transforms.media.inspection.svg import Svg
from transforms.media.inspection.track_clock import PacketRunTimes
from transforms.media.inspection.words import clock_text, counted, evidence_text, outcome_text
from transforms.media.units import NS_PER_MS

ROW = 19
MOST_ROWS = 14
NumberedStep = tuple[int, StepVerdict]


def draw_legend(svg: Svg, left: float, y: float) -> None:
    """Draws two rows that say what is what."""
    x = left
    for at, height in ((x + 6, 10), (x + 13, 14), (x + 20, 7)):
        svg.line(at, y + 5, at, y + 5 - height, "spread")
        svg.line(at - 2, y + 5, at + 2, y + 5, "least")
    svg.text(x + 30, y + 4, "packets: least and greatest delay")
    x += 256
    svg.line(x, y, x + 26, y, "floor")
    svg.text(x + 33, y + 4, "floor between two steps")
    x += 206
    svg.rect(x, y - 7, 28, 14, "band")
    svg.line(x, y, x + 28, y, "laid")
    svg.text(x + 35, y + 4, "where the audio lies, ± sync_error_ms")
    x += 284
    svg.lines([(x, y + 3), (x + 14, y), (x + 28, y)], "reports")
    draw_diamond(svg, x + 14, y)
    svg.text(x + 35, y + 4, "reports: wall clock less media time")
    x = left
    y += 26
    svg.text(x, y + 4, "Steps", "head")
    x += 52
    for kind, letter, words in (
        ("yes", "C", "confirmed by reports"),
        ("no", "D", "denied by them"),
        ("open", "U", "they cannot tell"),
    ):
        draw_badge(svg, x + 9, y, letter, kind, 20)
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


def draw_step_table(
    svg: Svg, left: float, top: float, steps: Sequence[NumberedStep], begin_ns: int
) -> None:
    """Draws the largest steps as rows. Args: begin_ns: server time that theirs are counted from."""
    shown = weightiest_steps(steps, MOST_ROWS)
    more = f", the {len(shown)} weightiest" if len(shown) < len(steps) else ""
    svg.text(left, top, f"{counted(len(steps), 'step')}{more}", "head")
    y = top + 24
    if not shown:
        svg.text(left, y, "the least delay stays where it is")
        return
    for at, words, anchor in (
        (58, "at", "start"),
        (206, "size, ms", "end"),
        (226, "what sender reports say", "start"),
        (384, "what became of it", "start"),
    ):
        svg.text(left + at, y, words, "faint", anchor)
    for number, step in shown:
        y += ROW
        kind = kind_of(step.evidence)
        name = step_name(number, step)
        width = badge_width(name)
        draw_badge(svg, left + width / 2, y - 4, name, kind, width)
        when = clock_text((step.server_unix_ns - begin_ns) / 1e9, 3)
        svg.text(left + 58, y, when, "num")
        svg.text(left + 206, y, f"{step.size_ns / NS_PER_MS:+,.1f}", "num", "end")
        svg.text(left + 226, y, evidence_text(step.evidence))
        svg.text(left + 384, y, outcome_text(step.outcome, step.moved_ns / NS_PER_MS))


def draw_piece_table(
    svg: Svg, left: float, top: float, runs: Sequence[PacketRunTimes], begin_ns: int
) -> None:
    """Draws the first pieces as rows. Args: begin_ns: server time that theirs are counted from."""
    pieces = [(run, number) for run in runs for number in range(len(run.pieces))]
    shown = pieces[:MOST_ROWS]
    more = f", the first {len(shown)}" if len(shown) < len(pieces) else ""
    svg.text(left, top, f"{counted(len(pieces), 'piece')}{more}", "head")
    y = top + 24
    for at, words, anchor in (
        (0, "from", "start"),
        (110, "to", "start"),
        (300, "skew, ppm", "end"),
        (460, "sync_error_ms", "end"),
    ):
        svg.text(left + at, y, words, "faint", anchor)
    for run, number in shown:
        y += ROW
        piece = run.pieces[number]
        stop_ns = server_time(piece, run.stop_sample_of(number))
        for at, unix_ns in ((0, piece.server_start_unix_ns), (110, stop_ns)):
            svg.text(left + at, y, clock_text((unix_ns - begin_ns) / 1e9, 3), "num")
        svg.text(left + 300, y, f"{piece.skew_ppm:+,.1f}", "num", "end")
        svg.text(left + 308, y, "fitted" if piece.is_fitted else "nominal", "faint")
        svg.text(left + 460, y, f"{piece.sync_error_ns / NS_PER_MS:,.1f}", "num", "end")


def step_name(number: int, step: StepVerdict) -> str:
    """Returns what a step is called in a drawing: its number, and the letter of its evidence."""
    return f"{number}{letter_of(step.evidence)}"


def weightiest_steps(steps: Sequence[NumberedStep], most: int) -> Sequence[NumberedStep]:
    """Returns the steps at which the time line moved, and the largest others, in order of their
    numbers.
    """
    if len(steps) <= most:
        return steps
    ordered = sorted(steps, key=lambda found: (not found[1].begins_piece, -abs(found[1].size_ns)))
    return sorted(ordered[:most], key=lambda found: found[0])
