"""Results of runs that never were."""

from __future__ import annotations

from typing import Any

from transforms.catalog.results import summarise
from transforms.reason import Reason


def name_of(number: int) -> str:
    """Returns the id of a run; a higher number is a later one."""
    return f"20260105T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-{number:06x}"


def make_result(number: int, reason: Reason = Reason.OK, **counts: int) -> dict[str, Any]:
    """Returns the result of a run that took 75 s.

    Args:
      number: of the run.
      reason: how it ended.
      counts: as its last step has them.
    """
    found: dict[str, Any] = {
        "run_id": name_of(number),
        "started_at": "2026-01-05T02:00:00+00:00",
        "finished_at": "2026-01-05T02:01:15+00:00",
        "counts": {"archives_listed": 12, "archives_ok": 3, "calls_ok": 2, **counts},
        "repress": None,
        "reconcile": None,
        "notices": None,
        "unmatched": [],
        "failures": [],
    }
    return summarise(found, int(reason is not Reason.OK), reason, [])
