"""What a user is told of a run at its end: the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.telling import json_lines
from transforms.media.text import printable
from transforms.proof.telling import in_words as words_on
from transforms.proof.telling import sentence

_FAILURES_SHOWN = 10
_MISSING_SHOWN = 5
_LISTS = ("failures", "unmatched", "told")
"""Of a result: as long as what they tell of."""


def print_summary(
    summary: Mapping[str, Any], seconds: float, output_uri: str, catalog_uri: str
) -> None:
    """Prints the summary table a user reads."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(
        title=f"callpress run {summary['run_id']}", title_justify="left", show_header=False
    )
    counts = summary["counts"]
    archives, calls = counts["archives"], counts["calls"]
    told = in_words(archives)
    first_time = summary["first_time"]
    known = sum(archives[status] - first_time[status] for status in ("partial", "failed"))
    # Below 0 where the run took up what another had met for the first time.
    table.add_row("archives", told + (f" ({known} of them failed before)" if known > 0 else ""))
    table.add_row("calls", in_words(calls))
    table.add_row(
        "files", f"{counts['recordings']} recordings, {summary['bytes_written'] / 1e6:.1f} MB"
    )
    media = summary["media_seconds"]
    speed = f", {media / seconds:.0f} s per s" if seconds > 0 else ""
    table.add_row(
        "media", f"{media:.1f} s in {seconds:.1f} s ({summary['cpu_seconds']:.1f} CPU s){speed}"
    )
    table.add_row(
        "missing",
        f"{summary['missing_seconds']:.1f} s of {summary['claimed_seconds']:.1f} s claimed",
    )
    table.add_row("failures", str(counts["failures"]))
    for told in summary["notices"] or ():
        table.add_row("notices", Text(printable(f"{told['target']}: {_told_in_words(told)}")))
    table.add_row("recordings", Text(printable(f"{output_uri}/recordings")))
    table.add_row("catalog", Text(printable(catalog_uri)))
    console.print(table)
    for failure in summary["failures"][:_FAILURES_SHOWN]:
        console.print(Text(printable(f"  {_in_a_line(failure)}")))
    if counts["failures"] > _FAILURES_SHOWN:
        console.print(
            f"  and {counts['failures'] - _FAILURES_SHOWN} more: see the failures table of the "
            "catalog"
        )


def tell_summary(summary: Mapping[str, Any]) -> bool:
    """Tells the same as an object among those on standard error, with the figures in `result`, and
    the first failures; returns False where lines are told.
    """
    lines = json_lines()
    if lines is None:
        return False
    lines.run_id = summary["run_id"]  # of a job elsewhere it is known from now on
    for failure in summary["failures"][:_FAILURES_SHOWN]:
        lines.tell_entry(lines.entry(_in_a_line(failure), "WARNING"))
    figures = {name: value for name, value in summary.items() if name not in _LISTS}
    if figures["reconcile"]:
        figures["reconcile"] = figures["reconcile"]["counts"]
    counts = summary["counts"]
    told = (
        f"run {summary['run_id']}: archives {in_words(counts['archives'])}, calls "
        f"{in_words(counts['calls'])}, {counts['recordings']} recordings, "
        f"{counts['failures']} failures"
    )
    severity = "ERROR" if summary["exit_status"] else "INFO"
    lines.tell_entry(lines.entry(told, severity, more={"result": figures}))
    return True


def _in_a_line(failure: Mapping[str, Any]) -> str:
    """Returns a failure with what it is about, which a store's own messages begin with already."""
    where, message = failure["archive_uri"] or failure["call_cid"] or "", failure["message"]
    prefix = "" if not where or message.startswith(f"{where}: ") else f"{where}: "
    return f"{failure['error_type']}: {prefix}{message}"


def _told_in_words(told: Mapping[str, Any]) -> str:
    states = ("delivered", "pending", "failed", "gone")
    return in_words({name: told[name] for name in states})


def in_words(counts: Mapping[str, int]) -> str:
    """Returns counts by name in their order, those that are 0 left out."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def lines_of_listing(summary: Mapping[str, Any], catalog_uri: str) -> list[str]:
    """Returns what became of the recordings of the listing that a run was from: how many are what,
    and those first that are missing; nothing for any other run.
    """
    found = summary["reconcile"]
    if found is None or not any(found["counts"].values()):
        return []
    missing = [each for each in found["not_pressed"] if each["is_missing"]]
    lines = [sentence(found["counts"]), *found["notes"]]
    lines += map(words_on, missing[:_MISSING_SHOWN])
    if (more := found["counts"]["missing"] - _MISSING_SHOWN) > 0:
        lines.append(
            f"and {more} more: callpress reconcile --manifest LISTING --catalog {catalog_uri} "
            "tells all"
        )
    return lines
