"""One row of a benchmark, and the table they make; shared by `fidelity` and `speed`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, and whether it is what it should be."""

    found: str
    wanted: str
    is_reached: bool


Measure = Callable[[], Figure]


def at_most(value: float, limit: float, unit: str, detail: str = "") -> Figure:
    """Returns a figure that should be small. Args: unit: written behind it, may be empty; detail:
    written behind that.
    """
    behind = f" {unit}" if unit else ""
    return Figure(
        found=f"{value:.2f}{behind}{detail}",
        wanted=f"<= {limit:g}{behind}",
        is_reached=value <= limit,
    )


def at_least(value: float, limit: float, detail: str = "") -> Figure:
    """Returns a figure that should be large. Args: detail: written behind it."""
    return Figure(found=f"{value:.3f}{detail}", wanted=f">= {limit:g}", is_reached=value >= limit)


def none_of(count: int, of: int, what: str) -> Figure:
    """Returns how many of some things are as none should be."""
    return Figure(found=f"{count} of {of} {what}", wanted="0", is_reached=count == 0)


def print_table(figures: Mapping[str, Measure], words: Sequence[str]) -> int:
    """Measures and prints what a word selects, or everything without one; returns 1 when a figure
    is missed, else 0.

    Args:
      figures: what to measure, by the names of their rows.
      words: each selects the rows whose name holds it.
    """
    table = Table("measure", "found", "to reach", "")
    missed = 0
    for name, measure in figures.items():
        if words and not any(word in name for word in words):
            continue
        started = time.monotonic()
        figure = measure()
        missed += not figure.is_reached
        table.add_row(name, figure.found, figure.wanted, "" if figure.is_reached else "MISSED")
        print(f"{time.monotonic() - started:6.1f} s  {name}: {figure.found}", file=sys.stderr)
    Console(width=150).print(table)
    return 1 if missed else 0
