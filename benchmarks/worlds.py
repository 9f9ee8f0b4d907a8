"""Random calls with everything at once: how far packets lie off the truth, and whether the bounds
that rows state hold.

    .venv/bin/python -m benchmarks.worlds --class realistic --worlds 100 --processes 2
    .venv/bin/python -m benchmarks.worlds --class realistic --seed 17    # one world, row by row

`benchmarks.fidelity` has the same figures beside what is to be reached; `WORLDS` in the environment
is how many it draws of each class. The ranges are in `tests/support/worlds/ranges.py`, the truth in
`judge.py` beside it.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Measure, at_least, at_most, none_of
from tests.support.worlds.draw import draw_world
from tests.support.worlds.judge import Pressed, RowResult, press_world
from tests.support.worlds.model import Session, World
from tests.support.worlds.press import write_archives
from tests.support.worlds.ranges import WorldClass
from tests.support.worlds.summary import (
    LEAST_HELD,
    MOST_EXCESS_MS,
    WORST,
    Summary,
    press_seed,
)

_MAIN = ""
_WORLDS = 2_000


def _missing_of(summary: Summary) -> str:
    missing = sum(each.packets for _, each in summary.missing)
    return f"{summary.untold_count} ({missing})"


def measure(
    kind: WorldClass, seeds: Sequence[int], processes: int, *, is_shown: bool = False
) -> dict[str, Summary]:
    """Presses worlds; returns what came of them by group, the main one under `""`."""
    found: dict[str, Summary] = {_MAIN: Summary()}
    for number, pressed in enumerate(_pressed(kind, seeds, processes), 1):
        found[_MAIN].worlds += 1
        found[_MAIN].received += pressed.received
        found[_MAIN].missing += [(pressed.seed, each) for each in pressed.missing]
        for row in pressed.rows:
            found.setdefault(row.group, Summary()).add(pressed.seed, row)
        if is_shown and number % 20 == 0:
            print(f"{number} of {len(seeds)} worlds", file=sys.stderr)
    return found


def _pressed(kind: WorldClass, seeds: Sequence[int], processes: int) -> Iterable[Pressed]:
    press = functools.partial(press_seed, kind)
    if processes <= 1:
        yield from map(press, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(press, seeds, chunksize=2)


def print_summaries(kind: WorldClass, found: dict[str, Summary], worst_count: int = WORST) -> None:
    """Prints a table with a row for each group, and the worst tracks. Times in ms."""
    console = Console(width=180)
    table = Table(
        "class", "worlds", "rows", "held (floor), %", "error 50 %", "99 %", "<= 5 ms, %",
        "by reports: <= 5 ms, %", "99 %", "bound 50 %", "99 %", "by media 50 %", "99 %",
        "excess", "untold (not placed)", "received",
    )  # fmt: skip
    for group, summary in sorted(found.items()):
        is_main = group == _MAIN
        table.add_row(
            str(kind) if is_main else f"  {group}",
            str(summary.worlds) if is_main else "",
            str(len(summary.rows)),
            f"{100 * summary.held:.2f} ({100 * summary.floor_held:.2f})",
            f"{summary.error_ms(50):.2f}",
            f"{summary.error_ms(99):.1f}",
            f"{100 * summary.close_share:.2f}",
            f"{100 * summary.report_close_share:.2f}",
            f"{summary.error_ms(99, with_reports=True):.1f}",
            f"{summary.bound_ms(50):.1f}",
            f"{summary.bound_ms(99):.0f}",
            f"{summary.bound_ms(50, by_media=True):.1f}",
            f"{summary.bound_ms(99, by_media=True):.0f}",
            f"{summary.largest_excess_ms:.1f}",
            _missing_of(summary) if is_main else "",
            str(summary.received) if is_main else "",
        )
    console.print(table)
    for group, summary in sorted(found.items()):
        if not (worst := summary.worst(worst_count)):
            continue
        table = Table(
            "seed", "row", "dump", "sent, s", "packets", "error", "bound", "excess", "rows alike",
            "meanwhile",
        )  # fmt: skip
        for seed, row, broken in worst:
            table.add_row(
                str(seed),
                str(row.number),
                row.dump,
                f"{row.start_ms / 1000:.2f} to {row.stop_ms / 1000:.2f}",
                str(row.judged),
                f"{row.least_ms:+.1f} to {row.most_ms:+.1f}",
                f"{row.bound_ms:.1f}",
                f"{row.excess_ms:.1f}",
                str(broken - 1),
                " ".join(row.events),
            )
        console.print(f"worst tracks, {kind} {group}", table)
        console.print(f"rows that do not hold: {_by_event(summary)}")
    for seed, each in sorted(found[_MAIN].missing, key=lambda pair: -pair[1].packets)[:WORST]:
        console.print(
            f"seed {seed}, {each.dump}: {each.packets} packets not placed, {each.untold} not told"
        )


def _by_event(summary: Summary) -> str:
    """Returns how many rows do not hold by what happened while their dumps were recorded."""
    counts = Counter(" ".join(row.events) for _, row in summary.rows if row.excess_ms > 0)
    return ", ".join(f"{count} {what or 'nothing'}" for what, count in counts.most_common())


def print_world(world: World) -> None:
    """Prints one world row by row, with what really happened."""
    with tempfile.TemporaryDirectory() as name:
        pressed = press_world(world, Path(name))
    print(
        f"{world.kind} {world.seed}: {world.length_ns / 1e9:.1f} s, {world.archive_count} archives,"
        f" servers off by {[ns / 1e9 for ns in world.server_offset_ns]} s"
    )
    if world.server_step is not None:
        at_ns, by_ns = world.server_step
        print(f"  {at_ns / 1e9:9.2f} s  the clock of server 0 steps by {by_ns / 1e9:+.3f} s")
    if not world.is_tied:
        print("  nobody shows how far the servers' clocks are apart")
    for session in world.sessions:
        _print_session(
            session, [r for r in pressed.rows if r.participant_id == session.participant_id]
        )
    for each in pressed.missing:
        print(f"{each.dump}: {each.packets} packets not placed, {each.untold} not told")
    for finding in pressed.findings:
        print(f"finding: {finding}")


def _print_session(session: Session, rows: Sequence[RowResult]) -> None:
    print(
        f"{session.participant_id}: {session.skew_ppm:+.1f} ppm, reports "
        f"{session.reports}{', offsets all zero' if session.has_zero_offsets else ''}"
    )
    for each in session.events:
        until = f" to {each.stop_ns / 1e9:.2f}" if each.stop_ns > each.at_ns else ""
        print(f"  {each.at_ns / 1e9:9.2f}{until} s  {each.what}")
    for number, dump in enumerate(session.dumps):
        its = session.packets[session.packets["dump"] == number]
        reports = int((session.report_rows["dump"] == number).sum())
        print(
            f"  {dump.base_filename} on server {dump.server}: {len(its)} packets, "
            f"sent {its['sent_ns'][0] / 1e9:.2f} to "
            f"{its['sent_ns'][-1] / 1e9:.2f} s, least delay {its['delay_ns'].min() / 1e6:.1f} ms, "
            f"path {its['base_ns'][0] / 1e6:.1f} ms, {reports} reports"
        )
        for row in rows:
            if row.dump == dump.base_filename:
                print(
                    f"    {'BROKEN' if row.excess_ms > 0 else '      '} row {row.number}: "
                    f"{row.start_ms / 1000:.2f} to {row.stop_ms / 1000:.2f} s, {row.judged} of "
                    f"{row.packets} packets, error {row.least_ms:+.2f} to {row.most_ms:+.2f} ms "
                    f"(floor {row.floor_least_ms:+.2f} to {row.floor_most_ms:+.2f}), bound "
                    f"{row.bound_ms:.2f} ms, {row.skew_ppm:+.1f} ppm"
                    f"{'' if row.is_fitted else ' not fitted'}"
                )


def _keep(world: World, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(write_archives(world)):
        path = folder / f"{world.kind}_{world.seed}_{number}.tar"
        path.write_bytes(data)
        print(path)


# --- beside what is to be reached -----------------------------------------------------------------


@functools.cache
def _of_class(kind: WorldClass) -> Summary:
    """Returns what came of a class, and prints its tables when it is asked for first."""
    count = int(os.environ.get("WORLDS", _WORLDS))
    found = measure(kind, range(count), os.cpu_count() or 1)
    print_summaries(kind, found)
    return found[_MAIN]


def _held(kind: WorldClass) -> Measure:
    def figure() -> Figure:
        summary = _of_class(kind)
        return at_least(summary.held, LEAST_HELD[kind], f" of {len(summary.rows)} rows")

    return figure


def _largest_excess(kind: WorldClass) -> Measure:
    def figure() -> Figure:
        summary = _of_class(kind)
        most_ms, worlds = MOST_EXCESS_MS[kind], summary.worlds
        return at_most(summary.largest_excess_ms, most_ms, "ms", f" in {worlds} worlds")

    return figure


def _close() -> Figure:
    return at_least(_of_class(WorldClass.REALISTIC).report_close_share, 0.985, " of packets")


def _tail() -> Figure:
    return at_most(_of_class(WorldClass.REALISTIC).error_ms(99, with_reports=True), 20, "ms")


def _median_bound() -> Figure:
    return at_most(_of_class(WorldClass.REALISTIC).bound_ms(50), 5, "ms")


def _untold(kind: WorldClass) -> Measure:
    def figure() -> Figure:
        summary = _of_class(kind)
        return none_of(summary.untold_count, summary.received, "packets")

    return figure


FIGURES: dict[str, Measure] = {
    "worlds, realistic: within 5 ms, by reports and offsets": _close,
    "worlds, realistic: 99 % of errors, by reports and offsets": _tail,
    "worlds, realistic: median bound": _median_bound,
}
for _kind in WorldClass:
    FIGURES[f"worlds, {_kind}: rows whose bound holds"] = _held(_kind)
    FIGURES[f"worlds, {_kind}: audio not placed and not told"] = _untold(_kind)
    if _kind in MOST_EXCESS_MS:
        FIGURES[f"worlds, {_kind}: largest excess over a bound"] = _largest_excess(_kind)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables of one class or of all, or one world."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--class", dest="kind", action="append", type=WorldClass)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--worst", type=int, default=WORST, help="how many tracks to list")
    parser.add_argument("--seed", type=int, help="print this world row by row")
    parser.add_argument("--keep", type=Path, help="with --seed: write its archives to this folder")
    wanted = parser.parse_args(arguments)
    for kind in wanted.kind or WorldClass:
        if wanted.seed is not None:
            world = draw_world(wanted.seed, kind)
            print_world(world)
            if wanted.keep is not None:
                _keep(world, wanted.keep)
            continue
        seeds = range(wanted.first_seed, wanted.first_seed + wanted.worlds)
        print_summaries(kind, measure(kind, seeds, wanted.processes, is_shown=True), wanted.worst)
    return 0


if __name__ == "__main__":
    sys.exit(main())
