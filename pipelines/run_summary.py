"""What a user is told of a run at its end: the table on the terminal, and the JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from transforms.media.text import printable
from transforms.media.units import SAMPLE_RATE_HZ

_FAILURES_SHOWN = 10


def summarise(
    result: Mapping[str, Any], exit_status: int, reason: str, launcher_cpu_seconds: float
) -> dict[str, Any]:
    """Returns the machine-readable end result (`--summary-json`).

    Args:
      result: what the pipeline left in staging.
      exit_status: of the command.
      reason: for that status, a `Reason`.
      launcher_cpu_seconds: CPU time of this process; the codec processes' is in the result.
    """
    counts: Mapping[str, int] = result["counts"]

    def by_status(table: str, *names: str) -> dict[str, int]:
        return {name: counts.get(f"{table}_{name}", 0) for name in names}

    return {
        "run_id": result["run_id"],
        "exit_status": exit_status,
        "reason": str(reason),
        "started_at": result["started_at"],
        "finished_at": result["finished_at"],
        "counts": {
            "archives": by_status(
                "archives", "listed", "skipped", "ok", "partial", "failed", "empty"
            ),
            "calls": by_status("calls", "ok", "partial", "failed", "empty"),
            "recordings": counts.get("files_written", 0),
            "failures": counts.get("failures", 0),
        },
        "claimed_seconds": counts.get("claimed_ms", 0) / 1_000,
        "missing_seconds": counts.get("missing_ms", 0) / 1_000,
        "unmatched": result["unmatched"],
        "repress": result["repress"],
        "first_time": by_status("first_time", "ok", "partial", "failed", "empty"),
        "media_seconds": round(counts.get("media_samples", 0) / SAMPLE_RATE_HZ, 3),
        "cpu_seconds": round(counts.get("cpu_ns", 0) / 1e9 + launcher_cpu_seconds, 3),
        "bytes_read": counts.get("bytes_read", 0),
        "bytes_written": counts.get("bytes_written", 0),
        "failures": [_plain_failure(failure) for failure in result["failures"]],
    }


def _plain_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    call = failure["call"]
    return {
        **{
            name: value
            for name, value in failure.items()
            if name not in ("call", "archive_modified_unix_ns", "lacks_segment")
        },
        "call_cid": f"{call['call_type']}:{call['call_id']}" if call else None,
        "call_session_id": call["call_session_id"] if call else None,
    }


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
    told = _words(archives, ("listed", "skipped", "ok", "partial", "failed", "empty"))
    first_time = summary["first_time"]
    known = sum(archives[status] - first_time[status] for status in ("partial", "failed"))
    # Below 0 where the run took up what another had met for the first time.
    table.add_row("archives", told + (f" ({known} of them failed before)" if known > 0 else ""))
    table.add_row("calls", _words(calls, ("ok", "partial", "failed", "empty")))
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
    table.add_row("recordings", Text(printable(f"{output_uri}/recordings")))
    table.add_row("catalog", Text(printable(catalog_uri)))
    console.print(table)
    for failure in summary["failures"][:_FAILURES_SHOWN]:
        where = failure["archive_uri"] or failure["call_cid"] or ""
        console.print(Text(printable(f"  {failure['error_type']}: {where}: {failure['message']}")))
    if counts["failures"] > _FAILURES_SHOWN:
        console.print(
            f"  and {counts['failures'] - _FAILURES_SHOWN} more: see the failures table of the "
            "catalog"
        )


def _words(counts: Mapping[str, int], names: tuple[str, ...]) -> str:
    found = [f"{counts[name]} {name}" for name in names if counts[name]]
    return ", ".join(found) or "none"
