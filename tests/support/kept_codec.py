"""Lets codec processes outlive a run: the next one in this process takes those that wait. To start
one and to import what jobs need is half a second of CPU, a quarter of a small run. Commands in
processes of their own end theirs.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from transforms.codec.pool import POOL


def keep(patch: pytest.MonkeyPatch) -> None:
    """Has runs of this process leave their idle codec processes to the next one."""
    stop, restart = POOL.stop, POOL.restart
    started_under = _conditions()

    def stop_unless_idle() -> None:
        with POOL._lock:
            is_at_work = len(POOL._all) > POOL._idle.qsize()
        if is_at_work:
            stop()

    def restart_under_new_conditions() -> None:
        nonlocal started_under
        if started_under != (now := _conditions()):
            stop()
            started_under = now
        restart()

    patch.setattr(POOL, "stop", stop_unless_idle)
    patch.setattr(POOL, "restart", restart_under_new_conditions)


def _conditions() -> tuple[Any, ...]:
    """Returns what a child has from its parent when it starts."""
    environment = {**os.environ, "PYTEST_CURRENT_TEST": ""}
    return environment, os.getcwd(), os.sched_getaffinity(0)
