"""How many codec jobs are at work at a time: as many as there are slots, whoever they belong to.

A look counts the codec processes that have a job, from outside, and not what the governor says of
itself. Counted are the looks from the first to the last at which all slots were in use: there is
work between them, but for the moments when a step of the pipeline waits for all of the step before.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.figures import Figure, at_most
from benchmarks.presses import CORES, Presses
from benchmarks.processes import jobs_at_work, on_cores, run

WORKERS = 8
"""Worker processes that Beam starts, each with codec processes of its own."""
_LEAST_SHARE = 0.8
_MOST_WALL = 1.15


def one_core(presses: Presses) -> Figure:
    """The batch, on one core."""
    return _shares(_looks(presses, cores=1), slots=1)


def two_cores(presses: Presses) -> Figure:
    """The batch, on two cores."""
    return _shares(_looks(presses, cores=CORES), slots=CORES)


def twelve(presses: Presses) -> Figure:
    """The batch on two cores, told 12."""
    return _shares(_looks(presses, "--codec-processes=12", cores=CORES), slots=12)


def of_many_workers(presses: Presses) -> Figure:
    """The batch on two cores, by many worker processes."""
    return _shares(_looks(presses, cores=CORES, is_by_many=True), slots=CORES)


def wall_of_many_workers(presses: Presses) -> Figure:
    """The same: wall time by what the CPU time would take on all cores. Only on a machine with
    nothing else to do, and with nobody who looks: that takes its share of the cores.

    In it is that Beam makes the pipeline on one core, and ends its workers one after the other.
    """
    output = presses.new_path()
    with on_cores(CORES):
        used = run(_many_workers(presses.command(presses.material.batch(), output)))
    shutil.rmtree(output)
    ratio = used.wall_s * CORES / used.cpu_s
    return at_most(ratio, _MOST_WALL, "", f": {used.wall_s:.1f} s, {used.cpu_s:.1f} CPU s")


def _looks(presses: Presses, *flags: str, cores: int, is_by_many: bool = False) -> list[int]:
    output = presses.new_path()
    command = presses.command(presses.material.batch(), output)
    if is_by_many:
        command = _many_workers(command)
    found = jobs_at_work([*command, *flags], cores)
    shutil.rmtree(output)
    return found


def _many_workers(command: list[str | Path]) -> list[str | Path]:
    return [sys.executable, "-m", "benchmarks.many_workers", str(WORKERS), *command[1:]]


def _shares(looks: list[int], *, slots: int) -> Figure:
    """Returns in how many of the looks exactly all slots were in use; then the other counts that
    were seen, commonest first.
    """
    full = [number for number, count in enumerate(looks) if count == slots]
    within = looks[full[0] : full[-1] + 1] if full else looks
    shares = {count: within.count(count) / len(within) for count in set(within)}
    others = sorted(shares.keys() - {slots}, key=lambda count: -shares[count])
    detail = ", ".join(f"{count}: {100 * shares[count]:.1f} %" for count in others[:4])
    share = shares.get(slots, 0.0)
    return Figure(
        found=f"{100 * share:.1f} % of {len(within)} looks; {detail}",
        wanted=f">= {100 * _LEAST_SHARE:g} %",
        is_reached=share >= _LEAST_SHARE,
    )
